//! Replay runs, and what is known of the conversations that they list.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use model::{Conversation, ConversationKey, ConversationState, Hop, TenantId};

use super::{Subject, acme, at, conversation, key, letter, save_ready, tenant};
use crate::{Catalog, Fate, ReplayRun, RunKind, RunState, Tallied};

/// More than one page of a listing, and than a statement likes to name one by one.
const MANY: u64 = 1_000;

fn hop(seconds: i64, stage: &str, detail: Option<&str>) -> Hop {
    let (stage, outcome, detail) = (stage.to_owned(), "retry".to_owned(), detail.map(str::to_owned));
    Hop { at: at(seconds), stage, outcome, attempt: 3, took_millis: 12, detail }
}

/// A run of the hours after the epoch of these checks, asked for at `started`.
fn new_run(tenant: &TenantId, kind: RunKind, started: i64) -> ReplayRun {
    ReplayRun::new(tenant.clone(), kind, at(0), at(7_200), at(started))
}

async fn begin(catalog: &Arc<dyn Catalog>, tenant: &TenantId, kind: RunKind, started: i64) -> ReplayRun {
    let mut run = new_run(tenant, kind, started);
    run.id = catalog.begin_run(&run).await.unwrap();
    run
}

async fn standing(catalog: &Arc<dyn Catalog>, run: &ReplayRun) -> ReplayRun {
    catalog.run(&run.tenant_id, run.kind, run.id).await.unwrap().expect("the run stands")
}

pub async fn the_fate_of_a_conversation_is_its_row_or_its_dead_letter<S: Subject>() {
    let mut subject = S::fresh().await;
    let (acme, other) = (acme(), tenant("other"));
    let catalog = subject.catalog();
    assert_eq!(catalog.fates(&[]).await.unwrap(), []);
    catalog.save_metadata(&conversation(&acme, 1)).await.unwrap();
    save_ready(&catalog, &conversation(&acme, 2), at(5)).await;
    catalog.save_metadata(&conversation(&acme, 3)).await.unwrap();
    catalog.complete_without_recording(&key(&acme, 3), None).await.unwrap();
    catalog.add_dead_letter(letter(&acme, 4, "out of paper")).await.unwrap();
    // Beside a row that is not final, and left behind by one that is.
    catalog.save_metadata(&conversation(&acme, 5)).await.unwrap();
    catalog.add_dead_letter(letter(&acme, 5, "off the list")).await.unwrap();
    save_ready(&catalog, &conversation(&acme, 6), at(6)).await;
    catalog.add_dead_letter(letter(&acme, 6, "too late")).await.unwrap();
    let keys: Vec<_> = (1..=7).map(|id| key(&acme, id)).chain((1..=7).map(|id| key(&other, id))).collect();
    let row = Fate::Row;
    let expected = [
        row(ConversationState::MetadataSaved),
        row(ConversationState::Ready),
        row(ConversationState::NoRecording),
        Fate::DeadLetter("out of paper".to_owned()),
        Fate::DeadLetter("off the list".to_owned()),
        row(ConversationState::Ready),
        Fate::Unknown,
    ];
    let expected: Vec<_> = expected.into_iter().chain(std::iter::repeat_n(Fate::Unknown, 7)).collect();
    assert_eq!(catalog.fates(&keys).await.unwrap(), expected);
    drop(catalog);
    subject = subject.crash().await;
    assert_eq!(subject.catalog().fates(&keys).await.unwrap(), expected);
    // A letter that is gone says nothing any more.
    let letters = subject.catalog().dead_letters(0, 10).await.unwrap();
    assert!(subject.catalog().remove_dead_letter(&letters[0]).await.unwrap());
    assert_eq!(subject.catalog().fates(&[key(&acme, 4)]).await.unwrap(), [Fate::Unknown]);
}

pub async fn a_thousand_fates_come_in_the_order_of_the_question<S: Subject>() {
    let subject = S::fresh().await;
    let (acme, catalog) = (acme(), subject.catalog());
    let saved = (1..=MANY).filter(|id| id % 3 == 0).map(|id| conversation(&acme, id)).collect::<Vec<Conversation>>();
    let saving = saved.iter().map(|conversation| catalog.save_metadata(conversation));
    for result in futures::future::join_all(saving).await {
        result.unwrap();
    }
    let backwards: Vec<ConversationKey> = (1..=MANY).rev().map(|id| key(&acme, id)).collect();
    let fates = catalog.fates(&backwards).await.unwrap();
    let expected = (1..=MANY).rev().map(|id| match id % 3 {
        0 => Fate::Row(ConversationState::MetadataSaved),
        _ => Fate::Unknown,
    });
    assert_eq!(fates, expected.collect::<Vec<_>>());
    // One that is named twice is answered twice.
    let twice = [key(&acme, 3), key(&acme, 1), key(&acme, 3)];
    let saved = Fate::Row(ConversationState::MetadataSaved);
    assert_eq!(catalog.fates(&twice).await.unwrap(), [saved.clone(), Fate::Unknown, saved]);
}

