//! Whose fault is it? One failure does not tell; what happens to other calls does.
//!
//! In: at each stage and for each tenant, which calls passed and which failed. Out: whether a failure counts against
//! its call. It counts in two cases. Another call of the tenant has passed the same stage since this call's last failure.
//! Or the failure can concern only this call, such as a refused link, and does not meet many calls at once. A call that
//! fails while nothing else passes waits, however long that lasts: then it is the system, or nobody knows.
//!
//! While a stage fails for many calls of a tenant, one call at a time finds out whether it works again, and the others
//! wait on the queue without asking anybody.
//!
//! Known by this process alone, and forgotten with it: who knows nothing blames no call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use model::{ContactId, ConversationKey, System, TenantId};
use runtime::{
    Outage,
    outage::{Over, Say},
};

use super::{FlowMetrics, RetryPolicy, StageError};

/// So many calls that fail after each other, with none that passes in between, are the system's fault.
const MANY: usize = 4;

/// Stages of tenants that are remembered. A tenant that is forgotten blames no call for a while.
const MOST_KEPT: usize = 16 * 1024;

/// While many calls fail, one call tries the system after each such interval.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Failures that are older say nothing of the present.
const LONG_AGO: SignedDuration = SignedDuration::from_mins(15);

/// What a failure says of its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It counts against the call.
    Call,
    /// The system fails for many calls.
    System,
    /// Nobody knows: it counts against nobody.
    Unclear,
}

/// One failure of a call.
#[derive(Debug, Clone, Copy)]
pub struct Failure<'a> {
    /// What failed.
    pub system: System,
    /// Why, in words for a log.
    pub reason: &'a str,
    /// When the call failed at this stage before.
    pub before: Option<Timestamp>,
}

/// A stage that fails for many calls of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailingStage {
    /// Whose calls.
    pub tenant: TenantId,
    /// The stage.
    pub stage: &'static str,
    /// What fails there.
    pub system: System,
    /// Since when.
    pub since: Timestamp,
    /// Why, as the last of them said it.
    pub reason: String,
}

impl FailingStage {
    /// The stage and the reason, in a line.
    pub fn said(&self) -> String {
        format!("{}: {}", self.stage, self.reason)
    }
}

/// What became of the calls of every tenant lately; clones share it.
#[derive(Debug, Clone)]
pub struct Blame {
    inner: Arc<Mutex<BTreeMap<(TenantId, &'static str), Lately>>>,
    metrics: FlowMetrics,
}

/// What became of a tenant's calls at one stage lately.
#[derive(Debug)]
struct Lately {
    /// The calls that failed since one passed, up to [`MANY`].
    failing: Vec<ContactId>,
    /// What the last of them named.
    system: System,
    /// The last call that passed, and the last other one.
    passed: [Option<(ContactId, Timestamp)>; 2],
    /// When a call last set out to see whether it works again.
    looked_at: Timestamp,
    /// When a call failed first since one passed.
    failing_since: Timestamp,
    /// Why the last one failed.
    reason: String,
    /// What the log says of it.
    outage: Outage,
    /// When a call failed last.
    failed_at: Timestamp,
}

impl Default for Lately {
    fn default() -> Self {
        Self {
            failing: Vec::new(),
            system: System::Call,
            passed: [None; 2],
            looked_at: Timestamp::MIN,
            failing_since: Timestamp::MIN,
            reason: String::new(),
            outage: Outage::default(),
            failed_at: Timestamp::MIN,
        }
    }
}

impl Lately {
    fn fails_for_many(&self) -> bool {
        self.failing.len() >= MANY
    }

    /// The system that fails for many, unless that was long ago: a tenant without calls finds out by its next one.
    fn failing(&self, now: Timestamp) -> Option<System> {
        let since = now.duration_since(self.failed_at);
        (self.fails_for_many() && since < LONG_AGO).then_some(self.system)
    }

