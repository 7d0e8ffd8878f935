//! A page of metrics, line by line: Prometheus' text format 0.0.4, as far as the library `prometheus` writes it.

use std::collections::BTreeMap;

/// The labels of a series, its name among them as `__name__`.
pub(super) type Labels = BTreeMap<String, String>;

/// Every sample of a page: its series as it stands there, and its value. None for a line that has no value.
pub(super) fn samples(page: &str) -> impl Iterator<Item = Option<(&str, &str)>> {
    let samples = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    // A value holds no blank, while a label may.
    samples.map(|line| line.rsplit_once(' '))
}

/// The name of a series, and the labels in its braces; none for what is no series.
pub(super) fn series(text: &str) -> Option<(&str, Labels)> {
    let (name, mut rest) = match text.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}')?),
        None => (text, ""),
    };
    let is_name =
        !name.is_empty() && name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_:".contains(letter));
    is_name.then_some(())?;
    let mut labels = Labels::new();
    while let Some((name, after)) = rest.split_once("=\"") {
        let (value, after) = quoted(after)?;
        labels.insert(name.trim_start_matches(',').to_owned(), value);
        rest = after;
    }
    rest.is_empty().then_some((name, labels))
}

/// The text up to the quote that ends it, and what comes after.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match letters.next()?.1 {
                'n' => '\n',
                escaped => escaped,
            }),
            plain => value.push(plain),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_as_the_library_writes_it() {
        let awkward = "a \"quote\", a back\\slash,\nb=\"}\" {";
        let page = stages::metrics::Metrics::new();
        page.nice.requests.with_label_values(&["token", awkward]).inc_by(3);
        page.flow.freshness_lag.set(Some(f64::INFINITY));
        let page = page.render();
        let of = |wanted: &str| {
            let mut samples = samples(&page).map(|sample| sample.expect("each line has a value"));
            samples.find_map(|(text, value)| {
                let (name, labels) = series(text).expect("each line is in the format");
                (name == wanted).then(|| (labels, value.parse::<f64>().expect("a number")))
            })
        };

        let expected = [("endpoint", "token"), ("status", awkward)];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        assert_eq!(of("nice_knovvu_nice_requests_total"), Some((expected, 3.0)));
        assert_eq!(of("nice_knovvu_freshness_lag_seconds"), Some((Labels::new(), f64::INFINITY)));
    }

    #[test]
    fn what_is_no_series_is_said() {
        for text in ["", "{b=\"c\"}", "a b", "a{b=\"c\"", "a{b}", "a{b=\"c}", "a{b=\"c\"d}", "a{b=\"\\"] {
            assert_eq!(series(text), None, "{text}");
        }
    }
}
