//! What stands on the command line: moments, spans, numbers of lists.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use jiff::Timestamp;

use crate::config::QueueKind;

pub(crate) use crate::config::span;

/// Reads a kind of queue.
pub(crate) fn queue_kind() -> impl TypedValueParser<Value = QueueKind> {
    let words = QueueKind::ALL.map(QueueKind::as_str);
    PossibleValuesParser::new(words).try_map(|word| QueueKind::named(&word).ok_or("no queue has this name"))
}

/// Reads the number of a dead letter or a backfill.
pub(crate) fn number(text: &str) -> Result<u64, String> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number).ok_or_else(|| {
        "not a number of a list: digits alone, such as 17, as the list shows it (`dead-letters list`, `backfill \
         status`)"
            .to_owned()
    })
}

/// Reads a moment: RFC 3339, or a date in UTC.
pub(crate) fn moment(text: &str) -> Result<Timestamp, String> {
    let remedy = "write a date such as 2026-04-01 (its first moment in UTC), or RFC 3339 such as \
                  2026-04-01T08:00:00Z or 2026-04-01T10:00:00+02:00";
    if text.len() == "2026-04-01".len() {
        let date: jiff::civil::Date = text.parse().map_err(|_| format!("not a day of the calendar; {remedy}"))?;
        let start = date.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| format!("out of range; {remedy}"))?;
        return Ok(start.timestamp());
    }
    if text.contains('[') {
        return Err(format!("an offset says where the clock stood, a zone's name does not; {remedy}"));
    }
    let parts = text.split_once(['T', 't', ' ']).filter(|(day, _)| day.ends_with(|last: char| last.is_ascii_digit()));
    let Some((day, time)) = parts else {
        return Err(format!("neither a date nor a date with a time; {remedy}"));
    };
    if day.parse::<jiff::civil::Date>().is_err() {
        return Err(format!("not a day of the calendar; {remedy}"));
    }
    if !time.contains(['Z', 'z', '+', '-']) {
        return Err(match time.parse::<jiff::civil::Time>() {
            Ok(_) => format!("without an offset nobody knows which moment it is; {remedy}"),
            Err(_) => format!("not a time of day; {remedy}"),
        });
    }
    text.parse().map_err(|_| format!("not a time of day with an offset; {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_utc_date_or_has_an_offset() {
        let when = |text: &str| moment(text).map(|moment| moment.to_string());
        assert_eq!(when("2026-04-01"), Ok("2026-04-01T00:00:00Z".to_owned()));
        assert_eq!(when("2026-04-01T10:00:00+02:00"), Ok("2026-04-01T08:00:00Z".to_owned()));
        assert_eq!(when("2026-03-29T02:30:00+01:00"), Ok("2026-03-29T01:30:00Z".to_owned()), "an hour no clock showed");
        assert_eq!(when("2026-04-01T10:00:00.5Z"), Ok("2026-04-01T10:00:00.5Z".to_owned()));
        for text in ["2026-04-01T10:00+03:00", "2026-04-01 10:00+03", "2026-04-01T07:00Z", "2026-04-01t04:00-0300"] {
            assert_eq!(when(text), Ok("2026-04-01T07:00:00Z".to_owned()), "{text}: seconds may be left out");
        }
        for (text, why) in [
            ("2026-04-01T10:00:00", "without an offset"),
            ("2026-04-01 10:00", "without an offset"),
            ("2026-03-29T02:30:00[Europe/Berlin]", "a zone's name"),
            ("2026-02-30", "not a day"),
            ("2026-02-30T10:00:00Z", "not a day"),
            ("2026-04-01T10:00:00+99:00", "not a time of day with an offset"),
            ("2026-04-01T25:00Z", "not a time of day with an offset"),
            ("2026-04-01T25:00", "not a time of day;"),
            ("01.04.2026 10:00", "not a day"),
            ("2026-04-01 10 o'clock", "not a time of day;"),
            ("yesterday", "neither a date nor"),
            ("2026-W10-1", "not a day"),
            ("1775059200", "not a day"),
            ("", "neither a date nor"),
        ] {
            let error = when(text).unwrap_err();
            assert!(error.contains(why) && error.contains("2026-04-01T08:00:00Z"), "{text}: {error}");
        }
    }
}
