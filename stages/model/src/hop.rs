//! A conversation's timeline.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

// Its JSON is stored as it is: a field that is renamed needs its old name as well.
/// One line of a conversation's timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Hop {
    /// When the stage had finished.
    pub at: Timestamp,
    /// The stage.
    pub stage: String,
    /// What it made of the item: a word of the flow, such as `ok` or `retry`.
    pub outcome: String,
    /// The attempt, from 0.
    pub attempt: u32,
    /// How long it took.
    pub took_millis: u64,
    /// Why, where the outcome asks for it.
    pub detail: Option<String>,
}
