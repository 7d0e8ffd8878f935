//! The programs that are measured: our daemon and its peers, each as one or more processes on the same servers.

mod daemon;
pub(crate) mod install;
mod peer;

use std::path::PathBuf;

use anyhow::ensure;
use clap::ValueEnum;

use crate::bed::{Bed, Common};
use crate::process::Process;
use crate::source::EndedCall;
use crate::watcher::Watcher;
use daemon::Way;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Program {
    /// Our consumer; the messages wait in its queue, as the peers' do.
    Ours,
    /// Our producer and consumer; the events come by webhook.
    OursWebhook,
    /// As `Ours`; a collector takes its traces, its metrics are scraped, and the page is open.
    OursObserved,
    /// As `OursWebhook`, observed in the same way.
    OursWebhookObserved,
    /// As `Ours`, on Fluvio.
    #[value(skip)]
    OursOnFluvio,
    /// As `OursWebhook`, on Fluvio.
    #[value(skip)]
    OursWebhookOnFluvio,
    /// Python: FastStream, asyncpg, aiobotocore, aiohttp, uvloop.
    #[value(name = "faststream")]
    FastStream,
    /// Node: amqplib, pg, @aws-sdk/client-s3.
    Node,
    /// Rust: lapin, tokio-postgres, reqwest.
    Naive,
}

impl Program {
    /// The name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "nice-knovvu, consumer",
            Self::OursWebhook => "nice-knovvu, webhook to ready",
            Self::OursObserved => "nice-knovvu, consumer, observed",
            Self::OursWebhookObserved => "nice-knovvu, webhook to ready, observed",
            Self::OursOnFluvio => "nice-knovvu on Fluvio, consumer",
            Self::OursWebhookOnFluvio => "nice-knovvu on Fluvio, webhook to ready",
            Self::FastStream => "FastStream",
            Self::Node => "Node",
            Self::Naive => "naive Rust",
        }
    }

    /// Whether it is our daemon.
    pub(crate) fn is_ours(self) -> bool {
        !matches!(self, Self::FastStream | Self::Node | Self::Naive)
    }

    /// The same with nobody looking at it, of one that is observed.
    pub(crate) fn unobserved(self) -> Option<Self> {
        match self {
            Self::OursObserved => Some(Self::Ours),
            Self::OursWebhookObserved => Some(Self::OursWebhook),
            _ => None,
        }
    }

    /// The same with this queue. The peers know RabbitMQ only.
    pub(crate) fn on(self, queue: QueueServer) -> Self {
        match (self, queue) {
            (Self::Ours, QueueServer::Fluvio) => Self::OursOnFluvio,
            (Self::OursWebhook, QueueServer::Fluvio) => Self::OursWebhookOnFluvio,
            (other, _) => other,
        }
    }

    /// Installs what it needs.
    pub(crate) fn prepare(self, common: &Common) -> anyhow::Result<()> {
        match self {
            Self::FastStream => install::python(&common.peers_dir, "faststream").map(drop),
            Self::Node => install::node(&common.peers_dir, "node").map(drop),
            Self::Naive => Ok(()),
            _ => {
                let daemon = common.daemon.display();
                ensure!(common.daemon.exists(), "{daemon} is missing: cargo build --release, or name it with --daemon");
                Ok(())
            }
        }
    }
}

/// The server that our daemon has its queue on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum QueueServer {
    /// As the peers.
    #[value(name = "rabbitmq")]
    RabbitMq,
    /// Our daemon alone.
    Fluvio,
}

/// How a program is started.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Consumer processes.
    pub(crate) processes: usize,
    /// Conversations that each works on at a time.
    pub(crate) in_flight: u16,
    /// Where a peer writes each id and the time of its confirm.
    pub(crate) confirmed: Option<PathBuf>,
}

/// A program that runs and has nothing to do yet.
pub(crate) struct Running {
    /// All its processes.
    pub(crate) processes: Vec<Process>,
    /// Where its work comes from.
    pub(crate) input: Input,
    /// Where its work ends.
    pub(crate) output: Output,
    /// The queue in which work waits.
    pub(crate) queue: String,
    /// Where that is.
    pub(crate) server: QueueServer,
    /// The share of conversations whose message says that they are traced.
    pub(crate) sample: f64,
    /// Those who look at it.
    pub(crate) watcher: Option<Watcher>,
}

