//! Tombstones as the statements take them.

use model::ConversationKey;

use crate::{CatalogError, TombstoneKey};

/// Makes tombstones, where the process has the key.
#[derive(Debug, Default)]
pub(super) struct Tombstones(pub(super) Option<TombstoneKey>);

impl Tombstones {
    /// As a parameter: empty, and so like no other, without the key.
    pub(super) fn of(&self, key: &ConversationKey) -> Vec<u8> {
        self.0.as_ref().map(|secret| secret.tombstone(key).as_bytes().to_vec()).unwrap_or_default()
    }

    pub(super) fn key(&self) -> Result<&TombstoneKey, CatalogError> {
        self.0.as_ref().ok_or_else(|| CatalogError("[catalog] seal_key: missing, erasures are made with it".to_owned()))
    }
}
