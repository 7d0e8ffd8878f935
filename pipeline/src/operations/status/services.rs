//! The services of an installation: this one, and the others by their heartbeats.

use std::time::Duration;

use catalog::KnownService;
use jiff::Timestamp;
use model::TenantId;
use serde::{Deserialize, Serialize};

use super::{Status, Verdict};
use crate::heartbeat::{Identity, MISSED_AFTER, ProducerState, ServiceReport, StageStatus};
use crate::systems::SystemStatus;

/// A service, and how it stands.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct ServiceStatus {
    /// `run`, `producer` or `consumer`.
    pub(crate) service: String,
    /// Whose producer it is.
    #[schema(value_type = Option<String>)]
    pub(crate) tenant: Option<TenantId>,
    /// The machine that it runs on.
    pub(crate) host: String,
    /// Its version.
    pub(crate) version: String,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) started_at: Timestamp,
    /// For how long nothing was heard of it.
    pub(crate) silent_seconds: f64,
    /// It is missed: it neither ended in order nor says anything.
    pub(crate) is_missed: bool,
    /// Whether its producer works; none where it has none.
    pub(crate) producer: Option<ProducerState>,
    /// Calls that it works on.
    pub(crate) in_flight: i64,
    /// Conversations that it has made ready.
    pub(crate) made_ready: u64,
}

impl ServiceStatus {
    fn in_flight(stages: &[StageStatus]) -> i64 {
        stages.iter().map(|stage| stage.in_flight).sum()
    }

    fn made_ready(stages: &[StageStatus]) -> u64 {
        let upload = stages.iter().find(|stage| stage.stage == "upload");
        upload.and_then(|stage| stage.outcomes.get("ok")).copied().unwrap_or_default()
    }

    /// Who and where, for a person.
    pub(crate) fn name(&self) -> String {
        match &self.tenant {
            Some(tenant) => format!("{} of {tenant} on {}", self.service, self.host),
            None => format!("{} on {}", self.service, self.host),
        }
    }

    /// Whether it takes calls off the queue.
    fn consumes(&self) -> bool {
        self.service != "producer"
    }
}

/// The other services of the installation.
pub(super) struct Others {
    /// None where nobody could be asked.
    known: Option<Vec<(KnownService, Option<ServiceReport>)>>,
}

impl Others {
    /// All but the one that has this identity, of what was read `age` ago.
    pub(super) fn of(known: Option<&Vec<KnownService>>, age: Duration, own: Option<&Identity>) -> Self {
        let is_own = |service: &KnownService| own.is_some_and(|own| own.id == service.beat.id);
        // Where even this process could not tell of itself, the catalog is just back: the others will tell in a moment.
        let is_unheard = known.is_some_and(|known| {
            known.iter().find(|service| is_own(service)).is_some_and(|service| service.silent_for >= MISSED_AFTER / 2)
        });
        let silent_for = |service: &KnownService| match is_unheard {
            true => (service.silent_for + age).min(MISSED_AFTER / 2),
            false => service.silent_for + age,
        };
        let others = known.map(|known| {
            // A later version's report may be another: then its row still says that it lives.
            let read = |service: &KnownService| {
                let service = KnownService { silent_for: silent_for(service), ..service.clone() };
                let report = serde_json::from_value(service.beat.report.clone()).ok();
                (service, report)
            };
            known.iter().filter(|service| !is_own(service)).map(read).collect()
        });
        Self { known: others }
    }

    fn iter(&self) -> impl Iterator<Item = &(KnownService, Option<ServiceReport>)> {
        self.known.iter().flatten()
    }

    /// What those say that were heard of just now.
    pub(super) fn alive(&self) -> impl Iterator<Item = &ServiceReport> + Clone {
        let known = self.known.iter().flatten();
        known.filter(|(service, _)| service.silent_for < MISSED_AFTER).filter_map(|(_, report)| report.as_ref())
    }

    /// What the producers of a tenant say; of all tenants, where none is named.
    pub(super) fn producers_of(&self, tenant: Option<&TenantId>) -> impl Iterator<Item = &ServiceReport> {
        let known = self.iter().filter(move |(service, _)| tenant.is_none() || service.beat.tenant.as_ref() == tenant);
        known.filter(|(service, _)| service.silent_for < MISSED_AFTER).filter_map(|(_, report)| report.as_ref())
    }

    /// Whether somebody reads the queue who would know of calls that are due.
    pub(super) fn knows_of_calls(&self, own: Option<&Identity>, report: &ServiceReport) -> bool {
        let needed = report.systems.iter().filter(|system| ["queue", "catalog"].contains(&system.system.as_str()));
        let is_away = needed.into_iter().any(|system| system.state.is_away());
        let mut others = self.iter().filter(|(service, _)| service.silent_for < MISSED_AFTER);
        let consumes = own.is_some_and(|own| own.service != "producer")
            || others.any(|(service, _)| service.beat.service != "producer");
        consumes && self.known.is_some() && !is_away
    }

