//! What goes wrong while services work, and what must be left of it when all is over.

use std::ops::Range;
use std::time::{Duration, Instant};

use rand::Rng;
use rand::rngs::StdRng;

use super::bed::{ServerBed, terminate};
use super::machines::Server;
use super::{oracle, sized};
use crate::harness::{Daemon, PATIENCE};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    ConsumerKilled,
    ConsumerAdded,
    /// The one that was added last ends in good order.
    ConsumerTakenAway,
    ProducerKilled,
    Restarted(Server),
    Cut(Server),
    Stalled(Server),
    Frozen(Server),
}

/// When a fault strikes after calls were placed: they are found, fetched and stored meanwhile.
const STRIKES_AFTER_MILLIS: Range<u64> = 100..1600;

/// How long a server is away.
const AWAY_MILLIS: Range<u64> = 0..3000;

/// Each fault as often as it shall be, the kinds mixed.
pub(super) fn mixed(kinds: &[(Fault, usize)]) -> Vec<Fault> {
    let rounds = kinds.iter().map(|(_, times)| *times).max().unwrap_or_default();
    let of_round = |round: usize| kinds.iter().filter(move |(_, times)| round < *times).map(|(fault, _)| *fault);
    (0..rounds).flat_map(of_round).collect()
}

/// A producer, consumers, and all that they work on.
pub(super) struct Stage {
    pub(super) bed: ServerBed,
    producer: Daemon,
    consumers: Vec<Daemon>,
}

impl Stage {
    /// A producer and three consumers.
    pub(super) fn new(bed: ServerBed) -> Self {
        let (producer, consumers) = (bed.producer(), bed.consumers(3));
        Self { bed, producer, consumers }
    }

    /// The fault from its begin to its end, soon after calls were placed.
    pub(super) async fn strike(&mut self, fault: Fault, chance: &mut StdRng) {
        tokio::time::sleep(Duration::from_millis(chance.random_range(STRIKES_AFTER_MILLIS))).await;
        let away = Duration::from_millis(chance.random_range(AWAY_MILLIS));
        let (servers, proxies) = (&self.bed.servers, &self.bed.proxies);
        match fault {
            Fault::ConsumerKilled => {
                let number = chance.random_range(0..self.consumers.len());
                self.consumers[number].kill();
                self.consumers[number] = self.bed.consumer(&format!("consumer-{number}"));
            }
            Fault::ConsumerAdded => {
                let added = self.bed.consumer(&format!("consumer-{}", self.consumers.len()));
                self.consumers.push(added);
            }
            Fault::ConsumerTakenAway => {
                let mut last = self.consumers.pop().expect("there are consumers");
                last.ready().await;
                terminate([last]);
            }
            Fault::ProducerKilled => {
                self.producer.kill();
                self.producer = self.bed.producer();
            }
            Fault::Restarted(server) => {
                servers.kill(server).await;
                tokio::time::sleep(away).await;
                servers.start_again(server).await;
            }
            Fault::Cut(server) => proxies.of(server).cut(),
            Fault::Stalled(server) => {
                let proxy = proxies.of(server);
                proxy.stall(true);
                tokio::time::sleep(away * sized(3, 15) as u32).await;
                proxy.stall(false);
            }
            Fault::Frozen(server) => {
                servers.freeze(server);
                tokio::time::sleep(away * sized(3, 15) as u32).await;
                servers.thaw(server);
            }
        }
    }

    /// Waits until no more than so many calls are left to be done.
    pub(super) async fn at_most_left(&self, calls: usize) {
        let begun = Instant::now();
        loop {
            let left = self.bed.unfinished("acme").await;
            if left.len() <= calls {
                return;
            }
            if begun.elapsed() > PATIENCE {
                panic!("{left:?} are left\n{}\n{}", self.bed.broker().await, self.bed.tails());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// No service has ended by itself, and each works again.
    pub(super) async fn all_live(&mut self) {
        for service in self.consumers.iter_mut().chain([&mut self.producer]) {
            service.ready().await;
        }
    }

    /// Ends the services. Nothing is lost, doubled, given up or left over.
    pub(super) async fn end(self) {
        let Self { bed, producer, consumers } = self;
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
}
