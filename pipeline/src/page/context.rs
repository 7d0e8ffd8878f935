//! What every request of the page is answered from.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use runtime::Clock;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::samples::Samples;
use crate::admission::AccessRules;
use crate::config::{Config, EffectiveSetting};
use crate::operations::{
    AdminRequest, Operations,
    status::{ShowStatus, Status},
};

/// A state of the whole is good for so long, for everybody who looks.
const STATUS_AGE: Duration = Duration::from_secs(2);

/// What cannot be read within this time is shown as such.
const STATUS_PATIENCE: Duration = Duration::from_secs(4);

/// Live feeds at a time, below the connections that the address takes.
const MOST_FEEDS: usize = 128;

/// What every request of the page is answered from; clones share it.
#[derive(Clone)]
pub(crate) struct PageContext {
    pub(super) operations: Operations,
    pub(super) admission: AccessRules,
    pub(super) clock: Clock,
    pub(super) feeds: Arc<Semaphore>,
    pub(super) playback: bool,
    /// The settings in force, with their origins; secrets are masked.
    pub(super) settings: Arc<[EffectiveSetting]>,
    samples: Arc<Mutex<Samples>>,
    latest: Arc<tokio::sync::Mutex<Option<(Instant, StatusRead)>>>,
}

/// The state of the whole, or why it cannot be read.
pub(super) type StatusRead = Result<Arc<Status>, String>;

impl PageContext {
    /// The context of a process.
    pub(crate) fn new(config: &Config, operations: Operations, admission: AccessRules, clock: Clock) -> Self {
        Self {
            operations,
            admission,
            clock,
            feeds: Arc::new(Semaphore::new(MOST_FEEDS)),
            playback: config.admin.playback,
            settings: config.effective().into(),
            samples: Arc::default(),
            latest: Arc::default(),
        }
    }

    /// The state of the whole: read once a second, however many look.
    pub(super) async fn status(&self) -> StatusRead {
        let mut latest = self.latest.lock().await;
        if let Some((at, status)) = &*latest
            && at.elapsed() < STATUS_AGE
        {
            return status.clone();
        }
        let asked = timeout(STATUS_PATIENCE, ShowStatus {}.fulfil(&self.operations.status)).await;
        let read = match asked {
            Ok(Ok(status)) => Ok(Arc::new(status)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", STATUS_PATIENCE.as_secs())),
        };
        if let Ok(status) = &read {
            self.samples().take(&status.stages, Instant::now());
        }
        *latest = Some((Instant::now(), read.clone()));
        read
    }

    /// What the stages did of late.
    pub(super) fn samples(&self) -> MutexGuard<'_, Samples> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
