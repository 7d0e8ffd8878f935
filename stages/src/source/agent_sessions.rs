//! Stage 1, source: the event feed of every agent of the group who is logged in.
//!
//! One listener per agent joins the agent's session and asks for its next events by long poll. It only watches: it
//! never ends a session. An agent who is not logged in is asked for now and then; one who leaves the group is let go
//! after the present poll.
//!
//! # Which calls have ended
//! - `Disconnected` with `FinalState`: found.
//! - `Disconnected` without it: after-call work goes on. Remembered, and found with the final event, when the
//!   session ends, or after [`Waits::after_call`], whichever comes first. Too early does no harm: the consumer waits
//!   for what is not ready.
//! - A call that rang and was never taken is found without an agent: NICE knows whose it became, if anybody's.
//!
//! # Sparing NICE
//! Joins draw on the tenant's rate budget, few at a time and spread so that the poll keeps its part; when NICE refuses
//! or is in trouble, all joins pause. Long polls cost nothing of the budget.
//!
//! # After a crash
//! Nothing is kept: what this source found and did not pass on, or missed while an agent's session was not joined,
//! the poll finds. This source only makes it faster.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backoff::backoff::Backoff;
use flow::{StageError, retry::Intervals};
use futures::{
    Stream,
    stream::{FuturesUnordered, StreamExt},
};
use jiff::Timestamp;
use model::{AgentId, ContactEvent, ContactId, EventSource, QuotaClass, TenantId};
use nice::{AgentEvent, CallEvent, Feed, Join, Phase, REFUSED_DELAY, SessionId};
use prometheus::IntGauge;
use runtime::{chance, task};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::{Instant, sleep, sleep_until},
};
use tracing::{debug, warn};

use super::roster::Roster;
use super::{Found, Receipt};
use crate::Context;
use crate::tenants::{Tenant, Tenants};

/// The most agents that are listened to: each has a connection of its own, and a process so many files.
pub const MOST_LISTENERS: usize = 10_000;

/// Files that listeners leave to the rest of the process: the state, the servers, and the poll.
const OTHER_FILES: usize = 512;

/// Joins under way at a time.
const JOINS: usize = 8;

/// So many refused joins in a row are no matter of one agent: all joins pause.
const REFUSALS: u32 = 3;

/// Failed polls in a row after which a session is joined anew.
const FAILED_POLLS: u32 = 5;

/// What each joined agent adds to the span over which failed polls are sent again: at most a hundred a second, should
/// all of them fail at once.
const SPREAD: Duration = Duration::from_millis(10);

/// Calls of one agent that are kept in mind; nobody has so many at a time.
const CALLS: usize = 64;

/// Events on their way to the dedupe. When they are not taken, the listeners pause.
const BOUND: usize = 256;

/// The shortest time between two warnings about listeners: thousands of them may meet the same trouble.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// How long a listener waits for what; the default is for production, tests make it short.
#[derive(Debug, Clone, Copy)]
pub struct Waits {
    /// Before an absent agent is asked for again the first time; doubles, with jitter.
    pub rejoin: Duration,
    /// The longest such wait.
    pub rejoin_max: Duration,
    /// For the final event of a call whose phone is down: longer than most after-call work. Looked at after each poll.
    pub after_call: Duration,
    /// Before a poll that failed is sent again the first time, as NICE's own client does; doubles, with jitter.
    pub failed: Duration,
    /// An answer without a call that comes sooner than this was no long poll: the next one is not sent at once.
    pub poll: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            rejoin: Duration::from_secs(60),
            rejoin_max: Duration::from_secs(300),
            after_call: Duration::from_secs(600),
            failed: Duration::from_secs(10),
            poll: Duration::from_secs(1),
        }
    }
}

/// The settings and clients of the listeners.
#[derive(Clone)]
pub struct AgentSessions {
    /// The way to the tenant's NICE.
    pub tenants: Arc<Tenants>,
    /// Whose agents these are.
    pub tenant: TenantId,
    /// Who is listened to.
    pub roster: watch::Receiver<Roster>,
    /// The time between two joins: what the rate budget allows, and room for the others.
    pub join_interval: Duration,
    /// The most agents that are listened to.
    pub most: usize,
    /// How long is waited for what.
    pub waits: Waits,
    /// The machinery.
    pub context: Context,
}

