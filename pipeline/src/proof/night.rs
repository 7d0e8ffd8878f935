//! The producer signs by itself: after the nightly comparison, each day that is over and has no file yet.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use catalog::{CatalogError, RunKind, RunState};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use model::TenantId;
use runtime::task;
use stages::completeness::{self, ReportError, ReportRequest};
use stages::source::{listing::horizon, replay::ReplayWorker, roster::Roster};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::command_error::CommandError;
use crate::config::ProofConfig;

use super::day::DayContent;
use super::folder::{ProofFolder, SignOutcome};
use super::key::ProofKey;

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(60);

/// Time between two tries: a report asks NICE for a whole day.
const RETRY: Duration = Duration::from_secs(600);

/// How many of the latest comparisons are read: the night's is among them.
const RUNS: usize = 20;

/// Why days are left out that NICE lists no more.
const BEYOND: &str = "no producer worked until NICE listed these days no more";

/// Signs the days of a tenant.
#[derive(Clone)]
pub(crate) struct NightlyProof {
    /// The directory of the settings.
    pub(crate) dir: PathBuf,
    /// Who signs.
    pub(crate) key: Arc<ProofKey>,
}

/// Why a day is not signed.
#[derive(Debug, thiserror::Error)]
enum NightError {
    /// The catalog did not answer.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// There is no report.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The folder does not take the day.
    #[error("{0}")]
    Folder(String),
}

impl NightlyProof {
    /// As the settings say; none where they do not ask for it.
    pub(crate) fn of(config: &ProofConfig) -> Result<Option<Self>, CommandError> {
        let missing = |key| CommandError::usage(format!("[proof] {key}: missing, and nightly = true needs it"));
        if !config.nightly {
            return Ok(None);
        }
        let dir = config.dir.clone().ok_or_else(|| missing("dir"))?;
        let key = config.key.as_ref().ok_or_else(|| missing("key_file"))?;
        Ok(Some(Self { dir, key: Arc::new(ProofKey::of(key.expose())) }))
    }

    /// Looks whether a day is due, until it is dropped.
    pub(crate) async fn run(self, tenant: TenantId, replay: ReplayWorker) {
        loop {
            let pause = match self.sign_due(&tenant, &replay).await {
                Ok(()) => LOOK,
                Err(error) => {
                    warn!(%error, delay_secs = RETRY.as_secs_f64(), "the day is not signed, will retry");
                    RETRY
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Signs what is due. Nothing is, until the comparison of today is done: before it, what NICE listed late is not
    /// counted.
    async fn sign_due(&self, tenant: &TenantId, replay: &ReplayWorker) -> Result<(), NightError> {
        let now = replay.compare.clock.now();
        let folder = ProofFolder::of(&self.dir, tenant);
        let newest = folder.newest().map_err(NightError::Folder)?;
        let Some(due) = days_due(newest, now) else { return Ok(()) };
        let today = midnight(due.before);
        let runs = replay.context.catalog.runs(tenant, RunKind::Reconciliation, RUNS).await?;
        if !runs.iter().any(|run| run.state == RunState::Done && run.started_at >= today) {
            return Ok(());
        }
        let catalog = &replay.compare.catalog;
        if catalog.agents_read_at(tenant).await?.is_none() {
            return Ok(());
        }
        let (roster, reader) = watch::channel(Roster::default());
        Roster::replace(&roster, &catalog.agents(tenant).await?);
        let roster = reader.borrow().clone();
        let mut gap = due.skips.then_some(BEYOND);
        let mut day = due.from;
        while day < due.before {
            let next = day.tomorrow().unwrap_or(Date::MAX);
            let report = completeness::report(ReportRequest {
                tenants: replay.tenants.clone(),
                tenant: tenant.clone(),
                roster: roster.clone(),
                compare: replay.compare.clone(),
                from: midnight(day),
                to: midnight(next),
                longest_call: replay.longest_call,
            })
            .await?;
            let (folder, key) = (ProofFolder::of(&self.dir, tenant), self.key.clone());
            let (content, reason) = (DayContent::of(&report, day), gap.take());
            let signing = task::blocking(move || folder.sign(content, &key, reason)).await;
            let outcome = signing.unwrap_or_else(|error| Err(error.to_string())).map_err(NightError::Folder)?;
            if let SignOutcome::Signed(hash) = outcome {
                info!(%day, hash, "the day is signed");
            }
            day = next;
        }
        Ok(())
    }
}

/// Days that are over and have no file.
#[derive(Debug, PartialEq, Eq)]
struct DaysDue {
    from: Date,
    /// The day after the last.
    before: Date,
    /// Whether days before them are left out.
    skips: bool,
}

/// The days after the newest file, or yesterday where there is none, as far as NICE lists them.
fn days_due(newest: Option<Date>, now: Timestamp) -> Option<DaysDue> {
    let before = now.to_zoned(TimeZone::UTC).date();
    let yesterday = before.yesterday().ok()?;
    let next = newest.map_or(Some(yesterday), |newest| newest.tomorrow().ok())?;
    // The first day that is listed whole.
    let listed = horizon(now).to_zoned(TimeZone::UTC).date().tomorrow().ok()?;
    let from = next.max(listed);
    (from < before).then_some(DaysDue { from, before, skips: newest.is_some() && from > next })
}

/// The first moment of a UTC day.
pub(crate) fn midnight(day: Date) -> Timestamp {
    TimeZone::UTC.to_timestamp(day.into()).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_day_that_is_over_is_due_once_as_far_as_nice_lists() {
        let now: Timestamp = "2026-05-20T02:10:00Z".parse().unwrap();
        let date = |text: &str| text.parse::<Date>().unwrap();
        let due = |newest: Option<&str>| days_due(newest.map(date), now);
        let days = |from: &str, skips| Some(DaysDue { from: date(from), before: date("2026-05-20"), skips });
        assert_eq!(due(None), days("2026-05-19", false));
        assert_eq!(due(Some("2026-05-19")), None);
        assert_eq!(due(Some("2026-05-16")), days("2026-05-17", false));
        let late = due(Some("2026-01-01")).unwrap();
        assert!(late.skips && late.from > date("2026-04-15") && late.from < date("2026-04-25"), "{late:?}");
        assert_eq!(midnight(date("2026-05-20")).to_string(), "2026-05-20T00:00:00Z");
    }
}
