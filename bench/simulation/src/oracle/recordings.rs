//! What must be stored of a call's recordings: what NICE gave, byte for byte, and nothing else.
//!
//! A medium may change: then the bytes of either version are right, if they were ever handed out to their end, and none
//! else can have been. It may be gone: then a call has its recordings only if there was time to take them. It may never
//! come: then there is none, unless NICE goes on naming it, which a person should see.

use std::collections::BTreeMap;

use catalog::{ConversationRow, RecordingRow};
use jiff::SignedDuration;
use nice_sim::{TruthLeg, TruthMedium};

use super::{Due, Evidence, TenantTruth};
use crate::standins::recording_store::StoredObject;

/// What must be there of a call of the group that ended after the beginning.
pub(super) fn due(tenant: &TenantTruth, leg: &TruthLeg, evidence: &Evidence<'_>) -> Due {
    let signed = |duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    let known_at = leg.ended_at.max(leg.listed_at);
    let looked_for_until =
        known_at.max(evidence.healed) + signed(tenant.recording_deadline) + SignedDuration::from_hours(3);
    let is_given_up = looked_for_until < evidence.now;
    let is_through = tenant.ready_by(leg, evidence).is_some_and(|by| by < evidence.now);
    if leg.recordings.is_empty() {
        return match is_given_up {
            true if leg.named_in_vain => Due::NeverGiven,
            true => Due::NoRecording,
            false => Due::UnderWay,
        };
    }
    if was_time_to_take(tenant, leg, evidence) {
        return if is_through { Due::Ready } else { Due::UnderWay };
    }
    if is_given_up { Due::ReadyOrGone } else { Due::UnderWay }
}

/// Whether everybody had the time to take all media of a call before they were gone, if they are.
fn was_time_to_take(tenant: &TenantTruth, leg: &TruthLeg, evidence: &Evidence<'_>) -> bool {
    let Some(gone_at) = leg.media.iter().filter_map(|medium| medium.gone_at).min() else { return true };
    tenant.ready_by(leg, evidence).is_some_and(|by| by < gone_at)
}

/// What is wrong with what is stored of a ready call.
pub(super) fn judge(leg: &TruthLeg, row: &ConversationRow, objects: &BTreeMap<&str, &StoredObject>) -> Vec<String> {
    let mut broken: Vec<_> = row.recordings.iter().filter_map(|recording| of_object(recording, objects)).collect();
    let mut lacking: Vec<&TruthMedium> = leg.media.iter().collect();
    let mut stored = Vec::new();
    for recording in &row.recordings {
        match lacking.iter().position(|medium| holds(medium, recording)) {
            Some(place) => stored.push(lacking.remove(place)),
            None => broken.push(format!("recording {} is none that NICE gave of it", recording.position)),
        }
    }
    if stored.is_empty() {
        broken.push("is ready without any recording of NICE's".to_owned());
    }
    // All are opened before the first is read: what was there by then is stored.
    let opened = stored.iter().filter_map(|medium| medium.served_at).min();
    let comes_later = |medium: &TruthMedium| opened.is_some_and(|opened| medium.available_at > opened);
    if !lacking.iter().all(|medium| medium.gone_at.is_some() || comes_later(medium)) {
        broken.push(format!("{} recordings are stored, not the {} of NICE", stored.len(), leg.media.len()));
    }
    // Nothing tells of some parts before they are there; all others are counted.
    let (told, missing) = (lacking.iter().filter(|medium| !medium.unlisted_before).count(), row.recordings_missing);
    let is_gone = lacking.iter().any(|medium| medium.gone_at.is_some());
    if missing as usize > lacking.len() || (told > missing as usize && !is_gone) {
        broken.push(format!("says that {missing} recordings are missing, and lacks {}", lacking.len()));
    }
    broken
}

/// Whether a recording has the bytes that a medium had when it was handed out to its end.
fn holds(medium: &TruthMedium, recording: &RecordingRow) -> bool {
    let mut given = medium.handed_out.iter().filter_map(|version| medium.versions.get(*version));
    given.any(|version| version.sha256 == recording.sha256 && version.size == recording.size_bytes)
}

/// Whose object it is: tenant and call, by its key. A store that fails after it has stored leaves one that no row names,
/// where NICE gives nothing to the next attempt: see the page of the simulation.
pub(super) fn call_of(key: &str) -> String {
    let mut parts = key.split('/');
    let (tenant, call) = (parts.next().unwrap_or_default(), parts.nth_back(1).unwrap_or_default());
    format!("{tenant}/{call}")
}

/// Row and object agree.
fn of_object(recording: &RecordingRow, objects: &BTreeMap<&str, &StoredObject>) -> Option<String> {
    let key = &recording.object_key;
    match objects.get(key.as_str()) {
        None => Some(format!("object {key} is not there")),
        Some(object) if object.sha256 != recording.sha256 || object.size != recording.size_bytes => {
            Some(format!("object {key} is not the one of the row"))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_whose_object_it_is() {
        assert_eq!(call_of("acme/2026/01/05/698800000001/0.mp4"), "acme/698800000001");
    }
}
