//! Stage 1, source: the event feed of every agent of the group who is logged in.
//!
//! One listener per agent joins the agent's session and asks for its next events by long poll. It only watches: it
//! never ends a session. An agent who is not logged in is asked for now and then; one who leaves the group is let go
//! after the present poll.
//!
//! # Which calls have ended
//! - `Disconnected` with `FinalState`: found.
//! - `Disconnected` without it: after-call work goes on. Remembered (`calls`), and found with the final event, when the
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

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{
    Stream,
    stream::{FuturesUnordered, StreamExt},
};
use model::{AgentId, TenantId};
use runtime::task;
use tokio::sync::{mpsc, watch};
use tracing::warn;

use self::{listener::Listener, shared_nice::SharedNice};
use super::FoundEvent;
use super::roster::Roster;
use crate::Context;
use crate::tenants::Tenants;

mod calls;
mod listener;
mod open_files;
mod shared_nice;

pub use self::open_files::{MOST_LISTENERS, most_listeners};

/// Events on their way to the dedupe. When they are not taken, the listeners pause.
const BOUND: usize = 256;

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

/// Listens to the group's agents until the service drains.
pub fn agent_sessions(source: AgentSessions) -> impl Stream<Item = FoundEvent> + Send {
    task::stream("agent_sessions", BOUND, move |found| source.run(found))
}

impl AgentSessions {
    async fn run(self, found: mpsc::Sender<FoundEvent>) {
        let stopping = self.context.flow.stopping.clone();
        let mut roster = self.roster.clone();
        let nice = Arc::new(SharedNice::new(self));
        let mut listened = HashSet::new();
        let mut listeners = FuturesUnordered::new();
        let mut left_out = 0;
        loop {
            let (new, beyond) = nice.source.missing(&listened);
            if beyond > left_out {
                let most = nice.source.most;
                warn!(
                    limit = most,
                    count = beyond,
                    "too many agents, or too few open files allowed: the poll finds the others' calls"
                );
            }
            left_out = beyond;
            for agent in new {
                listened.insert(agent);
                let listener = Listener::new(agent, nice.clone(), found.clone());
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

#[cfg(test)]
mod tests;
