//! Who gets a slot, who waits and who is sent back, in virtual time.

use model::EventSource;
use runtime::task;

use super::*;
use crate::testing;

/// Slots for one tenant.
const PLACES: usize = 16;

fn event_of(tenant: &str) -> ContactEvent {
    let mut event = testing::event(1);
    event.tenant = tenant.parse().unwrap();
    event
}

/// A slot, within so many milliseconds.
async fn soon(share: &FairShare, tenant: &str, millis: u64) -> Option<Result<Slot, SentBack>> {
    tokio::time::timeout(Duration::from_millis(millis), share.admit(&event_of(tenant))).await.ok()
}

/// As many slots as one tenant gets at once.
async fn fill(share: &FairShare, tenant: &str) -> Vec<Slot> {
    let mut held = Vec::new();
    while let Some(Ok(slot)) = soon(share, tenant, 1).await {
        held.push(slot);
    }
    held
}

/// As many messages as may wait for slots of one slow tenant.
fn waiting(share: &FairShare, tenant: &'static str) -> Vec<tokio_util::task::AbortOnDropHandle<bool>> {
    let waits = |_| {
        let share = share.clone();
        task::spawn("waits", async move { share.admit(&event_of(tenant)).await.is_ok() })
    };
    (0..PLACES / 2).map(waits).collect()
}

