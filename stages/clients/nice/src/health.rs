//! What NICE last answered a tenant: for the operator, and for the log.
//!
//! In: what became of every request but long polls, whose silence says nothing. Out: one word for the whole, since when
//! and why. An endpoint fails from its second failure in a row on; a refusal counts at once, for the client has tried a
//! fresh token before. The log says it once when it begins, once a minute, and once when it is over, however many calls
//! meet it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use model::TenantId;
use reqwest::StatusCode;
use runtime::{
    Outage,
    outage::{Over, Say},
};
use tracing::{error, info, warn};

use super::endpoint::Endpoint;

/// Failures in a row of one endpoint before it counts as failing: one says nothing.
const FAILS_FROM: u32 = 2;

/// What failed so long ago, and was not asked for since, says nothing of now.
const LONG_AGO: SignedDuration = SignedDuration::from_hours(1);

/// Tenants that are remembered. Beyond them the process begins anew.
const MOST_KEPT: usize = 4096;

/// How NICE stands to a tenant, the worse the later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NiceState {
    /// Nothing was asked yet.
    Unasked,
    /// It answers.
    Well,
    /// It takes no more requests for now (429).
    Limited,
    /// It answers with errors.
    Failing,
    /// It does not answer.
    Away,
    /// It refuses our key, or a right or licence is missing.
    Refused,
}

/// What NICE last answered a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NiceReport {
    /// The word for it.
    pub state: NiceState,
    /// Since when it stands like this; none while it is well.
    pub since: Option<Timestamp>,
    /// Why, in words for a log.
    pub reason: Option<String>,
    /// When it last answered a request as it should.
    pub well_at: Option<Timestamp>,
}

impl NiceReport {
    /// Of a NICE that nobody has asked.
    pub fn unasked() -> Self {
        Self { state: NiceState::Unasked, since: None, reason: None, well_at: None }
    }
}

/// Watches the answers of one tenant's NICE; clones share it.
#[derive(Debug, Clone, Default)]
pub struct NiceHealth {
    tenant: Option<TenantId>,
    answers: Arc<Mutex<Answers>>,
}

#[derive(Debug, Default)]
struct Answers {
    well_at: Option<Timestamp>,
    failing: BTreeMap<&'static str, EndpointFailure>,
    outage: Outage,
}

#[derive(Debug)]
struct EndpointFailure {
    state: NiceState,
    since: Timestamp,
    at: Timestamp,
    /// Failures in a row, of whatever kind.
    count: u32,
    reason: String,
    /// What is asked there concerns one call, and may be refused for that one alone.
    is_of_one_call: bool,
}

impl EndpointFailure {
    fn counts(&self, now: Timestamp) -> bool {
        let is_sure = (self.state == NiceState::Refused && !self.is_of_one_call) || self.count >= FAILS_FROM;
        is_sure && !self.is_old(now)
    }

    fn is_old(&self, now: Timestamp) -> bool {
        now.duration_since(self.at) >= LONG_AGO
    }
}

impl Answers {
    /// The worst of what fails now; of several the one that fails for longest.
    fn worst(&self, now: Timestamp) -> Option<&EndpointFailure> {
        let failing = self.failing.values().filter(|failure| failure.counts(now));
        failing.max_by_key(|failure| (failure.state, std::cmp::Reverse(failure.since)))
    }
}

impl NiceHealth {
    /// Of this tenant's NICE.
    pub fn of(tenant: TenantId) -> Self {
        Self { tenant: Some(tenant), answers: Arc::default() }
    }

    /// What NICE last answered.
    pub fn report(&self, now: Timestamp) -> NiceReport {
        let answers = self.lock();
        let well_at = answers.well_at;
        match answers.worst(now) {
            Some(worst) => {
                NiceReport { state: worst.state, since: Some(worst.since), reason: Some(worst.reason.clone()), well_at }
            }
            None => {
                // What failed last, and was not asked for since, is not well: nobody knows.
                let is_stale = answers.failing.values().any(|failure| failure.is_old(now));
                let state = match well_at {
                    Some(well_at) if !is_stale || now.duration_since(well_at) < LONG_AGO => NiceState::Well,
                    _ => NiceState::Unasked,
                };
                NiceReport { state, well_at, ..NiceReport::unasked() }
            }
        }
    }

