//! Every part is killed, cut off and stalled in turn, under load; all goes on without help, and nothing is lost or
//! doubled.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::bed::{ServerBed, terminate};
use super::calls::{place, small};
use super::machines::Servers;
use super::{oracle, sized};
use crate::harness::{Daemon, PATIENCE};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    ConsumerKilled,
    ProducerKilled,
    Restarted(Server),
    Cut(Server),
    Stalled(Server),
    Frozen(Server),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Server {
    Postgres,
    RabbitMq,
    S3,
}

const SERVERS: [Server; 3] = [Server::Postgres, Server::RabbitMq, Server::S3];

/// When a fault strikes after calls were placed: they are found, fetched and stored meanwhile.
const STRIKES_AFTER_MILLIS: Range<u64> = 100..1600;

/// How long a server is away.
const AWAY_MILLIS: Range<u64> = 0..3000;

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
        tokio::time::sleep(Duration::from_millis(chance.random_range(STRIKES_AFTER_MILLIS))).await;
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

    let Stage { bed, producer, consumers } = stage;
    terminate(consumers.into_iter().chain([producer]));
    // What the killed ones left open in the store goes with the first sweep of the next one.
    let mut last = bed.consumer("consumer-last");
    last.ready().await;
    let begun = Instant::now();
    while oracle::open_uploads(&bed).await.contains("<Upload>") {
        assert!(begun.elapsed() < PATIENCE, "uploads stay open\n{}", bed.tails());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    terminate([last]);
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.strange), (0, 0), "{}", bed.tails());
    println!("{verdict:?}");
}

/// Each fault as often as it shall be, the kinds mixed.
fn plan() -> Vec<Fault> {
    let mut kinds = vec![(Fault::ConsumerKilled, sized(6, 50)), (Fault::ProducerKilled, sized(6, 50))];
    for server in SERVERS {
        kinds.push((Fault::Restarted(server), sized(2, 10)));
        kinds.push((Fault::Cut(server), sized(1, 10)));
        kinds.push((Fault::Stalled(server), sized(1, 5)));
        kinds.push((Fault::Frozen(server), sized(1, 5)));
    }
    let rounds = kinds.iter().map(|(_, times)| *times).max().unwrap_or_default();
    let of_round = |round: usize| kinds.iter().filter(move |(_, times)| round < *times).map(|(fault, _)| *fault);
    (0..rounds).flat_map(of_round).collect()
}

/// All that runs.
struct Stage {
    bed: ServerBed,
    producer: Daemon,
    consumers: Vec<Daemon>,
}

impl Stage {
    fn new(bed: ServerBed) -> Self {
        let (producer, consumers) = (bed.producer(), bed.consumers(3));
        Self { bed, producer, consumers }
    }

    /// The fault from its begin to its end.
    async fn strike(&mut self, fault: Fault, chance: &mut StdRng) {
        let away = Duration::from_millis(chance.random_range(AWAY_MILLIS));
        let Servers { postgres, rabbitmq, s3 } = &self.bed.servers;
        match fault {
            Fault::ConsumerKilled => {
                let number = chance.random_range(0..self.consumers.len());
                self.consumers[number].kill();
                self.consumers[number] = self.bed.consumer(&format!("consumer-{number}"));
            }
            Fault::ProducerKilled => {
                self.producer.kill();
                self.producer = self.bed.producer();
            }
            Fault::Restarted(server) => {
                match server {
                    Server::Postgres => postgres.kill().await,
                    Server::RabbitMq => rabbitmq.kill().await,
                    Server::S3 => s3.kill().await,
                }
                tokio::time::sleep(away).await;
                match server {
                    Server::Postgres => postgres.start_again().await,
                    Server::RabbitMq => rabbitmq.start_again().await,
                    Server::S3 => s3.start_again().await,
                }
            }
            Fault::Cut(server) => self.proxy(server).cut(),
            Fault::Stalled(server) => {
                let proxy = self.proxy(server);
                proxy.stall(true);
                tokio::time::sleep(away * sized(3, 15) as u32).await;
                proxy.stall(false);
            }
            Fault::Frozen(server) => {
                let (freeze, thaw): (&dyn Fn(), &dyn Fn()) = match server {
                    Server::Postgres => (&|| postgres.freeze(), &|| postgres.thaw()),
                    Server::RabbitMq => (&|| rabbitmq.freeze(), &|| rabbitmq.thaw()),
                    Server::S3 => (&|| s3.freeze(), &|| s3.thaw()),
                };
                freeze();
                tokio::time::sleep(away * sized(3, 15) as u32).await;
                thaw();
            }
        }
    }

    fn proxy(&self, server: Server) -> &test_servers::Proxy {
        match server {
            Server::Postgres => &self.bed.proxies.postgres,
            Server::RabbitMq => &self.bed.proxies.rabbitmq,
            Server::S3 => &self.bed.proxies.s3,
        }
    }

    /// No service has ended by itself, and each works again.
    async fn all_live(&mut self) {
        for service in self.consumers.iter_mut().chain([&mut self.producer]) {
            service.ready().await;
        }
    }
}
