//! How each outside system stands, in words: well, or since when it is not, why, how many calls wait, and what to do.
//!
//! Nothing is asked here. All of it is known already: from what watches the systems that every call needs, from what NICE
//! last answered, and from what became of calls lately.

use std::collections::BTreeMap;

use flow::{Blame, Freshness, Outside, blame::FailingStage, outside::SystemHealth};
use jiff::Timestamp;
use model::{System, TenantId};
use nice::{NiceHealthBook, NiceReport, NiceState};
use runtime::Clock;
use serde::{Deserialize, Serialize};

/// Tenants in trouble that are named; a consumer may serve a thousand, and one cause may trouble all of them.
const MOST_NAMED: usize = 50;

/// What tells of the systems; clones share it.
#[derive(Clone)]
pub(crate) struct SystemsView {
    pub(crate) outside: Outside,
    pub(crate) blame: Blame,
    pub(crate) freshness: Freshness,
    pub(crate) nice: NiceHealthBook,
    /// Those of the systems that every call needs that are on a server.
    pub(crate) on_server: Vec<System>,
    /// Whose producer the process is.
    pub(crate) tenant: Option<TenantId>,
    pub(crate) clock: Clock,
}

/// How an outside system stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct SystemStatus {
    /// `catalog`, `queue`, `recording_store`, `nice` or `media_host`.
    pub(crate) system: String,
    /// Whose NICE, or host of recordings; none where every tenant needs the system.
    #[schema(value_type = Option<String>)]
    pub(crate) tenant: Option<TenantId>,
    /// One word for it.
    pub(crate) state: SystemState,
    /// Since when it is not well.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) since: Option<Timestamp>,
    /// Why.
    pub(crate) reason: Option<String>,
    /// How many calls this process has put off for it.
    pub(crate) waiting: u64,
    /// When it last answered as it should, as far as that is noted.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) well_at: Option<Timestamp>,
    /// What to do.
    pub(crate) remedy: Option<String>,
}

/// One word for how a system stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SystemState {
    /// It is a part of this process.
    BuiltIn,
    /// Nothing was asked of it yet.
    Unasked,
    /// It works.
    Well,
    /// It takes no more requests for now.
    Limited,
    /// It answers, and fails for many calls.
    Failing,
    /// It does not answer.
    Away,
    /// It refuses us.
    Refused,
}

impl SystemState {
    /// The word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::BuiltIn => "built in",
            Self::Well => "well",
            Self::Unasked => "not asked yet",
            Self::Limited => "limited",
            Self::Failing => "failing",
            Self::Away => "away",
            Self::Refused => "refuses us",
        }
    }

    /// Whether calls wait for it, and come no further.
    pub(crate) fn is_away(self) -> bool {
        matches!(self, Self::Failing | Self::Away | Self::Refused)
    }
}

impl SystemsView {
    /// Every system: first those that all calls need, then NICE and the hosts of recordings of the tenants.
    pub(crate) fn list(&self) -> Vec<SystemStatus> {
        let now = self.clock.now();
        let (put_off, failing) = (self.freshness.waiting(now), self.blame.failing(now));
        let health: BTreeMap<System, SystemHealth> = self.outside.health().into_iter().collect();
        let shared = [System::Catalog, System::Queue, System::RecordingStore].into_iter().map(|system| {
            let put_off = put_off.iter().filter(|((of, _), _)| *of == system).map(|(_, count)| count);
            let waiting = put_off.sum::<u64>() + self.outside.waiting(system);
            let fails = failing.iter().find(|failing| failing.system == system);
            let (state, since, reason) = match health.get(&system) {
                Some(SystemHealth::Down { since, why }) => (SystemState::Away, Some(*since), Some(why.clone())),
                _ => match fails {
                    Some(fails) => (SystemState::Failing, Some(fails.since), Some(fails.said())),
                    None if !self.on_server.contains(&system) => (SystemState::BuiltIn, None, None),
                    // A command does not watch it.
                    None if health.contains_key(&system) => (SystemState::Well, None, None),
                    None => (SystemState::Unasked, None, None),
                },
            };
            SystemStatus::of(system, None, state).since(since, reason).waiting(waiting)
        });
        let mut systems: Vec<_> = shared.collect();
        systems.extend(self.of_tenants(&failing, &put_off, now));
        systems
    }

