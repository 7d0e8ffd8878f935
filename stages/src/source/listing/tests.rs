use std::collections::BTreeSet;

use super::*;
use crate::source::test_nice::{Call, FakeNice, at, tenant};

const FROM: &str = "2026-04-01T00:00:00Z";
const TO: &str = "2026-04-03T00:00:00Z";

/// Lists the range: each call's id in the order in which it came, and the requests that it took.
async fn list(nice: &FakeNice) -> (Vec<u64>, u64) {
    list_from(nice, at(FROM)).await
}

/// As [`list`], of a range that begins some time within the first millisecond.
async fn list_from(nice: &FakeNice, from: Timestamp) -> (Vec<u64>, u64) {
    let mut listing = Listing::new(nice.tenants.clone(), tenant(), QuotaClass::Backfill, from, at(TO));
    let (mut ids, mut requests, mut reached) = (Vec::new(), 0, at(FROM));
    while let Some(slice) = listing.next().await.unwrap() {
        assert_eq!(slice.from, reached, "slices follow each other without a gap");
        assert!(slice.to > slice.from);
        reached = slice.to;
        requests += slice.requests;
        ids.extend(slice.calls.iter().map(|call| call.contact_id.get()));
        listing.passed(&slice);
    }
    assert_eq!(reached, at(TO));
    (ids, requests)
}

fn every(millis: i64, count: u64) -> Vec<Call> {
    (0..count).map(|n| Call::new(1 + n, at(FROM) + SignedDuration::from_millis(millis * n as i64), 60)).collect()
}

fn all(count: u64) -> BTreeSet<u64> {
    (1..=count).collect()
}

#[tokio::test]
async fn an_empty_range_costs_a_request_a_day() {
    let nice = FakeNice::start(Vec::new()).await;
    assert_eq!(list(&nice).await, (Vec::new(), 2));
}

#[tokio::test]
async fn every_call_is_listed_once_in_few_requests() {
    let nice = FakeNice::start(every(9_000, 19_200)).await;
    let (ids, requests) = list(&nice).await;
    assert_eq!(ids.len(), 19_200);
    assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), all(19_200));
    // Pages are filled to 70 % and more: 7 at best.
    assert!(requests <= 10, "{requests}");
}

#[tokio::test]
async fn a_range_that_begins_within_a_millisecond_lists_no_call_twice() {
    let nice = FakeNice::start(every(1, 20_000)).await;
    let (ids, _) = list_from(&nice, at("2026-04-01T00:00:00.0004Z")).await;
    assert_eq!(ids.len(), 20_000);
    assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), all(20_000));
}

#[tokio::test]
async fn a_sudden_crowd_is_cut_into_slices_that_fit() {
    let mut calls = every(60_000, 600);
    calls
        .extend((0..12_000).map(|n| {
            Call::new(10_000 + n, at("2026-04-02T09:00:00Z") + SignedDuration::from_millis(50 * n as i64), 5)
        }));
    let nice = FakeNice::start(calls).await;
    let (ids, _) = list(&nice).await;
    assert_eq!(ids.len(), 12_600);
    assert_eq!(ids.into_iter().collect::<BTreeSet<_>>().len(), 12_600);
}

#[tokio::test]
async fn a_server_that_gives_fewer_rows_than_asked_for_hides_none() {
    let nice = FakeNice::start(every(30_000, 5_000)).await;
    nice.cap(100);
    let (ids, _) = list(&nice).await;
    assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), all(5_000));
}

#[tokio::test]
async fn rows_that_move_while_they_are_listed_are_not_lost() {
    let nice = FakeNice::start(every(9_000, 19_200)).await;
    nice.shift(1_000);
    let (ids, _) = list(&nice).await;
    assert_eq!(ids.len(), 19_200);
    assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), all(19_200));
}

#[tokio::test]
async fn more_calls_in_a_second_than_a_page_holds_are_paged_until_all_are_there() {
    for (shifts, silent) in [(0, false), (3, false), (3, true)] {
        let mut calls = every(0, 14_000);
        calls.push(Call::new(99_999, at("2026-04-02T00:00:00Z"), 60));
        let nice = FakeNice::start(calls).await;
        nice.shift(shifts);
        if silent {
            nice.say_no_total();
        }
        let (ids, _) = list(&nice).await;
        assert_eq!(ids.len(), 14_001, "{shifts} {silent}");
        assert_eq!(ids.into_iter().collect::<BTreeSet<_>>().len(), 14_001);
    }
}

#[tokio::test]
async fn a_failed_request_is_repeated_where_it_was() {
    let nice = FakeNice::start(every(9_000, 2_000)).await;
    let mut listing = Listing::new(nice.tenants.clone(), tenant(), QuotaClass::Backfill, at(FROM), at(TO));
    let first = listing.next().await.unwrap().unwrap();
    nice.fail_next(1);
    assert!(matches!(listing.next().await, Err(ListError::Nice(_))));
    let again = listing.next().await.unwrap().unwrap();
    assert_eq!(again.from, first.from);
    assert!(!again.calls.is_empty());
}
