//! The rows of contacts that were made last.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use serde_json::{Map, Value};

use super::lock;
use crate::clock::Millis;

/// A row of a list.
pub(crate) type Row = Map<String, Value>;

/// Which set of field names a request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// Up to v29.
    Old,
    /// From v30 on.
    New,
}

/// Rows kept; a poll asks for the same ones over and over.
const KEPT: usize = 2048;

/// What a row of a contact that is over depends on, besides the contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) names: Names,
    pub(crate) is_half: bool,
    pub(crate) updated_at: Millis,
    /// The service's clock is off by so much.
    pub(crate) skew: Millis,
}

/// The rows that were made last, by contact id.
#[derive(Debug, Default)]
pub(crate) struct Rows(Mutex<HashMap<i64, (Look, Arc<Row>)>>);

impl Rows {
    /// The row of a contact that is over, made where it is not kept or looks otherwise now.
    pub(crate) fn get(&self, contact_id: i64, look: Look, make: impl FnOnce() -> Row) -> Arc<Row> {
        let mut rows = lock(&self.0);
        if let Some((_, row)) = rows.get(&contact_id).filter(|(kept, _)| *kept == look) {
            return Arc::clone(row);
        }
        let row = Arc::new(make());
        if rows.len() >= KEPT {
            rows.clear();
        }
        rows.insert(contact_id, (look, Arc::clone(&row)));
        row
    }
}
