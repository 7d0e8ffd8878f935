use std::collections::BTreeSet;

use super::*;
use crate::source::ListDoubt;
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
    // Pages are filled to 70 % and more: 7 at best, and for each the question what follows.
    assert!(requests <= 20, "{requests}");
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

/// Lists the range with a word of what NICE does; each id in its order, the requests, and the doubts.
async fn list_doubting(nice: &FakeNice) -> (BTreeSet<u64>, u64, Vec<ListDoubt>) {
    let mut listing = Listing::new(nice.tenants.clone(), tenant(), QuotaClass::Backfill, at(FROM), at(TO));
    let (mut ids, mut doubts) = (BTreeSet::new(), Vec::new());
    while let Some(slice) = listing.next().await.unwrap() {
        ids.extend(slice.calls.iter().map(|call| call.contact_id.get()));
        doubts.extend(slice.doubt);
        listing.passed(&slice);
    }
    (ids, nice.requests(), doubts)
}

#[tokio::test]
async fn a_page_that_is_cut_short_without_a_total_is_not_the_last() {
    let nice = FakeNice::start(every(60_000, 450)).await;
    nice.cap(200);
    nice.say_no_total();
    let (ids, _, doubts) = list_doubting(&nice).await;
    assert_eq!((ids, doubts), (all(450), Vec::new()));
    let second = FakeNice::start(every(0, 450)).await;
    second.cap(200);
    second.say_no_total();
    let (ids, _, doubts) = list_doubting(&second).await;
    assert_eq!((ids, doubts), (all(450), Vec::new()), "all in one second");
}

#[tokio::test]
async fn a_total_that_is_wrong_either_way_costs_few_requests_and_is_told() {
    for percent in [200, 10_000, 40] {
        let nice = FakeNice::start(every(160_000, 500)).await;
        nice.say_percent_of_total(percent);
        let (ids, requests, doubts) = list_doubting(&nice).await;
        assert_eq!(ids, all(500), "{percent}");
        assert!(requests <= 10, "{percent}: {requests}");
        assert!(matches!(doubts[..], [ListDoubt::Total { listed: 500 | 540, .. }, ..]), "{percent}: {doubts:?}");
    }
    let nice = FakeNice::start(every(160_000, 500)).await;
    nice.say_percent_of_total(100);
    assert_eq!(list_doubting(&nice).await.2, Vec::new());
}

#[tokio::test]
async fn a_server_that_passes_over_nothing_hides_no_row() {
    for cap in [10_000, 200] {
        let nice = FakeNice::start(every(60_000, 900)).await;
        nice.cap(cap);
        nice.ignore_skip();
        let (ids, requests, _) = list_doubting(&nice).await;
        assert_eq!(ids, all(900), "{cap}");
        assert!(requests < 100, "{cap}: {requests}");
    }
}

#[tokio::test]
async fn what_cannot_be_had_at_once_is_asked_for_in_pieces() {
    let nice = FakeNice::start(every(60_000, 2_000)).await;
    nice.refuse_more_than(300);
    assert_eq!(list_doubting(&nice).await.0, all(2_000));
    let crowd = FakeNice::start(every(100, 2_000)).await;
    crowd.refuse_more_than(300);
    let mut listing = Listing::new(crowd.tenants.clone(), tenant(), QuotaClass::Backfill, at(FROM), at(TO));
    assert!(matches!(listing.next().await, Err(ListError::Nice(NiceError::TooMuch { .. }))), "a minute is the least");
    assert!(crowd.requests() < 60, "{}", crowd.requests());
}

#[tokio::test]
async fn a_call_that_began_long_before_the_range_is_found_by_its_change() {
    let mut calls = every(60_000, 100);
    let day_before = at(FROM) - SignedDuration::from_hours(30);
    calls.push(Call::new(9_001, day_before, 31 * 3600));
    calls.push(Call::new(9_002, day_before, 60));
    let nice = FakeNice::start(calls).await;
    let clock = runtime::Clock::fixed(at(TO));
    let mut listing = Listing::new(nice.tenants.clone(), tenant(), QuotaClass::Reconciliation, at(FROM), at(TO))
        .with_earlier(at(FROM), at(FROM), clock);
    let mut ids = BTreeSet::new();
    while let Some(slice) = listing.next().await.unwrap() {
        ids.extend(slice.calls.iter().map(|call| call.contact_id.get()));
        listing.passed(&slice);
    }
    assert!(ids.contains(&9_001) && !ids.contains(&9_002), "{ids:?}");
    assert_eq!(ids.len(), 101);
}

#[tokio::test]
async fn a_row_that_moves_over_the_end_of_the_only_page_is_not_lost() {
    let nice = FakeNice::start(every(60_000, 201)).await;
    nice.cap(200);
    nice.shift(1);
    let (ids, _, doubts) = list_doubting(&nice).await;
    assert_eq!((ids, doubts), (all(201), Vec::new()));
}

#[tokio::test]
async fn a_list_that_hides_all_its_rows_is_doubtful() {
    let nice = FakeNice::start(Vec::new()).await;
    nice.hide(450);
    let (ids, _, doubts) = list_doubting(&nice).await;
    assert!(ids.is_empty());
    assert!(matches!(doubts[..], [ListDoubt::Total { announced: 450, listed: 0 }, ..]), "{doubts:?}");
}

#[tokio::test]
async fn a_piece_that_cannot_be_had_does_not_keep_the_rest_waiting() {
    let mut calls = every(600_000, 200);
    let crowd = at("2026-04-01T10:00:01Z");
    calls.extend((0..700).map(|n| Call::new(5_000 + n, crowd + SignedDuration::from_millis(10 * n as i64), 5)));
    let nice = FakeNice::start(calls).await;
    nice.refuse_more_than(300);
    let mut listing = Listing::new(nice.tenants.clone(), tenant(), QuotaClass::Reconciliation, at(FROM), at(TO));
    let (mut ids, mut doubts, mut failures) = (BTreeSet::new(), Vec::new(), 0);
    loop {
        match listing.next().await {
            Ok(Some(slice)) => {
                ids.extend(slice.calls.iter().map(|call| call.contact_id.get()).filter(|id| *id < 5_000));
                doubts.extend(slice.doubt.map(|doubt| (doubt, slice.from)));
                listing.passed(&slice);
            }
            Ok(None) => break,
            Err(_) => failures += 1,
        }
        assert!(failures < 10);
    }
    assert!(ids.len() >= 198, "{}", ids.len());
    assert!(doubts.iter().all(|(doubt, _)| *doubt == ListDoubt::NotRead) && !doubts.is_empty(), "{doubts:?}");
}
