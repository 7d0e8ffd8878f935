//! Our daemon on the same servers: a database with the tenant's settings and agents, then the services apart.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use super::{Input, Output, Plan, QueueServer, Running};
use crate::bed::{Bed, Common, connect};
use crate::process::Process;
use crate::source::EndedCall;
use crate::watcher::Watcher;

const TENANT: &str = "bench";
const WEBHOOK_TOKEN: &str = "bench-webhook-token";
const SEAL_KEY: &str = "6e6963652d6b6e6f7676752d62656e63682d7365616c2d6b65792d33322d6221";

/// The message of a call, as the producer publishes it. Where it is one of the share that is traced, it says so.
pub(super) fn message(call: &EndedCall, sample: f64) -> String {
    let (id, agent) = (call.id, call.agent);
    let is_traced = (id.rem_euclid(1000) as f64) < sample * 1000.0;
    let traceparent = if is_traced { format!(r#","traceparent":"00-{id:032x}-{id:016x}-01""#) } else { String::new() };
    format!(
        r#"{{"schema":1,"integrationType":"nice-cxone","tenantId":"{TENANT}","conversationId":"{id}","masterContactId":"{id}","agentId":"{agent}","source":"webhook","attempt":0{traceparent}}}"#
    )
}

/// How our daemon is run.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Way {
    is_on_fluvio: bool,
    has_webhook: bool,
    is_observed: bool,
}

impl Way {
    /// Events come by the producer's webhook.
    pub(super) fn webhook() -> Self {
        Self { has_webhook: true, ..Self::default() }
    }

    /// The queue is Fluvio's.
    pub(super) fn on_fluvio(self) -> Self {
        Self { is_on_fluvio: true, ..self }
    }

    /// It is traced, scraped, and looked at.
    pub(super) fn observed(self) -> Self {
        Self { is_observed: true, ..self }
    }
}

/// What all its processes are told.
struct Settings {
    common: Common,
    pairs: Vec<(&'static str, String)>,
}

/// Prepares a database and starts the services; the producer only where events come by webhook.
pub(super) async fn start(bed: &Bed, common: &Common, plan: &Plan, way: Way) -> anyhow::Result<Running> {
    let (run, dir) = bed.run()?;
    let database = bed.postgres.database().await;
    let mut pairs = pairs(bed, &run, &database, plan).await;
    if way.is_on_fluvio {
        let fluvio = bed.fluvio.as_ref().context("the bed has no Fluvio")?;
        pairs.retain(|(key, _)| *key != "QUEUE__KIND");
        pairs.extend([("QUEUE__KIND", "fluvio".to_owned()), ("QUEUE__FLUVIO", fluvio.address().to_string())]);
    }
    let mut watcher = if way.is_observed { Some(Watcher::start().await?) } else { None };
    let sample = if way.is_observed { common.sample } else { 0.0 };
    if let Some(watcher) = &watcher {
        pairs.extend([("TRACES__ENDPOINT", watcher.collector()), ("TRACES__SAMPLE", sample.to_string())]);
    }
    let settings = Settings { common: common.clone(), pairs };
    settings.command(&dir, &["migrate"], "")?;
    let catalog = connect(&database).await?;
    catalog.execute("INSERT INTO tenants (tenant_id, slug) VALUES ($1, $1)", &[&TENANT]).await?;
    settings.command(&dir, &["settings", "set", "--force"], &bed.source.described.settings)?;
    settings.command(&dir, &["agents", "sync"], "")?;

    let mut processes = Vec::new();
    let mut input = Input::Messages;
    if way.has_webhook {
        let (listen, token) = (free_address()?, WEBHOOK_TOKEN.to_owned());
        let more = [("EVENTS__WEBHOOK", "true".to_owned()), ("EVENTS__WEBHOOK_LISTEN", listen.to_string())];
        processes.push(settings.service("producer", &dir.join("producer"), more.to_vec(), watcher.as_mut()).await?);
        input = Input::Webhook { url: format!("http://{listen}/nice/events/contact-ended"), token };
    }
    let output = Output::Table { client: catalog, database };
    let (queue, server) =
        (format!("{run}.live"), if way.is_on_fluvio { QueueServer::Fluvio } else { QueueServer::RabbitMq });
    if way.is_on_fluvio && !way.has_webhook {
        input = Input::Moved(LateConsumers { settings, dir, processes: plan.processes });
    } else {
        processes.extend(settings.consumers(&dir, plan.processes, watcher.as_mut()).await?);
    }
    Ok(Running { processes, input, output, queue, server, sample, watcher })
}

/// Consumers on Fluvio that start when their queue is full. One that stood frozen meanwhile, as those on RabbitMQ do,
/// would be taken for dead.
pub(crate) struct LateConsumers {
    settings: Settings,
    dir: PathBuf,
    processes: usize,
}

impl LateConsumers {
    /// Fills the queue by way of RabbitMQ's, and starts the consumers.
    pub(crate) async fn fill(&self, bed: &Bed, queue: &str, bodies: &[Vec<u8>]) -> anyhow::Result<Vec<Process>> {
        let on_rabbitmq = self.settings.with("QUEUE__KIND", "rabbitmq");
        // It declares the queue that it counts.
        on_rabbitmq.command(&self.dir, &["status"], "")?;
        bed.broker.fill(queue, bodies).await?;
        self.settings.command(&self.dir, &["queue", "move", "--from", "rabbitmq"], "")?;
        self.settings.consumers(&self.dir, self.processes, None).await
    }
}

async fn pairs(bed: &Bed, run: &str, database: &str, plan: &Plan) -> Vec<(&'static str, String)> {
    vec![
        ("TENANT__ID", TENANT.to_owned()),
        ("EVENTS__POLL", "false".to_owned()),
        ("EVENTS__IMPORT_SINCE", "1d".to_owned()),
        ("EVENTS__WEBHOOK_TOKEN", WEBHOOK_TOKEN.to_owned()),
        ("LIMITS__MEDIA_PLAYBACK", "1000000/s".to_owned()),
        ("LIMITS__ACD", "1000000/s".to_owned()),
        // A call that is not ready stays away for the whole run.
        ("RETRY__NOT_READY_DELAYS", "1h".to_owned()),
        ("RETRY__FIRST_LOOK", "0".to_owned()),
        ("CONSUMER__CONCURRENCY", plan.in_flight.to_string()),
        ("QUEUE__KIND", "rabbitmq".to_owned()),
        ("QUEUE__URL", bed.rabbitmq.url()),
        ("QUEUE__PREFIX", run.to_owned()),
        ("CATALOG__KIND", "postgres".to_owned()),
        ("CATALOG__URL", database.to_owned()),
        ("CATALOG__SEAL_KEY", SEAL_KEY.to_owned()),
        ("RECORDINGS__KIND", "s3".to_owned()),
        ("RECORDINGS__ENDPOINT", bed.s3.endpoint()),
        ("RECORDINGS__BUCKET", bed.s3.bucket().await),
        ("RECORDINGS__ACCESS_KEY_ID", bed.s3.access_key().to_owned()),
        ("RECORDINGS__SECRET_ACCESS_KEY", bed.s3.secret_key().to_owned()),
        ("LOG__FILTER", "warn".to_owned()),
    ]
}

impl Settings {
    /// The same with another value of a key.
    fn with(&self, key: &'static str, value: &str) -> Self {
        let others = self.pairs.iter().filter(|(known, _)| *known != key).cloned();
        Self { common: self.common.clone(), pairs: others.chain([(key, value.to_owned())]).collect() }
    }

    /// Starts so many consumers, one after the other.
    async fn consumers(
        &self,
        dir: &Path,
        count: usize,
        mut watcher: Option<&mut Watcher>,
    ) -> anyhow::Result<Vec<Process>> {
        let mut processes = Vec::new();
        for number in 0..count {
            let dir = dir.join(format!("consumer{number}"));
            processes.push(self.service("consumer", &dir, Vec::new(), watcher.as_deref_mut()).await?);
        }
        Ok(processes)
    }

    fn executable(&self, state: &Path, admin: SocketAddr, more: &[(&str, String)]) -> Command {
        let places = [("STATE__DIR", state.display().to_string()), ("ADMIN__LISTEN", admin.to_string())];
        let mut command = Command::new(&self.common.daemon);
        let pairs = self.pairs.iter().chain(&places).chain(more);
        command.envs(pairs.map(|(key, value)| (format!("NICE_KNOVVU_{key}"), value)));
        command
    }

    /// Runs a command to its end, with `input` as its stdin.
    fn command(&self, dir: &Path, arguments: &[&str], input: &str) -> anyhow::Result<()> {
        let mut command = self.executable(&dir.join("commands"), free_address()?, &[]);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        // A command that reads no stdin may have closed it.
        drop(stdin.write_all(input.as_bytes()));
        drop(stdin);
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "nice-knovvu {}: {}: {said}", arguments.join(" "), output.status);
        Ok(())
    }

    /// Starts a service and waits until it is ready.
    async fn service(
        &self,
        name: &str,
        dir: &Path,
        more: Vec<(&'static str, String)>,
        watcher: Option<&mut Watcher>,
    ) -> anyhow::Result<Process> {
        std::fs::create_dir_all(dir)?;
        let (admin, log) = (free_address()?, dir.join("log"));
        let mut command = self.executable(&dir.join("state"), admin, &more);
        let mut process = Process::start(&format!("nice-knovvu {name}"), command.arg(name), &log, false)?;
        let (client, url) = (reqwest::Client::builder().no_proxy().build()?, format!("http://{admin}/readyz"));
        let ready = async || client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success());
        process.until(ready).await.with_context(|| format!("its log is {}", log.display()))?;
        if let Some(watcher) = watcher {
            watcher.look_at(admin)?;
        }
        Ok(process)
    }
}

/// An address that nobody listens on at this moment.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
