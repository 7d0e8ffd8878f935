//! One sync for all who wait, none for nobody, and no false promise.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::ClaimOutcome;
use crate::test_support::{Bench, key};

#[tokio::test]
async fn a_commit_syncs_only_what_was_written() {
    let bench = Bench::new();
    let state = bench.open();
    let store = state.store();
    let before = store.syncs();
    for _ in 0..10 {
        store.commit().await.unwrap();
    }
    assert_eq!(store.syncs(), before, "nothing was written");
    let tree = store.tree("queue/live").unwrap();
    store.commit().await.unwrap();
    let before = store.syncs();
    tree.insert("a", "b").unwrap();
    store.commit().await.unwrap();
    store.commit().await.unwrap();
    assert_eq!(store.syncs(), before + 1);
}

#[tokio::test]
async fn those_who_wait_together_share_a_sync() {
    let bench = Bench::new();
    let state = bench.open();
    let tree = state.store().tree("queue/live").unwrap();
    let before = state.store().syncs();
    let commits: Vec<_> = (0..500u32)
        .map(|n| {
            let (tree, store) = (tree.clone(), state.store().clone());
            async move {
                tree.insert(n.to_be_bytes(), "x").unwrap();
                store.commit().await.unwrap();
            }
        })
        .map(tokio::spawn)
        .collect();
    for commit in commits {
        commit.await.unwrap();
    }
    // On one thread all of them are in line before the first reply is seen.
    let syncs = state.store().syncs() - before;
    assert!((1..=250).contains(&syncs), "{syncs} syncs for 500 commits");
}

#[tokio::test]
async fn pages_too_large_for_the_log_are_synced_too() {
    let bench = Bench::new();
    let state = bench.open();
    let tree = state.store().tree("catalog/large").unwrap();
    let before = state.store().syncs();
    tree.insert("a", vec![7; 300_000]).unwrap();
    state.store().commit().await.unwrap();
    assert!(state.store().syncs() >= before + 3, "the file, its directory and the log");
    let before = state.store().syncs();
    tree.insert("b", vec![7; 10]).unwrap();
    state.store().commit().await.unwrap();
    assert_eq!(state.store().syncs(), before + 1, "a file is synced once");
    drop((tree, state));
    assert_eq!(bench.open().store().tree("catalog/large").unwrap().get("a").unwrap().unwrap().len(), 300_000);
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let bench = Bench::new();
    let state = bench.open();
    let tree = state.store().tree("queue/live").unwrap();
    tree.insert("a", "b").unwrap();
    state.store().close().await.unwrap();
    state.store().close().await.unwrap();
    assert!(matches!(state.store().commit().await, Err(StateError::Closed)));
    state.store().commit_soon();
    drop((tree, state));
    assert!(bench.open().store().tree("queue/live").unwrap().contains_key("a").unwrap());
}

#[tokio::test]
async fn a_commit_that_is_asked_for_happens_unattended() {
    let bench = Bench::new();
    let state = bench.open();
    let before = state.store().syncs();
    state.store().tree("queue/live").unwrap().insert("a", "b").unwrap();
    state.store().commit_soon();
    while state.store().syncs() == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn the_trees_of_the_state_are_its_own() {
    let bench = Bench::new();
    let state = bench.open();
    assert!(matches!(state.store().tree("processed/2026-11-22/0000"), Err(StateError::ReservedName)));
    assert!(matches!(state.store().drop_tree("inbox"), Err(StateError::ReservedName)));
}

/// What becomes of writes, commits, a failure of the disk, a close and a restart.
async fn life_of(bench: Bench) -> Vec<String> {
    let mut seen = Vec::new();
    let mut see = |what: &str, result: Result<(), StateError>| seen.push(format!("{what}: {result:?}"));
    let state = bench.open();
    let (store, tree) = (state.store().clone(), state.store().tree("queue/live").unwrap());
    tree.insert("a", "b").unwrap();
    let before = store.syncs();
    see("commit", store.commit().await);
    see(
        "in a thread that may block",
        std::thread::scope(|scope| scope.spawn(|| store.commit_blocking()).join().unwrap()),
    );
    assert_eq!(store.syncs(), before + 1);
    let ClaimOutcome::Claimed(claim) = state.processed().claim(key(1)).unwrap() else { panic!() };
    see("claim", claim.commit().await);
    state.processed().seed([key(2)]).unwrap();
    store.commit_soon();
    see("close", store.close().await);
    see("closed again", store.close().await);
    see("commit when closed", store.commit().await);
    store.commit_soon();
    drop((tree, store, state));

    let state = bench.open();
    assert!(state.store().tree("queue/live").unwrap().contains_key("a").unwrap());
    assert!(state.processed().contains(&key(1)) && state.processed().contains(&key(2)));
    state.processed().clear().unwrap();
    drop(state); // the last commit
    let state = bench.open();
    assert!(state.processed().is_empty());
    let ClaimOutcome::Claimed(claim) = state.processed().claim(key(3)).unwrap() else { panic!() };
    state.store().fail_next_sync();
    see("claim, and the disk fails", claim.commit().await);
    see("commit when poisoned", state.store().commit().await);
    see("check when poisoned", state.store().check());
    see("close when poisoned", state.store().close().await);
    assert!(!state.processed().contains(&key(3)));
    seen
}

#[tokio::test]
async fn without_a_committer_the_store_keeps_the_same_promises() {
    assert_eq!(life_of(Bench::inline()).await, life_of(Bench::new()).await);
}

#[tokio::test]
async fn a_commit_in_place_lets_others_have_their_turn() {
    let bench = Bench::inline();
    let state = bench.open();
    let other = tokio::spawn(async {});
    state.store().commit().await.unwrap();
    assert!(other.is_finished());
}
