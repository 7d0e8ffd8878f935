//! Fluvio in the place of RabbitMQ, and the way from the one to the other and back.

use std::process::Stdio;
use std::time::{Duration, Instant};

use nice_sim::CallSpec;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::bed::{Role, ServerBed, terminate};
use super::calls::{place, small};
use super::faults::{Fault, Stage, mixed};
use super::machines::{Server, Servers};
use super::poison::publish;
use super::{oracle, sized};
use crate::harness::PATIENCE;

/// How soon all must be done once nothing goes wrong any more. It is what a site can count on, not what a fast machine
/// does: the last two batches lie in it, and a lease of some seconds.
const QUIET_WITHIN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn consumers_and_the_cluster_die_under_load_and_nothing_is_lost_or_doubled() {
    let Some(servers) = Servers::own_on_fluvio().await else { return };
    let seed = 1401;
    println!("seed {seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let faults = mixed(&[
        (Fault::ConsumerKilled, 20),
        (Fault::Restarted(Server::FluvioSpu), 5),
        (Fault::Restarted(Server::FluvioSc), 5),
        (Fault::ConsumerAdded, 1),
        (Fault::ConsumerTakenAway, 1),
    ]);
    let batch = sized(320, 10_000).div_ceil(faults.len());
    let mut stage = Stage::new(ServerBed::on(servers, small(seed, 0)).await);
    stage.all_live().await;
    for (round, fault) in faults.into_iter().enumerate() {
        place(stage.bed.sim(), round * batch..(round + 1) * batch);
        stage.strike(fault, &mut chance).await;
        println!("round {round}: {fault:?}");
        // The next one strikes while calls of this round are under way.
        stage.at_most_left(batch).await;
    }
    let ended = Instant::now();
    stage.all_live().await;
    stage.bed.quiet().await;
    let quiet = ended.elapsed();
    println!("quiet {:.1} s after the last fault", quiet.as_secs_f64());
    assert!(quiet < QUIET_WITHIN, "quiet only after {quiet:?}\n{}", stage.bed.tails());
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_moves_to_fluvio_and_back_and_nothing_is_lost_or_doubled() {
    let Some(servers) = Servers::shared_with_fluvio().await else { return };
    let mut bed = ServerBed::on(servers, small(1402, 0)).await;
    // Calls that are never recorded lie in a delay step at any moment until their deadline.
    bed.set("RETRY__NOT_READY_DELAYS", "5s");
    bed.set("RETRY__FIRST_LOOK", "0");
    bed.set("RETRY__RECORDING_DEADLINE", "50s");
    let producer = bed.producer();
    let consumer = bed.consumer("consumer");
    let agents = bed.sim().group(1001);
    for agent in agents.iter().take(5) {
        bed.sim().add_call(CallSpec { never_recorded: true, ..CallSpec::new(*agent) });
    }
    lie(&bed, "delayed", 5).await;
    terminate([consumer]);
    place(bed.sim(), 0..40);
    publish(&bed, "live", &[b"no message of ours".to_vec()]).await;
    lie(&bed, "live", 41).await;
    terminate([producer]);

    bed.change_queue("fluvio");
    // What is in hand when it is killed is on both queues, or comes again.
    let mut killed = bed.command(Role::Both, &["queue", "move", "--from", "rabbitmq"]);
    let mut killed = killed.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while bed.backlog().iter().all(|(_, messages)| *messages == 0) {
        assert!(begun.elapsed() < PATIENCE, "nothing was moved");
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    moved(&bed, "rabbitmq");
    lie(&bed, "live", 41).await;

    let consumer = bed.consumer("consumer-fluvio");
    lie(&bed, "delayed", 1).await;
    terminate([consumer]);
    bed.change_queue("rabbitmq");
    moved(&bed, "fluvio");

    let services = [bed.producer(), bed.consumer("consumer-0"), bed.consumer("consumer-1")];
    bed.quiet().await;
    terminate(services);
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.no_recording), (0, 5), "{verdict:?}\n{}", bed.tails());
    // The one that is no message; on both queues after the kill, it is set aside twice.
    assert!((1..=2).contains(&verdict.strange), "{verdict:?}\n{}", bed.tails());
}

/// Waits until so many messages lie in a place of the queue in use.
async fn lie(bed: &ServerBed, place: &str, least: u64) {
    let begun = Instant::now();
    loop {
        let backlog = bed.backlog();
        if backlog.iter().any(|(name, messages)| name == place && *messages >= least) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{place}: {least} expected, {backlog:?}\n{}", bed.tails());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Moves all that is left of a queue to the one in use.
fn moved(bed: &ServerBed, from: &str) {
    let report = bed.json(&["queue", "move", "--from", from, "--json"]);
    assert_eq!(report["is_done"], true, "{report}");
}
