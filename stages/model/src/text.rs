//! Texts that others wrote, before anything reads them. Each door says what else it takes loosely.

/// The byte order mark, which some editors and programs put in front of every text.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The text without a byte order mark in front: it is no part of it.
pub fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(MARK).unwrap_or(text)
}

/// A JSON body without what may lie around it: a byte order mark in front, blanks, and the NUL bytes with which
/// programs in C end their texts. What is inside, and whether it is whole, is for the reader to judge.
pub fn bare_json(body: &[u8]) -> &[u8] {
    let body = without_mark(body.trim_ascii_start());
    let end = body.iter().rposition(|byte| *byte != 0 && !byte.is_ascii_whitespace()).map_or(0, |last| last + 1);
    &body[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_in_front_is_no_part_of_a_text() {
        assert_eq!(without_mark(b"\xef\xbb\xbfs3cr3t\n"), b"s3cr3t\n");
        assert_eq!(without_mark(b" \xef\xbb\xbf"), b" \xef\xbb\xbf", "blanks may be a part of it");
        assert_eq!(without_mark(b"\xef\xbb"), b"\xef\xbb");
    }

    #[test]
    fn only_what_lies_around_a_body_is_taken_off() {
        for body in [&b"{}"[..], b"\xef\xbb\xbf{}", b"\r\n\xef\xbb\xbf {}\r\n", b"{}\0", b"{}\n\0\0"] {
            assert_eq!(bare_json(body).trim_ascii_start(), b"{}", "{body:?}");
        }
        assert_eq!(bare_json(b"{\"a\":\"\0\xef\xbb\xbf\"}x\0"), b"{\"a\":\"\0\xef\xbb\xbf\"}x");
        assert_eq!(bare_json(b"\xef\xbb\xbf \0"), b"");
    }
}