    /// Notes the status of a whole answer. What 401 and 403 mean is known only once a fresh token was tried.
    pub(super) fn answered(&self, endpoint: Endpoint, status: StatusCode, now: Timestamp) {
        let name = endpoint.name();
        match status.as_u16() {
            200..=299 => self.well(endpoint, now),
            // A contact that is not there is an answer; a list that is not there is none.
            404 if endpoint.is_of_one_call() => self.well(endpoint, now),
            429 => {
                let reason = format!("{name}: NICE takes no more requests for now (429)");
                self.failed(endpoint, NiceState::Limited, reason, now);
            }
            408 | 425 | 500.. => {
                let reason = format!("{name}: NICE answered {}", status.as_u16());
                self.failed(endpoint, NiceState::Failing, reason, now);
            }
            401 | 403 => {}
            // What is too much at once is asked for in parts, and a refused contact is that call's own.
            _ if endpoint.is_divisible() && matches!(status.as_u16(), 400 | 413 | 414 | 422) => {}
            _ if endpoint.is_of_one_call() || endpoint.is_of_a_session() => {}
            _ => {
                let reason = format!("{name}: NICE answered {}", status.as_u16());
                self.failed(endpoint, NiceState::Failing, reason, now);
            }
        }
    }

    /// Notes that a request was not answered.
    pub(super) fn unanswered(&self, endpoint: Endpoint, why: &str, now: Timestamp) {
        if !endpoint.is_long_poll() {
            let reason = format!("{}: NICE cannot be reached ({why})", endpoint.name());
            self.failed(endpoint, NiceState::Away, reason, now);
        }
    }

    /// Notes that NICE refuses us.
    pub(super) fn refused(&self, endpoint: Endpoint, what: &str, now: Timestamp) {
        self.failed(endpoint, NiceState::Refused, what.to_owned(), now);
    }

    /// NICE has taken a token: what it refused of tokens is over.
    pub(super) fn token_taken(&self, now: Timestamp) {
        if self.lock().failing.contains_key(Endpoint::Token.name()) {
            self.well(Endpoint::Token, now);
        }
    }

    fn well(&self, endpoint: Endpoint, now: Timestamp) {
        let mut answers = self.lock();
        answers.well_at = Some(now);
        answers.failing.remove(endpoint.name());
        if answers.worst(now).is_some() {
            return;
        }
        if let Some(Over { since, count }) = answers.outage.over() {
            let secs = now.duration_since(since).as_secs_f64();
            info!(tenant = self.tenant(), away_secs = secs, count, "NICE answers again");
        }
    }

    fn failed(&self, endpoint: Endpoint, state: NiceState, reason: String, now: Timestamp) {
        let mut answers = self.lock();
        let failure = answers.failing.entry(endpoint.name()).or_insert_with(|| EndpointFailure {
            state,
            since: now,
            at: now,
            count: 0,
            reason: String::new(),
            is_of_one_call: endpoint.is_of_one_call(),
        });
        // One that answers 503 and is silent in turn fails since the first of them.
        (failure.state, failure.at) = (state, now);
        failure.count = failure.count.saturating_add(1);
        failure.reason = reason;
        let Some(worst) = answers.worst(now).filter(|worst| worst.state > NiceState::Limited) else { return };
        let (state, reason, tenant) = (worst.state, worst.reason.clone(), self.tenant());
        let count = match answers.outage.failed(now) {
            Say::Begins => 1,
            Say::GoesOn { count } => count,
            Say::Nothing => return,
        };
        match state {
            NiceState::Refused => {
                error!(tenant, reason, count, "NICE refuses us, a person must look at key, role and licence");
            }
            _ => warn!(tenant, reason, count, "NICE fails; calls wait for it, and none is given up"),
        }
    }