    /// NICE and the hosts of recordings: of this process's own tenant, and of those that are in trouble.
    fn of_tenants(
        &self,
        failing: &[FailingStage],
        put_off: &BTreeMap<(System, TenantId), u64>,
        now: Timestamp,
    ) -> Vec<SystemStatus> {
        let mut tenants: BTreeMap<TenantId, NiceReport> = self.nice.reports(now).into_iter().collect();
        if let Some(own) = &self.tenant {
            tenants.entry(own.clone()).or_insert_with(NiceReport::unasked);
        }
        let is_one = tenants.len() == 1;
        let is_shown = |status: &SystemStatus| is_one || self.tenant == status.tenant || status.state.is_troubled();
        let count = |system, tenant: &TenantId| put_off.get(&(system, tenant.clone())).copied().unwrap_or_default();
        let nice = tenants.into_iter().map(|(tenant, report)| {
            let fails = failing.iter().find(|failing| failing.system == System::Nice && failing.tenant == tenant);
            let (state, since, reason) = match (state_of(report.state), fails) {
                (SystemState::Well | SystemState::Unasked, Some(fails)) => {
                    (SystemState::Failing, Some(fails.since), Some(fails.said()))
                }
                (state, _) => (state, report.since, report.reason),
            };
            let waiting = count(System::Nice, &tenant);
            let status = SystemStatus::of(System::Nice, Some(tenant), state).since(since, reason);
            SystemStatus { well_at: report.well_at, waiting, ..status }
        });
        let hosts = failing.iter().filter(|failing| failing.system == System::MediaHost).map(|failing| {
            let status = SystemStatus::of(System::MediaHost, Some(failing.tenant.clone()), SystemState::Failing);
            status.since(Some(failing.since), Some(failing.said())).waiting(count(System::MediaHost, &failing.tenant))
        });
        nice.filter(is_shown).take(MOST_NAMED).chain(hosts.take(MOST_NAMED)).collect()
    }
}

impl SystemState {
    fn is_troubled(self) -> bool {
        self.is_away() || self == Self::Limited
    }
}

impl SystemStatus {
    /// A system of this state, about which nothing more is known.
    pub(crate) fn of(system: System, tenant: Option<TenantId>, state: SystemState) -> Self {
        Self {
            system: system.as_str().to_owned(),
            tenant,
            state,
            since: None,
            reason: None,
            waiting: 0,
            well_at: None,
            remedy: None,
        }
    }

    /// The same with since when and why, and the remedy for that.
    pub(crate) fn since(self, since: Option<Timestamp>, reason: Option<String>) -> Self {
        let system = self.system.parse().unwrap_or(System::Call);
        let remedy = remedy(system, self.state, reason.as_deref().unwrap_or_default()).map(str::to_owned);
        Self { since, reason, remedy, ..self }
    }

    fn waiting(self, waiting: u64) -> Self {
        Self { waiting, ..self }
    }

    /// Its name for a person: that of the system, and of the tenant where there may be several.
    pub(crate) fn name(&self) -> String {
        match &self.tenant {
            Some(tenant) => format!("{} of {tenant}", self.system.replace('_', " ")),
            None => self.system.replace('_', " "),
        }
    }
}

fn state_of(state: NiceState) -> SystemState {
    match state {
        NiceState::Unasked => SystemState::Unasked,
        NiceState::Well => SystemState::Well,
        NiceState::Limited => SystemState::Limited,
        NiceState::Failing => SystemState::Failing,
        NiceState::Away => SystemState::Away,
        NiceState::Refused => SystemState::Refused,
    }
}

