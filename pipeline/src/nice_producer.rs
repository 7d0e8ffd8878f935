//! Nice Producer: finds conversations that ended, and puts each on the queue once.
//!
//! ```text
//!   poll ────────────┐
//!   webhook ─────────┤
//!   agent sessions ──┼─► dedupe ─► enqueue ─► (claim committed, source told)
//!   replay ──────────┘
//! ```
//!
//! # Turns
//! One producer of a tenant works at a time: the one that holds the tenant's lease. A second one waits, visibly, and
//! takes over: it begins a turn in the catalog, goes on where the one before stood, and asks the catalog about calls
//! that the one before may have found. Between the loss of a lease and its discovery two may work: what the former
//! one writes to the catalog is refused, which ends its turn; conversations that both enqueue have one effect.

use std::sync::Arc;
use std::time::Duration;

use backoff::backoff::Backoff;
use catalog::ProducerTurn;
use flow::FlowExt;
use futures::stream::{BoxStream, SelectAll, StreamExt};
use model::System;
use queue::Queue;
use quota::Rate;
use runtime::task;
use stages::{
    Context,
    dedupe::{Foreign, dedupe_after},
    enqueue::Enqueue,
    source::{
        FoundEvent, agent_sessions, agent_sessions::AgentSessions, poll, poll::Poll, replay::ReplayWorker,
        roster::Roster, webhook,
    },
    sync_agents::SyncAgents,
};
use state::{Inbox, ProcessedLog};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::command_error::CommandError;
use crate::config::Config;
use crate::doors;
use crate::doors::OpenDoors;
use crate::lease::{Lease, LeaseGuard};
use crate::proof::night::NightlyProof;
use crate::replays::Replays;
use crate::turns::{Begun, Turns};

/// What the service needs.
pub(crate) struct NiceProducer {
    /// The right to be the tenant's producer.
    pub(crate) lease: Lease,
    /// What the tenant's producers know together.
    pub(crate) turns: Turns,
    /// Keeps the agents up to date.
    pub(crate) sync: Arc<SyncAgents>,
    /// How often it reads the group.
    pub(crate) sync_interval: Duration,
    /// The poll of completed contacts, unless it is switched off.
    pub(crate) poll: Option<Poll>,
    /// The listeners to the agents' sessions, if they are switched on.
    pub(crate) agent_sessions: Option<AgentSessions>,
    /// What the webhook receiver has taken, if it is switched on or was.
    pub(crate) inbox: Inbox,
    /// The nightly comparison and backfills, of which each turn works on a copy.
    pub(crate) replays: Replays,
    /// The dedupe's memory.
    pub(crate) processed: ProcessedLog,
    /// How far that memory reaches.
    pub(crate) retention: Duration,
    /// The queue.
    pub(crate) queue: Arc<dyn Queue>,
    /// A call that ended longer ago goes behind fresh ones.
    pub(crate) fresh: Duration,
    /// How long a turn that is over may finish what it holds.
    pub(crate) grace: Duration,
    /// Set during a turn.
    pub(crate) working: watch::Sender<bool>,
    /// The machinery.
    pub(crate) context: Context,
}

/// The time between two joins of agents' sessions: half of the budget is the poll's and the agent sync's.
fn join_interval(acd: Rate) -> Duration {
    2 * acd.window / acd.limit.max(1)
}

/// Events of replays on their way to the dedupe.
const REPLAY_BOUND: usize = 256;

/// Which sources a producer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sources {
    /// All that the settings name.
    All,
    /// Replays alone: of a command that does one piece of work where no daemon runs.
    Replays,
}

impl NiceProducer {
    /// The producer of the settings' tenant on opened doors.
    pub(crate) fn new(
        config: &Config,
        doors: &OpenDoors,
        context: &Context,
        sources: Sources,
    ) -> Result<Self, CommandError> {
        let state = doors.state()?;
        let tenant = doors::tenant(config)?;
        let turns = doors.turns(config)?;
        let (roster, roster_reader) = watch::channel(Roster::default());
        let has_poll = config.events.poll && sources == Sources::All;
        let poll = has_poll.then(|| Poll {
            tenants: doors.nice.producer.clone(),
            tenant: tenant.clone(),
            watermark: turns.poll().clone(),
            roster: roster_reader.clone(),
            interval: config.events.poll_interval,
            overlap: config.events.poll_overlap,
            import_since: config.events.import_since,
            recovery_window: doors::recovery_window(config),
            context: context.clone(),
        });
        let replays = Replays {
            replay: ReplayWorker {
                tenants: doors.nice.producer.clone(),
                roster: roster_reader.clone(),
                compare: doors.compare(config),
                processed: state.processed().clone(),
                retention: config.state.retention,
                queue: doors.shared.queue.clone(),
                // A command on embedded doors is alone with them.
                has_consumers: sources == Sources::All || doors.shared.on_server.contains(&System::Catalog),
                longest_call: config.reconciliation.longest_call,
                // Each turn has its own.
                found: mpsc::channel(1).0,
                context: context.clone(),
            },
            tenant: tenant.clone(),
            nightly: (sources == Sources::All).then(|| doors::nightly(config)),
            recovery_window: doors::recovery_window(config),
            proof: if sources == Sources::All { NightlyProof::of(&config.proof)? } else { None },
            wake: doors.wake.clone(),
        };
        let listens = config.events.agent_sessions && sources == Sources::All;
        let agent_sessions = listens.then(|| AgentSessions {
            tenants: doors.nice.producer.clone(),
            tenant: tenant.clone(),
            roster: roster_reader,
            join_interval: join_interval(config.limits.acd),
            most: agent_sessions::most_listeners(),
            waits: agent_sessions::Waits::default(),
            context: context.clone(),
        });
        Ok(Self {
            lease: doors.lease(&tenant),
            sync: Arc::new(doors.sync_agents(config, &turns, roster)),
            turns,
            sync_interval: config.agents.sync_interval,
            poll,
            agent_sessions,
            inbox: state.inbox().clone(),
            replays,
            processed: state.processed().clone(),
            retention: config.state.retention,
            queue: doors.shared.queue.clone(),
            fresh: config.events.fresh,
            grace: config.flow.grace,
            working: watch::Sender::new(false),
            context: context.clone(),
        })
    }

