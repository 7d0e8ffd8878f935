//! What an importer must end with: the oracle's side of the story.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;

use crate::{
    call::Kind,
    clock::{Millis, timestamp},
    recording::Recording,
    world::World,
};

/// One leg of a call that an agent took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TruthLeg {
    /// The leg's own id.
    pub contact_id: i64,
    /// The id that all legs of the call share.
    pub master_contact_id: i64,
    /// Who took it.
    pub agent_id: i64,
    /// The team of the agent when the leg hung up.
    pub team_id: i64,
    /// Whether the agent was an active member of the wanted group when the leg hung up.
    pub in_group: bool,
    /// Start of the contact.
    pub started_at: Timestamp,
    /// The reported end: start and total duration, after-call work included.
    pub ended_at: Timestamp,
    /// When this leg hung up (in the schedule's time: it may lie ahead).
    pub hung_up_at: Timestamp,
    /// When the recording is there, were it recorded.
    pub recording_at: Timestamp,
    /// Who placed the call.
    pub direction: Direction,
    /// The customer's number as NICE writes it.
    pub customer_number: String,
    /// How many legs the call has.
    pub legs: usize,
    /// What an importer of legs ends with; empty where nothing was ever recorded.
    pub recordings: Vec<TruthRecording>,
}

/// Who placed a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The customer.
    Inbound,
    /// The agent.
    Outbound,
}

/// One medium, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TruthRecording {
    /// Bytes.
    pub size: u64,
    /// Lower-case hex.
    pub sha256: String,
}

/// The hashes computed so far: a recording of gibibytes is generated once.
#[derive(Debug, Default)]
pub(crate) struct Hashes(Mutex<HashMap<Recording, String>>);

impl Hashes {
    fn of(&self, recording: Recording) -> TruthRecording {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&recording).cloned();
        let sha256 = known.unwrap_or_else(|| {
            let sha256 = recording.sha256();
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(recording, sha256.clone());
            sha256
        });
        TruthRecording { size: recording.size, sha256 }
    }
}

/// All voice legs of the world, in the order of their calls, with the media they must end with still to be hashed.
pub(crate) fn legs(world: &World, now: Millis) -> Vec<(TruthLeg, Vec<Recording>)> {
    world
        .legs()
        .filter(|(call, _)| call.kind == Kind::Voice)
        .map(|(call, leg)| {
            let known_at = leg.hung_up_at.min(now);
            let media = match (call.recorded, call.transferred()) {
                (false, _) => Vec::new(),
                (true, false) => vec![call.recording],
                (true, true) => (call.legs.iter())
                    .filter(|other| other.agent_id == leg.agent_id)
                    .filter(|other| other.answered_at() < leg.reported_end() && leg.started_at < other.hung_up_at)
                    .map(|other| other.recording)
                    .collect(),
            };
            let truth = TruthLeg {
                contact_id: leg.contact_id,
                master_contact_id: call.master,
                agent_id: leg.agent_id,
                team_id: world.directory.agent(leg.agent_id).map_or(0, |agent| agent.at(known_at).team),
                in_group: world.directory.wanted(leg.agent_id, known_at),
                started_at: timestamp(leg.started_at),
                ended_at: timestamp(leg.reported_end()),
                hung_up_at: timestamp(leg.hung_up_at),
                recording_at: timestamp(call.recording_at()),
                direction: if call.outbound { Direction::Outbound } else { Direction::Inbound },
                customer_number: call.customer.clone(),
                legs: call.legs.len(),
                recordings: Vec::new(),
            };
            (truth, media)
        })
        .collect()
}

/// Generates and hashes the media of each leg.
pub(crate) fn hashed(legs: Vec<(TruthLeg, Vec<Recording>)>, hashes: &Hashes) -> Vec<TruthLeg> {
    let hash = |media: Vec<Recording>| media.into_iter().map(|recording| hashes.of(recording)).collect();
    legs.into_iter().map(|(leg, media)| TruthLeg { recordings: hash(media), ..leg }).collect()
}
