//! Contacts: one row, a page of rows, one contact wherever it is nested, and the hierarchy of a call.

use model::{AgentId, ContactId};
use serde_json::{Map, Value, value::RawValue};

use super::ShapeError;
use super::lenient;
use super::lenient::Object;
use super::plain_page::{PlainPage, PlainRow};
use super::rows;
use super::rows::{Apart, MAX_ROWS};
use crate::{BadRow, Contact, ContactRow, Leg};

/// The names of the list.
const LISTS: &[&str] = &["completedContacts", "contacts"];

/// No call is transferred so often.
const MAX_LEGS: usize = 1_000;

/// A page as it lies on the wire; the link is not yet checked.
#[derive(Debug)]
pub struct ListPage<T> {
    /// The rows in NICE's order.
    pub rows: Vec<T>,
    /// What NICE suggests as the next `updatedSince`.
    pub last_poll_time: Option<jiff::Timestamp>,
    /// How many rows all pages have together.
    pub total: Option<u64>,
    /// NICE's link to the next page.
    pub next: Option<String>,
}

impl<T> ListPage<T> {
    /// What "204, nothing" stands for.
    pub fn empty() -> Self {
        Self { rows: Vec::new(), last_poll_time: None, total: None, next: None }
    }

    /// The page around these rows.
    pub(super) fn around(object: &Object<'_>, rows: Vec<T>) -> Self {
        let links = object.object(&["_links", "links"]);
        Self {
            rows,
            last_poll_time: object.time(&["lastPollTime"]),
            total: object.integer(&["totalRecords"]).and_then(|total| total.try_into().ok()),
            next: links.and_then(|links| {
                let next = links.value(&["next"])?;
                let text = match Object::of(next) {
                    Some(link) => lenient::scalar(link.value(&["href"])?)?.into_owned(),
                    None => lenient::scalar(next)?.into_owned(),
                };
                (!text.trim().is_empty()).then_some(text)
            }),
        }
    }
}

/// Reads a page of completed contacts. Of a row only what has a name here is kept: pages are large.
pub fn completed(body: &[u8]) -> Result<ListPage<ContactRow>, ShapeError> {
    let text = lenient::document(body)?;
    if let Some(PlainPage { object, rows }) = PlainPage::read(&text) {
        return Ok(ListPage::around(&object, rows));
    }
    let object = match Object::parse(&text) {
        Err(ShapeError::NotJson) => return damaged(&text),
        object => object?,
    };
    let rows = match object.items(LISTS, MAX_ROWS)? {
        Some(rows) => rows,
        None if object.integer(&["totalRecords"]) == Some(0) => Vec::new(),
        None => return Err(ShapeError::Shape("no list of completed contacts")),
    };
    let rows = rows.into_iter().map(row).collect();
    Ok(ListPage::around(&object, rows))
}

/// Reads a page that is not JSON as a whole, row by row.
fn damaged(text: &str) -> Result<ListPage<ContactRow>, ShapeError> {
    let Apart { rows, rest } = rows::apart(text, LISTS).ok_or(ShapeError::NotJson)?;
    let object = Object::parse(&rest)?;
    let rows = rows.into_iter().map(|row| match serde_json::from_str::<&RawValue>(row) {
        Ok(raw) => self::row(raw),
        Err(_) => Err(BadRow { reason: "the row is not JSON".to_owned(), contact_id: rows::contact_id(row) }),
    });
    let rows = rows.collect();
    Ok(ListPage::around(&object, rows))
}

/// Reads one contact: the object that has a contact id, wherever it is nested.
pub fn single(body: &[u8]) -> Result<ContactRow, ShapeError> {
    let text = lenient::document(body)?;
    let object = Object::parse(&text)?;
    let object = find_contact(object, MAX_NESTING).ok_or(ShapeError::Shape("no contact in it"))?;
    Ok(contact(&object).map(|contact| Contact { raw: kept(&object), ..contact }))
}

/// The deepest that NICE has been seen to wrap a contact is two.
const MAX_NESTING: usize = 4;

fn find_contact(object: Object<'_>, nesting: usize) -> Option<Object<'_>> {
    let id = object.value(&["contactId"]);
    if id.is_some_and(|raw| lenient::scalar(raw).is_some()) {
        return Some(object);
    }
    if nesting == 0 {
        return None;
    }
    object.members().find_map(|(_, raw)| match raw.get().as_bytes().first() {
        Some(b'{') => find_contact(Object::of(raw)?, nesting - 1),
        Some(b'[') => {
            lenient::items(raw, 1).ok()?.into_iter().find_map(|raw| find_contact(Object::of(raw)?, nesting - 1))
        }
        _ => None,
    })
}

/// Reads the legs of a call: its children, and the master itself where it is not among them.
pub fn hierarchy(body: &[u8]) -> Result<Vec<Leg>, ShapeError> {
    let text = lenient::document(body)?;
    let object = Object::parse(&text)?;
    let mut legs = Vec::new();
    for raw in object.items(&["childContacts"], MAX_LEGS)?.unwrap_or_default() {
        let child = Object::of(raw).ok_or(ShapeError::Shape("a child contact is no object"))?;
        let Some(contact_id) = id::<ContactId>(&child, &["contactId"])? else {
            return Err(ShapeError::Grammar("a contact id"));
        };
        legs.push(Leg {
            contact_id,
            started_at: child.time(&["startTime", "contactStartDate", "startDate"]),
            ended_at: child.time(&["endTime", "endDate"]),
        });
    }
    if let Some(master) = id::<ContactId>(&object, &["masterContactId"])?
        && !legs.iter().any(|leg| leg.contact_id == master)
    {
        legs.insert(0, Leg { contact_id: master, started_at: None, ended_at: None });
    }
    Ok(legs)
}

/// An id: none for an absent, null, empty or zero one, an error for one that breaks the grammar.
pub(super) fn id<T: std::str::FromStr>(object: &Object<'_>, names: &[&str]) -> Result<Option<T>, ShapeError> {
    let Some(raw) = object.value(names) else { return Ok(None) };
    match lenient::scalar(raw) {
        Some(text) if text.is_empty() || text == "0" => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| ShapeError::Grammar("an id")),
        None => Err(ShapeError::Grammar("an id")),
    }
}

