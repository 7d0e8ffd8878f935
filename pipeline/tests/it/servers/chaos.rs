//! Every part is killed, cut off and stalled in turn, under load; all goes on without help, and nothing is lost or
//! doubled.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::bed::ServerBed;
use super::calls::{place, small};
use super::faults::{Fault, Stage, mixed};
use super::machines::{Server, Servers};
use super::sized;

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_cut_or_stalled_is_survived_without_help() {
    let seed = 1101;
    println!("seed {seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let faults = plan();
    let batch = sized(400, 10_000).div_ceil(faults.len());
    let mut stage = Stage::new(ServerBed::on(Servers::own().await, small(seed, 0)).await);
    stage.bed.quiet().await;

    let mut took: BTreeMap<Fault, Vec<Duration>> = BTreeMap::new();
    for (round, fault) in faults.into_iter().enumerate() {
        place(stage.bed.sim(), round * batch..(round + 1) * batch);
        stage.strike(fault, &mut chance).await;
        let ended = Instant::now();
        stage.bed.quiet().await;
        println!("round {round}: {fault:?}, quiet after {:.1} s", ended.elapsed().as_secs_f64());
        took.entry(fault).or_default().push(ended.elapsed());
        stage.all_live().await;
    }
    for (fault, times) in &took {
        let worst = times.iter().max().unwrap().as_secs_f64();
        println!("{fault:?}: {} times, quiet at worst {worst:.1} s after it ended", times.len());
    }
    stage.end().await;
}

fn plan() -> Vec<Fault> {
    let mut kinds = vec![(Fault::ConsumerKilled, sized(6, 50)), (Fault::ProducerKilled, sized(6, 50))];
    for server in [Server::Postgres, Server::RabbitMq, Server::S3] {
        kinds.push((Fault::Restarted(server), sized(2, 10)));
        kinds.push((Fault::Cut(server), sized(1, 10)));
        kinds.push((Fault::Stalled(server), sized(1, 5)));
        kinds.push((Fault::Frozen(server), sized(1, 5)));
    }
    mixed(&kinds)
}
