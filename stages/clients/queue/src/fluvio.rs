//! The alternative to RabbitMQ: Fluvio, a log of partitioned topics.
//!
//! In: messages, acknowledged once every replica that is in step has them. Out: deliveries that are acknowledged,
//! deferred through a delay step, or come again. Fluvio has neither consumers that share a topic, nor delays, nor a
//! count of deliveries; all three are here.
//!
//! - [`topics`]: what they are called, and which one a message goes to.
//! - [`log`]: what is needed of a log; [`cluster`]: a cluster of Fluvio is one.
//! - [`publisher`]: publishes that await their own acknowledgement, in batches.
//! - [`ledger`]: who reads which partition, and how far; [`member`]: a consumer that comes to its [`share`].
//! - [`reader`]: reads a [`partition`], whose [`window`] knows what may be committed.
//! - [`delays`]: what is not due yet.
//! - [`pool`]: what waits to be handed out; [`deliveries`]: hands it out; [`settle`]: what becomes of it.
//!
//! # After a crash
//! What was acknowledged lies in the log. The ledger knows up to which offset all is settled; from there on everything
//! is delivered again by whoever has the partition next. A crash repeats messages, and never loses one.
//!
//! # The delivery limit
//! A partition whose owners die again and again over the same record gives up all that they may have died over to
//! `{prefix}-dead`, where suspects are taken one at a time. One that [`DELIVERY_LIMIT`](crate::DELIVERY_LIMIT)
//! processes died over in all is over the limit. One that comes through is an ordinary message again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{future::join_all, stream::BoxStream};
use model::Lane;
use runtime::{Clock, task};
use state::Store;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, warn};

use self::cluster::Cluster;
use self::context::QueueContext;
use self::ledger::{DatabaseLedger, Ledger, LocalLedger};
use self::log::TopicLog;
use self::member::Member;
use self::partition::OwnedPartition;
use self::topics::{TopicRole, Topics};
use crate::{Backlog, Destination, Queue, QueueDelivery, QueueError, QueueMetrics};

mod cluster;
mod context;
mod delays;
mod deliveries;
mod ledger;
mod log;
mod member;
mod partition;
mod pool;
mod publisher;
mod reader;
mod settle;
mod share;
mod topics;
mod window;

/// How long a consumer may say nothing before the others take its partitions.
const LEASE: Duration = Duration::from_secs(5);

/// How long the answer may take to whoever asks how the queue is.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);

/// How often, and how many times, it is looked for topics of which the ledger knows more than the controller.
const LOOK_FOR_TOPICS_EVERY: Duration = Duration::from_millis(500);
const LOOKS_FOR_TOPICS: usize = 20;

/// How long a reader that begins waits to learn what lies in the live topic.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the end of a process may wait for what it gives back.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The settings `[queue]` of Fluvio.
#[derive(Debug, Clone)]
pub struct FluvioOptions {
    /// `host:port` of the cluster's controller; none: what the profile says.
    pub address: Option<String>,
    /// The profile of Fluvio's own configuration that says where the cluster is, with its TLS; none: the current one.
    pub profile: Option<String>,
    /// What the names of all topics begin with.
    pub prefix: String,
    /// Into how many partitions each lane is divided: the most consumers that share it.
    pub partitions: u32,
    /// How many brokers keep each message.
    pub replication: u32,
    /// Delays that must exist exactly; others are rounded up to the next step.
    pub delays: Vec<Duration>,
    /// The name of the service, as the cluster's operators see it.
    pub service: String,
}

impl FluvioOptions {
    /// Whether the settings can be used at all; connects to nothing.
    pub fn validate(&self) -> Result<(), FluvioError> {
        cluster::validate(self)?;
        self.topics().map(drop)
    }

    fn topics(&self) -> Result<Topics, FluvioError> {
        Topics::new(&self.prefix, &self.delays, self.partitions, self.replication)
    }
}

/// Why the cluster cannot be used. The texts name the setting and the remedy.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FluvioError {
    /// The address is none.
    #[error("[queue] fluvio: {0}; write host:port of the cluster's controller")]
    Address(String),
    /// There is no such profile, or it cannot be used.
    #[error("[queue] profile: {0}")]
    Profile(String),
    /// The prefix cannot begin a topic's name.
    #[error("[queue] prefix: 1 to 40 letters, digits, '.', '-' and '_' for Fluvio, beginning with a letter")]
    Prefix,
    /// Nothing answers.
    #[error("[queue] fluvio, or profile: the cluster at {address} cannot be reached: {reason}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What happened.
        reason: String,
    },
    /// Something of this name exists and is not what is needed.
    #[error("the topic {name} exists with {found}, but needed is {needed}: {remedy}, or choose another [queue] prefix")]
    Differs {
        /// The topic.
        name: String,
        /// What it has.
        found: String,
        /// What it must have.
        needed: String,
        /// What a person can do.
        remedy: &'static str,
    },
    /// The cluster answered with another error, or not in time.
    #[error("the cluster did not do what was asked: {0}")]
    Failed(String),
}