fn row(raw: &RawValue) -> ContactRow {
    match Object::of(raw) {
        Some(object) => contact(&object),
        None => {
            let reason = "the row is not an object of a contact's size".to_owned();
            Err(BadRow { reason, contact_id: rows::contact_id(raw.get()) })
        }
    }
}

impl PlainRow for ContactRow {
    fn of(object: &Object<'_>) -> Self {
        contact(object)
    }
}

fn contact(object: &Object<'_>) -> ContactRow {
    let bad = |what: &str, contact_id| BadRow { reason: format!("the {what} breaks the grammar"), contact_id };
    let contact_id = match id::<ContactId>(object, &["contactId"]) {
        Ok(Some(id)) => id,
        Ok(None) | Err(_) => return Err(bad("contact id", None)),
    };
    let bad = |what: &str| bad(what, Some(contact_id));
    let master = id(object, &["masterContactId", "masterId"]).map_err(|_| bad("master contact id"))?;
    Ok(Contact {
        contact_id,
        master_contact_id: master.unwrap_or(contact_id),
        agent_id: id::<AgentId>(object, &["agentId"]).map_err(|_| bad("agent id"))?,
        started_at: object.time(&["contactStartDate", "contactStart"]),
        total_duration: object.seconds(&["totalDurationSeconds"]),
        media_type_id: object.integer(&["mediaTypeId", "mediaType"]),
        is_outbound: object.flag(&["isOutbound"]),
        is_active: object.flag(&["isActive"]),
        from_address: object.text(&["fromAddress", "fromAddr"]),
        to_address: object.text(&["toAddress", "toAddr"]),
        first_name: object.text(&["firstName"]),
        last_name: object.text(&["lastName"]),
        last_update_time: object.time(&["lastUpdateTime"]),
        warehoused_at: object.time(&["dateContactWarehoused"]),
        raw: Value::Null,
    })
}

/// A contact has some 3 KiB. JSON in memory is many times its text, most of all when it is nested: some 2 MB.
const MAX_RAW: usize = 64 * 1024;

/// The longest member that is kept: dispositions' notes and tags are shorter.
const MAX_MEMBER: usize = 16 * 1024;

/// Where the members are named that are left out.
const OMITTED: &str = "_omitted";

/// How many of them are named.
const MAX_OMITTED: usize = 20;

/// The longest name that is.
const MAX_NAME: usize = 64;

/// What NICE sent, without the members that go beyond what a contact has: these are named in a member of our own, which
/// NICE's grammar has not. A name that is no plain word may be anything, and is called `?`.
fn kept(object: &Object<'_>) -> Value {
    let mut kept = Map::new();
    let mut omitted = Vec::new();
    let mut bytes = 0;
    for (name, raw) in object.members() {
        let text = raw.get();
        let fits = text.len() <= MAX_MEMBER && bytes + name.len() + text.len() <= MAX_RAW;
        // Nothing but too great a depth makes it fail.
        match fits.then(|| serde_json::from_str(text).ok()).flatten() {
            Some(mut value) => {
                bytes += name.len() + text.len();
                strip_nul(&mut value);
                kept.insert(name.replace('\0', ""), value);
            }
            None if omitted.len() < MAX_OMITTED => {
                omitted.push(Value::from(if is_plain_word(name) { name } else { "?" }));
            }
            None => {}
        }
    }
    if !omitted.is_empty() {
        kept.insert(OMITTED.to_owned(), Value::Array(omitted));
    }
    Value::Object(kept)
}

/// Whether a name is one that a programmer gives: no person's, no number, no text.
fn is_plain_word(name: &str) -> bool {
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    name.len() <= MAX_NAME && name.starts_with(|first: char| first.is_ascii_alphabetic()) && name.bytes().all(rest)
}

/// Takes NUL out of every text; the depth is bounded by the parser.
fn strip_nul(value: &mut Value) {
    match value {
        Value::String(text) if text.contains('\0') => *text = text.replace('\0', ""),
        Value::Array(elements) => elements.iter_mut().for_each(strip_nul),
        Value::Object(members) => {
            if members.keys().any(|name| name.contains('\0')) {
                *members =
                    std::mem::take(members).into_iter().map(|(name, value)| (name.replace('\0', ""), value)).collect();
            }
            members.values_mut().for_each(strip_nul);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
#[path = "contact_tests.rs"]
mod tests;
