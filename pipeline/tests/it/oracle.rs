//! What must lie on disk when all calls are final: read from the stores themselves, never from the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use catalog::{ConversationRow, EmbeddedCatalog, roles::*};
use model::{ConversationKey, ConversationState, DeadLetter};
use nice_sim::{Direction, TruthLeg};
use sha2::{Digest, Sha256};
use state::{State, StateOptions};

use crate::harness::Bed;

/// What the oracle counted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) ready: usize,
    pub(crate) no_recording: usize,
    pub(crate) dead: usize,
}

/// Compares everything that the simulated NICE knows with everything that is stored. The daemon must have ended.
pub(crate) async fn verify(bed: &Bed) -> Verdict {
    let opened = State::open(&bed.data(), StateOptions::default()).expect("the state opens");
    assert_eq!(opened.set_aside, None, "the state was damaged");
    let catalog = EmbeddedCatalog::open(opened.state.store()).expect("the catalog opens");
    let letters = catalog.dead_letters(0, usize::MAX).await.unwrap();
    let truth = bed.sim.truth();

    let mut verdict = Verdict::default();
    let mut expected_files = BTreeMap::new();
    let mut ready = BTreeSet::new();
    for leg in &truth {
        let key = key_of(leg);
        let row = catalog.conversation(&key).await.unwrap();
        if !leg.in_group {
            assert!(row.is_none(), "a call of an agent outside the group was stored: {key}");
            continue;
        }
        match row {
            Some(row) if row.state.is_final() => {
                check_row(&row, leg);
                match row.state {
                    ConversationState::Ready => {
                        verdict.ready += 1;
                        ready.insert(key);
                    }
                    _ => verdict.no_recording += 1,
                }
                for (stored, sent) in row.recordings.iter().zip(&leg.recordings) {
                    expected_files.insert(stored.object_key.clone(), sent.sha256.clone());
                }
            }
            row => {
                let state = row.map(|row| row.state);
                let letter = letter_of(&letters, leg);
                let letter = letter.unwrap_or_else(|| panic!("{key} is lost: row {state:?}, no dead letter"));
                assert!(!letter.reason.is_empty());
                verdict.dead += 1;
            }
        }
    }

    let queue = catalog.analysis_queue(0, usize::MAX).await.unwrap();
    let queued: BTreeSet<_> = queue.iter().map(|entry| entry.key.clone()).collect();
    assert_eq!(queue.len(), queued.len(), "a conversation is in the analysis queue twice");
    assert_eq!(queued, ready, "the analysis queue is not the set of ready conversations");

    let recordings = bed.data().join("recordings");
    let files = files_below(&recordings, &recordings);
    let expected: BTreeMap<_, _> = expected_files.into_iter().collect();
    assert_eq!(files, expected, "the files are not the recordings, byte for byte");
    let violations = bed.sim.violations();
    assert!(violations.is_empty(), "{violations:?}");
    opened.state.store().close().await.unwrap();
    verdict
}

fn key_of(leg: &TruthLeg) -> ConversationKey {
    ConversationKey { tenant: "acme".parse().unwrap(), external_id: leg.contact_id.to_string().parse().unwrap() }
}

fn letter_of<'a>(letters: &'a [DeadLetter], leg: &TruthLeg) -> Option<&'a DeadLetter> {
    let id = leg.contact_id.to_string();
    letters.iter().find(|letter| letter.conversation_id.as_ref() == Some(&id))
}

fn check_row(row: &ConversationRow, leg: &TruthLeg) {
    let id = leg.contact_id;
    assert_eq!(row.master_external_id.to_string(), leg.master_contact_id.to_string(), "{id}");
    assert_eq!(row.agent_external_id.to_string(), leg.agent_id.to_string(), "{id}");
    let direction = match leg.direction {
        Direction::Inbound => model::Direction::Inbound,
        Direction::Outbound => model::Direction::Outbound,
    };
    assert_eq!(row.direction, Some(direction), "{id}");
    assert_eq!(row.customer_number.as_deref(), Some(leg.customer_number.as_str()), "{id}");
    assert!((row.started_at.duration_since(leg.started_at)).as_secs() == 0, "{id}: start");
    assert!((row.ended_at.duration_since(leg.ended_at)).as_secs().abs() <= 1, "{id}: end");
    let stored: Vec<_> =
        row.recordings.iter().map(|recording| (recording.size_bytes, recording.sha256.clone())).collect();
    let sent: Vec<_> = leg.recordings.iter().map(|recording| (recording.size, recording.sha256.clone())).collect();
    assert_eq!(stored, sent, "{id}: recordings");
    assert_eq!(row.state == ConversationState::Ready, !sent.is_empty(), "{id}: state");
    assert_eq!(row.enqueued_at.is_some(), row.state == ConversationState::Ready, "{id}: analysis entry");
}

/// Every recording below a folder with the SHA-256 of its bytes; also that nothing is half written.
fn files_below(root: &Path, folder: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        if name.starts_with(".partial/") {
            panic!("half-written: {name}");
        } else if path.is_dir() {
            files.extend(files_below(root, &path));
        } else if name.ends_with("/conversation.json") {
            let text = std::fs::read(&path).unwrap();
            serde_json::from_slice::<ConversationRow>(&text).expect("a description is whole");
        } else {
            files.insert(name, hex(&Sha256::digest(std::fs::read(&path).unwrap())));
        }
    }
    files
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
