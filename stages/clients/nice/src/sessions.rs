//! The feed of what happens to one agent: join the agent's session, then ask again and again for its next events.
//!
//! We only watch: nothing here ends a session, or ever may, since that would log the agent out.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use model::{AgentId, ContactId};
use serde_json::json;

use super::endpoint::Endpoint;
use super::http::{ApiAnswer, parse};
use super::wire::session;
use super::{NiceClient, NiceError, calls};

/// How long NICE keeps a request that it has nothing to say to: its own most, in seconds.
const KEPT: &str = "60";

/// NICE's id of a joined session: 1–512 letters, digits or `-_.=+`, a letter or digit first. It becomes part of a path.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionId(String);

/// A session id that breaks its grammar; the text is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("session id breaks the grammar: 1 to 512 letters, digits or -_.=+, a letter or digit first")]
pub struct SessionIdError;

impl SessionId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SessionId {
    type Err = SessionIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.=+".contains(&byte);
        let fits = (1..=512).contains(&text.len())
            && text.bytes().all(plain)
            && text.starts_with(|first: char| first.is_ascii_alphanumeric());
        if fits { Ok(Self(text.to_owned())) } else { Err(SessionIdError) }
    }
}

impl fmt::Debug for SessionId {
    /// Without the id: whoever has it sees what happens to the agent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId")
    }
}

/// What came of joining.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Join {
    /// The session to ask for events.
    Joined(SessionId),
    /// The agent is not logged in.
    Absent,
}

/// What a session has to say.
#[derive(Debug, Clone, PartialEq)]
pub enum Feed {
    /// Something happened.
    Events {
        /// The session to ask from now on; none where the present one stays.
        next: Option<SessionId>,
        /// What happened, in its order.
        events: Vec<AgentEvent>,
    },
    /// Nothing, for as long as NICE waits.
    Idle,
    /// The session is over.
    Ended,
}

/// Something that happened to an agent.
#[derive(Debug, Clone, PartialEq)]
pub enum AgentEvent {
    /// The session began, or we joined it.
    SessionStarted,
    /// The session is over.
    SessionEnded,
    /// The agent became available, busy, …
    State,
    /// A phone call changed.
    Call(CallEvent),
    /// What is of no use here, or not known.
    Other,
}

/// How a phone call of an agent stands.
#[derive(Debug, Clone, PartialEq)]
pub struct CallEvent {
    /// The agent's leg.
    pub contact: ContactId,
    /// The call that the leg belongs to.
    pub master: Option<ContactId>,
    /// What it is at.
    pub phase: Phase,
    /// Since when.
    pub since: Option<Timestamp>,
}

/// What a call is at, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Ringing or dialling: the agent may never take it.
    Offered,
    /// The agent is on the phone.
    Taken,
    /// The phone is down; after-call work may go on.
    Disconnected,
    /// Nothing more will happen to it.
    Over,
    /// Something else.
    Unknown,
}

/// An odd answer is a session's end: another one is joined, and no call depends on it.
fn final_here(error: NiceError) -> NiceError {
    match error {
        NiceError::Odd { what } => NiceError::Permanent { what },
        other => other,
    }
}

impl NiceClient {
    /// Joins the session of an agent who is logged in, to see its events. Nothing of the agent changes.
    pub async fn join_session(&self, agent: AgentId) -> Result<Join, NiceError> {
        let mut url = calls::acd(self, &["agent-sessions", "join"]).await?;
        // NICE's description wants the agent in the query, NICE's own client puts it into the body.
        url.query_pairs_mut().append_pair("asAgentId", &agent.to_string());
        let body = json!({ "asAgentId": agent.get() });
        let reply = self.inner.api.reply(Endpoint::SessionJoin, &url, self.class, Some(&body)).await?;
        if is_over(reply.status.as_u16()) {
            return Ok(Join::Absent);
        }
        let answer = reply.answer(Endpoint::SessionJoin);
        self.inner.api.listen(Endpoint::SessionJoin, &answer);
        match answer.map_err(final_here)? {
            ApiAnswer::Body(body) => parse(Endpoint::SessionJoin, body, session::joined).await.map(Join::Joined),
            ApiAnswer::Nothing | ApiAnswer::NotFound => {
                Err(NiceError::transient("session_join: NICE names no session"))
            }
        }
    }

    /// Waits for the next events of a session, for a minute at most. Costs nothing of the rate budget.
    pub async fn session_events(&self, session: &SessionId) -> Result<Feed, NiceError> {
        let mut url = calls::acd(self, &["agent-sessions", session.as_str(), "get-next-event"]).await?;
        url.query_pairs_mut().append_pair("timeout", KEPT);
        let reply = self.inner.api.reply(Endpoint::SessionEvents, &url, self.class, None).await?;
        match reply.status.as_u16() {
            304 => return Ok(Feed::Idle),
            status if is_over(status) => return Ok(Feed::Ended),
            _ => {}
        }
        let answer = reply.answer(Endpoint::SessionEvents);
        self.inner.api.listen(Endpoint::SessionEvents, &answer);
        match answer.map_err(final_here)? {
            ApiAnswer::Body(body) => parse(Endpoint::SessionEvents, body, session::events).await,
            ApiAnswer::Nothing | ApiAnswer::NotFound => Ok(Feed::Idle),
        }
    }
}

/// Whether a status says that there is no such session, or no longer.
fn is_over(status: u16) -> bool {
    matches!(status, 404 | 409 | 410)
}
