//! The producer's turns, and what they know together.

use std::sync::Arc;

use futures::FutureExt;
use model::TenantId;

use super::{Subject, acme, agent, at, letter, tenant};
use crate::{Catalog, CurrentTurn, ProducerMemory, ProducerTurn, ReplayRun, RunKind, RunState};

async fn begin(catalog: &Arc<dyn Catalog>, tenant: &TenantId) -> (ProducerTurn, Arc<dyn Catalog>) {
    let turn = ProducerTurn::new(tenant.clone(), catalog.begin_turn(tenant).await.unwrap());
    let writing = catalog.in_turn(CurrentTurn::only(&turn));
    (turn, writing)
}

async fn memory(catalog: &Arc<dyn Catalog>) -> ProducerMemory {
    catalog.producer_memory(&acme()).await.unwrap()
}

pub async fn the_memory_of_turns_survives<S: Subject>() {
    let mut subject = S::fresh().await;
    let catalog = subject.catalog();
    assert_eq!(memory(&catalog).await, ProducerMemory::default());
    let (turn, writing) = begin(&catalog, &acme()).await;
    assert_eq!(turn.number, 1);
    writing.advance_poll(&acme(), at(100), None).await.unwrap();
    writing.advance_poll(&acme(), at(50), None).await.unwrap();
    writing.note_worked_since(&acme(), at(7)).await.unwrap();
    writing.note_worked_since(&acme(), at(9)).await.unwrap();
    writing.advance_rechecks(&acme(), at(60)).await.unwrap();
    writing.advance_rechecks(&acme(), at(20)).await.unwrap();
    let (other, _) = begin(&catalog, &tenant("other")).await;
    assert_eq!(other.number, 1, "tenants do not share turns");
    drop((catalog, writing));
    subject = subject.crash().await;
    let (turn, writing) = begin(&subject.catalog(), &acme()).await;
    assert_eq!(turn.number, 2);
    let expected = ProducerMemory {
        turn: 2,
        poll_watermark: Some(at(100)),
        held_back: 0,
        worked_since: Some(at(7)),
        rechecked_to: Some(at(60)),
    };
    assert_eq!(memory(&writing).await, expected);
    assert_eq!(writing.note_worked_since(&acme(), at(3)).await.unwrap().worked_since, Some(at(3)));
    assert_eq!(subject.catalog().producer_memory(&tenant("other")).await.unwrap().poll_watermark, None);
}

pub async fn the_poll_is_held_back_for_every_process<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    let held = catalog.hold_poll_back(&acme(), at(10)).await.unwrap();
    assert_eq!((held.poll_watermark, held.held_back), (None, 1), "what was never moved is only counted");
    let (_turn, writing) = begin(&catalog, &acme()).await;
    assert_eq!(writing.advance_poll(&acme(), at(100), Some(1)).await.unwrap().poll_watermark, Some(at(100)));
    assert_eq!(catalog.hold_poll_back(&acme(), at(200)).await.unwrap().poll_watermark, Some(at(100)));
    let held = catalog.hold_poll_back(&acme(), at(50)).await.unwrap();
    assert_eq!((held.poll_watermark, held.held_back), (Some(at(50)), 3));
    // Work that began before is told so, and moves nothing.
    assert_eq!(writing.advance_poll(&acme(), at(200), Some(1)).await.unwrap(), held);
    assert_eq!(memory(&catalog).await, held);
    assert_eq!(writing.advance_poll(&acme(), at(200), Some(3)).await.unwrap().poll_watermark, Some(at(200)));
}

