//! What the statements have in common: keys as parameters, and columns as our types.

use model::{ConversationKey, ConversationState};
use tokio_postgres::Row;

use crate::CatalogError;

/// The keys of many conversations, as parameters.
pub(super) struct Keys {
    pub(super) tenants: Vec<String>,
    pub(super) external_ids: Vec<String>,
}

impl Keys {
    pub(super) fn of<'a>(keys: impl Iterator<Item = &'a ConversationKey>) -> Self {
        let (tenants, external_ids) =
            keys.map(|key| (key.tenant.as_str().to_owned(), key.external_id.to_string())).unzip();
        Self { tenants, external_ids }
    }
}

/// A number as PostgreSQL's `bigint` takes it; what is larger stands for "any".
pub(super) fn saturated(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// A row that another program wrote in another form.
pub(super) fn unreadable(error: impl std::fmt::Display) -> CatalogError {
    CatalogError(format!("unreadable row: {error}"))
}

/// An id or a name in a row.
pub(super) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(row: &Row, column: &str) -> Result<T, CatalogError> {
    let text: &str = row.try_get(column).map_err(unreadable)?;
    text.parse().map_err(unreadable)
}

pub(super) fn key(row: &Row) -> Result<ConversationKey, CatalogError> {
    Ok(ConversationKey { tenant: parsed(row, "tenant_id")?, external_id: parsed(row, "external_id")? })
}

/// The index of the request that a row answers. SQL counts from 1; an index beyond all requests answers none.
pub(super) fn index(row: &Row) -> usize {
    row.try_get::<_, i64>("n").ok().and_then(|n| usize::try_from(n - 1).ok()).unwrap_or(usize::MAX)
}

/// The state of its name in a row.
pub(super) fn state_named(name: &str) -> Result<ConversationState, CatalogError> {
    let all = [ConversationState::MetadataSaved, ConversationState::Ready, ConversationState::NoRecording];
    all.into_iter().find(|state| state.as_str() == name).ok_or_else(|| unreadable("unknown state"))
}

pub(super) fn state(row: &Row) -> Result<ConversationState, CatalogError> {
    state_named(row.try_get("state").map_err(unreadable)?)
}

/// How many recordings NICE names besides those that are stored.
pub(super) fn recordings_missing(row: &Row) -> Result<u32, CatalogError> {
    u32::try_from(row.try_get::<_, i32>("recordings_missing").map_err(unreadable)?).map_err(unreadable)
}