impl From<FluvioError> for QueueError {
    fn from(error: FluvioError) -> Self {
        Self(error.to_string())
    }
}

/// Where it is written who reads which partition, and how far.
pub enum FluvioLedger {
    /// The Knovvu database, for any number of processes.
    Database(database::Database),
    /// The local state of a process that has the queue to itself.
    Local(Store),
}

/// A durable queue with delays in Fluvio.
#[derive(Clone)]
pub struct FluvioQueue {
    inner: Arc<Inner>,
}

struct Inner {
    context: Arc<QueueContext>,
    member: Mutex<Option<RunningMember>>,
}

/// The task of the member; it ends with this.
struct RunningMember {
    stopping: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Inner {
    fn member(&self) -> MutexGuard<'_, Option<RunningMember>> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who reads becomes a member; who only publishes does not.
    fn start_member(&self) {
        self.member().get_or_insert_with(|| {
            let stopping = CancellationToken::new();
            let running = Member::new(self.context.clone()).run(stopping.clone());
            RunningMember { stopping, task: task::spawn("fluvio member", running) }
        });
    }

    /// What lies in live partitions by now goes before backfill, as far as this can be found out in time.
    async fn catch_up(&self) {
        let is_live = |owned: &Arc<OwnedPartition>| owned.role == TopicRole::Lane(Lane::Live);
        let live: Vec<_> = self.context.owned().values().filter(|owned| is_live(owned)).cloned().collect();
        let look = live.iter().map(|owned| async {
            if let Ok(bounds) = self.context.log.bounds(&owned.partition).await {
                owned.catch_up_to(bounds.end);
                self.context.pool.look_behind(owned);
            }
        });
        if timeout(CATCH_UP_TIMEOUT, join_all(look)).await.is_err() {
            debug!("it is not known in time what lies in the live topic");
        }
    }

    /// Writes down what is settled; asks only, where this process has no partition.
    async fn commit(&self) -> Result<(), QueueError> {
        let progress: Vec<_> = self.context.owned().values().map(|owned| owned.progress()).collect();
        if !progress.is_empty() {
            self.context.ledger.commit(&progress).await?;
        }
        self.context.ledger.settled().await.map(drop)
    }

    /// How many messages wait where. What other processes work on counts as waiting.
    async fn count(&self) -> Result<Backlog, QueueError> {
        let QueueContext { log, ledger, topics, .. } = &*self.context;
        let (needed, former) = (topics.needed(), topics.former());
        let (mut bounds, settled) = futures::try_join!(log.all_bounds(&needed), ledger.settled())?;
        // One that is empty may be deleted meanwhile.
        for topic in former {
            bounds.extend(log.all_bounds(&[topic]).await.unwrap_or_default());
        }
        let mut backlog = Backlog::default();
        for (partition, bounds) in bounds {
            let owned = self.context.owned().get(&partition).cloned();
            let waiting = match owned {
                Some(owned) => {
                    let window = owned.window();
                    backlog.in_flight += window.in_hand() as u64;
                    window.waiting() as u64 + between(window.read_to(), bounds.end)
                }
                None => between(settled.get(&partition).copied().unwrap_or_default().max(bounds.start), bounds.end),
            };
            match topics.role(&partition.topic) {
                Some(TopicRole::Lane(Lane::Live) | TopicRole::Suspects) => backlog.live += waiting,
                Some(TopicRole::Lane(Lane::Backfill)) => backlog.backfill += waiting,
                Some(TopicRole::Delay(_)) => backlog.delayed += waiting,
                None => {}
            }
        }
        Ok(backlog)
    }
}

fn between(from: i64, to: i64) -> u64 {
    u64::try_from(to - from).unwrap_or_default()
}

impl FluvioQueue {
    /// Connects, and makes the topics that are missing. From then on a lost connection is made again.
    pub async fn connect(
        options: FluvioOptions,
        place: FluvioLedger,
        clock: Clock,
        metrics: &QueueMetrics,
    ) -> Result<Self, FluvioError> {
        let log = Arc::new(Cluster::new(&options, metrics.clone())?);
        Self::over(log, &options, place, LEASE, clock).await
    }