pub async fn the_last_hop_is_the_newest<S: Subject>() {
    let subject = S::fresh().await;
    let (acme, catalog) = (acme(), subject.catalog());
    assert_eq!(catalog.last_hops(&[]).await.unwrap(), []);
    for second in 0..20 {
        catalog.record_hop(&key(&acme, 1), hop(second, "upload", Some("again"))).await;
    }
    catalog.record_hop(&key(&acme, 1), hop(20, "persist", None)).await;
    // At the same moment: the later one.
    catalog.record_hop(&key(&acme, 2), hop(7, "enqueue", None)).await;
    catalog.record_hop(&key(&acme, 2), hop(7, "fetch_metadata", Some("5xx"))).await;
    catalog.record_hop(&key(&tenant("other"), 3), hop(9, "upload", None)).await;
    let keys = [key(&acme, 3), key(&acme, 2), key(&acme, 1), key(&acme, 12)];
    let expected = [None, Some(hop(7, "fetch_metadata", Some("5xx"))), Some(hop(20, "persist", None)), None];
    assert_eq!(catalog.last_hops(&keys).await.unwrap(), expected);
    let many: Vec<_> = (1..=MANY).map(|id| key(&acme, id)).collect();
    let hops = catalog.last_hops(&many).await.unwrap();
    assert_eq!((hops.len(), hops.iter().flatten().count()), (many.len(), 2));
}

pub async fn final_conversations_are_counted_by_their_start_half_open<S: Subject>() {
    let mut subject = S::fresh().await;
    let (acme, other) = (acme(), tenant("other"));
    let catalog = subject.catalog();
    // Each begins 90 seconds before it ends, at second `id`.
    let begins = |id: i64| at(id) - SignedDuration::from_secs(90);
    for id in [100, 200, 300] {
        save_ready(&catalog, &conversation(&acme, id), at(5)).await;
    }
    catalog.save_metadata(&conversation(&acme, 250)).await.unwrap();
    catalog.complete_without_recording(&key(&acme, 250), None).await.unwrap();
    // Not final, and of another tenant.
    catalog.save_metadata(&conversation(&acme, 220)).await.unwrap();
    catalog.add_dead_letter(letter(&acme, 230, "why")).await.unwrap();
    save_ready(&catalog, &conversation(&other, 210), at(5)).await;
    let mut long = conversation(&acme, 86_500);
    long.started_at = begins(299);
    save_ready(&catalog, &long, at(6)).await;
    drop(catalog);
    subject = subject.crash().await;
    let catalog = subject.catalog();
    let between = |from: Timestamp, to: Timestamp| {
        let (catalog, acme) = (catalog.clone(), acme.clone());
        async move {
            let counted = catalog.final_between(&acme, from, to).await.unwrap();
            assert!(!counted.is_about, "so few are counted");
            counted.rows
        }
    };
    assert_eq!(between(begins(0), begins(1_000)).await, 5);
    assert_eq!(between(begins(100), begins(300)).await, 4, "the first moment is in it, the last is not");
    assert_eq!(between(begins(101), begins(301)).await, 4);
    assert_eq!(between(begins(201), begins(250)).await, 0);
    assert_eq!(between(begins(300), begins(300)).await, 0);
    assert_eq!(catalog.final_between(&other, begins(0), begins(1_000)).await.unwrap().rows, 1);
    assert_eq!(catalog.final_between(&tenant("nobody"), begins(0), begins(1_000)).await.unwrap().rows, 0);
}

pub async fn runs_are_numbered_by_kind_and_the_same_run_again_is_one<S: Subject>() {
    let mut subject = S::fresh().await;
    let (acme, other) = (acme(), tenant("other"));
    for kind in RunKind::ALL {
        let catalog = subject.catalog();
        assert_eq!(catalog.runs(&acme, kind, 10).await.unwrap(), []);
        let first = begin(&catalog, &acme, kind, 1).await;
        let second = begin(&catalog, &acme, kind, 2).await;
        assert!(first.id > 0 && second.id > first.id, "{} {}", first.id, second.id);
        // The answer was lost, and the caller asks again.
        assert_eq!(catalog.begin_run(&new_run(&acme, kind, 1)).await.unwrap(), first.id);
        let others = begin(&catalog, &other, kind, 1).await;
        drop(catalog);
        subject = subject.crash().await;
        let catalog = subject.catalog();
        let third = begin(&catalog, &acme, kind, 3).await;
        assert!(third.id > second.id);
        assert_eq!(catalog.begin_run(&new_run(&acme, kind, 2)).await.unwrap(), second.id);
        // Newest first.
        let all = [third.clone(), second.clone(), first.clone()];
        assert_eq!(catalog.runs(&acme, kind, 10).await.unwrap(), all);
        assert_eq!(catalog.runs(&acme, kind, 2).await.unwrap(), all[..2]);
        assert_eq!(catalog.runs(&acme, kind, 0).await.unwrap(), []);
        assert_eq!(catalog.runs(&other, kind, 10).await.unwrap(), [others]);
        assert_eq!(standing(&catalog, &first).await, first);
        assert_eq!(catalog.run(&acme, kind, third.id + 1_000).await.unwrap(), None);
        assert_eq!(catalog.run(&tenant("nobody"), kind, first.id).await.unwrap(), None);
    }
}

