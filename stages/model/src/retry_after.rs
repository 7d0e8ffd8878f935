//! The header `Retry-After`, and the dates of HTTP.
//!
//! | written | taken for |
//! |---|---|
//! | `120` | seconds |
//! | `1.5` | seconds with a fraction |
//! | `120, 60`, or the header twice | the longest of them |
//! | ` 120 `, `"120"` | what stands inside |
//! | `Sun, 06 Nov 1994 08:49:37 GMT` | that moment (IMF-fixdate); a weekday that is wrong does not matter |
//! | `Sunday, 06-Nov-94 08:49:37 GMT` | that moment (RFC 850), also with four digits of the year |
//! | `Sun Nov  6 08:49:37 1994` | that moment in UTC (asctime) |
//! | a moment that has passed | no wait |
//! | more than [`MOST`] | [`MOST`] |
//! | `-1`, `1e9`, `10 s`, `soon`, nothing, bytes that are no text | absent; the rest of a list counts |

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::rfc2822::DateTimeParser;
use jiff::tz::TimeZone;

/// NICE's budgets have windows of five minutes: a longer wait would gain nothing.
pub const MOST: Duration = Duration::from_secs(300);

/// Longer than any list that means something.
const LONGEST_HEADER: usize = 256;

/// Reads one header; nonsense counts as absent, and more than [`MOST`] as that.
pub fn retry_after(header: &[u8], now: Timestamp) -> Option<Duration> {
    let text = std::str::from_utf8(header).ok().filter(|text| text.len() <= LONGEST_HEADER)?;
    let text = unquoted(text);
    let mut longest = None;
    let mut members = text.split(',').map(unquoted).peekable();
    while let Some(member) = members.next() {
        let is_weekday = !member.is_empty() && member.bytes().all(|byte| byte.is_ascii_alphabetic());
        let wait = match members.peek() {
            // The comma belongs to a date.
            Some(rest) if is_weekday => {
                let date = http_date(&format!("{member}, {rest}"));
                let wait = date.map(|until| until_then(until, now));
                if wait.is_some() {
                    members.next();
                }
                wait
            }
            _ => seconds(member).or_else(|| http_date(member).map(|until| until_then(until, now))),
        };
        longest = longest.max(wait);
    }
    longest
}

/// Reads all headers of an answer: the longest wait of them.
pub fn longest_retry_after<'a>(headers: impl IntoIterator<Item = &'a [u8]>, now: Timestamp) -> Option<Duration> {
    headers.into_iter().filter_map(|header| retry_after(header, now)).max()
}

fn unquoted(text: &str) -> &str {
    let text = text.trim();
    let inside = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    // Of a list of them, each has its own.
    inside.filter(|inside| !inside.contains('"')).map_or(text, str::trim)
}

fn until_then(until: Timestamp, now: Timestamp) -> Duration {
    let wait = until.duration_since(now);
    if wait.is_negative() { Duration::ZERO } else { wait.unsigned_abs().min(MOST) }
}

/// Digits, perhaps with a fraction.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    // More digits than fit are a number beyond any bound all the same.
    let seconds: f64 = text.parse().unwrap_or(f64::MAX);
    Some(Duration::try_from_secs_f64(seconds).map_or(MOST, |wait| wait.min(MOST)))
}

/// A moment in any of the three forms that HTTP has, or had.
pub fn http_date(text: &str) -> Option<Timestamp> {
    static IMF: DateTimeParser = DateTimeParser::new().relaxed_weekday(true);
    let text = text.trim();
    let imf = || IMF.parse_timestamp(text).ok();
    imf().or_else(|| rfc850(text)).or_else(|| asctime(text))
}

/// The weekday is not looked at.
fn rfc850(text: &str) -> Option<Timestamp> {
    let (_, rest) = text.split_once(',')?;
    let rest = rest.trim();
    let (rest, zone) = rest.rsplit_once(' ')?;
    if !["GMT", "UTC"].iter().any(|utc| zone.eq_ignore_ascii_case(utc)) {
        return None;
    }
    let date = DateTime::strptime("%d-%b-%Y %H:%M:%S", rest);
    // Two digits are also a year, of the first century.
    let date = date.ok().filter(|date| date.year() >= 1000);
    utc(date.or_else(|| DateTime::strptime("%d-%b-%y %H:%M:%S", rest).ok())?)
}