/// How many agents this process can listen to: [`MOST_LISTENERS`], or as many as it may open files for.
pub fn most_listeners() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    open_files(&limits).map_or(MOST_LISTENERS, |files| files.saturating_sub(OTHER_FILES).min(MOST_LISTENERS))
}

/// The soft limit of open files on Linux's page of limits; none where it has none.
fn open_files(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Listens to the group's agents until the service drains.
pub fn agent_sessions(source: AgentSessions) -> impl Stream<Item = Found> + Send {
    task::stream("agent_sessions", BOUND, move |found| source.run(found))
}

impl AgentSessions {
    async fn run(self, found: mpsc::Sender<Found>) {
        let stopping = self.context.flow.stopping.clone();
        let mut roster = self.roster.clone();
        let shared = Arc::new(Shared {
            joins: Semaphore::new(JOINS),
            pace: Mutex::new(Pace { next: Instant::now(), refusals: 0 }),
            warned_at: Mutex::new(None),
            source: self,
        });
        let mut listened = HashSet::new();
        let mut listeners = FuturesUnordered::new();
        let mut left_out = 0;
        loop {
            let (new, beyond) = shared.source.missing(&listened);
            if beyond > left_out {
                let most = shared.source.most;
                warn!(
                    limit = most,
                    count = beyond,
                    "too many agents, or too few open files allowed: the poll finds the others' calls"
                );
            }
            left_out = beyond;
            for agent in new {
                listened.insert(agent);
                let listener = Listener::new(agent, shared.clone(), found.clone());
                listeners.push(task::spawn("agent_session", listener.run()));
            }
            tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                Some(ended) = listeners.next() => drop(listened.remove(&of_task(ended))),
                changed = roster.changed() => if changed.is_err() { break },
            }
        }
        // Each passes on what it remembers and ends.
        stopping.cancelled().await;
        while let Some(ended) = listeners.next().await {
            of_task(ended);
        }
    }

    /// The agents who lack a listener, and how many more there are than can be listened to.
    fn missing(&self, listened: &HashSet<AgentId>) -> (Vec<AgentId>, usize) {
        let mut new: Vec<_> = self.roster.borrow().active().filter(|agent| !listened.contains(agent)).collect();
        let room = self.most.saturating_sub(listened.len());
        let beyond = new.len().saturating_sub(room);
        // The same ones each time.
        new.sort_unstable();
        new.truncate(room);
        (new, beyond)
    }
}