/// What to do about a system that stands like this; none where nothing is to be done.
pub(crate) fn remedy(system: System, state: SystemState, reason: &str) -> Option<&'static str> {
    let says = |words: &[&str]| words.iter().any(|word| reason.to_ascii_lowercase().contains(word));
    let is_login = says(&["password", "authentication", "login", "credential", "access key", "accessdenied", "403"]);
    Some(match (system, state) {
        (_, SystemState::BuiltIn | SystemState::Well | SystemState::Unasked) => return None,
        (System::Catalog, _) if is_login => "correct user and password in [catalog] url, then restart",
        (System::Catalog, SystemState::Failing) => "look at PostgreSQL's disk and at the rights of our user",
        (System::Catalog, _) => "start PostgreSQL, or mend the way to [catalog] url; calls then go on by themselves",
        (System::Queue, _) if is_login => "correct user and password in [queue] url, then restart",
        (System::Queue, _) if says(&["alarm", "blocked"]) => "free memory or disk of the broker",
        (System::Queue, _) => "start the broker, or mend the way to it; calls then go on by themselves",
        (System::RecordingStore, _) if is_login => "correct key and secret of [recordings], or the rights of the key",
        (System::RecordingStore, SystemState::Failing) => "look at the store's disk, and at the rights of our key",
        (System::RecordingStore, _) => "start the store, or mend the way to [recordings] endpoint",
        (System::Nice, SystemState::Refused) => {
            "look at key, role and licence in NICE; set a new key with `nice-knovvu settings set`"
        }
        (System::Nice, SystemState::Limited) => {
            "nothing: the pace rises again by itself; if it lasts, lower [limits] or ask NICE for more"
        }
        (System::Nice, SystemState::Away) => "look at DNS, firewall and proxy here, then at NICE's status page",
        (System::Nice, _) => "look at NICE's status page; calls go on by themselves when it works again",
        (System::MediaHost, _) if says(&["private_media_hosts"]) => "set what the reason names",
        (System::MediaHost, _) => "look at DNS, firewall and proxy for this host; calls then go on by themselves",
        (System::Call, _) => return None,
    })
}

#[cfg(test)]
mod tests {
    use flow::{FlowMetrics, blame::Failure};
    use jiff::SignedDuration;
    use model::{ContactId, ConversationKey};

    use super::*;

    fn view() -> SystemsView {
        let clock = Clock::fixed("2026-04-01T12:00:00Z".parse().unwrap());
        SystemsView {
            outside: Outside::new(clock.clone()),
            blame: Blame::new(FlowMetrics::default()),
            freshness: Freshness::default(),
            nice: NiceHealthBook::default(),
            on_server: vec![System::Catalog],
            tenant: Some("acme".parse().unwrap()),
            clock,
        }
    }

    #[test]
    fn a_process_that_knows_nothing_yet_says_so() {
        let told: Vec<_> = view().list().into_iter().map(|status| (status.name(), status.state)).collect();
        let expected = [
            ("catalog", SystemState::Unasked),
            ("queue", SystemState::BuiltIn),
            ("recording store", SystemState::BuiltIn),
            ("nice of acme", SystemState::Unasked),
        ];
        assert_eq!(told, expected.map(|(name, state)| (name.to_owned(), state)));
    }

    #[test]
    fn what_fails_for_many_is_named_with_its_reason_and_a_remedy() {
        let view = view();
        let now = view.clock.now();
        for (system, stage) in [(System::RecordingStore, "upload"), (System::MediaHost, "download_recording")] {
            for id in 1..=4 {
                let tenant = "other".parse().unwrap();
                let key = ConversationKey { tenant, external_id: ContactId::from_number(id).unwrap() };
                let failure = Failure { system, reason: "disk full", before: None };
                view.blame.failed(stage, &key, failure, now - SignedDuration::from_secs(60));
            }
        }
        let systems = view.list();
        let of = |name: &str| systems.iter().find(|status| status.name() == name).unwrap();
        let store = of("recording store");
        assert_eq!((store.state, store.since), (SystemState::Failing, Some(now - SignedDuration::from_secs(60))));
        assert!(store.reason.as_deref().unwrap().contains("disk full") && store.remedy.is_some(), "{store:?}");
        assert_eq!(of("media host of other").state, SystemState::Failing);
    }

    #[test]
    fn whatever_is_in_trouble_has_a_remedy() {
        let systems = [System::Catalog, System::Queue, System::RecordingStore, System::Nice, System::MediaHost];
        let states = [SystemState::Limited, SystemState::Failing, SystemState::Away, SystemState::Refused];
        for (system, state) in systems.iter().flat_map(|system| states.map(|state| (*system, state))) {
            assert!(remedy(system, state, "").is_some(), "{system} {state:?}");
        }
    }
}
