//! One call: its legs, its recordings, and when each of them can be seen.

use std::time::Duration;

use jiff::SignedDuration;

use crate::{
    clock::{Millis, millis},
    config::{LifeConfig, NotReady},
    recording::Recording,
};

/// A call to be placed. Everything not said is drawn from the seed or taken from the configuration.
#[derive(Clone, Debug, Default)]
pub struct CallSpec {
    /// The legs in order; more than one is a transferred call.
    pub legs: Vec<LegSpec>,
    /// When the last leg hangs up, from now on; negative for a call that is over. Default: now. A transferred call that
    /// is not over hangs up as much later as its later legs need to begin no earlier than now, so that the end of every
    /// leg lies ahead (legs with a `talk_secs` of their own are taken as they are).
    pub hang_up_in: SignedDuration,
    /// The agent placed the call. Default: inbound.
    pub outbound: bool,
    /// The customer's number. Default: drawn.
    pub customer: Option<String>,
    /// After-call work instead of the configured time.
    pub acw: Option<Duration>,
    /// From the end of after-call work to the recording instead of a drawn time.
    pub recording_delay: Option<Duration>,
    /// Bytes of each segment's recording instead of a drawn size.
    pub size: Option<u64>,
    /// No recording ever: media playback answers 404 for good.
    pub never_recorded: bool,
    /// What media playback answers before the recording is there, instead of the configured answer.
    pub not_ready: Option<NotReady>,
    /// The first so many requests for each of its media break half-way.
    pub break_first: u32,
    /// The call was elevated from chat: its answer has two interactions, and voice is the second.
    pub elevated: bool,
    /// The call has a second voice interaction, and its recording is there so much later than the first one's.
    pub second_part_delay: Option<Duration>,
}

/// One leg of a call to be placed.
#[derive(Clone, Debug)]
pub struct LegSpec {
    /// Who takes it.
    pub agent_id: i64,
    /// How long the agent talks. Default: drawn.
    pub talk_secs: Option<u64>,
    /// How long the contact queues before the agent takes it. Default: drawn for the first leg of an inbound call.
    pub queue_secs: Option<u64>,
}

impl CallSpec {
    /// A call that an agent took alone and that hangs up now.
    pub fn new(agent_id: i64) -> Self {
        Self::transferred(&[agent_id])
    }

    /// A call that went from agent to agent and hangs up now.
    pub fn transferred(agent_ids: &[i64]) -> Self {
        let legs = agent_ids.iter().map(|&agent_id| LegSpec { agent_id, talk_secs: None, queue_secs: None }).collect();
        Self { legs, ..Self::default() }
    }

    /// The same call with the hang-up moved.
    #[must_use]
    pub fn hang_up_in(mut self, from_now: SignedDuration) -> Self {
        self.hang_up_in = from_now;
        self
    }
}

/// The ids of a call that was placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedCall {
    /// The id all legs share; equal to the first leg's.
    pub master_contact_id: i64,
    /// The legs' ids in order.
    pub contact_ids: Vec<i64>,
}

/// What kind of contact it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A phone call that an agent took.
    Voice,
    /// A phone call that nobody took.
    Abandoned,
    /// A chat.
    Chat,
}

/// One call of the world.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) kind: Kind,
    pub(crate) master: i64,
    pub(crate) legs: Vec<Leg>,
    pub(crate) outbound: bool,
    pub(crate) customer: String,
    pub(crate) service_number: String,
    /// The recording platform's own UUID.
    pub(crate) playback_id: String,
    pub(crate) recording: Recording,
    pub(crate) recorded: bool,
    pub(crate) not_ready: NotReady,
    pub(crate) break_first: u32,
    pub(crate) elevated: bool,
    pub(crate) second_part_delay: Option<Millis>,
    pub(crate) recording_delay: Millis,
}

/// One leg: what a single agent did with a call.
#[derive(Clone, Debug)]
pub(crate) struct Leg {
    pub(crate) contact_id: i64,
    pub(crate) agent_id: i64,
    pub(crate) segment_id: String,
    pub(crate) recording: Recording,
    /// When the contact began: it queued, then the agent took it.
    pub(crate) started_at: Millis,
    pub(crate) queue_secs: u64,
    pub(crate) hung_up_at: Millis,
    pub(crate) acw: Millis,
    /// When the second update comes.
    pub(crate) second_update_at: Millis,
    /// When its row changes once more, if the faults have it so.
    pub(crate) third_update_at: Millis,
    /// When it is first listed as completed.
    pub(crate) listed_at: Millis,
}

impl Leg {
    /// When the agent took it.
    pub(crate) fn answered_at(&self) -> Millis {
        self.started_at + self.queue_secs as i64 * 1000
    }

    /// When after-call work is over.
    pub(crate) fn acw_ended_at(&self) -> Millis {
        self.hung_up_at + self.acw
    }

    /// After-call work in the whole seconds that NICE reports.
    pub(crate) fn acw_secs(&self) -> u64 {
        (self.acw / 1000) as u64
    }

    /// Talking, in whole seconds.
    pub(crate) fn talk_secs(&self) -> u64 {
        ((self.hung_up_at - self.answered_at()) / 1000) as u64
    }

    /// The whole handset time: queue, talking and after-call work.
    pub(crate) fn total_secs(&self) -> u64 {
        self.queue_secs + self.talk_secs() + self.acw_secs()
    }

    /// The end that a reader of the record computes: start and total duration together.
    pub(crate) fn reported_end(&self) -> Millis {
        self.started_at + self.total_secs() as i64 * 1000
    }

    /// When the record last changed, as of `now`; nothing before after-call work is over.
    pub(crate) fn updated_at(&self, now: Millis) -> Millis {
        if now >= self.second_update_at { self.second_update_at } else { self.acw_ended_at() }
    }

    /// Fixes the instants that follow from the hang-up.
    pub(crate) fn schedule(&mut self, life: &LifeConfig) {
        self.listed_at = self.acw_ended_at() + millis(life.completed_delay);
        self.second_update_at = self.acw_ended_at() + millis(life.second_update_delay);
    }
}

impl Call {
    /// When the last leg's after-call work is over.
    pub(crate) fn acw_ended_at(&self) -> Millis {
        self.legs.iter().map(Leg::acw_ended_at).max().unwrap_or(0)
    }

    /// When the contact-level recording is there, were no fault in force: after the last leg's after-call work, and the
    /// platform's own time.
    pub(crate) fn recording_at(&self) -> Millis {
        self.acw_ended_at() + self.recording_delay
    }

    /// Whether it went from one agent to another.
    pub(crate) fn transferred(&self) -> bool {
        self.legs.len() > 1
    }

    /// Start of the first leg.
    pub(crate) fn started_at(&self) -> Millis {
        self.legs.first().map_or(0, |leg| leg.started_at)
    }
}