/// The weekday is not looked at.
fn asctime(text: &str) -> Option<Timestamp> {
    let (weekday, rest) = text.split_once(' ')?;
    if weekday.is_empty() || !weekday.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return None;
    }
    utc(DateTime::strptime("%b %e %H:%M:%S %Y", rest.trim()).ok()?)
}

fn utc(date: DateTime) -> Option<Timestamp> {
    date.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-04-01T16:00:00Z".parse().unwrap()
    }

    fn read(header: &str) -> Option<f64> {
        retry_after(header.as_bytes(), now()).map(|wait| wait.as_secs_f64())
    }

    #[test]
    fn seconds_and_dates_are_honoured_up_to_five_minutes() {
        for (header, expected) in [
            ("0", 0.0),
            ("7", 7.0),
            (" 30 ", 30.0),
            ("\t30", 30.0),
            ("\"30\"", 30.0),
            ("1.5", 1.5),
            ("0.25", 0.25),
            ("300", 300.0),
            ("300.5", 300.0),
            ("301", 300.0),
            ("99999999999999999999999", 300.0),
            ("Wed, 01 Apr 2026 16:00:10 GMT", 10.0),
            ("Mon, 01 Apr 2026 16:00:10 GMT", 10.0),
            ("\"Wed, 01 Apr 2026 16:00:10 GMT\"", 10.0),
            ("Wed, 01 Apr 2026 15:00:00 GMT", 0.0),
            ("Fri, 31 Dec 2999 23:59:59 GMT", 300.0),
            ("Wednesday, 01-Apr-26 16:00:10 GMT", 10.0),
            ("Wed, 01-Apr-2026 16:00:10 GMT", 10.0),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 0.0),
            ("Wed Apr  1 16:00:10 2026", 10.0),
            ("Wed Apr 01 16:00:10 2026", 10.0),
            ("Sun Nov  6 08:49:37 1994", 0.0),
        ] {
            assert_eq!(read(header), Some(expected), "{header}");
        }
    }

    #[test]
    fn of_a_list_the_longest_wait_counts() {
        for (header, expected) in [
            ("120, 60", 120.0),
            ("60,120", 120.0),
            ("\"60\", \"90\"", 90.0),
            ("5, Wed, 01 Apr 2026 16:00:10 GMT", 10.0),
            ("Wed, 01 Apr 2026 16:00:10 GMT, 20", 20.0),
            ("Wednesday, 01-Apr-26 16:00:10 GMT, Wed, 01 Apr 2026 16:00:30 GMT", 30.0),
            ("Wed Apr  1 16:00:10 2026, 3", 10.0),
            ("soon, 60", 60.0),
            ("60, 10 s, ", 60.0),
        ] {
            assert_eq!(read(header), Some(expected), "{header}");
        }
        let headers = [&b"60"[..], b"soon", b"120", b"\xff"];
        assert_eq!(longest_retry_after(headers, now()), Some(Duration::from_secs(120)));
        assert_eq!(longest_retry_after([], now()), None);
    }

    #[test]
    fn nonsense_counts_as_absent() {
        for header in [
            "",
            " ",
            "\"",
            "\"\"",
            ",",
            "-1",
            "-1.5",
            "1.",
            ".5",
            "1.5.5",
            "soon",
            "1e9",
            "+5",
            "NaN",
            "inf",
            "Wed, 99 Apr 2026 16:00:10 GMT",
            "Wednesday, 99-Apr-26 16:00:10 GMT",
            "Wednesday, 01-Apr-26 16:00:10 PST",
            "Wed Apr 99 16:00:10 2026",
            "10 s",
            "10s",
            "5m",
            "\u{661}",
        ] {
            assert_eq!(read(header), None, "{header}");
        }
        assert_eq!(retry_after(b"\xff\xfe", Timestamp::UNIX_EPOCH), None);
        assert_eq!(read(&"1".repeat(257)), None);
    }
}
