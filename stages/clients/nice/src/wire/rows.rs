//! The rows of a page that is not JSON as a whole: cut apart by their brackets, so that a damaged one (a number that
//! none is, a raw line break in a text) leaves its neighbours unharmed.
//!
//! A body that breaks off has an open bracket, and is not cut apart: what is missing of it is not known.

use model::ContactId;

/// Twice what NICE answers at most.
pub(super) const MAX_ROWS: usize = 20_000;

/// A page in pieces.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Apart<'a> {
    /// The text of each row.
    pub(super) rows: Vec<&'a str>,
    /// The page with an empty list in their place.
    pub(super) rest: String,
}

/// Cuts the rows out that stand in the first list under one of these names; none where there is no such list, or no
/// end of it.
pub(super) fn apart<'a>(text: &'a str, lists: &[&str]) -> Option<Apart<'a>> {
    let begin = value_of(text, lists, &|byte| byte == b'[', MOST_NESTING)? + 1;
    let (mut rows, mut row, mut at) = (Vec::new(), begin, begin);
    let end = loop {
        at = match *text.as_bytes().get(at)? {
            b'{' | b'[' => behind_brackets(text, at)?,
            b'"' => behind_text(text, at)?,
            close @ (b',' | b']') => {
                let cut = text[row..at].trim();
                if !(cut.is_empty() && rows.is_empty()) {
                    rows.push(cut);
                }
                if close == b']' {
                    break at;
                }
                row = at + 1;
                row
            }
            _ => at + 1,
        };
        if rows.len() > MAX_ROWS {
            return None;
        }
    };
    let rest = format!("{}{}", &text[..begin], &text[end..]);
    Some(Apart { rows, rest })
}

/// Whose row it is, as far as the text tells.
pub(super) fn contact_id(row: &str) -> Option<ContactId> {
    let begin = value_of(row, &["contactId"], &|byte| byte == b'"' || byte.is_ascii_digit(), 1)?;
    let text = row[begin..].trim_start_matches('"');
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    text[..digits].parse().ok()
}

/// The list stands in the page, or in the wrapper of old versions.
const MOST_NESTING: u32 = 2;

/// Where the value of the first member of one of these names begins, if its first byte is as wanted.
fn value_of(text: &str, names: &[&str], wanted: &dyn Fn(u8) -> bool, most_nesting: u32) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut nesting) = (0, 0_u32);
    loop {
        at = match *bytes.get(at)? {
            b'"' => {
                let behind = behind_text(text, at)?;
                let name = &text[at + 1..behind - 1];
                let colon = behind_blanks(bytes, behind);
                let value = behind_blanks(bytes, colon + 1);
                if bytes.get(colon) == Some(&b':')
                    && names.iter().any(|wanted| name.eq_ignore_ascii_case(wanted))
                    && bytes.get(value).is_some_and(|byte| wanted(*byte))
                {
                    return Some(value);
                }
                behind
            }
            b'{' | b'[' if nesting < most_nesting => {
                nesting += 1;
                at + 1
            }
            b'{' | b'[' => behind_brackets(text, at)?,
            b'}' | b']' => {
                nesting = nesting.checked_sub(1)?;
                at + 1
            }
            _ => at + 1,
        };
    }
}

fn behind_blanks(bytes: &[u8], at: usize) -> usize {
    at + bytes.get(at..).unwrap_or_default().iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// The place behind the text that begins here.
fn behind_text(text: &str, at: usize) -> Option<usize> {
    let mut bytes = text.as_bytes().iter().enumerate().skip(at + 1);
    while let Some((place, byte)) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'"' => return Some(place + 1),
            _ => {}
        }
    }
    None
}

/// The place behind the bracket that closes the one that opens here.
fn behind_brackets(text: &str, at: usize) -> Option<usize> {
    let (mut at, mut depth) = (at, 0_u32);
    loop {
        at = match *text.as_bytes().get(at)? {
            b'"' => behind_text(text, at)?,
            b'{' | b'[' => {
                depth += 1;
                at + 1
            }
            b'}' | b']' if depth == 1 => return Some(at + 1),
            b'}' | b']' => {
                depth -= 1;
                at + 1
            }
            _ => at + 1,
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(text: &str) -> Option<Vec<&str>> {
        apart(text, &["completedContacts"]).map(|apart| apart.rows)
    }

    #[test]
    fn rows_are_cut_apart_by_their_brackets() {
        let text = r#"{"note":"[{","CompletedContacts" : [ {"a":NaN,"b":"]},{\"","c":[1,{}]} , {"d":01}, 7 ],"totalRecords":3}"#;
        let apart = apart(text, &["completedContacts"]).unwrap();
        assert_eq!(apart.rows, [r#"{"a":NaN,"b":"]},{\"","c":[1,{}]}"#, r#"{"d":01}"#, "7"]);
        assert_eq!(apart.rest, r#"{"note":"[{","CompletedContacts" : [],"totalRecords":3}"#);
        assert_eq!(rows(r#"{"resultSet":{"completedContacts":[{}]}}"#).unwrap(), ["{}"]);
        assert_eq!(rows(r#"{"completedContacts":[ ]}"#).unwrap(), Vec::<&str>::new());
    }

    #[test]
    fn what_breaks_off_or_has_no_list_is_not_cut() {
        for text in [
            r#"{"completedContacts":[{"a":1},{"b":"#,
            r#"{"completedContacts":[{"a":1}"#,
            r#"{"completedContacts":{"a":1}}"#,
            r#"{"x":[{"completedContacts":[]}]}"#,
            "",
        ] {
            assert_eq!(rows(text), None, "{text}");
        }
    }

    #[test]
    fn a_damaged_row_tells_its_id() {
        let id = |row| contact_id(row).map(ContactId::get);
        assert_eq!(id(r#"{"agentId":1,"x":{"contactId":5},"ContactId" : 7,"y":NaN}"#), Some(7));
        assert_eq!(id(r#"{"contactId":"698800000001","note":"a"#), Some(698_800_000_001));
        assert_eq!(id(r#"{"contactId":"../7"}"#), None);
        assert_eq!(id(r#"{"masterContactId":7}"#), None);
    }

    proptest! {
        #[test]
        fn no_text_does_harm(text in r#"(\{|\}|\[|\]|"|,|:|\\|a|completedContacts|contactId|1|é){0,40}"#) {
            let _any = apart(&text, &["completedContacts"]);
            let _any = contact_id(&text);
        }
    }
}
