//! A disk that refuses to write: no false acknowledgement, and the state opens again once there is room.
//!
//! The victim runs under a limit on the size of its files, which the system answers with EFBIG.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use model::Key;
use state::{ClaimOutcome, State, StateError, StateOptions};

const VICTIM_DIR: &str = "STATE_DISK_FULL_VICTIM_DIR";

fn key(n: u32) -> Key {
    Key::of(&["full", &n.to_string()])
}

/// Not a test of its own: what the victim runs. Prints how many batches were acknowledged.
#[test]
fn victim() {
    let Ok(dir) = std::env::var(VICTIM_DIR) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let state = State::open(Path::new(&dir), StateOptions::default()).unwrap().state;
    let bulk = state.store().tree("queue/bulk").unwrap();
    runtime.block_on(async {
        for n in 0.. {
            let ClaimOutcome::Claimed(claim) = state.processed().claim(key(n)).unwrap() else { panic!("{n}") };
            // Sled itself may refuse first; either way the claim must not be acknowledged.
            let written = bulk.insert(n.to_be_bytes(), vec![7; 4000]);
            match claim.commit().await {
                Ok(()) => written.map(drop).unwrap(),
                Err(error) => {
                    assert!(matches!(error, StateError::Storage { .. } | StateError::Io { .. }), "{error:?}");
                    assert!(!state.processed().contains(&key(n)));
                    assert!(state.processed().claim(key(n + 1)).is_err(), "a poisoned store takes nothing");
                    assert!(state.store().commit().await.is_err(), "and never recovers by itself");
                    println!("acknowledged {n}");
                    break;
                }
            }
        }
    });
}

#[test]
fn a_full_disk_poisons_the_store_and_damages_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let command = "trap '' XFSZ; ulimit -f 3000; exec \"$0\" --exact victim --nocapture";
    let victim = Command::new("bash")
        .args(["-c", command])
        .arg(std::env::current_exe().unwrap())
        .env(VICTIM_DIR, dir.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&victim.stdout);
    assert!(victim.status.success(), "{said} {}", String::from_utf8_lossy(&victim.stderr));
    let acknowledged: u32 =
        said.split("acknowledged ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap().parse().unwrap();
    assert!(acknowledged > 10, "{said}");

    let opened = State::open(dir.path(), StateOptions::default()).unwrap();
    assert_eq!(opened.set_aside, None);
    for n in 0..acknowledged {
        assert!(opened.state.processed().contains(&key(n)), "{n} of {acknowledged} was acknowledged and is gone");
    }
}
