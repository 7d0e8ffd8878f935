//! What a running service says of itself, to the catalog: so that any of them can show all.
//!
//! In: what this process knows without asking anybody. Out: a row that is renewed every few seconds, and goes when the
//! service ends in order. A service that dies leaves its row, which says since when it is silent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use catalog::{CatalogError, Heartbeat, Services};
use flow::metrics::{OUTCOMES, STAGES};
use jiff::Timestamp;
use model::{System, TenantId};
use runtime::{Clock, chance, task};
use serde::{Deserialize, Serialize};
use stages::metrics::Metrics;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::debug;

use crate::systems::{SystemStatus, SystemsView};

/// Time between two words of a service.
const INTERVAL: Duration = Duration::from_secs(10);

/// A service that was silent for longer is missed: four words, and one that comes late.
pub(crate) const MISSED_AFTER: Duration = Duration::from_secs(45);

/// How long the catalog may take to note one.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which service a process runs.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) id: String,
    /// `run`, `producer` or `consumer`.
    pub(crate) service: &'static str,
    /// Whose producer it is.
    pub(crate) tenant: Option<TenantId>,
    pub(crate) host: String,
    pub(crate) started_at: Timestamp,
}

impl Identity {
    /// Of a service that begins now; the tenant is that of its producer.
    pub(crate) fn new(service: &'static str, tenant: Option<TenantId>, now: Timestamp) -> Self {
        let id = format!("{:032x}", chance::random::<u128>());
        Self { id, service, tenant, host: host(), started_at: now }
    }
}

/// The name of this machine.
fn host() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "unnamed machine".to_owned() } else { name.chars().take(253).collect() }
}

/// What a service says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ServiceReport {
    /// Whether its producer works, or why it does not; none where it has none.
    pub(crate) producer: Option<ProducerState>,
    /// Each stage since its start.
    pub(crate) stages: Vec<StageStatus>,
    /// The outside systems as it sees them.
    pub(crate) systems: Vec<SystemStatus>,
    /// Since when its oldest call is due.
    pub(crate) oldest_due: Option<Timestamp>,
    /// What keeps that call, where a system does.
    pub(crate) oldest_waits_for: Option<String>,
    /// When its producer last read NICE's list whole.
    pub(crate) listed_at: Option<Timestamp>,
}

/// One stage since the start of a process; of several processes, the sum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct StageStatus {
    /// Its name.
    pub(crate) stage: String,
    /// Calls that it works on now.
    pub(crate) in_flight: i64,
    /// What became of those before, by outcome.
    pub(crate) outcomes: BTreeMap<String, u64>,
}

impl StageStatus {
    /// Adds what another process's stage has done.
    pub(crate) fn add(&mut self, other: &Self) {
        self.in_flight += other.in_flight;
        for (outcome, count) in &other.outcomes {
            *self.outcomes.entry(outcome.clone()).or_default() += count;
        }
    }
}

/// How a producer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProducerState {
    /// It has the tenant's lease.
    Works,
    /// Another producer has it.
    WaitsForLease,
    /// Nobody knows who has it: the catalog does not answer.
    WaitsForCatalog,
}

impl ProducerState {
    /// In words.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Works => "the producer works",
            Self::WaitsForLease => "the producer waits for the lease: another producer has the tenant",
            Self::WaitsForCatalog => "the producer waits for the catalog, which does not answer and keeps the lease",
        }
    }

    /// By whether it works, and whether the catalog answers.
    pub(crate) fn of(works: bool, outside: &flow::Outside) -> Self {
        match works {
            true => Self::Works,
            false if outside.is_down(System::Catalog) => Self::WaitsForCatalog,
            false => Self::WaitsForLease,
        }
    }
}

/// Knows what a process can say of itself; clones share it.
#[derive(Clone)]
pub(crate) struct Reporter {
    pub(crate) systems: SystemsView,
    pub(crate) metrics: Metrics,
    /// Whether the producer has its turn; none where the process has none.
    pub(crate) producing: Option<watch::Receiver<bool>>,
    pub(crate) clock: Clock,
}

