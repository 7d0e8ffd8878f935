//! Conversations for people: every row of the tenant is read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::{
    Timestamp,
    civil::Date,
    tz::{Offset, TimeZone},
};
use model::{ConversationState, TenantId};
use serde::Deserialize;

use super::EmbeddedCatalog;
use crate::{CatalogError, ConversationFilter, DayCounts, FoundConversation, Overviews, Recorded};

/// As much of a conversation's row as its count needs.
#[derive(Deserialize)]
struct EndedRow {
    ended_at: Timestamp,
    state: ConversationState,
    #[serde(default)]
    recordings_missing: u32,
}

#[async_trait]
impl Overviews for EmbeddedCatalog {
    async fn days(&self, tenant: &TenantId, from: Date, to: Date) -> Result<Vec<DayCounts>, CatalogError> {
        let days: Arc<Mutex<BTreeMap<Date, DayCounts>>> = Arc::default();
        let counted = days.clone();
        let count = move |row: EndedRow| -> Option<()> {
            let day = day(row.ended_at);
            if day >= from && day <= to {
                let mut days = counted.lock().unwrap_or_else(PoisonError::into_inner);
                let counts = days.entry(day).or_insert_with(|| DayCounts::none(day));
                counts.count(row.state, row.recordings_missing);
            }
            None
        };
        self.inner.scan(tenant, None, usize::MAX, count).await?;
        let mut days = std::mem::take(&mut *days.lock().unwrap_or_else(PoisonError::into_inner));
        for letter in self.inner.letters() {
            let letter = letter?;
            let day = day(letter.at);
            if letter.tenant_id.as_deref() == Some(tenant.as_str()) && day >= from && day <= to {
                days.entry(day).or_insert_with(|| DayCounts::none(day)).dead += 1;
            }
        }
        Ok(days.into_values().collect())
    }

    async fn found(
        &self,
        tenant: &TenantId,
        filter: &ConversationFilter,
        before: Option<Recorded>,
        limit: usize,
    ) -> Result<Vec<FoundConversation>, CatalogError> {
        let found: Arc<Mutex<BTreeMap<_, FoundConversation>>> = Arc::default();
        let (kept, filter) = (found.clone(), *filter);
        let before = before.map(|before| (day(before.ended_at), before.external_id));
        let keep = move |row: FoundConversation| -> Option<()> {
            let place = (day(row.ended_at), row.external_id);
            if filter.admits(&row) && before.is_none_or(|before| place < before) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.insert(place, row);
                if kept.len() > limit {
                    kept.pop_first();
                }
            }
            None
        };
        self.inner.scan(tenant, None, usize::MAX, keep).await?;
        let found = std::mem::take(&mut *found.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(found.into_values().rev().collect())
    }
}

/// The UTC day of a moment.
fn day(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::fixed(Offset::UTC)).date()
}
