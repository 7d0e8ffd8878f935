//! One run of one program.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use reqwest::StatusCode;
use tokio::task::JoinSet;

use crate::bed::{Bed, Common, Used};
use crate::process::{SyncCount, cpu_seconds};
use crate::program::{Input, Plan, Program, Running};
use crate::source::EndedCall;

/// A run that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Let the broker come to rest between the filling of its queue and the start.
const SETTLE: Duration = Duration::from_secs(1);

/// Posts to the webhook at a time.
const POSTS: usize = 64;

/// What is to be done.
pub(crate) struct Work {
    /// Each call once: what the peers get.
    pub(crate) unique: Vec<EndedCall>,
    /// The same with repeats: what our daemon gets.
    pub(crate) events: Vec<EndedCall>,
}

/// What a run cost.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outcome {
    /// Conversations a second.
    pub(crate) rate: f64,
    /// Milliseconds of the program's own processor time for each.
    pub(crate) cpu: f64,
    /// The most that was resident, in bytes, over all its processes.
    pub(crate) peak: f64,
    /// The servers' processor time for each.
    pub(crate) servers: Used,
    /// Syncs of PostgreSQL's log for each.
    pub(crate) log_syncs: f64,
    /// Syncs of the program for each, where they were counted.
    pub(crate) own_syncs: f64,
    /// Syncs of RabbitMQ for each, where they were counted.
    pub(crate) rabbitmq_syncs: f64,
    /// Milliseconds of the benchmark's own processor time for each.
    pub(crate) generator: f64,
}

/// Runs a program from a full queue to an empty one; under strace where syncs are to be counted.
pub(crate) async fn measure(
    bed: &Bed,
    program: Program,
    common: &Common,
    plan: &Plan,
    work: &Work,
    count_syncs: bool,
) -> anyhow::Result<Outcome> {
    let log_syncs = bed.log_syncs().await?;
    let mut running = Running::start(bed, program, common, plan).await?;
    let events = if program.is_ours() { &work.events } else { &work.unique };
    let bodies: Vec<Vec<u8>> = events.iter().map(|call| running.body(call)).collect();
    let mut late = None;
    match &running.input {
        Input::Webhook { .. } => {}
        Input::Moved(consumers) => late = Some(consumers.fill(bed, &running.queue, &bodies).await?),
        Input::Ids | Input::Messages => {
            running.freeze(true)?;
            bed.broker.fill(&running.queue, &bodies).await?;
        }
    }
    // Late consumers work already, and what they have done when the clock begins does not count.
    let already = match late {
        Some(processes) => {
            running.processes.extend(processes);
            running.done(bed).await?
        }
        None => {
            tokio::time::sleep(SETTLE).await;
            0
        }
    };
    let counts = if count_syncs { Some(Counts::attach(bed, &running).await?) } else { None };

    let all = work.unique.len();
    let conversations = all - already.min(all);
    let (used, cpu, own) = (bed.used()?, running.cpu_seconds()?, cpu_seconds(std::process::id())?);
    let begun = Instant::now();
    let posts = if let Input::Webhook { url, token } = &running.input {
        Some(tokio::spawn(post(url.clone(), token.clone(), bodies)))
    } else {
        running.freeze(false)?;
        None
    };
    finished(bed, &mut running, all).await?;
    let seconds = begun.elapsed().as_secs_f64();
    if let Some(posts) = posts {
        posts.await??;
    }
    // Repeats may still wait: they are part of the cost.
    drained(bed, &mut running, events.len()).await?;
    let each = |seconds: f64| seconds * 1000.0 / conversations.max(1) as f64;
    let mut outcome = Outcome {
        rate: conversations as f64 / seconds,
        cpu: each(running.cpu_seconds()? - cpu),
        peak: running.peak()?,
        servers: bed.used()?.millis_since(used, conversations),
        generator: each(cpu_seconds(std::process::id())? - own),
        ..Outcome::default()
    };
    if let Some(counts) = counts {
        let (own, rabbitmq) = counts.syncs().await?;
        outcome.own_syncs = own / conversations as f64;
        outcome.rabbitmq_syncs = rabbitmq / conversations as f64;
    }
    running.stop().await?;
    outcome.log_syncs = (bed.log_syncs().await? - log_syncs) / conversations.max(1) as f64;
    Ok(outcome)
}

/// Waits until every conversation is done, looking more often towards the end: each look costs the servers.
async fn finished(bed: &Bed, running: &mut Running, conversations: usize) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        running.check()?;
        let (done, elapsed) = (running.done(bed).await?, begun.elapsed());
        if done >= conversations {
            return Ok(());
        }
        ensure!(elapsed < PATIENCE, "{done} of {conversations} conversations after {} s", elapsed.as_secs());
        let left = elapsed.mul_f64((conversations - done) as f64 / done.max(1) as f64);
        tokio::time::sleep((left / 4).clamp(Duration::from_millis(10), Duration::from_millis(500))).await;
    }
}

/// Waits until no message waits for a worker.
async fn drained(bed: &Bed, running: &mut Running, events: usize) -> anyhow::Result<()> {
    let begun = Instant::now();
    while running.waits(bed, events).await? {
        running.check()?;
        ensure!(begun.elapsed() < PATIENCE, "messages are left in {}", running.queue);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Posts every event until it is taken.
async fn post(url: String, token: String, bodies: Vec<Vec<u8>>) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let (bodies, next) = (Arc::new(bodies), Arc::new(AtomicUsize::new(0)));
    let mut posts = JoinSet::new();
    for _ in 0..POSTS {
        let (client, url, token) = (client.clone(), url.clone(), token.clone());
        let (bodies, next) = (Arc::clone(&bodies), Arc::clone(&next));
        posts.spawn(async move {
            while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                loop {
                    let answer = client.post(&url).bearer_auth(&token).body(body.clone()).send().await?.status();
                    match answer {
                        StatusCode::ACCEPTED => break,
                        StatusCode::SERVICE_UNAVAILABLE => tokio::time::sleep(Duration::from_millis(10)).await,
                        other => bail!("the webhook answered {other}"),
                    }
                }
            }
            Ok(())
        });
    }
    while let Some(ended) = posts.join_next().await {
        ended??;
    }
    Ok(())
}

/// The syncs of a program's processes and of RabbitMQ.
struct Counts {
    own: Vec<SyncCount>,
    rabbitmq: SyncCount,
}

impl Counts {
    async fn attach(bed: &Bed, running: &Running) -> anyhow::Result<Self> {
        let (_, dir) = bed.run()?;
        let mut own = Vec::new();
        for process in &running.processes {
            own.push(SyncCount::attach(process.id(), &dir).await?);
        }
        Ok(Self { own, rabbitmq: SyncCount::attach(bed.rabbitmq_pid().await?, &dir).await? })
    }

    async fn syncs(self) -> anyhow::Result<(f64, f64)> {
        let mut own = 0.0;
        for count in self.own {
            own += count.syncs().await?;
        }
        Ok((own, self.rabbitmq.syncs().await?))
    }
}
