//! Events at the moments they are meant for, and the moments at which their conversations are done.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use futures::stream::{StreamExt, poll_fn};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Client;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, NoTls};

use crate::bed::{Bed, Common};
use crate::program::{Input, Output, Plan, Program, Running};

/// Between the start of the programs and the first event.
const SETTLE: Duration = Duration::from_secs(1);

/// For how long after the last event a conversation is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Posts to the webhook at a time: far more than wait there, unless the producer stands still.
const POSTS: usize = 1_024;

/// What one run at one rate showed.
pub(super) struct Latencies {
    /// Microseconds from the intended sending to the analysis entry.
    pub(super) micros: Vec<u32>,
    /// How many never got there.
    pub(super) missing: usize,
}

/// Sends events at `rate` for some seconds, as they come, and waits for the last of them.
pub(super) async fn open_loop(
    bed: &Bed,
    program: Program,
    common: &Common,
    rate: f64,
    seconds: u64,
    seed: u64,
) -> anyhow::Result<Latencies> {
    let (mut running, done) = start(bed, program, common, common.in_flight).await?;
    let offsets = arrivals(rate, Duration::from_secs(seconds), seed);
    let calls = &bed.source.described.calls;
    ensure!(offsets.len() <= calls.len(), "{rate:.0} events a second are too many calls: name a lower --saturation");
    tokio::time::sleep(SETTLE).await;

    let (begun, begun_at) = (Instant::now(), micros_now()?);
    let mut due = pace(begun, offsets.clone());
    let sender = Sender::new(&running)?;
    while let Some(number) = due.recv().await {
        sender.send(bed, &running, running.body(&calls[number])).await?;
    }
    let last = Instant::now();
    while done.count()? < offsets.len() && last.elapsed() < PATIENCE {
        running.check()?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let done = done.by_call(&running).await?;
    running.stop().await?;
    let mut latencies = Latencies { micros: Vec::with_capacity(offsets.len()), missing: 0 };
    for (call, offset) in calls.iter().zip(&offsets) {
        match done.get(&call.id) {
            Some(at) => latencies.micros.push(since(*at, begun_at + offset.as_micros() as u64)),
            None => latencies.missing += 1,
        }
    }
    Ok(latencies)
}

/// The floor: the naive peer has one conversation at a time, and gets the next one when that is done.
pub(super) async fn one_by_one(bed: &Bed, common: &Common, count: usize) -> anyhow::Result<Vec<u32>> {
    let (mut running, done) = start(bed, Program::Naive, common, 1).await?;
    let mut latencies = Vec::with_capacity(count);
    for (number, call) in bed.source.described.calls.iter().take(count).enumerate() {
        let sent_at = micros_now()?;
        bed.broker.publish(&running.queue, &running.body(call)).await?;
        while done.count()? <= number {
            running.check()?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let done = done.by_call(&running).await?;
        latencies.push(since(*done.get(&call.id).context("done without a time")?, sent_at));
    }
    running.stop().await?;
    Ok(latencies)
}

async fn start(bed: &Bed, program: Program, common: &Common, in_flight: u16) -> anyhow::Result<(Running, Done)> {
    let (_, dir) = bed.run()?;
    let confirmed = dir.join("confirmed");
    let plan = Plan { processes: 1, in_flight, confirmed: Some(confirmed.clone()) };
    let running = Running::start(bed, program, common, &plan).await?;
    let done = match &running.output {
        Output::Queue(_) => Done::File(confirmed),
        Output::Table { database, .. } => Done::Announced(Announced::listen(database).await?),
    };
    Ok((running, done))
}

/// The moments of a Poisson process.
fn arrivals(rate: f64, span: Duration, seed: u64) -> Vec<Duration> {
    let mut chance = StdRng::seed_from_u64(seed);
    let mut offsets = Vec::new();
    let mut at = 0.0;
    loop {
        at -= (1.0 - chance.random::<f64>()).ln() / rate;
        if at >= span.as_secs_f64() {
            return offsets;
        }
        offsets.push(Duration::from_secs_f64(at));
    }
}

/// Tells the number of each event when it is due. A thread sleeps more exactly than the runtime's timer.
fn pace(begun: Instant, offsets: Vec<Duration>) -> mpsc::Receiver<usize> {
    let (due, receiver) = mpsc::channel(offsets.len().max(1));
    std::thread::spawn(move || {
        for (number, offset) in offsets.iter().enumerate() {
            std::thread::sleep((begun + *offset).saturating_duration_since(Instant::now()));
            if due.blocking_send(number).is_err() {
                return;
            }
        }
    });
    receiver
}

/// How events are handed over without waiting for an answer.
struct Sender {
    client: Client,
    posts: Arc<Semaphore>,
}

impl Sender {
    fn new(running: &Running) -> anyhow::Result<Self> {
        let idle = if matches!(running.input, Input::Webhook { .. }) { POSTS } else { 0 };
        let client = Client::builder().no_proxy().pool_max_idle_per_host(idle).build()?;
        Ok(Self { client, posts: Arc::new(Semaphore::new(POSTS)) })
    }

    async fn send(&self, bed: &Bed, running: &Running, body: Vec<u8>) -> anyhow::Result<()> {
        let Input::Webhook { url, token } = &running.input else {
            bed.broker.publish(&running.queue, &body).await?;
            return Ok(());
        };
        let slot = Arc::clone(&self.posts).acquire_owned().await?;
        let post = self.client.post(url).bearer_auth(token).body(body).send();
        tokio::spawn(async move {
            // What was not taken is missing in the end.
            drop(post.await);
            drop(slot);
        });
        Ok(())
    }
}

/// Where the ends of conversations are noted.
enum Done {
    /// A line `ID MICROS` for each, written by a peer at the confirm.
    File(PathBuf),
    /// Announced by PostgreSQL.
    Announced(Announced),
}

impl Done {
    fn count(&self) -> anyhow::Result<usize> {
        Ok(match self {
            Self::File(path) => lines(path)?.len(),
            Self::Announced(announced) => announced.seen().len(),
        })
    }

    /// Microseconds since the epoch, by call.
    async fn by_call(&self, running: &Running) -> anyhow::Result<HashMap<i64, u64>> {
        match (self, &running.output) {
            (Self::Announced(announced), Output::Table { client, .. }) => {
                let rows = client.query("SELECT id::text, external_id::bigint FROM conversations", &[]).await?;
                let seen = announced.seen();
                let ids = rows.iter().map(|row| (row.get::<_, String>(0), row.get::<_, i64>(1)));
                Ok(ids.filter_map(|(row, id)| Some((id, *seen.get(&row)?))).collect())
            }
            (Self::File(path), _) => Ok(lines(path)?.into_iter().collect()),
            (Self::Announced(_), Output::Queue(_)) => anyhow::bail!("a peer announces nothing"),
        }
    }
}

/// The whole lines of a peer's file; it may be writing one.
fn lines(path: &Path) -> anyhow::Result<Vec<(i64, u64)>> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole
        .map(|line| {
            let (id, micros) = line.trim_end().split_once(' ').context("a line without a time")?;
            Ok((id.parse()?, micros.parse()?))
        })
        .collect()
}

/// The analysis entries that PostgreSQL announced, by row, with the moment when that was heard.
struct Announced {
    seen: Arc<Mutex<HashMap<String, u64>>>,
    /// Ends the listening with it.
    _client: tokio_postgres::Client,
    listener: JoinHandle<()>,
}

impl Announced {
    async fn listen(database: &str) -> anyhow::Result<Self> {
        let (client, mut connection) = tokio_postgres::connect(database, NoTls).await?;
        let seen = Arc::new(Mutex::new(HashMap::new()));
        let heard = Arc::clone(&seen);
        let listener = tokio::spawn(async move {
            let mut messages = poll_fn(move |context| connection.poll_message(context));
            while let Some(Ok(message)) = messages.next().await {
                if let (AsyncMessage::Notification(notification), Ok(now)) = (message, micros_now()) {
                    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                    heard.entry(notification.payload().to_owned()).or_insert(now);
                }
            }
        });
        client.batch_execute("LISTEN analysis_queue").await?;
        Ok(Self { seen, _client: client, listener })
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, HashMap<String, u64>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

fn micros_now() -> anyhow::Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as u64)
}

fn since(at: u64, from: u64) -> u32 {
    u32::try_from(at.saturating_sub(from)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_keep_their_rate_and_their_order() {
        let offsets = arrivals(1_000.0, Duration::from_secs(60), 7);
        assert!(offsets.is_sorted());
        assert!((58_000..62_000).contains(&offsets.len()), "{}", offsets.len());
    }

    #[test]
    fn gaps_are_as_uneven_as_chance_makes_them() {
        let offsets = arrivals(100.0, Duration::from_secs(100), 7);
        let gaps: Vec<f64> = offsets.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // The deviation of an exponential distribution is its mean.
        assert!((0.9..1.1).contains(&(variance.sqrt() / mean)), "{}", variance.sqrt() / mean);
    }

    #[test]
    fn a_half_written_line_is_left_for_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("confirmed");
        std::fs::write(&path, "7 1000\n8 2000\n9 30").unwrap();
        assert_eq!(lines(&path).unwrap(), [(7, 1000), (8, 2000)]);
    }
}