/// Where work comes from.
pub(crate) enum Input {
    /// The queue, bare ids.
    Ids,
    /// The queue, our messages.
    Messages,
    /// The queue on Fluvio, our messages: they come there by way of RabbitMQ, before the consumers start.
    Moved(daemon::LateConsumers),
    /// The producer's webhook.
    Webhook { url: String, token: String },
}

/// Where work ends.
pub(crate) enum Output {
    /// The queue that a peer publishes to.
    Queue(String),
    /// The table that our daemon adds to, in this database.
    Table { client: tokio_postgres::Client, database: String },
}

impl Running {
    /// Starts a program on fresh names in all servers, and returns when it waits for work.
    pub(crate) async fn start(bed: &Bed, program: Program, common: &Common, plan: &Plan) -> anyhow::Result<Self> {
        match program {
            Program::Ours => daemon::start(bed, common, plan, Way::default()).await,
            Program::OursWebhook => daemon::start(bed, common, plan, Way::webhook()).await,
            Program::OursObserved => daemon::start(bed, common, plan, Way::default().observed()).await,
            Program::OursWebhookObserved => daemon::start(bed, common, plan, Way::webhook().observed()).await,
            Program::OursOnFluvio => daemon::start(bed, common, plan, Way::default().on_fluvio()).await,
            Program::OursWebhookOnFluvio => daemon::start(bed, common, plan, Way::webhook().on_fluvio()).await,
            peer => peer::start(bed, peer, common, plan).await,
        }
    }

    /// The body that announces a call to it.
    pub(crate) fn body(&self, call: &EndedCall) -> Vec<u8> {
        let id = call.id;
        match self.input {
            Input::Ids => id.to_string().into_bytes(),
            Input::Messages | Input::Moved(_) => daemon::message(call, self.sample).into_bytes(),
            Input::Webhook { .. } => {
                format!(r#"{{"contactId":"{id}","masterContactId":"{id}","agentId":"{}"}}"#, call.agent).into_bytes()
            }
        }
    }

    /// How many conversations are done.
    pub(crate) async fn done(&self, bed: &Bed) -> anyhow::Result<usize> {
        match &self.output {
            Output::Queue(queue) => bed.broker.depth(queue).await,
            Output::Table { client, .. } => {
                let row = client.query_one("SELECT count(*) FROM analysis_queue", &[]).await?;
                Ok(usize::try_from(row.get::<_, i64>(0))?)
            }
        }
    }

    /// Whether one of so many messages still waits for a worker.
    pub(crate) async fn waits(&self, bed: &Bed, events: usize) -> anyhow::Result<bool> {
        match (&self.input, &self.output) {
            // Each message has an offset of its own, which is passed once it is settled.
            (Input::Moved(_), Output::Table { client, .. }) => {
                let topic = self.queue.replace('.', "-");
                let query = "SELECT coalesce(sum(next_offset), 0)::bigint FROM queue_partitions WHERE topic = $1";
                let row = client.query_one(query, &[&topic]).await?;
                Ok(usize::try_from(row.get::<_, i64>(0))? < events)
            }
            // Nobody knows how many the producer has published; it keeps repeats away, so nothing waits when all is done.
            (Input::Webhook { .. }, _) if self.server == QueueServer::Fluvio => Ok(false),
            _ => Ok(bed.broker.depth(&self.queue).await? > 0),
        }
    }

    /// Stops all processes in their tracks, or lets them go on.
    pub(crate) fn freeze(&self, frozen: bool) -> anyhow::Result<()> {
        self.processes.iter().try_for_each(|process| process.freeze(frozen))
    }

    /// An error once a process has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.processes.iter_mut().try_for_each(Process::check)
    }

    /// Seconds of processor time, all processes.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        self.processes.iter().map(Process::cpu_seconds).sum()
    }

    /// Resident bytes now, all processes.
    pub(crate) fn resident(&self) -> anyhow::Result<f64> {
        self.processes.iter().map(Process::resident).sum()
    }

    /// The most bytes that were resident, all processes.
    pub(crate) fn peak(&self) -> anyhow::Result<f64> {
        self.processes.iter().map(Process::peak).sum()
    }

    /// Ends it.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        for process in self.processes {
            process.stop().await?;
        }
        self.watcher.as_ref().map_or(Ok(()), Watcher::check)
    }
}