    fn passed_another(&self, id: ContactId, since: Timestamp) -> bool {
        self.passed.iter().flatten().any(|(other, at)| *other != id && *at > since)
    }
}

impl Blame {
    /// Nothing is known yet.
    pub fn new(metrics: FlowMetrics) -> Self {
        Self { inner: Arc::default(), metrics }
    }

    /// Notes that a stage passed a call.
    pub fn passed(&self, stage: &'static str, key: &ConversationKey, now: Timestamp) {
        let mut all = self.lock();
        let lately = entry(&mut all, &key.tenant, stage);
        // Of what fails for one call alone, and of NICE's own failures, nothing was said here.
        let was_said = lately.fails_for_many() || !matches!(lately.system, System::Call | System::Nice);
        lately.failing.clear();
        let over = lately.outage.over().filter(|_| was_said);
        match lately.passed[0] {
            Some((last, _)) if last == key.external_id => {}
            last => lately.passed[1] = last,
        }
        lately.passed[0] = Some((key.external_id, now));
        if let Some(Over { count, .. }) = over {
            tracing::info!(tenant = %key.tenant, stage, system = %lately.system, count, "works again");
        }
    }

    /// Notes that NICE gave a stage a proper answer, though the call has to wait.
    pub fn answered(&self, stage: &'static str, tenant: &TenantId) {
        let mut all = self.lock();
        if let Some(lately) = all.get_mut(&(tenant.clone(), stage))
            && lately.system == System::Nice
        {
            lately.failing.clear();
            lately.outage.over();
        }
    }

    /// Notes that a call failed at a stage, and says what that means for it.
    pub fn failed(&self, stage: &'static str, key: &ConversationKey, failure: Failure<'_>, now: Timestamp) -> Fault {
        let Failure { system, reason, before } = failure;
        let mut all = self.lock();
        let lately = entry(&mut all, &key.tenant, stage);
        if lately.failing.is_empty() {
            lately.failing_since = now;
        }
        (lately.system, lately.failed_at, lately.reason) = (system, now, reason.to_owned());
        let (tenant, was_many) = (&key.tenant, lately.fails_for_many());
        if !was_many && !lately.failing.contains(&key.external_id) {
            lately.failing.push(key.external_id);
        }
        let is_many = lately.fails_for_many();
        match lately.outage.failed(now) {
            _ if is_many && !was_many => {
                lately.looked_at = now;
                tracing::error!(%tenant, stage, %system, reason, "fails for many calls; they wait, and none is given up");
            }
            // What fails for one call alone is said where it is put off; what NICE answers, its client says.
            _ if !is_many && matches!(system, System::Call | System::Nice) => {}
            Say::Begins => tracing::warn!(%tenant, stage, %system, reason, "failed for a call, which is tried again"),
            Say::GoesOn { count } => tracing::warn!(%tenant, stage, %system, reason, count, "goes on failing"),
            Say::Nothing => {}
        }
        if is_many {
            Fault::System
        } else if system == System::Call || before.is_some_and(|before| lately.passed_another(key.external_id, before))
        {
            Fault::Call
        } else {
            Fault::Unclear
        }
    }

    /// What fails for many calls of which tenant now.
    pub fn failing(&self, now: Timestamp) -> Vec<FailingStage> {
        let all = self.lock();
        let failing = all.iter().filter_map(|((tenant, stage), lately)| {
            let system = lately.failing(now)?;
            let (since, reason) = (lately.failing_since, lately.reason.clone());
            Some(FailingStage { tenant: tenant.clone(), stage, system, since, reason })
        });
        failing.collect()
    }

