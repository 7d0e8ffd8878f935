//! Producer and consumer are killed at each named boundary; nothing is lost and nothing doubled.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use runtime::crash::POINTS;
use serde_json::json;

use super::bed::{Role, ServerBed, terminate};
use super::calls::{recorded, small};
use super::{oracle, sized};
use crate::SIGKILL;
use crate::harness::{PATIENCE, post_event};

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_each_named_boundary_loses_and_doubles_nothing_on_servers() {
    let mut bed = ServerBed::new(small(1201, 0)).await;
    let receiver = bed.with_webhook();
    let mut number = 0;
    for point in POINTS {
        for passage in 1..=sized(1, 3) {
            let at = format!("{point}:{passage}");
            let wish = [("NICE_KNOVVU_CRASH_AT", at.as_str())];
            // Only one of the two passes the boundary.
            let mut services =
                [bed.start(Role::Producer, "producer", &wish), bed.start(Role::Consumer, "consumer", &wish)];
            let begun = Instant::now();
            let status = loop {
                if let Some(status) = services.iter_mut().find_map(|service| service.child.try_wait().unwrap()) {
                    break status;
                }
                assert!(begun.elapsed() < PATIENCE, "{at} was not reached\n{}", bed.tails());
                let call = bed.sim().add_call(recorded(bed.sim(), number));
                number += 1;
                // Nobody may listen yet, or any more.
                post_event(receiver, format!(r#"{{"contactId":"{}"}}"#, call.contact_ids[0])).await;
                if *point == "replay_advanced" {
                    drop(services[0].post("/api/v1/reconciliations", &json!({})).await);
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            };
            assert_eq!(status.signal(), Some(SIGKILL), "{at}: {status}\n{}", bed.tails());
        }
    }
    let services = [bed.producer(), bed.consumer("consumer")];
    bed.quiet().await;
    terminate(services);
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.strange), (0, 0), "{}", bed.tails());
    println!("{} boundaries, {number} calls: {verdict:?}", POINTS.len());
}
