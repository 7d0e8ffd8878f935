//! The one way in which a request is sent: a timeout, some attempts in place, fresh keys after a refusal.
//!
//! Each attempt is built and signed anew. A request that fails for longer fails the put, and the call's message
//! waits in a delay step: nothing is held meanwhile.

use std::time::Duration;

use backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff};
use rusoto_core::RusotoError;
use tokio::time::{Instant, sleep, timeout};

use super::S3Store;
use super::error::{S3Error, S3ErrorKind};
use super::operation::Operation;

/// A request is sent so often in place: enough for a server that restarts or sheds load.
const ATTEMPTS: u32 = 6;

/// No attempt begins later than this after the first one.
const IN_PLACE: Duration = Duration::from_secs(30);

/// A network slower than this is not one to upload over.
const LEAST_BYTES_PER_SEC: u64 = 64 * 1024;

/// S3 puts the parts together while the request waits: minutes for the largest.
const SERVER_WORK: Duration = Duration::from_secs(300);

impl S3Store {
    /// How long one attempt may take that carries `length` bytes.
    fn limit(&self, operation: Operation, length: u64) -> Duration {
        match operation {
            Operation::CompleteUpload => self.options.request_timeout.max(SERVER_WORK),
            _ => self.options.request_timeout + Duration::from_secs(length / LEAST_BYTES_PER_SEC),
        }
    }

    /// Sends a request that carries `length` bytes until it succeeds, or is not worth another attempt.
    pub(super) async fn call<T, E, Sending>(
        &self,
        operation: Operation,
        length: u64,
        send: impl Fn() -> Sending + Send + Sync,
    ) -> Result<T, S3Error>
    where
        Sending: Future<Output = Result<T, RusotoError<E>>> + Send,
    {
        self.call_counted(operation, length, send).await.map(|(answer, _)| answer)
    }

    /// The same, and how many attempts it took: each of those before may have had its effect.
    pub(super) async fn call_counted<T, E, Sending>(
        &self,
        operation: Operation,
        length: u64,
        send: impl Fn() -> Sending + Send + Sync,
    ) -> Result<(T, u32), S3Error>
    where
        Sending: Future<Output = Result<T, RusotoError<E>>> + Send,
    {
        let limit = self.limit(operation, length);
        let begun = Instant::now();
        let mut intervals = intervals();
        let mut attempt = 1;
        loop {
            let generation = self.keyring.generation().await;
            let failure = match timeout(limit, send()).await {
                Ok(Ok(answer)) => return Ok((answer, attempt)),
                Ok(Err(error)) => S3Error::of(operation, error),
                Err(_) => S3Error::timeout(operation),
            };
            let wait = match failure.kind {
                S3ErrorKind::Busy => {
                    let wait = intervals.next_backoff().unwrap_or_default();
                    wait.max(failure.retry_after.unwrap_or_default())
                }
                S3ErrorKind::Refused if self.keyring.renew(generation).await => Duration::ZERO,
                S3ErrorKind::Refused
                | S3ErrorKind::Unable
                | S3ErrorKind::Missing
                | S3ErrorKind::NoUpload
                | S3ErrorKind::Conflict
                | S3ErrorKind::Rejected
                | S3ErrorKind::Unsaid => return Err(failure),
            };
            if attempt == ATTEMPTS || begun.elapsed() + wait > IN_PLACE {
                return Err(failure);
            }
            attempt += 1;
            self.metrics.retries.with_label_values(&[operation.name()]).inc();
            tracing::debug!(attempt, error = %failure, "recording store failed, will retry in place");
            sleep(wait).await;
        }
    }
}

fn intervals() -> ExponentialBackoff {
    ExponentialBackoffBuilder::new()
        .with_initial_interval(Duration::from_millis(250))
        .with_max_interval(Duration::from_secs(8))
        .with_multiplier(2.0)
        .with_randomization_factor(0.25)
        .with_max_elapsed_time(None)
        .build()
}