pub async fn how_far_a_run_has_come_is_kept_and_survives<S: Subject>() {
    let mut subject = S::fresh().await;
    for kind in RunKind::ALL {
        let catalog = subject.catalog();
        let mut run = begin(&catalog, &acme(), kind, 1).await;
        let before = run.state;
        run.plan = Some(Tallied { listed: 70, missing: 40, requests: 3, ..Tallied::default() });
        run.final_at_plan = 17;
        run.planned_at = Some(at(9));
        run.reached = at(3_600);
        run.reason = Some("NICE does not answer".to_owned());
        let (listed, ready, no_recording, dead, excluded) = (55, 20, 5, 2, 1);
        let (in_flight, missing, replayed, marked, requests) = (4, 23, 22, 6, 9);
        run.found =
            Tallied { listed, ready, no_recording, dead, excluded, in_flight, missing, replayed, marked, requests };
        run.state = RunState::Running;
        // Twice, as after a lost answer.
        for before in [before, RunState::Running] {
            assert_eq!(catalog.save_run(&run, before).await.unwrap(), RunState::Running);
        }
        drop(catalog);
        subject = subject.crash().await;
        let catalog = subject.catalog();
        assert_eq!(standing(&catalog, &run).await, run);
        run.state = RunState::Done;
        run.finished_at = Some(at(99));
        run.reason = None;
        assert_eq!(catalog.save_run(&run, RunState::Running).await.unwrap(), RunState::Done);
        drop(catalog);
        subject = subject.crash().await;
        assert_eq!(standing(&subject.catalog(), &run).await, run);
        let unknown = ReplayRun { id: run.id + 1_000, ..run };
        subject.catalog().save_run(&unknown, RunState::Running).await.expect_err("there is no such run");
    }
}

pub async fn an_operators_change_wins_over_progress_and_the_counts_are_kept<S: Subject>() {
    let mut subject = S::fresh().await;
    for kind in RunKind::ALL {
        for wish in [RunState::Paused, RunState::Cancelled] {
            let catalog = subject.catalog();
            let mut run = begin(&catalog, &acme(), kind, if wish == RunState::Paused { 1 } else { 2 }).await;
            let before = run.state;
            assert!(catalog.change_run(&run, wish, at(50)).await.unwrap());
            // The producer does not know yet, and says how far it has come.
            run.found.listed = 12;
            run.found.missing = 3;
            run.reached = at(60);
            assert_eq!(catalog.save_run(&run, before).await.unwrap(), wish);
            let stands = standing(&catalog, &run).await;
            assert_eq!((stands.state, stands.found, stands.reached), (wish, run.found, run.reached));
            let finished_at = (wish == RunState::Cancelled).then_some(at(50));
            assert_eq!(stands.finished_at, finished_at);
            // Nor is a run that an operator has ended done after all.
            let done = ReplayRun { state: RunState::Done, finished_at: Some(at(70)), ..run.clone() };
            assert_eq!(catalog.save_run(&done, before).await.unwrap(), wish);
            drop(catalog);
            subject = subject.crash().await;
            let stands = standing(&subject.catalog(), &run).await;
            assert_eq!((stands.state, stands.finished_at, stands.found), (wish, finished_at, run.found));
        }
    }
}

pub async fn a_run_is_changed_only_from_the_state_that_was_read<S: Subject>() {
    let mut subject = S::fresh().await;
    let catalog = subject.catalog();
    let read = begin(&catalog, &acme(), RunKind::Backfill, 1).await;
    let mut run = ReplayRun { reached: at(30), state: RunState::Running, ..read.clone() };
    run.found.listed = 5;
    assert_eq!(catalog.save_run(&run, read.state).await.unwrap(), RunState::Running);
    assert!(!catalog.change_run(&read, RunState::Paused, at(40)).await.unwrap(), "it was planning when it was read");
    assert_eq!(standing(&catalog, &run).await, run);
    assert!(catalog.change_run(&run, RunState::Paused, at(41)).await.unwrap());
    // Of two operators one is told that it has just changed.
    assert!(!catalog.change_run(&run, RunState::Cancelled, at(42)).await.unwrap());
    run.state = RunState::Paused;
    assert_eq!(standing(&catalog, &run).await, run, "nothing but the state has changed");
    let changes = (0..8).map(|_| catalog.change_run(&run, RunState::Running, at(43)));
    let changed = futures::future::join_all(changes).await;
    assert_eq!(changed.into_iter().filter(|changed| *changed.as_ref().unwrap()).count(), 1);
    let unknown = ReplayRun { id: run.id + 1_000, ..run.clone() };
    assert!(!catalog.change_run(&unknown, RunState::Running, at(44)).await.unwrap());
    drop(catalog);
    subject = subject.crash().await;
    assert_eq!(standing(&subject.catalog(), &run).await.state, RunState::Running);
}