pub async fn what_a_turn_writes_is_refused_once_another_has_begun<S: Subject>() {
    let subject = S::fresh().await;
    let (catalog, acme) = (subject.catalog(), acme());
    let (former, old) = begin(&catalog, &acme).await;
    let mut run = ReplayRun::new(acme.clone(), RunKind::Reconciliation, at(0), at(9), at(10));
    run.id = old.begin_run(&run).await.unwrap();
    old.save_agents(&acme, &[agent(1, "ann")]).await.unwrap();
    old.note_agents_read(&acme, at(1)).await.unwrap();
    assert!(old.add_dead_letter(letter(&acme, 1, "why")).await.unwrap());
    old.advance_poll(&acme, at(100), Some(0)).await.unwrap();
    assert!(former.refused().now_or_never().is_none());

    let (latter, new) = begin(&catalog, &acme).await;
    let before = memory(&catalog).await;
    assert!(old.save_agents(&acme, &[agent(1, "bob"), agent(2, "cid")]).await.is_err());
    assert!(former.refused().now_or_never().is_some(), "whoever works in it is told");
    assert!(old.note_agents_read(&acme, at(2)).await.is_err());
    assert!(old.save_group_standing(&acme, &Default::default()).await.is_err());
    assert!(old.add_dead_letter(letter(&acme, 2, "why")).await.is_err());
    let further = ReplayRun::new(acme.clone(), RunKind::Backfill, at(0), at(9), at(11));
    assert!(old.begin_run(&further).await.is_err());
    let done = ReplayRun { state: RunState::Done, finished_at: Some(at(12)), ..run.clone() };
    assert!(old.save_run(&done, run.state).await.is_err());
    assert!(old.advance_poll(&acme, at(200), Some(0)).await.is_err());
    assert!(old.advance_poll(&acme, at(200), None).await.is_err());
    assert!(old.hold_poll_back(&acme, at(50)).await.is_err());
    assert!(old.note_worked_since(&acme, at(50)).await.is_err());

    assert_eq!(memory(&catalog).await, before);
    assert_eq!(catalog.agents(&acme).await.unwrap(), [agent(1, "ann")]);
    assert_eq!(catalog.agents_read_at(&acme).await.unwrap(), Some(at(1)));
    assert_eq!(catalog.dead_letters(0, 10).await.unwrap().len(), 1);
    assert_eq!(catalog.runs(&acme, RunKind::Backfill, 10).await.unwrap(), []);
    assert_eq!(catalog.run(&acme, RunKind::Reconciliation, run.id).await.unwrap(), Some(run.clone()));

    // It can go on reading, and the new turn writes.
    assert_eq!(memory(&old).await, before);
    new.save_agents(&acme, &[agent(1, "bob")]).await.unwrap();
    assert_eq!(new.save_run(&done, run.state).await.unwrap(), RunState::Done);
    assert!(latter.refused().now_or_never().is_none());
}

pub async fn a_write_under_way_does_not_outlive_its_turn<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    // Whatever the order in which the two come, no write of a turn is later than the beginning of the next one.
    for round in 0..20_i64 {
        let (_turn, writing) = begin(&catalog, &acme()).await;
        let many = async {
            for step in 1..=20 {
                if writing.advance_poll(&acme(), at(round * 100 + step), None).await.is_err() {
                    return;
                }
            }
        };
        let next = async {
            catalog.begin_turn(&acme()).await.unwrap();
            memory(&catalog).await.poll_watermark
        };
        let ((), standing) = futures::join!(many, next);
        assert_eq!(memory(&catalog).await.poll_watermark, standing, "round {round}");
    }
}

pub async fn an_operator_writes_without_a_turn<S: Subject>() {
    let subject = S::fresh().await;
    let (catalog, acme) = (subject.catalog(), acme());
    begin(&catalog, &acme).await;
    catalog.save_agents(&acme, &[agent(1, "ann")]).await.unwrap();
    catalog.note_agents_read(&acme, at(1)).await.unwrap();
    let mut run = ReplayRun::new(acme.clone(), RunKind::Backfill, at(0), at(9), at(10));
    run.id = catalog.begin_run(&run).await.unwrap();
    assert!(catalog.change_run(&run, RunState::Paused, at(11)).await.unwrap());
    catalog.advance_poll(&acme, at(5), None).await.unwrap();
    // A part of the process that has no turn at the moment is nobody's turn.
    let current = CurrentTurn::default();
    let idle = catalog.in_turn(current.clone());
    idle.note_agents_read(&acme, at(2)).await.unwrap();
    current.set(Some(ProducerTurn::new(acme.clone(), 7)));
    assert!(idle.note_agents_read(&acme, at(3)).await.is_err());
    current.set(None);
    idle.note_agents_read(&acme, at(4)).await.unwrap();
}
