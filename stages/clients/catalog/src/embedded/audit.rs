//! What operators did at the admin address.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::{EmbeddedCatalog, kind, numbered, tail_number};
use crate::{Audits, CatalogError, OperatorAct};

/// Acts that are kept, whatever their age: the oldest go.
const MOST_ACTS: u64 = 100_000;

/// How many old ones go at a time.
const PRUNED: usize = 100;

#[async_trait]
impl Audits for EmbeddedCatalog {
    async fn record_act(&self, act: &OperatorAct, keep: Duration) -> Result<(), CatalogError> {
        {
            let _writing = self.inner.lock();
            let last = self.inner.tree.scan_prefix([kind::ACT]).keys().next_back().transpose();
            let last = last.map_err(|error| self.inner.broken(error))?.and_then(|key| tail_number(&key));
            let id = last.unwrap_or_default() + 1;
            let oldest = act.at.checked_sub(keep).unwrap_or(Timestamp::MIN);
            for entry in self.inner.tree.scan_prefix([kind::ACT]).take(PRUNED) {
                let (key, value) = entry.map_err(|error| self.inner.broken(error))?;
                let is_old = super::read::<OperatorAct>(&value)?.at < oldest;
                if !is_old && tail_number(&key).is_some_and(|number| number + MOST_ACTS > id) {
                    break;
                }
                self.inner.tree.remove(key).map_err(|error| self.inner.broken(error))?;
            }
            self.inner.put(&numbered(kind::ACT, id), &OperatorAct { id, ..act.clone() })?;
        }
        self.inner.commit().await
    }

    async fn acts(&self, before: Option<u64>, limit: usize) -> Result<Vec<OperatorAct>, CatalogError> {
        let end = before.map_or_else(|| vec![kind::ACT + 1], |before| numbered(kind::ACT, before));
        let range = self.inner.tree.range(vec![kind::ACT]..end).values().rev().take(limit);
        self.inner.read_all(range).collect()
    }
}