    async fn over(
        log: Arc<dyn TopicLog>,
        options: &FluvioOptions,
        place: FluvioLedger,
        lease: Duration,
        clock: Clock,
    ) -> Result<Self, FluvioError> {
        let failed = |QueueError(reason)| FluvioError::Failed(reason);
        let mut names = log.names().await?;
        let topics = options.topics()?.with_former(&names);
        let ledger = open_ledger(place, &topics, lease)?;
        let missing = |names: &[String]| -> Vec<Arc<str>> {
            let topics = topics.needed().into_iter().map(|topic| topic.name);
            topics.filter(|topic| !names.iter().any(|name| **name == **topic)).collect()
        };
        let settled = match missing(&names).is_empty() {
            true => BTreeMap::new(),
            false => ledger.settled().await.map_err(failed)?,
        };
        let is_doubtful =
            |topic: &Arc<str>| settled.iter().any(|(partition, next)| partition.topic == *topic && *next > 0);
        // A controller that has just begun may not know all topics yet: what is settled is not forgotten for that.
        for _ in 0..LOOKS_FOR_TOPICS {
            if !missing(&names).iter().any(is_doubtful) {
                break;
            }
            tokio::time::sleep(LOOK_FOR_TOPICS_EVERY).await;
            names = log.names().await?;
        }
        let missing = missing(&names);
        if !missing.is_empty() {
            for topic in missing.iter().filter(|topic| is_doubtful(topic)) {
                warn!(topic = &**topic, "the topic is gone and is made anew: it is read from its begin");
            }
            // Before it is there: of a topic that is made anew nothing may count as settled.
            ledger.begin_anew(&missing).await.map_err(failed)?;
        }
        log.ensure(&topics.needed()).await?;
        let context = Arc::new(QueueContext::new(Arc::new(topics), log, ledger, lease, clock));
        Ok(Self { inner: Arc::new(Inner { context, member: Mutex::default() }) })
    }
}

fn open_ledger(place: FluvioLedger, topics: &Topics, lease: Duration) -> Result<Arc<dyn Ledger>, FluvioError> {
    Ok(match place {
        FluvioLedger::Database(database) => Arc::new(DatabaseLedger::new(database, topics.prefix(), lease)),
        FluvioLedger::Local(store) => {
            let opened = LocalLedger::open(store, topics.groups().concat());
            Arc::new(opened.map_err(|error| FluvioError::Failed(error.to_string()))?)
        }
    })
}

#[async_trait]
impl Queue for FluvioQueue {
    async fn publish_delayed(&self, lane: Lane, body: Bytes, delay: Duration) -> Result<(), QueueError> {
        self.inner.context.publisher.publish(lane, body, delay).await
    }

    fn destination(&self, lane: Lane) -> Destination {
        Destination { system: "fluvio", name: self.inner.context.topics.lane(lane).to_string() }
    }

    fn deliveries(&self, prefetch: usize) -> BoxStream<'static, Result<QueueDelivery, QueueError>> {
        deliveries::deliveries(self.inner.clone(), prefetch)
    }

    async fn backlog(&self) -> Result<Backlog, QueueError> {
        timeout(QUESTION_TIMEOUT, self.inner.count()).await.map_err(|_| no_answer())?
    }

    /// Whether the cluster answers, and the ledger takes what is settled by now.
    async fn check(&self) -> Result<(), QueueError> {
        let QueueContext { log, topics, .. } = &*self.inner.context;
        let needed = topics.needed();
        let checked = async { futures::try_join!(log.check(&needed), self.inner.commit()).map(drop) };
        timeout(QUESTION_TIMEOUT, checked).await.map_err(|_| no_answer())?
    }

    /// Gives its partitions back, so that others need not wait until its lease is over.
    async fn close(&self) {
        let running = self.inner.member().take();
        let closing = async {
            if let Some(RunningMember { stopping, task }) = running {
                stopping.cancel();
                // It panics nowhere; and if it did, the lease would end.
                task.await.ok();
            }
            self.inner.context.log.close().await;
        };
        if timeout(CLOSE_TIMEOUT, closing).await.is_err() {
            debug!("partitions of the queue not given back in time");
        }
    }
}

fn no_answer() -> QueueError {
    QueueError(format!("the cluster did not answer within {QUESTION_TIMEOUT:?}"))
}

#[cfg(test)]
mod memory_log;
#[cfg(test)]
mod tests;
