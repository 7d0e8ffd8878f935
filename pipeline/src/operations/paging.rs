//! Long listings, a page at a time.

use std::str::FromStr;

use serde::Deserialize;

use super::OperationError;

/// Items in a page, where the request names no number.
pub(crate) const PRESET: usize = 500;

/// The most items in a page.
pub(crate) const MOST: usize = 1000;

/// Which page is asked for.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct PageStart {
    limit: Option<usize>,
    cursor: Option<String>,
}

impl PageStart {
    /// A page of so many items, after the one that the cursor names.
    pub(crate) fn of(limit: usize, cursor: Option<String>) -> Self {
        Self { limit: Some(limit), cursor }
    }

    /// The most items in the page.
    pub(super) fn limit(&self) -> Result<usize, OperationError> {
        match self.limit.unwrap_or(PRESET) {
            limit @ 1..=MOST => Ok(limit),
            _ => Err(OperationError::Invalid(format!("limit: give a number from 1 to {MOST}"))),
        }
    }

    /// The last item of the page before; none for the first page.
    pub(super) fn after<T: FromStr>(&self) -> Result<Option<T>, OperationError> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let text = hex::decode(cursor).ok().and_then(|text| String::from_utf8(text).ok());
        let last = text.and_then(|text| text.parse().ok());
        let unknown = || OperationError::Invalid("cursor: take it from the Link header of the page before".to_owned());
        last.map(Some).ok_or_else(unknown)
    }
}

/// A page of a listing.
pub(crate) struct AnswerPage<T> {
    /// Its items.
    pub(crate) items: T,
    /// The cursor of the next one; none after the last.
    pub(crate) next: Option<String>,
}

impl<T> AnswerPage<Vec<T>> {
    /// A page of so many items. If it is full another may follow, which begins after what `name` says of its last item.
    pub(super) fn of(items: Vec<T>, limit: usize, name: impl Fn(&T) -> String) -> Self {
        let last = items.last().filter(|_| items.len() >= limit);
        let next = last.map(|item| hex::encode(name(item)));
        Self { items, next }
    }
}
