//! The webhook sender of `examples/` against the daemon.

use std::time::Duration;

use nice_sim::CallSpec;

use crate::harness::{Bed, WEBHOOK_SECRET, hurried};

#[allow(dead_code, reason = "its `main` is for the command line")]
#[path = "../../../examples/webhook_sender.rs"]
mod sender;

#[tokio::test(flavor = "multi_thread")]
async fn the_example_sender_tells_of_a_call_that_nothing_else_would_find() {
    let mut bed = Bed::new(hurried(84, 0)).await;
    let server = format!("http://{}", bed.with_webhook());
    bed.set("EVENTS__POLL", "false");
    let call = bed.sim.add_call(CallSpec::new(bed.sim.group(1001)[0])).contact_ids[0];

    // Nobody listens yet: it tries again.
    let id = call.to_string();
    let (to, named) = (server.clone(), id.clone());
    let sending =
        tokio::spawn(async move { sender::send(&to, WEBHOOK_SECRET, &named).await.map_err(|error| error.to_string()) });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut daemon = bed.start();
    let tries = sending.await.expect("the sender ends").expect("the event is taken");
    assert!(tries >= 2, "{tries}");
    bed.ready(&mut daemon, &[call]).await;

    // What would be refused again is not sent again.
    let refused = sender::send(&server, "another secret", &id).await.expect_err("the secret is wrong").to_string();
    assert!(refused.contains("401") && !refused.contains("another secret"), "{refused}");
    let refused = sender::send(&server, WEBHOOK_SECRET, "none").await.expect_err("no id").to_string();
    assert!(refused.contains("400") && refused.contains("contactId"), "{refused}");
    assert!(daemon.terminate().success());
}
