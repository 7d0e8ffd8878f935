//! The header `Content-Range`.

/// `bytes FIRST-LAST/TOTAL`, as a partial answer carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// The first byte.
    pub first: u64,
    /// The byte after the last.
    pub end: u64,
    /// How many bytes there are altogether, where the server knows.
    pub total: Option<u64>,
}

impl ContentRange {
    /// Reads the header; none unless it is a range that can be.
    pub fn parse(header: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(header).ok()?.trim();
        let (unit, rest) = text.split_once(' ')?;
        let (range, total) = rest.trim_start().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let total = match total {
            "*" => None,
            digits => Some(number(digits)?),
        };
        let (first, end) = (number(first)?, number(last)?.checked_add(1)?);
        (first < end && total.is_none_or(|total| end <= total)).then_some(Self { first, end, total })
    }
}

fn number(digits: &str) -> Option<u64> {
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_two_ends_and_perhaps_a_total() {
        let range = |first, end, total| Some(ContentRange { first, end, total });
        assert_eq!(ContentRange::parse(b"bytes 50-99/100"), range(50, 100, Some(100)));
        assert_eq!(ContentRange::parse(b"Bytes 50-99/*"), range(50, 100, None));
        for header in [
            "",
            "bytes",
            "bytes */100",
            "bytes 99-50/100",
            "bytes 50-100/100",
            "bytes -5-9/10",
            "bytes 5-+9/10",
            "items 5-9/10",
            "bytes 5-9",
            "bytes 0-18446744073709551615/*",
            "bytes 5 - 9 / 10",
        ] {
            assert_eq!(ContentRange::parse(header.as_bytes()), None, "{header}");
        }
        assert_eq!(ContentRange::parse(b"\xff"), None);
    }
}
