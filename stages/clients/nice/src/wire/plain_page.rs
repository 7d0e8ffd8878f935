//! A page as NICE writes it, read in one go: a page is some megabytes, and there are hundreds in a night.
//!
//! Whatever is not quite as it should be (a list of another name, a row that is no object, the wrapper of old versions,
//! a text that is not JSON) is not read here at all, but in the loose way, which gives the same for a plain page.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::lenient::{MAX_MEMBERS, MemberName, Object};
use super::rows::MAX_ROWS;
/// The name of the list.
const LIST: &str = "completedContacts";

/// The wrapper of old versions.
const WRAPPER: &str = "resultSet";

/// What is read of an object of the list.
pub(super) trait PlainRow {
    /// Reads it.
    fn of(object: &Object<'_>) -> Self;
}

/// A page of completed contacts.
pub(super) struct PlainPage<'a, Row> {
    /// The members beside the list.
    pub(super) object: Object<'a>,
    /// What the list holds.
    pub(super) rows: Vec<Row>,
}

impl<'a, Row: PlainRow> PlainPage<'a, Row> {
    /// Reads a page; none if it is to be read in the loose way.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

impl<'de, Row: PlainRow> Deserialize<'de> for PlainPage<'de, Row> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PageVisitor(PhantomData))
    }
}

struct PageVisitor<Row>(PhantomData<Row>);

impl<'de, Row: PlainRow> Visitor<'de> for PageVisitor<Row> {
    type Value = PlainPage<'de, Row>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a page of contacts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut page: A) -> Result<Self::Value, A::Error> {
        let (mut members, mut rows) = (Vec::new(), None);
        while let Some(MemberName(name)) = page.next_key()? {
            if name == LIST && rows.is_none() {
                rows = Some(page.next_value::<PlainRows<Row>>()?.0);
            } else if name == LIST || name.eq_ignore_ascii_case(WRAPPER) || members.len() == MAX_MEMBERS - 1 {
                return Err(Error::custom("not a plain page"));
            } else {
                members.push((name, page.next_value()?));
            }
        }
        let rows = rows.ok_or_else(|| Error::custom("no list"))?;
        Ok(PlainPage { object: Object::with(members), rows })
    }
}

/// The rows of the list, all of them objects.
struct PlainRows<Row>(Vec<Row>);

impl<'de, Row: PlainRow> Deserialize<'de> for PlainRows<Row> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(RowsVisitor(PhantomData))
    }
}

struct RowsVisitor<Row>(PhantomData<Row>);

impl<'de, Row: PlainRow> Visitor<'de> for RowsVisitor<Row> {
    type Value = PlainRows<Row>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of contacts")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut rows = Vec::new();
        while let Some(object) = list.next_element::<Object<'de>>()? {
            if rows.len() == MAX_ROWS {
                return Err(Error::custom("too many rows"));
            }
            rows.push(Row::of(&object));
        }
        Ok(PlainRows(rows))
    }
}

#[cfg(test)]
mod tests {
    use super::super::contact::completed;
    use super::*;
    use crate::ContactRow;

    type Page<'a> = PlainPage<'a, ContactRow>;

    const ROWS: &str = r#"{"contactId":7,"agentId":"8","ContactStart":"2026-04-01T10:00:00Z","x":{"y":[1]},"isOutbound":"1"},
        {"masterContactId":3},{"contactId":"9","contactId":"11","totalDurationSeconds":1.5,"fromAddress":"a\u0000b"}"#;

    fn page(list: &str, rows: &str) -> String {
        format!(
            r#"{{"lastPollTime":"2026-04-01T12:00:00Z","{list}":[{rows}],"TotalRecords":"3","_links":{{"next":"n"}}}}"#
        )
    }

    #[test]
    fn a_plain_page_gives_what_the_loose_way_gives() {
        let (plain, loose) = (page("completedContacts", ROWS), page("CompletedContacts", ROWS));
        assert!(Page::read(&plain).is_some() && Page::read(&loose).is_none());
        let [plain, loose] = [plain, loose].map(|text| format!("{:?}", completed(text.as_bytes()).unwrap()));
        assert_eq!(plain, loose);
        assert!(plain.contains("ContactId(11)"), "{plain}");
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_loose_way() {
        for text in [
            "{}".to_owned(),
            "[]".to_owned(),
            r#"{"completedContacts":null}"#.to_owned(),
            page("contacts", ROWS),
            page("completedContacts", "{},7"),
            page("completedContacts", "{},"),
            page("completedContacts", &vec!["{}"; MAX_ROWS + 1].join(",")),
            page("completedContacts", "").replace("_links", "completedContacts"),
            page("completedContacts", "").replace("_links", "ResultSet"),
            page("completedContacts", "") + "x",
        ] {
            assert!(Page::read(&text).is_none(), "{text}");
        }
    }
}
