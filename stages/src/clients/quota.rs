//! The rate budget of one tenant towards NICE, kept in the local state.
//!
//! A limit of `150/5m` means: never more than 150 requests in any 5 minutes. Each request's time is durable
//! before the request leaves, so that a crash does not spend the window twice.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use state::{Permission, RateWindow};

use super::nice::{ApiFamily, NiceError, Quota};
use crate::flow::{Clock, Metrics};

/// The longest single sleep, in case the wall clock jumps.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

/// The budgets of both API families.
#[derive(Debug)]
pub struct LocalQuota {
    acd: RateWindow,
    media_playback: RateWindow,
    clock: Clock,
    metrics: Metrics,
}

impl LocalQuota {
    /// A budget over two windows of the local state.
    pub fn new(acd: RateWindow, media_playback: RateWindow, clock: Clock, metrics: Metrics) -> Self {
        Self { acd, media_playback, clock, metrics }
    }
}

#[async_trait]
impl Quota for LocalQuota {
    async fn admit(&self, family: ApiFamily) -> Result<(), NiceError> {
        let window = match family {
            ApiFamily::Acd => &self.acd,
            ApiFamily::MediaPlayback => &self.media_playback,
        };
        let since = Instant::now();
        loop {
            let permission = window
                .try_acquire()
                .await
                .map_err(|error| NiceError::Quota { what: format!("rate budget: {error}"), retry_after: None })?;
            match permission {
                Permission::Granted => {
                    let waited = since.elapsed().as_secs_f64();
                    self.metrics.quota_wait.with_label_values(&[family.as_str()]).inc_by(waited);
                    return Ok(());
                }
                Permission::RetryAt(at) => {
                    let wait = Duration::try_from(at.duration_since(self.clock.now())).unwrap_or_default();
                    tokio::time::sleep(wait.clamp(Duration::from_millis(1), LONGEST_SLEEP)).await;
                }
            }
        }
    }
}
