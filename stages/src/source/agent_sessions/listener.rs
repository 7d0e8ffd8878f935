//! One agent, who is listened to until it leaves the group or the service drains.
//!
//! In: the answers of its session. Out: an event of each call that counts as ended. What ends it early (a crash, a
//! closed dedupe) loses what was not passed on; the poll finds it.

use std::sync::Arc;
use std::time::Duration;

use backoff::backoff::Backoff;
use flow::{StageError, retry::Intervals};
use model::{AgentId, ContactEvent, EventSource};
use nice::{AgentEvent, Feed, Join, SessionId};
use runtime::chance;
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};
use tracing::debug;

use super::calls::{Call, Calls};
use super::{AgentSessions, shared_nice::SharedNice};
use crate::source::{FoundEvent, Receipt, found::count, list_error::wait_asked, roster::Roster};

/// Failed polls in a row after which a session is joined anew.
pub(super) const FAILED_POLLS: u32 = 5;

/// Watches over one agent.
pub(super) struct Listener {
    agent: AgentId,
    nice: Arc<SharedNice>,
    roster: watch::Receiver<Roster>,
    calls: Calls,
    found: mpsc::Sender<FoundEvent>,
}

/// What an answer brought.
#[derive(Default)]
struct FeedSummary {
    has_calls: bool,
    has_ended: bool,
}

impl Listener {
    pub(super) fn new(agent: AgentId, nice: Arc<SharedNice>, found: mpsc::Sender<FoundEvent>) -> Self {
        let roster = nice.source.roster.clone();
        Self { agent, nice, roster, calls: Calls::default(), found }
    }

    /// Listens until the agent leaves the group or the service drains; what is remembered then is found.
    pub(super) async fn run(mut self) -> AgentId {
        let stopping = self.nice.source.context.flow.stopping.clone();
        stopping.run_until_cancelled(self.listen()).await;
        self.calls.end_all();
        self.pass_on().await;
        self.agent
    }

    async fn listen(&mut self) {
        let (nice, waits) = (self.nice.clone(), self.nice.source.waits);
        let retry = &nice.source.context.flow.retry;
        let mut absences = Intervals::doubling(waits.rejoin, waits.rejoin_max);
        let mut absent = nice.counted("absent");
        while self.is_wanted() {
            let began = Instant::now();
            let pause = match nice.join(self.agent).await {
                Ok(Join::Joined(session)) => {
                    let joined_at = Instant::now();
                    drop(absent);
                    self.attend(session).await;
                    absent = nice.counted("absent");
                    self.calls.end_all();
                    self.pass_on().await;
                    if joined_at.elapsed() >= waits.rejoin {
                        // It may have been renewed at NICE's side: the agent need not be gone.
                        absences.reset();
                        retry.error_delay_min.mul_f64(chance::range(1.0..2.0))
                    } else {
                        retry.next(&mut absences)
                    }
                }
                Ok(Join::Absent) => retry.next(&mut absences),
                Err(error) => {
                    nice.failed("an agent's session was not joined", &error, began);
                    retry.next(&mut absences).max(wait_asked(&error))
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

    async fn attend(&mut self, session: SessionId) {
        debug!(agent.id = %self.agent, "agent session joined");
        let _joined = self.nice.counted("joined");
        self.follow(session).await;
        debug!(agent.id = %self.agent, "agent session ended");
    }

    /// Asks a session for its events until it ends.
    async fn follow(&mut self, mut session: SessionId) {
        let (nice, waits) = (self.nice.clone(), self.nice.source.waits);
        let retry = &nice.source.context.flow.retry;
        let mut delays = retry.intervals();
        let mut troubles = Intervals::doubling(waits.failed, retry.error_delay_max.max(waits.failed));
        let mut failures = 0;
        while self.is_wanted() {
            let began = Instant::now();
            let answer = nice.poll(&session).await;
            // An answer that did not wait, and brings no call, may come again and again.
            let hasty = began.elapsed() < waits.poll;
            let pause = match answer {
                Ok(feed) => {
                    troubles.reset();
                    failures = 0;
                    let Some(summary) = self.take(feed, &mut session) else { return };
                    self.pass_on().await;
                    if summary.has_ended {
                        return;
                    }
                    match (hasty, summary.has_calls) {
                        (false, _) => {
                            delays.reset();
                            Duration::ZERO
                        }
                        (true, true) => waits.poll / 10,
                        (true, false) => retry.next(&mut delays),
                    }
                }
                Err(error) => {
                    nice.failed("an agent's session was not read", &error, began);
                    failures += 1;
                    if failures == FAILED_POLLS || matches!(error, StageError::Permanent { .. }) {
                        return;
                    }
                    retry.next(&mut troubles).max(wait_asked(&error)) + nice.spread()
                }
            };
            if !pause.is_zero() {
                self.rest(pause).await;
            }
        }
    }

    /// Takes note of an answer, and of where the feed goes on; none where it has ended.
    fn take(&mut self, feed: Feed, session: &mut SessionId) -> Option<FeedSummary> {
        let mut summary = FeedSummary::default();
        let events = match feed {
            Feed::Events { next, events } => {
                if let Some(next) = next {
                    *session = next;
                }
                events
            }
            Feed::Idle => return Some(summary),
            Feed::Ended => return None,
        };
        for event in events {
            let kind = match event {
                AgentEvent::Call(call) => {
                    summary.has_calls = true;
                    self.calls.take(call, self.nice.source.waits.after_call);
                    "call"
                }
                AgentEvent::SessionEnded => {
                    summary.has_ended = true;
                    "session_end"
                }
                AgentEvent::SessionStarted => "session_start",
                AgentEvent::State => "state",
                AgentEvent::Other => "other",
            };
            self.nice.source.context.metrics.agent_session_events.with_label_values(&[kind]).inc();
        }
        Some(summary)
    }

    /// Passes the calls on that have ended. Cut off, it leaves what was not passed on.
    async fn pass_on(&mut self) {
        while self.calls.next_ended().is_some() {
            let Ok(room) = self.found.reserve().await else { return };
            if let Some(call) = self.calls.take_ended()
                && let Some(event) = self.event(&call)
            {
                debug!(conversation.id = %event.conversation, "an agent's session tells of a call that ended");
                room.send(FoundEvent::new(event, Receipt::new(|| {})));
            }
        }
    }

    /// The event of a call, if it ended while the agent was in the group.
    fn event(&self, call: &Call) -> Option<ContactEvent> {
        let AgentSessions { context, tenant, .. } = &self.nice.source;
        let now = context.flow.clock.now();
        // NICE's clock may be ahead of ours; a call of which we are told has ended.
        let ended_at = call.ended_at.unwrap_or(now).min(now);
        if !self.roster.borrow().admits(self.agent, Some(ended_at)) {
            count(context, "done");
            return None;
        }
        count(context, "ok");
        let mut event = ContactEvent::new(tenant.clone(), call.contact, EventSource::AgentSession);
        event.master = call.master;
        event.agent = call.is_agents().then_some(self.agent);
        event.ended_at = Some(ended_at);
        Some(event)
    }
}