    /// Works in turns until the service drains and everything under way is settled. Ends earlier only if the agent
    /// sync or the flow does: the flow must not go on with old agents, nor the lease be held without a flow.
    pub(crate) async fn run(self) {
        let stopping = self.context.flow.stopping.clone();
        while let Some(held) = stopping.run_until_cancelled(self.lease.hold()).await {
            self.context.metrics.producer_lease_held.set(1);
            let Some(begun) = self.begin(&held).await else {
                self.context.metrics.producer_lease_held.set(0);
                continue;
            };
            let turn = stopping.child_token();
            let mut context = self.context.clone().with_catalog(self.turns.catalog_of(&begun.turn));
            context.flow.stopping = turn.clone();
            self.sync.forget();
            let agents = self.agents(&turn);
            let (replayed, replays) = self.replays(&context);
            let mut flow = self.flow(replayed, &begun, &context);
            self.working.send_replace(true);
            let ended_alone = tokio::select! {
                biased;
                () = stopping.cancelled() => false,
                () = held.lost() => false,
                () = self.refused(&begun.turn) => false,
                _ = agents => true,
                _ = replays => true,
                _ = &mut flow => true,
            };
            self.working.send_replace(false);
            turn.cancel();
            let ended = flow.is_finished() || tokio::time::timeout(self.grace, flow).await.is_ok();
            if !ended && !stopping.is_cancelled() {
                warn!("the flow did not end within the grace period, its calls will be found again");
            }
            self.context.metrics.producer_lease_held.set(0);
            if ended_alone || stopping.is_cancelled() {
                return;
            }
            warn!("the turn is over, another producer may take over");
        }
    }

    /// Begins a turn in the catalog, as long as it takes; none if the lease is lost or the service drains before.
    async fn begin(&self, held: &LeaseGuard) -> Option<Begun> {
        let begun = tokio::select! {
            biased;
            // Also while the catalog is asked and does not answer.
            () = self.context.flow.stopping.cancelled() => return None,
            () = held.lost() => return None,
            begun = self.context.flow.insist("the turn does not begin", || self.turns.begin()) => begun?,
        };
        if let Some(at) = self.turns.poll().get() {
            self.context.metrics.poll_watermark.set(at.as_millisecond() as f64 / 1e3);
        }
        Some(begun)
    }

    /// Resolves once the catalog has refused what this turn writes.
    async fn refused(&self, turn: &ProducerTurn) {
        turn.refused().await;
        self.context.metrics.producer_turns_refused.inc();
    }

    /// Starts the agent sync.
    fn agents(&self, turn: &CancellationToken) -> tokio_util::task::AbortOnDropHandle<()> {
        let (sync, interval, retry) = (self.sync.clone(), self.sync_interval, self.context.flow.retry.clone());
        let turn = turn.clone();
        task::spawn("sync_agents", async move {
            let mut intervals = retry.intervals();
            while let Err(error) = sync.restore().await {
                warn!(%error, "agents not read, will retry");
                let delay = intervals.next_backoff().unwrap_or(interval);
                if turn.run_until_cancelled(tokio::time::sleep(delay)).await.is_none() {
                    return;
                }
            }
            sync.run(interval, retry).await;
        })
    }

    /// Starts the replays, and gives what they find.
    fn replays(&self, context: &Context) -> (mpsc::Receiver<FoundEvent>, tokio_util::task::AbortOnDropHandle<()>) {
        let (found, replayed) = mpsc::channel(REPLAY_BOUND);
        let replay = ReplayWorker { found, context: context.clone(), ..self.replays.replay.clone() };
        let replays = Replays { replay, ..self.replays.clone() };
        (replayed, task::spawn("replays", replays.run()))
    }

    /// Starts the flow; it ends with the turn.
    fn flow(
        &self,
        replayed: mpsc::Receiver<FoundEvent>,
        begun: &Begun,
        context: &Context,
    ) -> tokio_util::task::AbortOnDropHandle<()> {
        let context = context.clone();
        let mut sources: SelectAll<BoxStream<'static, FoundEvent>> = SelectAll::new();
        sources.push(webhook::drain(self.inbox.clone(), &context).boxed());
        sources.push(ReceiverStream::new(replayed).boxed());
        if let Some(poll) = &self.poll {
            let poll = Poll { context: context.clone(), ..poll.clone() };
            sources.push(poll::poll(poll).boxed());
        }
        if let Some(sessions) = &self.agent_sessions {
            let sessions = AgentSessions { context: context.clone(), ..sessions.clone() };
            sources.push(agent_sessions::agent_sessions(sessions).boxed());
        }
        let enqueue = Enqueue { queue: self.queue.clone(), fresh: self.fresh, clock: context.flow.clock.clone() };
        let (processed, retention) = (self.processed.clone(), self.retention);
        let foreign =
            begun.unknown_before.map(|before| Foreign { compare: self.replays.replay.compare.clone(), before });
        info!("the producer works");
        task::spawn("nice_producer", async move {
            let unseen = dedupe_after(foreign, sources, processed, retention, &context);
            unseen.insist(enqueue, &context.flow).settle(&context.flow).await;
        })
    }
}
