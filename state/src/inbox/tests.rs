//! What was accepted comes out whole, in order, until it is removed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::test_support::Bench;

fn contents(inbox: &Inbox) -> Vec<Vec<u8>> {
    inbox.next(None, 1000).unwrap().into_iter().map(|(_, event)| event).collect()
}

#[tokio::test]
async fn events_come_out_whole_and_in_order_also_after_a_restart() {
    let bench = Bench::new();
    let state = bench.open();
    let sizes = [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, MAX_VALUE_BYTES, 32 * 1024, MAX_EVENT_BYTES];
    let events: Vec<Vec<u8>> = sizes.iter().map(|size| (0..*size).map(|n| (n % 251) as u8).collect()).collect();
    for event in &events {
        state.inbox().push(event).await.unwrap();
    }
    assert_eq!(contents(state.inbox()), events);
    drop(state);
    let state = bench.open();
    assert_eq!(state.inbox().len(), events.len());
    assert_eq!(contents(state.inbox()), events);

    let page = state.inbox().next(None, 3).unwrap();
    assert_eq!(page.len(), 3);
    let rest = state.inbox().next(Some(page[2].0), 1000).unwrap();
    assert_eq!(rest.into_iter().map(|(_, event)| event).collect::<Vec<_>>(), events[3..]);
}

#[tokio::test]
async fn what_is_removed_is_gone() {
    let bench = Bench::new();
    let state = bench.open();
    let first = state.inbox().push(&[1; 10_000]).await.unwrap();
    let second = state.inbox().push(&[2; 10_000]).await.unwrap();
    state.inbox().remove(first).unwrap();
    state.inbox().remove(first).unwrap(); // a repeat is harmless
    assert_eq!(state.inbox().len(), 1);
    assert_eq!(state.inbox().next(None, 10).unwrap(), [(second, vec![2; 10_000])]);
    drop(state);
    let state = bench.open();
    assert_eq!(contents(state.inbox()), [vec![2; 10_000]]);
    assert!(state.inbox().push(&[3]).await.unwrap() > second, "ids go on");
}

#[tokio::test]
async fn a_full_inbox_refuses_and_takes_again_after_a_removal() {
    let mut bench = Bench::new();
    bench.options.inbox_capacity = 2;
    let state = bench.open();
    let first = state.inbox().push(b"1").await.unwrap();
    state.inbox().push(b"2").await.unwrap();
    assert!(matches!(state.inbox().push(b"3").await, Err(InboxError::Full { capacity: 2 })));
    state.inbox().remove(first).unwrap();
    state.inbox().push(b"4").await.unwrap();
    let large = vec![0; MAX_EVENT_BYTES + 1];
    assert!(matches!(state.inbox().push(&large).await, Err(InboxError::TooLarge { .. })));
}

#[tokio::test]
async fn half_an_event_is_swept_away() {
    let bench = Bench::new();
    let state = bench.open();
    state.inbox().push(&[1; 10_000]).await.unwrap();
    state.inbox().push(&[2; 10]).await.unwrap();
    state.store().own_tree(INBOX).unwrap().remove(key(1, 0)).unwrap(); // as a crash between two parts leaves it
    assert_eq!(contents(state.inbox()), [vec![2; 10]]);
    drop(state);
    let state = bench.open();
    assert_eq!(state.inbox().len(), 1);
    assert_eq!(state.store().own_tree(INBOX).unwrap().len(), 1);
}

#[tokio::test]
async fn a_reader_that_waits_misses_nothing() {
    let bench = Bench::new();
    let state = bench.open();
    let (inbox, reader) = (state.inbox().clone(), state.inbox().clone());
    let reading = tokio::spawn(async move {
        let (mut seen, mut after) = (Vec::new(), None);
        while seen.len() < 200 {
            for (id, event) in reader.next(after, 7).unwrap() {
                after = Some(id);
                seen.push(u64::from_be_bytes(event.try_into().unwrap()));
                reader.remove(id).unwrap();
            }
            if reader.next(after, 1).unwrap().is_empty() && seen.len() < 200 {
                reader.wait().await;
            }
        }
        seen
    });
    let writing = (0..200u64).map(|n| {
        let inbox = inbox.clone();
        tokio::spawn(async move { inbox.push(&n.to_be_bytes()).await.unwrap() })
    });
    for push in writing.collect::<Vec<_>>() {
        push.await.unwrap();
    }
    let mut seen = reading.await.unwrap();
    seen.sort_unstable();
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_store_that_fails_accepts_nothing() {
    let bench = Bench::new();
    let state = bench.open();
    state.store().fail_next_sync();
    assert!(matches!(state.inbox().push(b"1").await, Err(InboxError::State(StateError::Storage { .. }))));
    assert!(state.inbox().push(b"2").await.is_err());
}
