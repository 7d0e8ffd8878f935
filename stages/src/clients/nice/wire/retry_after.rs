//! The header `Retry-After`.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

/// NICE's budgets have windows of five minutes: a longer wait would gain nothing.
pub const MOST: Duration = Duration::from_secs(300);

/// Reads seconds or an HTTP date; nonsense counts as absent, and more than [`MOST`] as that.
pub fn retry_after(header: &[u8], now: Timestamp) -> Option<Duration> {
    let text = std::str::from_utf8(header).ok()?.trim();
    if text.is_empty() || text.len() > 64 {
        return None;
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a number beyond any bound all the same.
        return Some(text.parse().map_or(MOST, |seconds| Duration::from_secs(seconds).min(MOST)));
    }
    static PARSER: DateTimeParser = DateTimeParser::new().relaxed_weekday(true);
    let until = PARSER.parse_timestamp(text).ok()?;
    let wait = until.duration_since(now);
    Some(if wait.is_negative() { Duration::ZERO } else { wait.unsigned_abs().min(MOST) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &str) -> Option<u64> {
        let now = "2026-04-01T16:00:00Z".parse().unwrap();
        retry_after(header.as_bytes(), now).map(|wait| wait.as_secs())
    }

    #[test]
    fn seconds_and_dates_are_honoured_up_to_five_minutes() {
        for (header, expected) in [
            ("0", 0),
            ("7", 7),
            (" 30 ", 30),
            ("300", 300),
            ("301", 300),
            ("99999999999999999999999", 300),
            ("Wed, 01 Apr 2026 16:00:10 GMT", 10),
            ("Wed, 01 Apr 2026 15:00:00 GMT", 0),
            ("Fri, 31 Dec 2999 23:59:59 GMT", 300),
        ] {
            assert_eq!(read(header), Some(expected), "{header}");
        }
    }

    #[test]
    fn nonsense_counts_as_absent() {
        for header in ["", " ", "-1", "1.5", "soon", "1e9", "+5", "Wed, 99 Apr 2026 16:00:10 GMT", "10 s", "\u{661}"] {
            assert_eq!(read(header), None, "{header}");
        }
        assert_eq!(retry_after(b"\xff\xfe", Timestamp::UNIX_EPOCH), None);
        assert_eq!(read(&"1".repeat(65)), None);
    }
}