/// What a task has left; its panic is not taken for its end.
fn of_task<T>(ended: Result<T, tokio::task::JoinError>) -> T {
    match ended {
        Ok(left) => left,
        // Listeners are aborted with this task only.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// What all listeners of the tenant share.
struct Shared {
    source: AgentSessions,
    joins: Semaphore,
    pace: Mutex<Pace>,
    warned_at: Mutex<Option<Instant>>,
}

/// When the next join may begin, and how many in a row NICE has refused.
struct Pace {
    next: Instant,
    refusals: u32,
}

impl Shared {
    /// Joins an agent's session when it is its turn.
    async fn join(&self, agent: AgentId) -> Result<Join, StageError> {
        let Ok(_permit) = self.joins.acquire().await else { return Ok(Join::Absent) };
        self.turn().await;
        let joined = match self.tenant().await {
            Ok(tenant) => tenant.nice.for_class(QuotaClass::Agents).join_session(agent).await.map_err(StageError::from),
            Err(error) => Err(error),
        };
        self.note(&joined);
        joined
    }

    /// Waits until a join may begin.
    async fn turn(&self) {
        loop {
            let now = Instant::now();
            let at = {
                let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
                if pace.next <= now {
                    pace.next = now + self.source.join_interval;
                    return;
                }
                pace.next
            };
            sleep_until(at).await;
        }
    }

    /// Draws the conclusions of a join for those that follow.
    fn note(&self, joined: &Result<Join, StageError>) {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = match joined {
            Ok(_) => {
                pace.refusals = 0;
                return;
            }
            Err(error) if is_refusal(error) => {
                pace.refusals += 1;
                if pace.refusals < REFUSALS { Duration::ZERO } else { REFUSED_DELAY }
            }
            // A matter of this agent.
            Err(
                StageError::Permanent { .. }
                | StageError::SetAside { .. }
                | StageError::NotReady { .. }
                | StageError::Unknown { .. },
            ) => Duration::ZERO,
            Err(error) => self.source.context.flow.retry.error_delay_min.max(wait_asked(error)),
        };
        pace.next = pace.next.max(Instant::now() + pause);
    }

    /// Waits for a session's next events.
    async fn poll(&self, session: &SessionId) -> Result<Feed, StageError> {
        Ok(self.tenant().await?.nice.session_events(session).await?)
    }

    async fn tenant(&self) -> Result<Arc<Tenant>, StageError> {
        self.source.tenants.get(&self.source.tenant).await
    }

    /// Counts what failed and will be tried again, and says so now and then.
    fn failed(&self, what: &'static str, error: &StageError, began: Instant) {
        self.source.context.metrics.flow.stage_finished("source", "retry", began.elapsed());
        let now = Instant::now();
        let mut warned_at = self.warned_at.lock().unwrap_or_else(PoisonError::into_inner);
        if warned_at.is_none_or(|at| now.duration_since(at) >= WARNING_INTERVAL) {
            *warned_at = Some(now);
            warn!(%error, "{what}, will retry");
        } else {
            debug!(%error, "{what}, will retry");
        }
    }

    /// A wait that is another for each listener, so that thousands of them do not come back together.
    fn spread(&self) -> Duration {
        let joined = self.source.context.metrics.agent_sessions.with_label_values(&["joined"]).get();
        SPREAD.mul_f64(joined.max(0) as f64 * chance::range(0.0..1.0))
    }

    /// Counts an agent in this state until the value is dropped.
    fn counted(&self, state: &str) -> Counted {
        let gauge = self.source.context.metrics.agent_sessions.with_label_values(&[state]);
        gauge.inc();
        Counted(gauge)
    }
}

/// One agent in a gauge.
struct Counted(IntGauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What NICE, or the way to it, asks to wait.
fn wait_asked(error: &StageError) -> Duration {
    match error {
        StageError::Transient { retry_after, .. } => retry_after.unwrap_or_default(),
        StageError::Busy { retry_after, .. } | StageError::Early { retry_after, .. } => *retry_after,
        StageError::NotReady { .. }
        | StageError::Unknown { .. }
        | StageError::SetAside { .. }
        | StageError::Permanent { .. } => Duration::ZERO,
    }
}

/// Whether NICE refused us: what only a person can mend waits longer than what heals.
fn is_refusal(error: &StageError) -> bool {
    matches!(error, StageError::Transient { retry_after: Some(wait), .. } if *wait == REFUSED_DELAY)
}

/// Watches over one agent.
struct Listener {
    agent: AgentId,
    shared: Arc<Shared>,
    roster: watch::Receiver<Roster>,
    calls: Calls,
    found: mpsc::Sender<Found>,
}

impl Listener {
    fn new(agent: AgentId, shared: Arc<Shared>, found: mpsc::Sender<Found>) -> Self {
        let roster = shared.source.roster.clone();
        Self { agent, shared, roster, calls: Calls::default(), found }
    }

    /// Listens until the agent leaves the group or the service drains; what is remembered then is found.
    async fn run(mut self) -> AgentId {
        let stopping = self.shared.source.context.flow.stopping.clone();
        stopping.run_until_cancelled(self.listen()).await;
        self.calls.end_all();
        self.pass_on().await;
        self.agent
    }

    async fn listen(&mut self) {
        let waits = self.shared.source.waits;
        let mut absences = Intervals::doubling(waits.rejoin, waits.rejoin_max);
        let mut standing = self.shared.counted("absent");
        while self.is_wanted() {
            let began = Instant::now();
            let pause = match self.shared.join(self.agent).await {
                Ok(Join::Joined(session)) => {
                    debug!(agent.id = %self.agent, "agent session joined");
                    drop(standing);
                    standing = self.shared.counted("joined");
                    let joined_at = Instant::now();
                    self.follow(session).await;
                    drop(standing);
                    standing = self.shared.counted("absent");
                    debug!(agent.id = %self.agent, "agent session ended");
                    self.calls.end_all();
                    self.pass_on().await;
                    if joined_at.elapsed() >= waits.rejoin {
                        // It may have been renewed at NICE's side: the agent need not be gone.
                        absences.reset();
                        self.shared.source.context.flow.retry.error_delay_min.mul_f64(chance::range(1.0..2.0))
                    } else {
                        absences.next_backoff().unwrap_or(waits.rejoin_max)
                    }
                }
                Ok(Join::Absent) => absences.next_backoff().unwrap_or(waits.rejoin_max),
                Err(error) => {
                    self.shared.failed("an agent's session was not joined", &error, began);
                    absences.next_backoff().unwrap_or(waits.rejoin_max).max(wait_asked(&error))
                }
            };
            self.rest(pause).await;
        }
    }

    /// Waits, unless the agent leaves the group first.
    async fn rest(&mut self, pause: Duration) {
        let agent = self.agent;
        tokio::select! {
            biased;
            left = self.roster.wait_for(|roster| !roster.is_active(agent)) => drop(left),
            () = sleep(pause) => {}
        }
    }

    fn is_wanted(&self) -> bool {
        self.roster.borrow().is_active(self.agent)
    }

    /// Asks a session for its events until it ends.
    async fn follow(&mut self, mut session: SessionId) {
        let waits = self.shared.source.waits;
        let retry = &self.shared.source.context.flow.retry;
        let mut delays = retry.intervals();
        let mut troubles = Intervals::doubling(waits.failed, retry.error_delay_max.max(waits.failed));
        let mut failures = 0;
        while self.is_wanted() {
            let began = Instant::now();
            let answer = self.shared.poll(&session).await;
            // An answer that did not wait, and brings no call, may come again and again.
            let hasty = began.elapsed() < waits.poll;
            if !hasty && answer.is_ok() {
                delays.reset();
            }
            if answer.is_ok() {
                troubles.reset();
                failures = 0;
            }
            let mut pause = Duration::ZERO;
            match answer {
                Ok(Feed::Events { next, events }) => {
                    session = next.unwrap_or(session);
                    let taken = self.take(events);
                    self.pass_on().await;
                    if taken.ended {
                        return;
                    }
                    if hasty {
                        let breath = waits.poll / 10;
                        pause = if taken.calls { breath } else { delays.next_backoff().unwrap_or(breath) };
                    }
                }
                Ok(Feed::Idle) => {
                    self.pass_on().await;
                    if hasty {
                        pause = delays.next_backoff().unwrap_or(waits.poll);
                    }
                }
                Ok(Feed::Ended) => return,
                Err(error) => {
                    self.shared.failed("an agent's session was not read", &error, began);
                    failures += 1;
                    if failures == FAILED_POLLS || matches!(error, StageError::Permanent { .. }) {
                        return;
                    }
                    let delay = troubles.next_backoff().unwrap_or(waits.failed).max(wait_asked(&error));
                    pause = delay + self.shared.spread();
                }
            }
            if !pause.is_zero() {
                self.rest(pause).await;
            }
        }
    }

    /// Takes note of what happened.
    fn take(&mut self, events: Vec<AgentEvent>) -> Taken {
        let counter = &self.shared.source.context.metrics.agent_session_events;
        let mut taken = Taken::default();
        for event in events {
            let kind = match event {
                AgentEvent::Call(call) => {
                    taken.calls = true;
                    self.calls.take(call, self.shared.source.waits.after_call);
                    "call"
                }
                AgentEvent::SessionEnded => {
                    taken.ended = true;
                    "session_end"
                }
                AgentEvent::SessionStarted => "session_start",
                AgentEvent::State => "state",
                AgentEvent::Other => "other",
            };
            counter.with_label_values(&[kind]).inc();
        }
        taken
    }

    /// Passes the calls on that have ended. Cut off, it leaves what was not passed on.
    async fn pass_on(&mut self) {
        while self.calls.next_ended().is_some() {
            let Ok(room) = self.found.reserve().await else { return };
            if let Some(call) = self.calls.take_ended()
                && let Some(event) = self.event(&call)
            {
                debug!(conversation.id = %event.conversation, "an agent's session tells of a call that ended");
                room.send(Found::new(event, Receipt::new(|| {})));
            }
        }
    }

    /// The event of a call, if it ended while the agent was in the group.
    fn event(&self, call: &Call) -> Option<ContactEvent> {
        let AgentSessions { context, tenant, .. } = &self.shared.source;
        let now = context.flow.clock.now();
        // NICE's clock may be ahead of ours; a call of which we are told has ended.
        let ended_at = call.ended_at.unwrap_or(now).min(now);
        if !self.roster.borrow().admits(self.agent, Some(ended_at)) {
            context.metrics.flow.stage_items.with_label_values(&["source", "done"]).inc();
            return None;
        }
        context.metrics.flow.stage_items.with_label_values(&["source", "ok"]).inc();
        let mut event = ContactEvent::new(tenant.clone(), call.contact, EventSource::AgentSession);
        event.master = call.master;
        event.agent = call.is_agents().then_some(self.agent);
        event.ended_at = Some(ended_at);
        Some(event)
    }
}

/// What an answer brought.
#[derive(Default)]
struct Taken {
    calls: bool,
    ended: bool,
}

/// The calls of an agent that are going on or not yet passed on, the newest last.
#[derive(Default)]
struct Calls(VecDeque<Call>);

/// A call of an agent.
struct Call {
    contact: ContactId,
    master: Option<ContactId>,
    /// Whether it was seen ringing, and on the phone.
    offered: bool,
    taken: bool,
    /// Since when the phone is down, where NICE says so.
    ended_at: Option<Timestamp>,
    /// From when on it counts as ended; none while the phone is not down.
    due: Option<Instant>,
}

impl Call {
    /// Whether it is the agent's, as far as was seen: one that only rang may be another's by now.
    fn is_agents(&self) -> bool {
        self.taken || !self.offered
    }
}

impl Calls {
    /// Takes note of how a call stands.
    fn take(&mut self, event: CallEvent, after_call: Duration) {
        let at = self.0.iter().position(|call| call.contact == event.contact).unwrap_or_else(|| {
            self.0.push_back(Call {
                contact: event.contact,
                master: None,
                offered: false,
                taken: false,
                ended_at: None,
                due: None,
            });
            self.0.len() - 1
        });
        let Some(call) = self.0.get_mut(at) else { return };
        call.master = event.master.or(call.master);
        match event.phase {
            Phase::Offered => call.offered = true,
            Phase::Taken => call.taken = true,
            Phase::Disconnected => {
                call.ended_at = event.since.or(call.ended_at);
                call.due.get_or_insert(Instant::now() + after_call);
            }
            Phase::Over => {
                call.ended_at = event.since.or(call.ended_at);
                call.due = Some(Instant::now());
            }
            Phase::Unknown => {}
        }
        self.make_room();
    }

    /// Forgets the oldest calls that go on, or else lets the oldest that wait be passed on.
    fn make_room(&mut self) {
        let now = Instant::now();
        let waiting = |call: &Call| call.due.is_none_or(|due| due > now);
        while self.0.iter().filter(|call| waiting(call)).count() > CALLS {
            if let Some(going_on) = self.0.iter().position(|call| call.due.is_none()) {
                self.0.remove(going_on);
            } else if let Some(oldest) = self.0.iter_mut().find(|call| waiting(call)) {
                oldest.due = Some(now);
            }
        }
    }

    /// Nothing more will be told: what was disconnected counts as ended, the rest is the poll's.
    fn end_all(&mut self) {
        self.0.retain(|call| call.due.is_some());
        let now = Instant::now();
        self.0.iter_mut().for_each(|call| call.due = Some(now));
    }

    /// The place of the oldest call that counts as ended.
    fn next_ended(&self) -> Option<usize> {
        let now = Instant::now();
        self.0.iter().position(|call| call.due.is_some_and(|due| due <= now))
    }

    fn take_ended(&mut self) -> Option<Call> {
        self.0.remove(self.next_ended()?)
    }
}

#[cfg(test)]
mod tests;
