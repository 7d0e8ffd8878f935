//! The poll's watermark: the time up to which nothing is missing. It stands in the catalog, where whoever takes over
//! finds it.
//!
//! In: a point in time, moved forward once all before it is settled. Out: where to begin after a restart or a takeover.
//!
//! Whoever moves it forward works for a while before: [`Watermark::position`] is where that work began. Once it was
//! held back meanwhile, what was worked on is not the whole any more, and [`Watermark::advance_from`] moves nothing.
//!
//! # Stored times
//! A clock that was wrong for a moment may have put it into the future, and nothing would be found until then.
//! [`Watermark::doubt`] moves such a one back.
//!
//! # After a crash
//! It stands where the last move that resolved put it, or further where one was under way.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;

use catalog::{Catalog, CatalogError, ProducerMemory};
use jiff::{SignedDuration, Timestamp, TimestampArithmetic};
use model::TenantId;
use tracing::warn;

/// Our clock and the catalog's may differ by so much.
pub const TOLERANCE: SignedDuration = SignedDuration::from_mins(1);

/// The watermark of a tenant's poll; clones share it.
#[derive(Clone)]
pub struct Watermark {
    cell: Arc<Cell>,
    catalog: Arc<dyn Catalog>,
    tenant: TenantId,
}

/// What all clones share.
#[derive(Default)]
struct Cell {
    /// Orders the writers: the next begins once the commit of the one before is through.
    writing: Arc<tokio::sync::Mutex<()>>,
    /// As it stands in the catalog, as far as this process knows.
    known: Mutex<ProducerMemory>,
    /// How often a guard of this process let it go.
    released: AtomicU64,
}

/// Where a watermark stood when a piece of work began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatermarkPosition {
    /// The time; `None` if it was never moved.
    pub at: Option<Timestamp>,
    held_back: u64,
    released: u64,
}

/// Keeps a watermark from moving forward until it is dropped. Work that began before then no longer moves it.
#[must_use = "the watermark is held back only as long as this lives"]
pub struct HeldBack {
    cell: Arc<Cell>,
    _writing: tokio::sync::OwnedMutexGuard<()>,
}

impl Drop for HeldBack {
    fn drop(&mut self) {
        // Before the lock is returned: fields go after this.
        self.cell.released.fetch_add(1, Ordering::SeqCst);
    }
}

impl Watermark {
    /// The watermark of the tenant's poll; what moves it goes through this handle of the catalog.
    pub fn new(catalog: Arc<dyn Catalog>, tenant: TenantId) -> Self {
        Self { cell: Arc::default(), catalog, tenant }
    }

    /// The same watermark for work that ends with the turn of now: it does not move it in a later one.
    pub fn pinned(&self) -> Self {
        Self { catalog: self.catalog.pinned(), ..self.clone() }
    }

    /// Reads how it stands: at the beginning of a turn.
    pub async fn load(&self) -> Result<(), CatalogError> {
        let _writing = self.cell.writing.lock().await;
        self.learn(self.catalog.producer_memory(&self.tenant).await?);
        Ok(())
    }

    /// Where it stands, durably; `None` until it was first moved, or before it was read.
    pub fn get(&self) -> Option<Timestamp> {
        self.known().poll_watermark
    }

    /// When the tenant was first worked for, as it was read.
    pub fn worked_since(&self) -> Option<Timestamp> {
        self.known().worked_since
    }

    /// Moves it forward, durable when it resolves; an earlier time than it has moves nothing.
    pub async fn advance(&self, to: Timestamp) -> Result<(), CatalogError> {
        let _writing = self.cell.writing.lock().await;
        if self.get().is_none_or(|at| at < to) {
            self.learn(self.catalog.advance_poll(&self.tenant, to, None).await?);
        }
        Ok(())
    }

