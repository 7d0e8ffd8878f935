//! B5, reconcile: a million listed ids against a store of ten million, one in a thousand missing, killed on the way.
//!
//! The comparison is the producer's own, in a process of its own: it lists, compares with the catalog and the dedupe's
//! memory, and puts what is missing on the queue. NICE is served from memory by this process. Three things are measured:
//! the bare look-ups; the whole; and the whole with SIGKILL at random pages.

mod calls;
mod nice;
mod report;
mod store;
mod worker;

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ::nice::PAGE_SIZE as PAGE;
use anyhow::{Context, ensure};
use clap::Args;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde::Deserialize;
use test_servers::Postgres;

use self::{
    calls::{Calls, key, tenant},
    nice::Nice,
    report::Report,
};
use crate::bed::connect;
use crate::lines::Lines;
use crate::machine;

pub(crate) use worker::{WorkerOptions, run as worker};

/// What `bench reconcile` may be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    calls: Calls,
    /// Rows of the embedded catalog, the newest of the known ids
    #[arg(long, default_value_t = 1_000_000)]
    rows: u64,
    /// Rows of the catalog in PostgreSQL; 0 leaves it out
    #[arg(long, default_value_t = 10_000_000)]
    postgres_rows: u64,
    /// Contacts with the members that a listing needs, instead of all that NICE sends
    #[arg(long)]
    short_rows: bool,
    /// How often each look-up and each whole run is measured
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How often the run is killed
    #[arg(long, default_value_t = 10)]
    kills: usize,
    /// The seed of orders and kills
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leaves the look-ups out
    #[arg(long)]
    no_look_ups: bool,
    /// Where the stores go: a directory on the disk that is meant
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

/// What takes the ids out of the pages, and does nothing with them.
const PARSE: &str = "denominator: JSON parse";

/// What a worker says once its store is open.
#[derive(Debug, Deserialize)]
struct Opened {
    opened: f64,
    idle: f64,
}

/// What a whole run came to.
#[derive(Debug, Clone, Deserialize)]
struct Whole {
    seconds: f64,
    cpu: f64,
    above_idle: f64,
    listed: u64,
    missing: u64,
    replayed: u64,
    state: String,
    published: u64,
    doubled: u64,
    strange: u64,
}

/// Measures all of it and prints the tables.
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let calls = &options.calls;
    ensure!(calls.listed <= calls.known && options.rows <= calls.known, "more listed or in rows than known");
    let temporary = tempfile::Builder::new().prefix("bench-reconcile-").tempdir_in(&options.dir)?;
    let dir = temporary.path();
    println!("load average {} at the start", machine::load_average()?);
    let server = if options.postgres_rows > 0 { Some(Postgres::start().await) } else { None };
    let url = match &server {
        Some(server) => Some(server.database().await),
        None => None,
    };
    let full = dir.join("full");
    let mut loading = Lines::start("load", &store::worker("load", &full, options.rows, calls)?, &dir.join("load.log"))?;
    let filling = async {
        match &url {
            Some(url) => store::fill(url, options.postgres_rows, calls).await.map(Some),
            None => Ok(None),
        }
    };
    let (loaded, filled) = tokio::try_join!(loading.answer::<serde_json::Value>(), filling)?;
    drop(loading);
    println!("the store: {loaded}");
    if let Some(seconds) = filled {
        println!("PostgreSQL: {} rows in {seconds:.0} s", options.postgres_rows);
    }
    let mut report = Report::new(calls);
    let mut bench =
        Bench { options, dir, full: &full, url: url.as_deref(), chance: StdRng::seed_from_u64(options.seed) };
    if !options.no_look_ups {
        bench.look_ups(&mut report).await?;
    }
    bench.whole(&mut report).await?;
    report.print();
    Ok(())
}

struct Bench<'a> {
    options: &'a Options,
    dir: &'a Path,
    full: &'a Path,
    url: Option<&'a str>,
    chance: StdRng,
}