impl Reporter {
    /// What it says now.
    pub(crate) fn report(&self) -> ServiceReport {
        let now = self.clock.now();
        let oldest = self.systems.freshness.oldest(now);
        let listed_at = self.metrics.poll_last_listing.get();
        ServiceReport {
            producer: self.producing.as_ref().map(|works| ProducerState::of(*works.borrow(), &self.systems.outside)),
            stages: STAGES.iter().map(|stage| self.stage(stage)).collect(),
            systems: self.systems.list(),
            oldest_due: oldest.map(|oldest| oldest.since),
            oldest_waits_for: oldest.and_then(|oldest| oldest.waits_for).map(|system| system.as_str().to_owned()),
            listed_at: (listed_at > 0.0).then(|| Timestamp::from_millisecond((listed_at * 1e3) as i64).ok()).flatten(),
        }
    }

    fn stage(&self, stage: &'static str) -> StageStatus {
        let flow = &self.metrics.flow;
        let count = |outcome: &str| flow.stage_items.with_label_values(&[stage, outcome]).get();
        StageStatus {
            stage: stage.to_owned(),
            in_flight: flow.stage_in_flight.with_label_values(&[stage]).get(),
            outcomes: OUTCOMES.iter().map(|outcome| ((*outcome).to_owned(), count(outcome))).collect(),
        }
    }
}

/// Tells the catalog again and again that the service lives. It ends with this.
#[must_use = "the service is silent once it is dropped"]
pub(crate) struct Telling {
    id: String,
    catalog: Arc<dyn Services>,
    ending: CancellationToken,
    task: AbortOnDropHandle<()>,
}

/// How long the end of a service waits for the word under way, and as long again for the catalog to note the end.
const LAST_WORD: Duration = Duration::from_secs(1);

impl Telling {
    /// Begins.
    pub(crate) fn begin(identity: Identity, reporter: Reporter, catalog: Arc<dyn Services>) -> Self {
        let (id, ending) = (identity.id.clone(), CancellationToken::new());
        let task = task::spawn("heartbeat", run(identity, reporter, catalog.clone(), ending.clone()));
        Self { id, catalog, ending, task }
    }

    /// The service ends in order: nobody shall miss it. The word under way is waited for: were it the first one, it might
    /// make the row after the last one has removed it. Where it hangs, the last one is said all the same.
    pub(crate) async fn end(self) {
        let Self { id, catalog, ending, task } = self;
        ending.cancel();
        drop(tokio::time::timeout(LAST_WORD, task).await);
        match tokio::time::timeout(LAST_WORD, catalog.retire(&id)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "the end of the service was not noted"),
            Err(_) => debug!("the end of the service was not noted in time"),
        }
    }
}

async fn run(identity: Identity, reporter: Reporter, catalog: Arc<dyn Services>, ending: CancellationToken) {
    let mut is_noted = false;
    while !ending.is_cancelled() {
        if !reporter.systems.outside.is_down(System::Catalog) {
            tell(&identity, &reporter, &*catalog, &mut is_noted).await;
        }
        ending.run_until_cancelled(tokio::time::sleep(INTERVAL)).await;
    }
}

