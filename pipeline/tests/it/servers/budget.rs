//! The rate budget that all consumers of a tenant share.

use std::time::{Duration, Instant};

use nice_sim::CallSpec;

use super::bed::{ServerBed, terminate};
use super::flow::small;
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
