//! What came of a sync.

use catalog::{CatalogError, HeldReading};
use flow::StageError;
use nice::NiceError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What an operator does about a held reading.
pub const REMEDY: &str = "see what has changed in NICE (the group, the service user's role); if the reading is right, run \
                          `nice-knovvu agents sync --accept`";

/// Why the agents could not be brought in step. Nothing was changed, or it is changed again next time.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The group could not be read whole.
    #[error("the group could not be read: {0}")]
    Nice(#[from] NiceError),
    /// The tenant's settings cannot be had.
    #[error("the group could not be read: {0}")]
    Settings(StageError),
    /// The agents could not be written.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// What one sync changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SyncReport {
    /// Agents in the group now.
    pub members: usize,
    /// New in the group, or back.
    pub joined: usize,
    /// No longer in the group.
    pub left: usize,
    /// Still in the group, deactivated.
    pub deactivated: usize,
    /// With another name or login.
    pub renamed: usize,
    /// Agents that NICE counts beyond those that it names.
    #[serde(default)]
    pub missing: u64,
    /// The reading was held, and nothing was changed.
    #[serde(default)]
    pub held: Option<HeldReading>,
}