impl Bench<'_> {
    /// The bare look-ups, next to what nobody can do without.
    async fn look_ups(&mut self, report: &mut Report) -> anyhow::Result<()> {
        let calls = &self.options.calls;
        let mut ours = store::worker("check", self.full, self.options.rows, calls)?;
        if let Some(url) = self.url {
            ours.args(["--postgres", url]);
        }
        let mut store = Lines::start("check", &ours, &self.dir.join("check.log"))?;
        let resident: serde_json::Value = store.answer().await?;
        println!("the store: {:.0} MiB resident", resident["resident"].as_f64().unwrap_or_default() / 1_048_576.0);
        let pages = nice::pages(calls, !self.options.short_rows, PAGE as usize)?;
        let index = self.write_index()?;
        let mut orders = vec![
            (Some("digest"), "the digest of an id alone"),
            (Some("memory"), "the dedupe's memory"),
            (Some("memory+digest"), "the dedupe's memory, digest included"),
            (Some("embedded"), "fates of the embedded catalog"),
            (Some("postgres"), "fates of PostgreSQL"),
            (None, PARSE),
            (None, "denominator: one sequential read of the index"),
        ];
        orders.retain(|(order, _)| self.url.is_some() || *order != Some("postgres"));
        let names: Vec<_> = orders.iter().map(|(_, name)| *name).collect();
        for _ in 0..self.options.rounds {
            report.weather(machine::load_average()?);
            orders.shuffle(&mut self.chance);
            for (order, name) in &orders {
                let seconds = match order {
                    Some(order) => store::check(&mut store, order, calls).await?.seconds,
                    None if *name == PARSE => parse(&pages)?,
                    None => read_index(&index)?,
                };
                report.looked_up(name, seconds);
            }
        }
        report.order(&names, pages.iter().map(String::len).sum());
        Ok(())
    }

    /// The digests of all known ids, one after the other.
    fn write_index(&self) -> anyhow::Result<PathBuf> {
        let (path, tenant) = (self.dir.join("index"), tenant()?);
        let mut file = std::io::BufWriter::new(File::create(&path)?);
        for id in self.options.calls.stored() {
            file.write_all(key(&tenant, id)?.digest().as_bytes())?;
        }
        file.flush()?;
        Ok(path)
    }

    /// Whole runs, undisturbed and killed.
    async fn whole(&mut self, report: &mut Report) -> anyhow::Result<()> {
        let long = !self.options.short_rows;
        let nice = Nice::start(&self.options.calls, long).await?;
        let catalogs: Vec<_> = [None].into_iter().chain(self.url.map(Some)).collect();
        for round in 0..=self.options.rounds {
            for url in &catalogs {
                let kills = if round == self.options.rounds { self.options.kills } else { 0 };
                let (whole, killed) = self.one(&nice, *url, kills).await.context("a whole run")?;
                let catalog = if url.is_some() { "PostgreSQL" } else { "embedded" };
                report.ran(catalog, &whole, killed, &nice.served);
            }
        }
        Ok(())
    }

    /// One run on a fresh copy of the store, killed so many times.
    async fn one(&mut self, nice: &Nice, url: Option<&str>, kills: usize) -> anyhow::Result<(Whole, usize)> {
        let dir = self.dir.join("run");
        let copied = Command::new("cp").arg("-a").arg(self.full).arg(&dir).status()?;
        ensure!(copied.success(), "cp -a: {copied}");
        if let Some(url) = url {
            connect(url).await?.batch_execute("truncate reconciliation_runs, timeline").await?;
        }
        nice.served.forget();
        let calls = &self.options.calls;
        let mut command = store::worker("run", &dir, self.options.rows, calls)?;
        command.args(["--nice", &nice.url]);
        if let Some(url) = url {
            command.args(["--postgres", url]);
        }
        let planned = calls.listed / u64::from(PAGE);
        let mut killed = 0;
        let whole = loop {
            let mut worker = Lines::start("run", &command, &self.dir.join("run.log"))?;
            let Opened { opened, idle } = worker.answer().await?;
            if killed == 0 {
                println!("opened in {opened:.2} s, {:.0} MiB resident", idle / 1_048_576.0);
            }
            let before = nice.served.requests.load(Ordering::SeqCst);
            let life = self.chance.random_range(1..=2 * planned / (kills.max(1) as u64 + 1) + 1);
            if killed < kills && outlived(&mut worker, nice, before + life).await? {
                worker.process.kill()?;
                killed += 1;
                continue;
            }
            break worker.answer().await?;
        };
        std::fs::remove_dir_all(&dir)?;
        Ok((whole, killed))
    }
}

/// Waits until so many requests came; false if the run was over before.
async fn outlived(worker: &mut Lines, nice: &Nice, requests: u64) -> anyhow::Result<bool> {
    let (begun, mut seen) = (Instant::now(), 0);
    loop {
        let now = nice.served.requests.load(Ordering::SeqCst);
        if now >= requests {
            return Ok(true);
        }
        // No request for so long: the run is over, and its answer is on its way.
        if now == seen && begun.elapsed() > Duration::from_secs(10) {
            worker.process.check()?;
            return Ok(false);
        }
        seen = now;
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

/// Reads the ids of all pages, and nothing else of them.
fn parse(pages: &[String]) -> anyhow::Result<f64> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Page {
        completed_contacts: Vec<Row>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row {
        contact_id: u64,
    }
    let begun = Instant::now();
    let mut sum = 0_u64;
    for page in pages {
        let page: Page = serde_json::from_str(page)?;
        sum = page.completed_contacts.iter().fold(sum, |sum, row| sum.wrapping_add(row.contact_id));
    }
    std::hint::black_box(sum);
    Ok(begun.elapsed().as_secs_f64())
}

fn read_index(index: &Path) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let (mut file, mut block, mut sum) = (File::open(index)?, vec![0; 1024 * 1024], 0_u64);
    loop {
        match file.read(&mut block)? {
            0 => break,
            read => sum = block[..read].iter().fold(sum, |sum, byte| sum + u64::from(*byte)),
        }
    }
    std::hint::black_box(sum);
    Ok(begun.elapsed().as_secs_f64())
}
