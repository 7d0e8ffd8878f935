//! A simulation runs on one thread: the state begins none of its own there.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use state::{State, StateOptions};

/// How many committers this process has.
fn committers() -> usize {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let names = threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("comm")).ok());
    names.filter(|name| name.trim_end() == "state-commit").count()
}

#[tokio::test]
async fn commits_in_place_need_no_thread() {
    for (inline_commits, threads) in [(true, 0), (false, 1)] {
        let dir = tempfile::tempdir().unwrap();
        let options = StateOptions { inline_commits, ..StateOptions::default() };
        let state = State::open(dir.path(), options).unwrap().state;
        state.inbox().push(b"an event").await.unwrap();
        assert_eq!(committers(), threads, "inline: {inline_commits}");
        drop(state);
        let again = State::open(dir.path(), StateOptions { inline_commits: true, ..StateOptions::default() }).unwrap();
        assert_eq!(again.state.inbox().len(), 1);
    }
}

#[tokio::test]
async fn a_volatile_state_syncs_nothing_and_refuses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = StateOptions { inline_commits: true, volatile: true, ..StateOptions::default() };
    let state = State::open(dir.path(), options).unwrap().state;
    let syncs = state.store().syncs();
    for event in 0..100 {
        state.inbox().push(format!("event {event}").as_bytes()).await.unwrap();
    }
    assert_eq!((state.inbox().len(), state.store().syncs()), (100, syncs));
    state.store().close().await.unwrap();
    assert!(state.inbox().push(b"too late").await.is_err());
}
