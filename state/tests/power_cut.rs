//! A power cut at any moment: what was acknowledged is there, whatever the disk made of the rest.
//!
//! A victim runs under strace, which records every write and every sync of the database with the data. From the
//! record the test builds what a disk may hold after a cut: all that was written before the last finished sync,
//! and of what came later any pages, none, or all. Each such image must open, undamaged, with every id that had
//! been acknowledged before the cut.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use model::Key;
use state::{ClaimOutcome, State, StateOptions};

const VICTIM_DIR: &str = "STATE_POWER_CUT_VICTIM_DIR";
const CALLERS: u64 = 8;
const IDS_PER_CALLER: u64 = 40;
const CUTS: u64 = 60;
/// Pages reach a disk one by one.
const PAGE: usize = 4096;

fn key(n: u64) -> Key {
    Key::of(&["power", &n.to_string()])
}

/// Not a test of its own: what the victim runs.
#[test]
fn victim() {
    let Ok(dir) = std::env::var(VICTIM_DIR) else { return };
    let state = State::open(Path::new(&dir), StateOptions::default()).unwrap().state;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..CALLERS {
            callers.spawn(commit_ids(state.clone(), caller));
        }
        while let Some(done) = callers.join_next().await {
            done.unwrap();
        }
    });
    std::process::exit(0); // no clean close: it would sync what the cuts are about
}

/// Commits ids, and between them churns through a tree of its own, so that sled reuses its segments.
async fn commit_ids(state: State, caller: u64) {
    let tree = state.store().tree("queue/churn").unwrap();
    for n in 0..IDS_PER_CALLER {
        for slot in 0..12u64 {
            tree.insert((slot * CALLERS + caller).to_be_bytes(), vec![n as u8; 2000]).unwrap();
        }
        let id = caller * IDS_PER_CALLER + n;
        let ClaimOutcome::Claimed(claim) = state.processed().claim(key(id)).unwrap() else { panic!() };
        claim.commit().await.unwrap();
        std::io::stdout().write_all(format!("ack {id};\n").as_bytes()).unwrap();
    }
}

/// What the victim did, in order; `finished` is the number of events before its end.
enum Event {
    Write { at: usize, data: Vec<u8>, finished: usize },
    Truncate { to: usize },
    Sync { finished: usize },
    Acknowledged(u64),
}

#[test]
fn what_was_acknowledged_survives_whatever_the_disk_made_of_the_rest() {
    let strace = Command::new("strace").arg("-V").output();
    assert!(strace.is_ok(), "strace is not installed: ./test installs it");
    let dir = tempfile::tempdir().unwrap();
    let (live, record) = (dir.path().join("live"), dir.path().join("record"));
    drop(State::open(&live, StateOptions::default()).unwrap());
    let before = fs::read(live.join("sled/db")).unwrap();
    let status = Command::new("strace")
        .args(["-f", "-y", "-xx", "-s", "1000000", "-e", "trace=pwrite64,write,ftruncate,fsync,fdatasync", "-o"])
        .arg(&record)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture"])
        .env(VICTIM_DIR, &live)
        .output()
        .unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    let events = read_record(&fs::read(&record).unwrap());
    let all = events.iter().filter(|event| matches!(event, Event::Acknowledged(_))).count() as u64;
    assert_eq!(all, CALLERS * IDS_PER_CALLER, "the record is whole");

    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    for cut in 1..=CUTS {
        let end = if cut == CUTS { events.len() } else { chance.below(events.len()) };
        let seed = chance.0;
        let image = dir.path().join(format!("cut-{cut}"));
        fs::create_dir_all(image.join("sled/blobs")).unwrap();
        for entry in fs::read_dir(live.join("sled")).unwrap().map(|entry| entry.unwrap()) {
            if entry.path().is_file() && entry.file_name() != "db" {
                fs::copy(entry.path(), image.join("sled").join(entry.file_name())).unwrap();
            }
        }
        fs::write(image.join("sled/db"), disk_after(&before, &events[..end], cut, &mut chance)).unwrap();

        let opened = State::open(&image, StateOptions::default()).unwrap();
        assert_eq!(opened.set_aside, None, "cut {cut} at {end} of {}, seed {seed:#x}", events.len());
        for event in &events[..end] {
            if let Event::Acknowledged(id) = event {
                let known = opened.state.processed().contains(&key(*id));
                assert!(known, "cut {cut} at {end} of {}, seed {seed:#x}: id {id} is gone", events.len());
            }
        }
        let churned = opened.state.store().tree("queue/churn").unwrap();
        assert!(churned.iter().all(|entry| entry.is_ok_and(|(_, value)| value.len() == 2000)));
        drop((churned, opened));
        fs::remove_dir_all(image).unwrap();
    }
}