    /// The systems as this process sees them, or another one that sees them worse.
    pub(super) fn systems(&self, own: Vec<SystemStatus>) -> Vec<SystemStatus> {
        let mut all = own;
        for other in self.alive().flat_map(|report| &report.systems) {
            match all.iter_mut().find(|one| one.system == other.system && one.tenant == other.tenant) {
                Some(one) => {
                    let waiting = one.waiting + other.waiting;
                    let well_at = one.well_at.max(other.well_at);
                    if other.state > one.state {
                        *one = other.clone();
                    }
                    (one.waiting, one.well_at) = (waiting, well_at);
                }
                None => all.push(other.clone()),
            }
        }
        all
    }

    /// The stages of this process and of those that were heard of just now, added up.
    pub(super) fn stages(&self, own: Vec<StageStatus>) -> Vec<StageStatus> {
        let mut all = own;
        for other in self.alive().flat_map(|report| &report.stages) {
            if let Some(stage) = all.iter_mut().find(|stage| stage.stage == other.stage) {
                stage.add(other);
            }
        }
        all
    }

    /// This service first, then the others; of those that are missed, only the ones that nothing has replaced.
    pub(super) fn services(&self, own: Option<&Identity>, report: &ServiceReport) -> Vec<ServiceStatus> {
        let here = own.map(|identity| ServiceStatus {
            service: identity.service.to_owned(),
            tenant: identity.tenant.clone(),
            host: identity.host.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: identity.started_at,
            silent_seconds: 0.0,
            is_missed: false,
            producer: report.producer,
            in_flight: ServiceStatus::in_flight(&report.stages),
            made_ready: ServiceStatus::made_ready(&report.stages),
        });
        let others = self.iter().map(|(service, report)| {
            let stages = report.as_ref().map(|report| report.stages.as_slice()).unwrap_or_default();
            let KnownService { beat, silent_for } = service;
            ServiceStatus {
                service: beat.service.clone(),
                tenant: beat.tenant.clone(),
                host: beat.host.clone(),
                version: beat.version.clone(),
                started_at: beat.started_at,
                silent_seconds: silent_for.as_secs_f64(),
                is_missed: *silent_for >= MISSED_AFTER,
                producer: report.as_ref().and_then(|report| report.producer),
                in_flight: ServiceStatus::in_flight(stages),
                made_ready: ServiceStatus::made_ready(stages),
            }
        });
        let mut all: Vec<_> = here.into_iter().chain(others).collect();
        let begun: Vec<_> = all.iter().map(|one| (one.name(), one.started_at)).collect();
        all.retain(|one| {
            let replaced = begun.iter().any(|(name, at)| *name == one.name() && *at > one.started_at);
            !(one.is_missed && replaced)
        });
        all
    }
}

/// One that was silent for longer was taken away by somebody, or another has its work.
const TOLD_FOR: f64 = 3600.0;

/// Whether the services that calls need are there.
pub(super) fn judge(status: &Status, concern: &mut impl FnMut(Verdict, String)) {
    // Who could not ask knows nothing of the others.
    let is_known = !status.not_asked.iter().any(|name| name == "services");
    let alive = || status.services.iter().filter(|service| !service.is_missed);
    if is_known && status.services.is_empty() {
        return concern(Verdict::Away, "no service runs, and no call is found: start it".to_owned());
    }
    if is_known && !alive().any(ServiceStatus::consumes) {
        concern(
            Verdict::Away,
            "no consumer runs, and calls wait on the queue: start `nice-knovvu consumer`".to_owned(),
        );
    }
    if let (true, Some(tenant)) = (is_known, &status.tenant) {
        let producers = || alive().filter(|service| service.tenant.as_ref() == Some(tenant));
        // A later version may tell of itself in other words: then it is taken at its row.
        let works = |service: &ServiceStatus| !matches!(service.producer, Some(ProducerState::WaitsForLease));
        if producers().next().is_some() && !producers().any(works) {
            let text = format!("no producer of {tenant} has its turn: the log of one says who keeps the lease");
            concern(Verdict::Away, text);
        } else if producers().next().is_none() {
            concern(
                Verdict::Away,
                format!("no producer of {tenant} runs, and no call is found: start `nice-knovvu producer`"),
            );
        }
    }
    let is_told = |service: &&ServiceStatus| service.is_missed && service.silent_seconds < TOLD_FOR;
    for service in status.services.iter().filter(is_told) {
        let silent = super::text::span(service.silent_seconds);
        concern(Verdict::Degraded, format!("{} is silent for {silent}: look at its machine and log", service.name()));
    }
}