    fn tenant(&self) -> Option<impl tracing::Value> {
        self.tenant.as_ref().map(tracing::field::display)
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What NICE last answered each tenant of the process; clones share it.
#[derive(Debug, Clone, Default)]
pub struct NiceHealthBook {
    tenants: Arc<Mutex<BTreeMap<TenantId, NiceHealth>>>,
}

impl NiceHealthBook {
    /// The tenant's page of it: all its clients write there.
    pub fn of(&self, tenant: &TenantId) -> NiceHealth {
        let mut tenants = self.lock();
        if tenants.len() >= MOST_KEPT && !tenants.contains_key(tenant) {
            tenants.clear();
        }
        tenants.entry(tenant.clone()).or_insert_with(|| NiceHealth::of(tenant.clone())).clone()
    }

    /// What NICE last answered each tenant.
    pub fn reports(&self, now: Timestamp) -> Vec<(TenantId, NiceReport)> {
        self.lock().iter().map(|(tenant, health)| (tenant.clone(), health.report(now))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TenantId, NiceHealth>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
    }

    fn status(status: u16) -> StatusCode {
        StatusCode::from_u16(status).unwrap()
    }

    #[test]
    fn one_failure_says_nothing_and_one_answer_ends_them() {
        let health = NiceHealth::default();
        assert_eq!(health.report(at(0)).state, NiceState::Unasked);
        health.answered(Endpoint::Completed, status(200), at(0));
        health.answered(Endpoint::Completed, status(503), at(1));
        assert_eq!(health.report(at(1)).state, NiceState::Well);
        health.answered(Endpoint::Completed, status(503), at(9));
        let report = health.report(at(9));
        assert_eq!((report.state, report.since, report.well_at), (NiceState::Failing, Some(at(1)), Some(at(0))));
        assert_eq!(report.reason.as_deref(), Some("completed: NICE answered 503"));
        health.answered(Endpoint::Groups, status(200), at(10));
        assert_eq!(health.report(at(10)).state, NiceState::Failing, "another endpoint works");
        assert_eq!(health.report(at(10 + 3600)).state, NiceState::Unasked, "nobody has asked for an hour");
        health.answered(Endpoint::Completed, status(200), at(11));
        assert_eq!(health.report(at(11)).state, NiceState::Well);
    }

    #[test]
    fn the_worst_is_what_a_person_must_mend() {
        let health = NiceHealth::default();
        for seconds in 0..3 {
            health.answered(Endpoint::Contact, status(429), at(seconds));
        }
        assert_eq!(health.report(at(3)).state, NiceState::Limited);
        for seconds in 3..5 {
            health.unanswered(Endpoint::Groups, "connect", at(seconds));
            health.unanswered(Endpoint::SessionEvents, "timeout", at(seconds));
        }
        assert_eq!(health.report(at(5)).state, NiceState::Away);
        health.refused(Endpoint::ContactPlayback, "contact_playback: NICE answered 403", at(6));
        assert_eq!(health.report(at(6)).state, NiceState::Away, "it may be that call's own");
        health.refused(Endpoint::Teams, "teams: NICE answered 403", at(7));
        let report = health.report(at(7));
        assert_eq!((report.state, report.since), (NiceState::Refused, Some(at(7))), "at once");
        health.refused(Endpoint::Token, "token: NICE answered 401", at(8));
        health.token_taken(at(9));
        assert_eq!(health.report(at(9)).reason.as_deref(), Some("teams: NICE answered 403"));
    }

    #[test]
    fn one_that_fails_in_turns_fails() {
        let health = NiceHealth::default();
        health.answered(Endpoint::Completed, status(503), at(1));
        health.unanswered(Endpoint::Completed, "timeout", at(2));
        let report = health.report(at(2));
        assert_eq!((report.state, report.since), (NiceState::Away, Some(at(1))));
        health.answered(Endpoint::Completed, status(404), at(3));
        assert_eq!(health.report(at(3)).state, NiceState::Failing, "the list is gone");
    }

    #[test]
    fn the_clients_of_a_tenant_write_on_one_page() {
        let book = NiceHealthBook::default();
        let tenant: TenantId = "acme".parse().unwrap();
        book.of(&tenant).answered(Endpoint::Contact, status(200), at(1));
        book.of(&tenant).refused(Endpoint::Token, "token: NICE answered 401", at(2));
        let reports = book.reports(at(2));
        assert_eq!(reports.len(), 1);
        assert_eq!((reports[0].1.state, reports[0].1.well_at), (NiceState::Refused, Some(at(1))));
    }
}