    /// Whether a call of the tenant may begin its way: it is not held back where a stage fails for many, or it is the
    /// one that finds out whether that is over.
    pub fn admit(
        &self,
        tenant: &TenantId,
        stages: &[&'static str],
        retry: &RetryPolicy,
        now: Timestamp,
    ) -> Result<(), StageError> {
        let look_every = SignedDuration::try_from(LOOK_EVERY.min(retry.error_delay_max)).unwrap_or_default();
        let mut all = self.lock();
        let mut due = Vec::new();
        for stage in stages {
            let name = (tenant.clone(), *stage);
            // Links that are refused hold nobody back: each comes back less and less often by itself.
            let fails = |lately: &&Lately| lately.failing(now).is_some_and(|system| system != System::Call);
            let Some(lately) = all.get(&name).filter(fails) else { continue };
            // A clock that was set back does not close the way for longer.
            let since = now.duration_since(lately.looked_at);
            if !since.is_negative() && since < look_every {
                return Err(StageError::Busy {
                    reason: format!(
                        "{stage}: {} fails for many calls of the tenant, and others are trying it",
                        lately.system
                    ),
                    waits_for: Some(lately.system),
                    retry_after: retry.held_back(),
                });
            }
            due.push(name);
        }
        for name in due {
            if let Some(lately) = all.get_mut(&name) {
                lately.looked_at = now;
            }
        }
        Ok(())
    }

    /// Whether a stage fails for many calls of the tenant.
    pub fn fails(&self, stage: &str, tenant: &TenantId, now: Timestamp) -> bool {
        self.lock().iter().any(|((of, at), lately)| of == tenant && *at == stage && lately.failing(now).is_some())
    }

    /// Whether a system fails for many calls of a tenant, whoever that is.
    pub fn fails_for_some(&self, system: System, now: Timestamp) -> bool {
        self.lock().values().any(|lately| lately.failing(now) == Some(system))
    }

    /// Shows for which tenants NICE and the media host fail, and for which they do not: of those whose calls were seen,
    /// and of this process's own, if it has one.
    pub fn show(&self, own: Option<&TenantId>, now: Timestamp) {
        let all = self.lock();
        for system in [System::Nice, System::MediaHost] {
            let failing: BTreeSet<&TenantId> =
                all.iter().filter(|(_, lately)| lately.failing(now) == Some(system)).map(|((of, _), _)| of).collect();
            for tenant in all.keys().map(|(of, _)| of).chain(own).collect::<BTreeSet<_>>() {
                let up = self.metrics.tenant_system_up.of(tenant.as_str(), &[system.as_str()]);
                up.set((!failing.contains(tenant)).into());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(TenantId, &'static str), Lately>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn entry<'a>(
    all: &'a mut BTreeMap<(TenantId, &'static str), Lately>,
    tenant: &TenantId,
    stage: &'static str,
) -> &'a mut Lately {
    if all.len() >= MOST_KEPT {
        // Too many tenants for one process: begin anew.
        all.clear();
    }
    all.entry((tenant.clone(), stage)).or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAGE: &str = "upload";

    fn at(seconds: i64) -> Timestamp {
        "2026-04-01T12:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
    }

    fn key(id: u64) -> ConversationKey {
        ConversationKey { tenant: "acme".parse().unwrap(), external_id: ContactId::from_number(id).unwrap() }
    }

    fn retry() -> RetryPolicy {
        RetryPolicy {
            not_ready_delays: vec![Duration::from_secs(30)],
            recording_deadline: Duration::from_secs(3600),
            error_delay_min: Duration::from_secs(1),
            error_delay_max: Duration::from_secs(300),
        }
    }

    fn failure(system: System, before: Option<Timestamp>) -> Failure<'static> {
        Failure { system, reason: "a 503", before }
    }

    fn blame() -> Blame {
        Blame::new(FlowMetrics::default())
    }

    #[test]
    fn a_failure_counts_only_where_another_call_passed_since_the_last_one() {
        let blame = blame();
        let failed = |before, now| blame.failed(STAGE, &key(1), failure(System::MediaHost, before), at(now));
        assert_eq!(failed(None, 0), Fault::Unclear, "the first one tells nothing");
        assert_eq!(failed(Some(at(0)), 10), Fault::Unclear, "nobody else came by");
        blame.passed(STAGE, &key(1), at(15));
        assert_eq!(failed(Some(at(10)), 20), Fault::Unclear, "it passed itself, which says nothing of others");
        blame.passed(STAGE, &key(2), at(25));
        blame.passed(STAGE, &key(1), at(26));
        assert_eq!(failed(Some(at(20)), 30), Fault::Call);
        assert_eq!(failed(Some(at(30)), 40), Fault::Unclear, "no news since");
        blame.passed("persist", &key(2), at(45));
        assert_eq!(failed(Some(at(40)), 50), Fault::Unclear, "another stage tells nothing of this one");
    }

    #[test]
    fn what_concerns_one_call_counts_until_it_concerns_many() {
        let blame = blame();
        let failed = |id, now| blame.failed(STAGE, &key(id), failure(System::Call, None), at(now));
        for now in 0..100 {
            assert_eq!(failed(1, now), Fault::Call);
        }
        let faults: Vec<_> = (2..=4).map(|id| failed(id, 100)).collect();
        assert_eq!(faults, [Fault::Call, Fault::Call, Fault::System]);
        assert_eq!(failed(1, 101), Fault::System, "the first one too, from now on");
        assert!(blame.admit(&key(9).tenant, &[STAGE], &retry(), at(101)).is_ok(), "and nobody is held back for it");
        blame.passed(STAGE, &key(9), at(102));
        assert_eq!(failed(1, 103), Fault::Call);
    }

    #[test]
    fn while_it_fails_for_many_one_at_a_time_finds_out() {
        let (blame, retry) = (blame(), retry());
        let admitted = |now| blame.admit(&key(1).tenant, &[STAGE], &retry, at(now)).is_ok();
        for id in 1..=3 {
            blame.failed(STAGE, &key(id), failure(System::Nice, None), at(0));
            assert!(admitted(0));
        }
        blame.failed(STAGE, &key(4), failure(System::Nice, None), at(0));
        assert!(blame.fails(STAGE, &key(1).tenant, at(0)) && blame.fails_for_some(System::Nice, at(0)));
        let failing = FailingStage {
            tenant: key(1).tenant,
            stage: STAGE,
            system: System::Nice,
            since: at(0),
            reason: "a 503".to_owned(),
        };
        assert_eq!(blame.failing(at(5)), [failing]);
        assert!(!blame.fails(STAGE, &key(1).tenant, at(3600)), "an hour later nobody knows");
        assert!(!admitted(0) && !admitted(9), "those that are under way tell enough");
        assert!(admitted(10) && !admitted(10) && !admitted(19));
        assert!(admitted(20), "whatever became of the one before");
        assert!(admitted(-3600), "a clock that was set back closes nothing");
        assert!(
            blame.admit(&"other".parse().unwrap(), &[STAGE], &retry, at(21)).is_ok(),
            "another tenant is none the wiser"
        );
        assert!(blame.admit(&key(1).tenant, &["persist"], &retry, at(21)).is_ok());
        blame.passed(STAGE, &key(5), at(22));
        assert!(admitted(22) && admitted(22));
    }

    #[test]
    fn an_answer_of_nice_ends_its_own_failure_only() {
        let blame = blame();
        for (stage, system) in [(STAGE, System::Nice), ("download_recording", System::MediaHost)] {
            for id in 1..=4 {
                blame.failed(stage, &key(id), failure(system, None), at(0));
            }
            blame.answered(stage, &key(1).tenant);
        }
        assert!(!blame.fails(STAGE, &key(1).tenant, at(0)));
        assert!(blame.fails("download_recording", &key(1).tenant, at(0)));
        blame.show(None, at(0));
        let up = |system| blame.metrics.tenant_system_up.of("acme", &[system]).get();
        assert_eq!((up("nice"), up("media_host")), (1, 0));
    }
}
