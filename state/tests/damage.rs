//! Damaged files: the state opens, or is set aside and rebuilt; it never panics and never hangs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use model::Key;
use state::{ClaimOutcome, MAX_VALUE_BYTES, State, StateError, StateOptions};

fn key(n: u32) -> Key {
    Key::of(&["damage", &n.to_string()])
}

/// A state with 20,000 ids and a caller's tree, closed cleanly.
fn filled(dir: &Path) {
    let state = State::open(dir, StateOptions::default()).unwrap().state;
    state.processed().seed((0..20_000).map(key)).unwrap();
    let tree = state.store().tree("queue/live").unwrap();
    for n in 0..2_000u32 {
        tree.insert(n.to_be_bytes(), vec![n as u8; MAX_VALUE_BYTES / 4]).unwrap();
    }
    state.store().commit_blocking().unwrap();
}

/// Opens whatever is in `dir`; it must work, and take and remember a new id. Returns whether it was set aside.
fn opens_and_works(dir: &Path) -> bool {
    let opened = State::open(dir, StateOptions::default()).expect("a damaged state is no reason not to start");
    if let Some(aside) = &opened.set_aside {
        assert!(aside.join("db").exists(), "what is set aside is kept");
    }
    assert!(opened.state.processed().len() <= 20_001);
    opened.state.processed().seed([key(1_000_000)]).unwrap();
    assert!(matches!(opened.state.processed().claim(key(1_000_000)).unwrap(), ClaimOutcome::Processed));
    opened.set_aside.is_some()
}

#[test]
fn an_empty_snapshot_or_a_half_written_one_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    drop(State::open(dir.path(), StateOptions::default()).unwrap()); // writes a snapshot
    let snapshots: Vec<_> = fs::read_dir(dir.path().join("sled"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("snap."))
        .collect();
    assert!(!snapshots.is_empty(), "sled writes a snapshot when it opens");
    for snapshot in &snapshots {
        fs::write(snapshot, b"").unwrap();
    }
    fs::write(dir.path().join("sled/snap.00000000000FFFFF.generating"), b"half").unwrap();
    let opened = State::open(dir.path(), StateOptions::default()).unwrap();
    assert_eq!(opened.set_aside, None);
    assert_eq!(opened.state.processed().len(), 20_000);
}

#[test]
fn a_garbled_snapshot_costs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    drop(State::open(dir.path(), StateOptions::default()).unwrap());
    for entry in fs::read_dir(dir.path().join("sled")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("snap.") {
            fs::write(path, [7; 4096]).unwrap();
        }
    }
    let opened = State::open(dir.path(), StateOptions::default()).unwrap();
    assert_eq!(opened.set_aside, None);
    assert_eq!(opened.state.processed().len(), 20_000);
}

#[test]
fn garbage_anywhere_in_the_log_is_survived() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let log = dir.path().join("sled/db");
    let whole = fs::read(&log).unwrap();
    let mut aside = 0;
    let places = 24;
    for place in 0..places {
        let copy = tempfile::tempdir().unwrap();
        copy_tree(dir.path(), copy.path());
        if place % 2 == 0 {
            // Without the snapshot the log is read from its beginning.
            remove_snapshots(&copy.path().join("sled"));
        }
        let file = fs::OpenOptions::new().write(true).open(copy.path().join("sled/db")).unwrap();
        let at = whole.len() as u64 * place / places;
        let noise: Vec<u8> =
            (0..4096u64).map(|n| (n.wrapping_mul(2_654_435_761).wrapping_add(place) >> 7) as u8).collect();
        file.write_all_at(&noise[..noise.len().min(whole.len() - at as usize)], at).unwrap();
        drop(file);
        aside += u32::from(opens_and_works(copy.path()));
    }
    println!("{aside} of {places} were set aside");
}

#[test]
fn a_log_cut_anywhere_is_survived() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let length = fs::metadata(dir.path().join("sled/db")).unwrap().len();
    for cut in [0, 1, 511, 4096, 100_000, length / 3, length / 2, length - 4096, length - 1] {
        for with_snapshot in [true, false] {
            let copy = tempfile::tempdir().unwrap();
            copy_tree(dir.path(), copy.path());
            if !with_snapshot {
                remove_snapshots(&copy.path().join("sled"));
            }
            let file = fs::OpenOptions::new().write(true).open(copy.path().join("sled/db")).unwrap();
            file.set_len(cut).unwrap();
            drop(file);
            opens_and_works(copy.path());
        }
    }
}

#[test]
fn damaged_settings_of_the_database_are_survived() {
    for content in [&b""[..], b"segment_size: 1\n1234", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"] {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path());
        fs::write(dir.path().join("sled/conf"), content).unwrap();
        opens_and_works(dir.path());
    }
}

#[test]
fn a_page_found_unreadable_ends_in_a_new_start() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path(), StateOptions::default()).unwrap().state;
    state.processed().seed([key(1)]).unwrap();
    let unreadable = StateError::from(sled::Error::Corruption { at: None, bt: () });
    state.store().report(&unreadable);
    assert!(state.store().commit_blocking().is_err(), "the store is poisoned");
    drop(state);
    assert!(opens_and_works(dir.path()), "it is set aside");
    assert!(!opens_and_works(dir.path()), "and only once");
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path());
    let database = sled::open(dir.path().join("sled")).unwrap();
    database.open_tree("meta").unwrap().insert("format", &99u32.to_be_bytes()).unwrap();
    drop(database);
    for _ in 0..2 {
        let refused = State::open(dir.path(), StateOptions::default());
        assert!(matches!(refused, Err(StateError::NewerFormat { found: 99, ours: 1 })), "{refused:?}");
    }
}

#[test]
fn a_second_opener_is_told_and_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let first = State::open(dir.path(), StateOptions::default()).unwrap().state;
    assert!(matches!(State::open(dir.path(), StateOptions::default()), Err(StateError::Locked { .. })));
    first.processed().seed([key(1)]).unwrap();
    drop(first);
    let opened = State::open(dir.path(), StateOptions::default()).unwrap();
    assert_eq!((opened.set_aside, opened.state.processed().len()), (None, 1));
}

#[test]
fn nobody_else_may_look() {
    let dir = tempfile::tempdir().unwrap();
    filled(&dir.path().join("state"));
    let mut directories = vec![dir.path().join("state")];
    while let Some(directory) = directories.pop() {
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700, "{directory:?}");
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
            }
        }
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, target) = {
            let entry = entry.unwrap();
            (entry.path(), to.join(entry.file_name()))
        };
        if path.is_dir() {
            copy_tree(&path, &target);
        } else {
            fs::copy(path, target).unwrap();
        }
    }
}

fn remove_snapshots(database: &Path) {
    for entry in fs::read_dir(database).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("snap.") {
            fs::remove_file(path).unwrap();
        }
    }
}
