//! A world with a past that nobody was told of, and what replays make of it.

use std::time::{Duration, Instant};

use nice_sim::{RecordingSize, SimConfig, TruthLeg};
use serde_json::Value;

use crate::harness::{Bed, Daemon, PATIENCE, hurried, tail};
use crate::oracle;

/// Calls of the last twenty hours.
pub(crate) fn history(seed: u64, calls: usize) -> SimConfig {
    let mut config = hurried(seed, calls);
    config.day.history = Duration::from_secs(20 * 3600);
    config.day.over = Duration::ZERO;
    config.day.recording_size = RecordingSize::Fixed(700);
    config
}

/// A bed whose daemon learns of calls by the webhook only, and nobody calls that.
pub(crate) async fn untold(config: SimConfig) -> Bed {
    let mut bed = Bed::new(config).await;
    bed.with_webhook();
    bed.set("EVENTS__POLL", "false");
    // The agents count as members of the group in all of that history.
    bed.set("EVENTS__IMPORT_SINCE", "90d");
    bed
}

/// The conversations that an importer must end with.
pub(crate) fn legs(bed: &Bed) -> Vec<TruthLeg> {
    bed.sim.truth().into_iter().filter(|leg| leg.in_group).collect()
}

/// A number deep in an answer.
pub(crate) fn number(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path}: {value:#}"))
}

/// What a run has found: listed, missing, replayed.
pub(crate) fn found(run: &Value) -> (u64, u64, u64) {
    (number(run, "/found/listed"), number(run, "/found/missing"), number(run, "/found/replayed"))
}

/// Asks until the answer is as it shall be.
pub(crate) async fn until<T>(bed: &Bed, mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(why) => assert!(begun.elapsed() < PATIENCE, "{why}\n{}", tail(&bed.log())),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A backfill as `backfill status` tells of it, once it is as it shall be.
pub(crate) async fn backfill(bed: &Bed, id: u64, is_so: impl Fn(&Value) -> bool) -> Value {
    until(bed, async || {
        let status = bed.json(&["backfill", "status", &id.to_string(), "--json"])[0].take();
        if is_so(&status) { Ok(status) } else { Err(format!("{status:#}")) }
    })
    .await
}

/// Ends the daemon and compares what is stored with what NICE knows.
pub(crate) async fn balances(bed: &Bed, mut daemon: Daemon) -> oracle::Verdict {
    bed.settled(&mut daemon).await;
    assert!(daemon.terminate().success());
    let verdict = oracle::verify(bed).await;
    assert_eq!(verdict.dead, 0, "{}", tail(&bed.log()));
    verdict
}