    /// Where work begins that is to move it forward.
    pub fn position(&self) -> WatermarkPosition {
        let released = self.cell.released.load(Ordering::SeqCst);
        let ProducerMemory { poll_watermark, held_back, .. } = self.known();
        WatermarkPosition { at: poll_watermark, held_back, released }
    }

    /// As [`Watermark::advance`], unless it was held back since `begun`, by this process or another; false then, and
    /// nothing moves.
    pub async fn advance_from(&self, begun: WatermarkPosition, to: Timestamp) -> Result<bool, CatalogError> {
        let _writing = self.cell.writing.lock().await;
        if self.cell.released.load(Ordering::SeqCst) != begun.released || self.known().held_back != begun.held_back {
            return Ok(false);
        }
        if self.get().is_none_or(|at| at < to) {
            self.learn(self.catalog.advance_poll(&self.tenant, to, Some(begun.held_back)).await?);
        }
        Ok(self.known().held_back == begun.held_back)
    }

    /// Moves it back to `to`, durable when it resolves, and keeps it there until the guard is dropped. One that was
    /// never moved, or stands before `to`, is only kept.
    pub async fn hold_back(&self, to: Timestamp) -> Result<HeldBack, CatalogError> {
        let writing = Arc::clone(&self.cell.writing).lock_owned().await;
        self.learn(self.catalog.hold_poll_back(&self.tenant, to).await?);
        Ok(HeldBack { cell: Arc::clone(&self.cell), _writing: writing })
    }

    /// Moves it back by `window` if it lies in the future, both by our clock, which says `now`, and by the catalog's.
    pub async fn doubt(&self, now: Timestamp, window: Duration) -> Result<(), CatalogError> {
        let Some(at) = self.get().filter(|at| is_beyond(*at, now)) else { return Ok(()) };
        let clock = self.catalog.clock(now).await?;
        if is_beyond(at, clock) {
            let to = back(now.min(clock), window);
            warn!(watermark = %at, %now, %to, "the poll's watermark lies in the future: a clock was wrong; it goes back");
            drop(self.hold_back(to).await?);
        }
        Ok(())
    }

    fn known(&self) -> ProducerMemory {
        *self.cell.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, memory: ProducerMemory) {
        *self.cell.known.lock().unwrap_or_else(PoisonError::into_inner) = memory;
    }
}

/// When the tenant was first worked for: noted as `now` if it is not. One in the future, by our clock and the
/// catalog's, goes back by `window`.
pub async fn worked_since(
    catalog: &dyn Catalog,
    tenant: &TenantId,
    now: Timestamp,
    window: Duration,
) -> Result<Timestamp, CatalogError> {
    let mut note = now;
    if let Some(since) = catalog.producer_memory(tenant).await?.worked_since {
        if !is_beyond(since, now) {
            return Ok(since);
        }
        let clock = catalog.clock(now).await?;
        if !is_beyond(since, clock) {
            return Ok(since);
        }
        note = back(now.min(clock), window);
        warn!(from = %since, %now, to = %note, "the time of the first turn lies in the future: a clock was wrong; it goes back");
    }
    Ok(catalog.note_worked_since(tenant, note).await?.worked_since.unwrap_or(note))
}

/// The earlier of our clock, which says `now`, and the catalog's. A record up to then tells of nothing to come, unless
/// both clocks run ahead.
pub async fn agreed_now(catalog: &dyn Catalog, now: Timestamp) -> Result<Timestamp, CatalogError> {
    Ok(now.min(catalog.clock(now).await?))
}

/// The time that lies so long before another, or the first that there is.
pub(crate) fn back(time: Timestamp, by: impl Into<TimestampArithmetic>) -> Timestamp {
    time.checked_sub(by).unwrap_or(Timestamp::MIN)
}

/// Whether a stored time cannot be true.
pub fn is_beyond(stored: Timestamp, now: Timestamp) -> bool {
    stored.duration_since(now) > TOLERANCE
}

#[cfg(test)]
mod tests;