async fn tell(identity: &Identity, reporter: &Reporter, catalog: &dyn Services, is_noted: &mut bool) {
    let report = match serde_json::to_value(reporter.report()) {
        Ok(report) => report,
        Err(error) => return debug!(%error, "the service cannot say how it stands"),
    };
    let beat = Heartbeat {
        id: identity.id.clone(),
        service: identity.service.to_owned(),
        tenant: identity.tenant.clone(),
        host: identity.host.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: identity.started_at,
        report,
    };
    let noting = async {
        let now = reporter.clock.now();
        // Only the first word makes a row, and the first one after a day of silence: a later one that is noted when the
        // service has retired finds none.
        if !(*is_noted && catalog.beat(&beat, now).await?) {
            catalog.enlist(&beat, now).await?;
        }
        *is_noted = true;
        Ok::<_, CatalogError>(())
    };
    // One that is missed is told again soon, and what watches the catalog says that it is away.
    match tokio::time::timeout(PATIENCE, noting).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "the catalog has not noted that the service lives"),
        Err(_) => debug!("the catalog has not noted in time that the service lives"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use async_trait::async_trait;
    use catalog::KnownService;
    use flow::{Blame, FlowMetrics, Freshness, Outside};
    use nice::NiceHealthBook;
    use tokio::sync::{Notify, Semaphore};

    use super::*;

    /// Notes a word when it is allowed to, also where its asker has gone away: as a server does.
    #[derive(Clone)]
    struct SlowServices {
        noted: Arc<Mutex<BTreeSet<String>>>,
        asked: Arc<Notify>,
        allowed: Arc<Semaphore>,
    }

    impl SlowServices {
        async fn note(&self, id: String, is_first: bool) -> bool {
            let this = self.clone();
            self.asked.notify_one();
            let server = task::spawn("server", async move {
                this.allowed.acquire().await.unwrap().forget();
                let mut noted = this.noted.lock().unwrap();
                is_first && noted.insert(id.clone()) || noted.contains(&id)
            });
            server.detach().await.unwrap()
        }
    }

    #[async_trait]
    impl Services for SlowServices {
        async fn enlist(&self, beat: &Heartbeat, _: Timestamp) -> Result<(), CatalogError> {
            self.note(beat.id.clone(), true).await;
            Ok(())
        }

        async fn beat(&self, beat: &Heartbeat, _: Timestamp) -> Result<bool, CatalogError> {
            Ok(self.note(beat.id.clone(), false).await)
        }

        async fn services(&self, _: Timestamp, _: usize) -> Result<Vec<KnownService>, CatalogError> {
            Ok(Vec::new())
        }

        async fn retire(&self, id: &str) -> Result<(), CatalogError> {
            self.noted.lock().unwrap().remove(id);
            Ok(())
        }
    }

    fn reporter() -> Reporter {
        let (metrics, clock) = (Metrics::new(), Clock::fixed("2026-04-01T12:00:00Z".parse().unwrap()));
        let systems = SystemsView {
            outside: Outside::new(clock.clone()),
            blame: Blame::new(FlowMetrics::default()),
            freshness: Freshness::default(),
            nice: NiceHealthBook::default(),
            on_server: Vec::new(),
            tenant: None,
            clock: clock.clone(),
        };
        Reporter { systems, metrics, producing: None, clock }
    }

    /// Services that note so many words, and a consumer that begins.
    fn begin(allowed: usize) -> (SlowServices, Identity) {
        let allowed = Arc::new(Semaphore::new(allowed));
        let services = SlowServices { noted: Arc::default(), asked: Arc::default(), allowed };
        (services, Identity::new("consumer", None, reporter().clock.now()))
    }

    #[tokio::test]
    async fn a_word_under_way_at_the_end_is_not_noted_after_it() {
        let (services, identity) = begin(0);
        let telling = Telling::begin(identity, reporter(), Arc::new(services.clone()));
        services.asked.notified().await;
        let mut ending = Box::pin(telling.end());
        assert!(futures::poll!(&mut ending).is_pending(), "its first word may still be noted");
        services.allowed.add_permits(1);
        ending.await;
        assert_eq!(services.allowed.available_permits(), 0, "the word was noted");
        assert!(services.noted.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_word_that_is_noted_after_the_end_brings_nobody_back() {
        let (services, identity) = begin(1);
        let (reporter, mut is_noted) = (reporter(), false);
        tell(&identity, &reporter, &services, &mut is_noted).await;
        assert_eq!(services.noted.lock().unwrap().len(), 1);
        // It stands still for so long that it is given up.
        let mut given_up = Box::pin(tell(&identity, &reporter, &services, &mut is_noted));
        assert!(futures::poll!(&mut given_up).is_pending());
        drop(given_up);
        services.retire(&identity.id).await.unwrap();
        services.allowed.add_permits(1);
        while services.allowed.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(services.noted.lock().unwrap().is_empty());
    }
}
