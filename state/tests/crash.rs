//! kill -9 at any moment: what was acknowledged is there, and the state opens again.
//!
//! The test starts its own executable as the victim. The victim commits ids and events as fast as it can
//! and prints each one once it is acknowledged; the test kills it and compares.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use model::Key;
use state::{ClaimOutcome, Inbox, State, StateOptions};

const VICTIM_DIR: &str = "STATE_CRASH_VICTIM_DIR";
const ROUNDS: usize = 12;
const CALLERS: u64 = 16;

fn key(n: u64) -> Key {
    Key::of(&["crash", &n.to_string()])
}

/// Events of many sizes, so that some lie in one part and some in many.
fn event(n: u64) -> Vec<u8> {
    let size = [10, 4091, 4092, 4093, 33_000][n as usize % 5];
    n.to_be_bytes().into_iter().cycle().take(size).collect()
}

/// Not a test of its own: what the victim runs.
#[test]
fn victim() {
    let Ok(dir) = std::env::var(VICTIM_DIR) else { return };
    let state = State::open(Path::new(&dir), StateOptions::default()).unwrap().state;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let first = state.processed().len() as u64;
    say(&format!("open {first}"));
    runtime.block_on(async {
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..CALLERS {
            callers.spawn(commit_for_ever(state.clone(), first + caller));
        }
        while callers.join_next().await.is_some() {}
    });
}

async fn commit_for_ever(state: State, first: u64) {
    for n in (first..).step_by(CALLERS as usize) {
        if let ClaimOutcome::Claimed(claim) = state.processed().claim(key(n)).unwrap() {
            claim.commit().await.unwrap();
            say(&format!("id {n}"));
        }
        if n % 7 == 0 {
            state.inbox().push(&event(n)).await.unwrap();
            say(&format!("event {n}"));
        }
        if n % 13 == 0 {
            state.store().tree("callers").unwrap().insert(n.to_be_bytes(), b"own").unwrap();
            state.store().commit().await.unwrap();
            say(&format!("own {n}"));
        }
    }
}

/// One line, in one write: a kill tears no line.
fn say(line: &str) {
    std::io::stdout().write_all(format!("ack {line}\n").as_bytes()).unwrap();
}

#[test]
fn a_kill_at_any_moment_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (mut ids, mut events) = (HashSet::new(), HashSet::new());
    let mut own = HashSet::new();
    for round in 0..ROUNDS {
        let (mut victim, lines) = start_victim(dir.path());
        let mut left = 40 + round * 97;
        for line in lines.lines() {
            let line = line.unwrap();
            let Some(("ack", what)) = line.split_once(' ') else { continue };
            let (kind, n) = what.split_once(' ').unwrap();
            let n: u64 = n.parse().unwrap();
            match kind {
                "id" => assert!(ids.insert(n), "id {n} was acknowledged twice"),
                "event" => drop(events.insert(event(n))), // in the next round perhaps once more
                "own" => drop(own.insert(n)),             // in the next round perhaps once more
                _ => {}
            }
            if left == 0 {
                victim.kill().unwrap(); // the rest of what it said before it died is still read
            }
            left = left.wrapping_sub(1);
        }
        victim.wait().unwrap();

        let opened = State::open(dir.path(), StateOptions::default()).unwrap();
        assert_eq!(opened.set_aside, None, "round {round}");
        let state = opened.state;
        for n in &ids {
            assert!(state.processed().contains(&key(*n)), "round {round}: id {n} was acknowledged and is gone");
        }
        let stored = all_of(state.inbox());
        assert_eq!(stored.len(), state.inbox().len());
        // An event that was stored but not acknowledged is stored again in the next round.
        let stored: HashSet<_> = stored.into_iter().collect();
        assert!(events.is_subset(&stored), "round {round}: an acknowledged event is gone or garbled");
        let callers = state.store().tree("callers").unwrap();
        for n in &own {
            assert!(callers.contains_key(n.to_be_bytes()).unwrap(), "round {round}: a value of the caller's is gone");
        }
    }
    assert!(ids.len() > ROUNDS * 40 / 4 && !events.is_empty() && !own.is_empty());
}

fn start_victim(dir: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture"])
        .env(VICTIM_DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap());
    (victim, lines)
}

fn all_of(inbox: &Inbox) -> Vec<Vec<u8>> {
    let (mut events, mut after) = (Vec::new(), None);
    loop {
        let page = inbox.next(after, 100).unwrap();
        let Some((last, _)) = page.last() else { return events };
        after = Some(*last);
        events.extend(page.into_iter().map(|(_, event)| event));
    }
}
