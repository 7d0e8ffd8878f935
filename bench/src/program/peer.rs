//! The peers: ids in one queue, confirmed ids in another, one row for each.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Input, Output, Plan, Program, QueueServer, Running, install};
use crate::bed::{Bed, Common, connect};
use crate::process::Process;

/// The one table of a peer.
const TABLE: &str = "CREATE TABLE conversations (external_id text PRIMARY KEY, metadata jsonb NOT NULL, \
                     object_key text NOT NULL, sha256 text NOT NULL, size_bytes bigint NOT NULL)";

/// Starts a peer.
pub(super) async fn start(bed: &Bed, program: Program, common: &Common, plan: &Plan) -> anyhow::Result<Running> {
    let (run, dir) = bed.run()?;
    let (input, output) = (format!("{run}.ids"), format!("{run}.analysis"));
    bed.broker.declare(&input).await?;
    bed.broker.declare(&output).await?;
    let database = bed.postgres.database().await;
    connect(&database).await?.batch_execute(TABLE).await?;
    let confirmed = plan.confirmed.as_ref().map_or(String::new(), |path| path.display().to_string());
    let described = &bed.source.described;
    let settings = [
        ("AMQP", bed.rabbitmq.url()),
        ("POSTGRES", database),
        ("S3", bed.s3.endpoint()),
        ("S3_KEY", bed.s3.access_key().to_owned()),
        ("S3_SECRET", bed.s3.secret_key().to_owned()),
        ("BUCKET", bed.s3.bucket().await),
        ("SOURCE", described.url.clone()),
        ("KEY_ID", described.key_id.clone()),
        ("KEY_SECRET", described.key_secret.clone()),
        ("INPUT", input.clone()),
        ("OUTPUT", output.clone()),
        ("IN_FLIGHT", plan.in_flight.to_string()),
        ("CONFIRMED", confirmed),
    ];
    let settings = settings.map(|(key, value)| (format!("PEER_{key}"), value));
    let mut processes = Vec::new();
    for number in 0..plan.processes {
        let mut command = command(program, common)?;
        command.envs(settings.iter().cloned());
        let mut process = Process::start(program.name(), &command, &dir.join(format!("peer{number}.log")), true)?;
        wait_until_ready(&mut process, &dir).await?;
        processes.push(process);
    }
    Ok(Running {
        processes,
        input: Input::Ids,
        output: Output::Queue(output),
        queue: input,
        server: QueueServer::RabbitMq,
        sample: 0.0,
        watcher: None,
    })
}

fn command(program: Program, common: &Common) -> anyhow::Result<Command> {
    Ok(match program {
        Program::FastStream => {
            let mut command = Command::new(install::python(&common.peers_dir, "faststream")?);
            command.arg(Path::new(install::PEERS).join("faststream/peer.py"));
            command
        }
        Program::Node => {
            let mut command = Command::new("node");
            command.arg(install::node(&common.peers_dir, "node")?).env("NODE_ENV", "production");
            command
        }
        Program::Naive => {
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("naive");
            command
        }
        _ => anyhow::bail!("the daemon is no peer"),
    })
}

/// A peer says `ready` once it takes messages.
async fn wait_until_ready(process: &mut Process, logs: &Path) -> anyhow::Result<()> {
    let stdout = process.stdout()?;
    let ready = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&ready);
    // Reads on to the end, so that the peer never finds its pipe full.
    tokio::task::spawn_blocking(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            told.fetch_or(line == "ready", Ordering::Relaxed);
        }
    });
    let waited = process.until(async || ready.load(Ordering::Relaxed)).await;
    anyhow::Context::with_context(waited, || format!("its log is in {}", logs.display()))
}
