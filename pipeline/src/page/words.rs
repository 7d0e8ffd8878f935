//! Numbers, times and spans, as people read them.

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::texts::{Language, Texts};

/// A number with its thousands apart.
pub(super) fn number(language: Language, number: u64) -> String {
    let mark = match language {
        Language::English => ',',
        Language::Turkish => '.',
    };
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(mark);
        }
        text.push(digit);
    }
    text
}

/// A number with one digit behind the point.
pub(super) fn decimal(language: Language, number: f64) -> String {
    let text = format!("{number:.1}");
    match language {
        Language::English => text,
        Language::Turkish => text.replace('.', ","),
    }
}

/// A span of seconds in its largest unit.
pub(super) fn span(language: Language, texts: &Texts, seconds: f64) -> String {
    let units = [(86_400.0, texts.unit_days), (3600.0, texts.unit_hours), (60.0, texts.unit_minutes)];
    for (unit, name) in units {
        if seconds >= 2.0 * unit {
            let count = seconds / unit;
            let count = if count < 10.0 { decimal(language, count) } else { format!("{count:.0}") };
            return format!("{count} {name}");
        }
    }
    match seconds {
        ..10.0 if seconds > 0.0 && seconds < 9.95 => format!("{} {}", decimal(language, seconds), texts.unit_seconds),
        _ => format!("{seconds:.0} {}", texts.unit_seconds),
    }
}

/// How long one stage took.
pub(super) fn took(language: Language, texts: &Texts, millis: u64) -> String {
    match millis {
        ..1000 => format!("{millis} ms"),
        _ => span(language, texts, millis as f64 / 1e3),
    }
}

/// A size in bytes.
pub(super) fn bytes(language: Language, bytes: u64) -> String {
    match bytes {
        ..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", decimal(language, bytes as f64 / 1024.0)),
        _ => format!("{} MiB", decimal(language, bytes as f64 / 1_048_576.0)),
    }
}

/// A moment; the script adds the reader's own time.
pub(super) fn moment(at: Timestamp) -> Markup {
    let seconds = at.round(jiff::Unit::Second).unwrap_or(at);
    html! { time.nowrap datetime=(seconds) { (seconds.strftime("%Y-%m-%d %H:%M:%S")) } }
}

/// The time of a moment's day, and the day where it is not near.
pub(super) fn short_time(at: Timestamp, now: Timestamp) -> String {
    let is_near = now.duration_since(at).abs() < SignedDuration::from_hours(20);
    at.strftime(if is_near { "%H:%M:%S" } else { "%Y-%m-%d %H:%M" }).to_string()
}

/// The same, as a moment.
pub(super) fn short_moment(at: Timestamp, now: Timestamp) -> Markup {
    html! { time.nowrap datetime=(at) { (short_time(at, now)) } }
}

/// A text with values in the places of its braces, in their order.
pub(super) fn fill(text: &str, values: &[&dyn std::fmt::Display]) -> String {
    let mut parts = text.split("{}");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    let mut values = values.iter();
    for part in parts {
        if let Some(value) = values.next() {
            filled.push_str(&value.to_string());
        }
        filled.push_str(part);
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_spans_are_read_in_both_languages() {
        let (english, turkish) = (Language::English, Language::Turkish);
        assert_eq!(number(english, 1_234_567), "1,234,567");
        assert_eq!((number(turkish, 12_345), number(turkish, 999)), ("12.345".to_owned(), "999".to_owned()));
        assert_eq!(span(english, english.texts(), 0.0), "0 s");
        assert_eq!(span(english, english.texts(), 2.34), "2.3 s");
        assert_eq!(span(turkish, turkish.texts(), 9000.0), "2,5 sa");
        assert_eq!(span(english, english.texts(), 90.0), "90 s");
        assert_eq!(span(english, english.texts(), 40.0 * 86_400.0), "40 d");
        assert_eq!(bytes(english, 5_452_595), "5.2 MiB");
        assert_eq!(fill("{} of {}", &[&1, &"two"]), "1 of two");
    }
}