/// What the disk holds after these events: all that a finished sync covers, and some of the rest.
fn disk_after(before: &[u8], events: &[Event], cut: u64, chance: &mut Chance) -> Vec<u8> {
    let now = events.len();
    let synced = events.iter().enumerate().rev().find_map(|(place, event)| match event {
        Event::Sync { finished } if *finished < now => Some(place),
        _ => None,
    });
    let is_synced = |place: usize, finished: usize| synced.is_some_and(|sync| place < sync && finished <= sync);
    let mut disk = before.to_vec();
    for (place, event) in events.iter().enumerate() {
        match event {
            Event::Write { at, data, finished } => {
                for (page, bytes) in data.chunks(PAGE).enumerate() {
                    let kept = match cut % 3 {
                        0 => true,
                        1 => chance.below(2) == 0,
                        _ => false,
                    };
                    if kept || is_synced(place, *finished) {
                        let start = at + page * PAGE;
                        disk.resize(disk.len().max(start + bytes.len()), 0);
                        disk[start..start + bytes.len()].copy_from_slice(bytes);
                    }
                }
            }
            Event::Truncate { to } => disk.resize(*to, 0),
            Event::Sync { .. } | Event::Acknowledged(_) => {}
        }
    }
    disk
}

/// Reads the record of strace; a call that another thread interrupts is two lines, its end the second.
fn read_record(record: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    let mut unfinished: HashMap<&str, usize> = HashMap::new();
    for line in std::str::from_utf8(record).unwrap().lines() {
        let (thread, call) = line.split_once(' ').unwrap();
        let (call, now) = (call.trim_start(), events.len());
        if call.starts_with("<...") {
            if let Some(place) = unfinished.remove(thread) {
                match &mut events[place] {
                    Event::Write { finished, .. } | Event::Sync { finished } => *finished = now,
                    _ => {}
                }
            }
            continue;
        }
        let Some(event) = read_call(call, now) else { continue };
        if call.ends_with("<unfinished ...>") {
            unfinished.insert(thread, now);
        }
        events.push(match event {
            Event::Write { at, data, .. } if call.ends_with("<unfinished ...>") => {
                Event::Write { at, data, finished: usize::MAX }
            }
            Event::Sync { .. } if call.ends_with("<unfinished ...>") => Event::Sync { finished: usize::MAX },
            other => other,
        });
    }
    events
}

fn read_call(call: &str, now: usize) -> Option<Event> {
    let (name, rest) = call.split_once('(')?;
    let of_database = rest.split_once('>').is_some_and(|(file, _)| decode(file).ends_with(b"/sled/db"));
    match name {
        "pwrite64" if of_database => {
            let mut parts = rest.split('"');
            let data = decode(parts.nth(1)?);
            let at = parts.next()?.trim_start_matches(", ").split(", ").nth(1)?;
            let at = at.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
            Some(Event::Write { at, data, finished: now })
        }
        "ftruncate" if of_database => {
            let to = rest.split_once(", ")?.1.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
            Some(Event::Truncate { to })
        }
        "fsync" | "fdatasync" if of_database => Some(Event::Sync { finished: now }),
        "write" => {
            let said = decode(rest.split('"').nth(1)?);
            let id = std::str::from_utf8(&said).ok()?.strip_prefix("ack ")?.strip_suffix(";\n")?;
            Some(Event::Acknowledged(id.parse().ok()?))
        }
        _ => None,
    }
}

/// Bytes as strace prints them with `-xx`; what is not written so stands for itself.
fn decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len() / 4), 0);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"\\x") && at + 4 <= bytes.len() {
            decoded.push(u8::from_str_radix(&text[at + 2..at + 4], 16).unwrap());
            at += 4;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    decoded
}

/// A small generator, so that a failure names the seed that repeats it.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}
