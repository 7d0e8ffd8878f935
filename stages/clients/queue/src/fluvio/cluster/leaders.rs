//! Which broker leads which partition.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fluvio::dataplane::record::ReplicaKey;
use fluvio::metadata::partition::PartitionSpec;
use fluvio::metadata::spu::SpuSpec;
use tokio::time::Instant;
use tracing::warn;

use super::super::log::Partition;
use super::controller;
use super::peer::Peer;
use super::target::ClusterTarget;
use crate::{QueueError, QueueMetrics};

/// The controller is asked again at most this often: all that fails while a broker is away asks anew.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(200);

/// How long what is known is taken for good where the controller does not answer: the brokers go on without it.
const WITHOUT_CONTROLLER: Duration = Duration::from_secs(5);

/// Which broker leads which partition, as the controller has said, until something fails.
pub(super) struct Leaders {
    target: ClusterTarget,
    pub(super) controller: Peer,
    metrics: QueueMetrics,
    known: Mutex<Known>,
    /// Whoever asks the controller.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    /// By their number.
    brokers: BTreeMap<i32, Arc<Peer>>,
    /// The broker of each partition of a topic.
    topics: BTreeMap<String, BTreeMap<u32, i32>>,
    /// Until when it is not asked again; none: at once.
    good_until: Option<GoodUntil>,
    closed: bool,
}

/// For how long something is taken for good.
#[derive(Clone, Copy)]
enum GoodUntil {
    SomethingFails,
    Then(Instant),
}

impl Leaders {
    pub(super) fn new(target: ClusterTarget, metrics: QueueMetrics) -> Result<Self, QueueError> {
        let controller = Peer::new(target.controller()?, metrics.clone());
        Ok(Self { target, controller, metrics, known: Mutex::default(), asking: tokio::sync::Mutex::default() })
    }

    /// The broker that leads a partition.
    pub(super) async fn of(&self, partition: &Partition) -> Result<Arc<Peer>, QueueError> {
        let leaders = self.of_topic(&partition.topic).await?;
        let leader = leaders.into_iter().nth(partition.number as usize);
        leader.ok_or_else(|| QueueError(format!("the topic {} has no partition {}", partition.topic, partition.number)))
    }

    /// The brokers that lead the partitions of a topic, by the number of the partition.
    pub(super) async fn of_topic(&self, topic: &str) -> Result<Vec<Arc<Peer>>, QueueError> {
        if let Some(leaders) = self.lock().leaders(topic, true) {
            return Ok(leaders);
        }
        let _asking = self.asking.lock().await;
        // Another may have asked meanwhile.
        if let Some(leaders) = self.lock().leaders(topic, true) {
            return Ok(leaders);
        }
        if let Err(error) = self.refresh().await {
            let mut known = self.lock();
            known.good_until = Some(GoodUntil::Then(Instant::now() + WITHOUT_CONTROLLER));
            return known.leaders(topic, false).ok_or(error);
        }
        let known = self.lock();
        known
            .leaders(topic, false)
            .ok_or_else(|| QueueError(format!("the topic {topic} is not there, or has no leader")))
    }

    /// Asks the controller again before the next use: something has failed, perhaps because another broker leads now.
    pub(super) fn doubt(&self) {
        let mut known = self.lock();
        if matches!(known.good_until, Some(GoodUntil::SomethingFails)) {
            known.good_until = Some(GoodUntil::Then(Instant::now() + SHORTEST_INTERVAL));
        }
    }

    /// Ends every connection, for good.
    pub(super) fn close(&self) {
        self.controller.close();
        let mut known = self.lock();
        known.closed = true;
        known.brokers.values().for_each(|broker| broker.close());
    }

    async fn refresh(&self) -> Result<(), QueueError> {
        let brokers = controller::list::<SpuSpec>(&self.controller).await?;
        let partitions = controller::list::<PartitionSpec>(&self.controller).await?;
        let mut known = self.lock();
        // A controller that has not read all yet tells of less: what was known before stays until it is told anew.
        let mut now = known.brokers.clone();
        for broker in brokers {
            let address = self.address(&broker.spec);
            let old = known.brokers.get(&broker.spec.id).filter(|old| old.address() == address);
            let peer = match old {
                Some(old) => old.clone(),
                None => match self.target.broker(&broker.name, &address) {
                    Ok(config) => Arc::new(Peer::new(config, self.metrics.clone())),
                    // Used for nothing: what needs it has no leader.
                    Err(error) => {
                        warn!(%error, "a broker of the cluster is not spoken to");
                        now.remove(&broker.spec.id);
                        continue;
                    }
                },
            };
            if known.closed {
                peer.close();
            }
            now.insert(broker.spec.id, peer);
        }
        let mut topics = BTreeMap::<_, BTreeMap<_, _>>::new();
        for partition in partitions {
            if let Ok(ReplicaKey { topic, partition: number }) = partition.name.parse() {
                topics.entry(topic).or_default().insert(number, partition.spec.leader);
            }
        }
        for (topic, before) in &known.topics {
            let now = topics.entry(topic.clone()).or_default();
            if now.len() < before.len() {
                now.clone_from(before);
            }
        }
        (known.brokers, known.topics, known.good_until) = (now, topics, Some(GoodUntil::SomethingFails));
        Ok(())
    }

    fn address(&self, broker: &SpuSpec) -> String {
        match &broker.public_endpoint_local {
            Some(local) if self.target.uses_local_addresses() => format!("{}:{}", local.host, local.port),
            Some(_) | None => broker.public_endpoint.addr(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// What is known of a topic where that is good, or at all. Nothing unless the leader of every partition is known.
    fn leaders(&self, topic: &str, only_if_good: bool) -> Option<Vec<Arc<Peer>>> {
        let is_good = match self.good_until? {
            GoodUntil::SomethingFails => true,
            GoodUntil::Then(end) => Instant::now() < end,
        };
        if only_if_good && !is_good {
            return None;
        }
        let leaders = self.topics.get(topic)?;
        let in_order = leaders.iter().enumerate().map(|(at, (number, broker))| {
            (at == *number as usize).then(|| self.brokers.get(broker).cloned()).flatten()
        });
        in_order.collect()
    }
}