#[tokio::test(start_paused = true)]
async fn a_tenant_alone_holds_all_that_is_worked_on_at_a_time_and_the_rest_waits_its_turn() {
    let share = FairShare::new(PLACES);
    let mut held = fill(&share, "acme").await;
    assert_eq!(held.len(), PLACES);
    let waiting = waiting(&share, "acme");
    // Even where its work is slow, a few wait and take each slot as it becomes free.
    tokio::time::sleep(100 * SLOW).await;
    assert!(waiting.iter().all(|waits| !waits.is_finished()));
    held.truncate(PLACES / 2);
    for waits in waiting {
        assert!(waits.await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenant_whose_work_stands_still_leaves_the_places_and_the_way_to_the_others() {
    let share = FairShare::new(PLACES);
    let stalled = fill(&share, "acme").await;
    let next = waiting(&share, "acme");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(matches!(soon(&share, "beta", 1).await, Some(Ok(_))), "at once, before anybody is known to be slow");
    let waits = Instant::now();
    assert!(matches!(soon(&share, "acme", 60_000).await, Some(Err(_))));
    assert!(waits.elapsed() <= SLOW + PATIENCE);
    // From then on none waits any longer than for a moment.
    for _ in 0..100 {
        let Some(Err(SentBack(away))) = soon(&share, "acme", 60_000).await else { panic!("acme holds its share") };
        assert!((AWAY_MIN..AWAY_MIN * 2).contains(&away), "{away:?}");
        drop(soon(&share, "beta", 1).await.expect("a slot at once").unwrap());
    }
    assert!(waits.elapsed() <= SLOW + PATIENCE * 102, "{:?}", waits.elapsed());
    let beta = fill(&share, "beta").await;
    assert_eq!((stalled.len(), beta.len()), (PLACES, PLACES));
    assert!(soon(&share, "gamma", 1).await.is_none(), "all are held");
    drop((next, stalled));
    assert!(soon(&share, "gamma", 1).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn slow_tenants_share_what_one_of_them_may_hold_until_they_are_quick_again() {
    let share = FairShare::new(PLACES);
    let held: Vec<_> = [fill(&share, "acme").await, fill(&share, "beta").await].into_iter().flatten().collect();
    tokio::time::sleep(SLOW).await;
    drop(held);
    let (acme, beta) = (fill(&share, "acme").await, fill(&share, "beta").await);
    assert_eq!((acme.len(), beta.len()), (PLACES / 2, PLACES / 2));
    assert_eq!(fill(&share, "gamma").await.len(), PLACES, "quick, as far as anybody knows");
    drop((acme, beta));
    tokio::time::sleep(REMEMBERED).await;
    assert_eq!(fill(&share, "acme").await.len(), PLACES);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_went_back_often_stays_away_for_longer() {
    let mut event = event_of("acme");
    for (waited, least) in [(0, 5), (20, 20), (100_000, 60)] {
        event.busy_secs = waited;
        let least = Duration::from_secs(least);
        assert!((least..least * 2).contains(&away(&event)), "{waited}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_tenant_that_is_alone_hardly_sends_messages_around() {
    let share = FairShare::new(PLACES);
    let _stalled = fill(&share, "acme").await;
    let _next = waiting(&share, "acme");
    tokio::time::sleep(SLOW).await;
    let since = Instant::now();
    for _ in 0..100 {
        assert!(matches!(soon(&share, "acme", 60_000).await, Some(Err(_))));
    }
    let alone = since.elapsed();
    assert!(alone >= Duration::from_secs(60), "{alone:?}");
    // Another one turns up: now messages pass quickly.
    drop(soon(&share, "beta", 1).await.expect("a slot").unwrap());
    let since = Instant::now();
    assert!(matches!(soon(&share, "acme", 60_000).await, Some(Err(_))));
    assert_eq!(since.elapsed(), PATIENCE);
}

#[tokio::test(start_paused = true)]
async fn live_calls_take_their_turn_before_the_backfill() {
    let share = FairShare::new(1);
    let slot = share.admit(&event_of("acme")).await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let waiting: Vec<_> = [EventSource::Backfill, EventSource::Backfill, EventSource::Poll]
        .into_iter()
        .map(|source| {
            let (share, order) = (share.clone(), order.clone());
            task::spawn("waits", async move {
                let event = ContactEvent { source, ..event_of("acme") };
                let _place = share.admit(&event).await.unwrap();
                order.lock().unwrap().push(source);
            })
        })
        .collect();
    tokio::time::sleep(SLOW / 2).await;
    drop(slot);
    for waits in waiting {
        waits.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [EventSource::Poll, EventSource::Backfill, EventSource::Backfill]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_remembered_of_a_tenant_that_is_done() {
    let share = FairShare::new(PLACES);
    for number in 0..1000 {
        drop(soon(&share, &format!("tenant-{number}"), 1).await.unwrap());
    }
    // One gives up while it waits.
    let held = fill(&share, "acme").await;
    assert!(soon(&share, "acme", 10).await.is_none());
    drop(held);
    let state = share.inner.lock();
    assert_eq!((state.held, state.tenants.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_until_the_broker_loses_patience() {
    let share = FairShare::new(PLACES);
    let _stalled = fill(&share, "acme").await;
    let next = waiting(&share, "acme");
    let beta = fill(&share, "beta").await;
    // All slots are held now: nobody knows of gamma that it is slow, and it waits all the same.
    let gamma = task::spawn("waits", {
        let share = share.clone();
        async move { share.admit(&event_of("gamma")).await.is_ok() }
    });
    tokio::time::sleep(LONGEST_WAIT - Duration::from_secs(1)).await;
    assert!(!gamma.is_finished() && next.iter().any(|waits| !waits.is_finished()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    for waits in next {
        assert!(waits.is_finished() && !waits.await.unwrap(), "it is sent back");
    }
    assert!(gamma.is_finished() && !gamma.await.unwrap());
    drop(beta);
}

#[tokio::test(start_paused = true)]
async fn one_message_waits_for_the_only_place_of_a_slow_tenant() {
    for (slots, tenants) in [(1, &["acme"][..]), (4, &["acme", "beta", "delta"])] {
        let share = FairShare::new(slots);
        let mut held = Vec::new();
        for tenant in tenants {
            held.push(soon(&share, tenant, 1).await.unwrap().unwrap());
        }
        tokio::time::sleep(SLOW).await;
        let waits = share.clone();
        let waits = task::spawn("waits", async move { waits.admit(&event_of("acme")).await.is_ok() });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!waits.is_finished(), "{slots}: it is sent back, and the slot stands empty");
        held.clear();
        assert!(waits.await.unwrap());
    }
}

/// Sixty calls of one tenant whose media host stalls after the headers, forty healthy ones of another.
#[tokio::test(start_paused = true)]
async fn the_other_tenants_calls_take_hardly_longer_while_one_media_host_stalls() {
    let alone = took(&FairShare::new(PLACES), 0).await;
    let beside = took(&FairShare::new(PLACES), 60).await;
    println!("{alone:?} alone, {beside:?} beside a tenant that stalls");
    assert!(beside <= alone * 2, "{beside:?} {alone:?}");
}

/// How long it takes until the last of the healthy calls is done: each comes in the order of the queue, of which so
/// many messages are taken at a time, and is worked on for a second.
async fn took(share: &FairShare, stalled: usize) -> Duration {
    let taken = Arc::new(tokio::sync::Semaphore::new(FairShare::prefetch(PLACES)));
    let begun = Instant::now();
    let (mut healthy, mut others) = (Vec::new(), Vec::new());
    for number in 0..stalled + 40 {
        let is_healthy = number >= stalled;
        // The queue gives the messages out in their order; what was sent back comes again in its time.
        let mut slot = Some(taken.clone().acquire_owned().await.unwrap());
        let (share, taken) = (share.clone(), taken.clone());
        let work = task::spawn("works", async move {
            let (tenant, lasts) = if is_healthy { ("beta", 1) } else { ("acme", 600) };
            loop {
                match share.admit(&event_of(tenant)).await {
                    Ok(_place) => return tokio::time::sleep(Duration::from_secs(lasts)).await,
                    Err(SentBack(away)) => {
                        drop(slot.take());
                        tokio::time::sleep(away).await;
                        slot = Some(taken.clone().acquire_owned().await.unwrap());
                    }
                }
            }
        });
        if is_healthy { healthy.push(work) } else { others.push(work) }
    }
    for work in healthy {
        work.await.unwrap();
    }
    begun.elapsed()
}
