//! NICE's script that tells a producer of each call that ended: once, without a second try, over the internet.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use runtime::task;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::plan::Telling;
use crate::world::{WEBHOOK_TOKEN, World, lock};

/// The script runs so long after the end of a call at most.
const TICK: Duration = Duration::from_secs(2);

/// It waits so long for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tells of calls that end, until it is dropped.
pub async fn tell(world: Arc<World>) {
    let mut dice = StdRng::seed_from_u64(!world.plan.seed);
    loop {
        sleep(TICK).await;
        for at in 0..world.tenants.len() {
            for event in world.tenants[at].nice.take_announcements() {
                let tellings = lock(&world.tenants[at].telling).clone();
                for late in copies(&tellings, &mut dice) {
                    let (world, event) = (world.clone(), event.clone());
                    drop(task::spawn("script", async move { post(&world, at, event, late).await }).detach());
                }
            }
        }
    }
}

/// How late each copy of an event is told: one at once, unless something is wrong.
fn copies(tellings: &[Telling], dice: &mut StdRng) -> Vec<Duration> {
    let (mut count, mut latest) = (1, Duration::ZERO);
    for telling in tellings {
        match telling {
            Telling::Lost(share) if dice.random_bool(share.min(1.0)) => return Vec::new(),
            Telling::Doubled(share) if dice.random_bool(share.min(1.0)) => count += dice.random_range(1..=4),
            Telling::Late(by) => latest = latest.max(*by),
            Telling::Lost(_) | Telling::Doubled(_) => {}
        }
    }
    (0..count).map(|_| latest.mul_f64(dice.random_range(0.0..=1.0))).collect()
}

/// Asks one producer of the tenant after the other, as the load balancer before them does.
async fn post(world: &World, tenant: usize, event: Value, late: Duration) {
    sleep(late).await;
    for number in &world.tenants[tenant].producers {
        let Some(host) = world.host(*number) else { continue };
        if !world.internet.of(*number).carries() {
            continue;
        }
        let told = timeout(PATIENCE, host.tell(&event, WEBHOOK_TOKEN)).await.ok().flatten();
        world.journal.note(format_args!("script tells {}: {:?}", host.name, told.map(|status| status.as_u16())));
        if told == Some(StatusCode::ACCEPTED) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Journal;
    use crate::plan::{Plan, Scale};

    #[tokio::test(start_paused = true)]
    async fn a_producer_takes_what_its_own_script_tells() {
        let mut plan = Plan::calm(1, Scale::short());
        (plan.tenants[0].webhook, plan.tenants[0].stand_by) = (true, false);
        let world = World::new(plan, Journal::new(None)).expect("the world is built");
        let producer = world.host(0).expect("it is the first machine");
        let consumer = world.host(1).expect("it is the second machine");
        let _running = [&producer, &consumer].map(|host| task::spawn("host", host.clone().run()));
        sleep(Duration::from_secs(60)).await;
        let event = serde_json::json!({ "contactId": 698_800_000_001_u64 });
        assert_eq!(producer.tell(&event, WEBHOOK_TOKEN).await, Some(StatusCode::ACCEPTED));
        assert_eq!(producer.tell(&event, "somebody").await, Some(StatusCode::UNAUTHORIZED));
        assert_eq!(consumer.tell(&event, WEBHOOK_TOKEN).await, None);
        producer.kill();
        consumer.kill();
    }

    #[test]
    fn what_is_lost_is_never_told_and_what_is_late_overtakes() {
        let mut dice = StdRng::seed_from_u64(1);
        assert_eq!(copies(&[], &mut dice), [Duration::ZERO]);
        assert!(copies(&[Telling::Doubled(1.0), Telling::Lost(1.0)], &mut dice).is_empty());
        assert!((2..=5).contains(&copies(&[Telling::Doubled(1.0)], &mut dice).len()));
        let hour = Duration::from_secs(3600);
        let late: Vec<_> = (0..50).flat_map(|_| copies(&[Telling::Late(hour)], &mut dice)).collect();
        assert!(late.iter().all(|late| *late <= hour) && !late.is_sorted());
    }
}
