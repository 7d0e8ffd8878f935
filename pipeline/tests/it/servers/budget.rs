//! The rate budget that all processes of a NICE tenant share.

use std::time::{Duration, Instant};

use nice_sim::{CallSpec, Faults};

use super::bed::{ServerBed, terminate};
use super::calls::small;
use super::oracle;
use crate::harness::PATIENCE;

#[tokio::test(flavor = "multi_thread")]
async fn three_consumers_stay_within_the_budget_in_any_window_also_across_kills() {
    let mut config = small(1601, 0);
    config.playback.limit = 10;
    config.playback.window = Duration::from_secs(2);
    config.playback.strict_window = true;
    let mut bed = ServerBed::new(config).await;
    // Longer than NICE's window: a consumer counts a request when it leaves, NICE when it arrives.
    bed.set("LIMITS__MEDIA_PLAYBACK", "10/4s");
    // Waiting for the budget is not waiting for the recording.
    bed.set("RETRY__RECORDING_DEADLINE", "1h");
    let producer = bed.producer();
    let mut consumers = bed.consumers(3);
    let agents = bed.sim().group(1001);
    for number in 0..40 {
        let spec = CallSpec { recording_delay: Some(Duration::ZERO), ..CallSpec::new(agents[number % agents.len()]) };
        bed.sim().add_call(spec);
    }
    // Each is killed while it may hold a part of the budget, and comes back to an empty memory.
    for (number, consumer) in consumers.iter_mut().enumerate() {
        consumer.ready().await;
        let (begun, before) = (Instant::now(), bed.playbacks());
        while bed.playbacks() < before + 3 {
            assert!(begun.elapsed() < PATIENCE, "no recording is asked for\n{}", bed.tails());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        consumer.kill();
        *consumer = bed.consumer(&format!("consumer-{number}"));
    }
    bed.quiet().await;
    terminate(consumers.into_iter().chain([producer]));
    assert_eq!(bed.sim().throttled(), 0, "a request too many; {} in a window", bed.sim().playback_peak());
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.strange), (0, 0), "{}", bed.tails());
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_for_some_seconds_park_no_call() {
    let mut bed = ServerBed::new(small(1602, 0)).await;
    bed.set("LIMITS__MEDIA_PLAYBACK", "5000/5m");
    bed.set("LIMITS__ACD", "5000/5m");
    bed.set("RETRY__RECORDING_DEADLINE", "1h");
    let producer = bed.producer();
    let mut consumers = bed.consumers(3);
    for consumer in &mut consumers {
        consumer.ready().await;
    }
    let agents = bed.sim().group(1001);
    let call = |number: usize| {
        let spec = CallSpec { recording_delay: Some(Duration::ZERO), ..CallSpec::new(agents[number % agents.len()]) };
        bed.sim().add_call(spec);
    };
    (0..40).for_each(call);
    bed.sim().set_faults(Faults { throttled: 0.4, ..Faults::none() });
    tokio::time::sleep(Duration::from_secs(3)).await;
    (40..80).for_each(call);
    tokio::time::sleep(Duration::from_secs(3)).await;
    bed.sim().set_faults(Faults::none());
    let budgets = bed.json(&["status", "--json"])["rate_budget"].clone();
    for budget in budgets.as_array().unwrap() {
        assert_eq!(budget["limit_now"], 5000, "little of it was in use: {budgets:#}");
    }
    let refused = |budget: &serde_json::Value| budget["why"].as_str().unwrap().starts_with("NICE refused ");
    assert!(budgets.as_array().unwrap().iter().any(refused), "{budgets:#}");
    bed.quiet().await;
    terminate(consumers.into_iter().chain([producer]));
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.ready, verdict.dead, verdict.strange), (80, 0, 0), "{}", bed.tails());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tenants_of_one_nice_tenant_have_one_budget() {
    let mut config = small(1603, 0);
    config.playback.limit = 10;
    config.playback.window = Duration::from_secs(4);
    config.playback.strict_window = true;
    let mut bed = ServerBed::new(config).await;
    bed.set("LIMITS__MEDIA_PLAYBACK", "10/4s");
    bed.set("RETRY__RECORDING_DEADLINE", "1h");
    bed.share_nice("acme", "twin");
    let producers =
        [bed.producer(), bed.start(super::bed::Role::Producer, "twin", &[("NICE_KNOVVU_TENANT__ID", "twin")])];
    let consumers = bed.consumers(2);
    let agents = bed.sim().group(1001);
    for number in 0..15 {
        let spec = CallSpec { recording_delay: Some(Duration::ZERO), ..CallSpec::new(agents[number % agents.len()]) };
        bed.sim().add_call(spec);
    }
    // Each of the two imports each call.
    let begun = Instant::now();
    while bed.psql("select count(*) from conversations where state = 'ready'").await.trim() != "30" {
        assert!(begun.elapsed() < PATIENCE, "not all are ready\n{}", bed.tails());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let accounts = bed.psql("select count(distinct account), count(*) from quota_accounts").await;
    terminate(consumers.into_iter().chain(producers));
    assert_eq!(bed.sim().throttled(), 0, "a request too many; {} in a window", bed.sim().playback_peak());
    assert_eq!(accounts.trim().replace('|', " ").split_whitespace().collect::<Vec<_>>(), ["1", "2"]);
}
