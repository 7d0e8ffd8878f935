//! Days of a misbehaving world, seed after seed: whether each keeps the promises, and how many days pass in a minute.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::plan::{Plan, Scale};
use crate::run::{Outcome, Wishes, run};
use crate::shrink::shrink;
use anyhow::{Context, ensure};

const DAY: f64 = 24.0 * 3600.0;

/// What is simulated.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How many seeds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Days in which things go wrong; some quiet days follow each time.
    #[arg(long, default_value_t = 1.0)]
    days: f64,
    /// Calls a day.
    #[arg(long, default_value_t = 200)]
    calls: u32,
    /// Faults a day, about.
    #[arg(long, default_value_t = 6.0)]
    faults: f64,
    /// Hours instead of days: what `./test` runs; takes the place of `--days`, `--calls` and `--faults`.
    #[arg(long)]
    short: bool,
    /// Seeds at a time; 0: as many as there are processors.
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Runs each seed twice and compares the hashes.
    #[arg(long)]
    twice: bool,
    /// Leaves faults out of a plan that fails until it is small.
    #[arg(long)]
    shrink: bool,
    /// Judges the alerts as well, by a real Prometheus.
    #[arg(long)]
    alarms: bool,
    /// Writes all that happens to this file; of one seed only.
    #[arg(long)]
    journal: Option<PathBuf>,
}

/// Runs all seeds; fails where a promise was broken or a seed did not repeat itself.
pub fn simulate(options: &Options) -> anyhow::Result<()> {
    ensure!(options.journal.is_none() || options.seeds == 1, "--journal is of one seed: add --seeds 1");
    let bad = Duration::from_secs_f64(options.days * DAY);
    let long = Scale { bad, calls: options.calls, faults: options.faults, ..Scale::default() };
    let scale = if options.short { Scale::short() } else { long };
    let began = Instant::now();
    let (next, (sender, ended)) = (AtomicU64::new(0), mpsc::channel());
    let jobs = match options.jobs {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        jobs => jobs,
    };
    let totals = std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (next, sender) = (&next, sender.clone());
            scope.spawn(move || {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= options.seeds || sender.send(one(options.from + at, scale, options)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        tell(ended, began)
    })?;
    println!("{}", totals.line(began));
    for (what, (count, seed)) in &totals.kinds {
        println!("{count:>6} × {what} (first: seed {seed})");
    }
    ensure!(totals.failed.is_empty(), "promises were broken in {} of {} seeds", totals.failed.len(), totals.seeds);
    Ok(())
}

/// What became of one seed.
struct Ended {
    seed: u64,
    plan: Plan,
    outcome: Outcome,
    /// The smallest plan that still fails.
    small: Option<(Plan, Outcome, usize)>,
}

fn one(seed: u64, scale: Scale, options: &Options) -> anyhow::Result<Ended> {
    let plan = Plan::of(seed, scale);
    let file = options.journal.as_ref().map(File::create).transpose().context("--journal")?;
    let mut outcome = run(&plan, Wishes { journal: file, alarms: options.alarms })?;
    if options.twice {
        let again = run(&plan, Wishes::default())?;
        if again.hash != outcome.hash {
            outcome.broken.push("the same seed gave another run".to_owned());
        }
    }
    let mut small = None;
    if options.shrink && !outcome.broken.is_empty() {
        let fails = |plan: &Plan| run(plan, Wishes::default()).is_ok_and(|outcome| !outcome.broken.is_empty());
        let (smallest, runs) = shrink(&plan, fails);
        small = Some((smallest.clone(), run(&smallest, Wishes::default())?, runs));
    }
    Ok(Ended { seed, plan, outcome, small })
}

#[derive(Default)]
struct Totals {
    seeds: u64,
    simulated: Duration,
    legs: (usize, usize),
    requests: u64,
    failed: Vec<u64>,
    /// By the first words of what was broken: how often, and the first seed.
    kinds: BTreeMap<String, (usize, u64)>,
}

impl Totals {
    fn line(&self, began: Instant) -> String {
        let (days, minutes) = (self.simulated.as_secs_f64() / DAY, began.elapsed().as_secs_f64() / 60.0);
        format!(
            "{} seeds, {days:.0} simulated days in {minutes:.1} min: {:.0} days a minute; {} legs, {} of them to be \
             imported; {} requests to NICE; promises broken in {} seeds",
            self.seeds,
            days / minutes.max(1e-9),
            self.legs.0,
            self.legs.1,
            self.requests,
            self.failed.len()
        )
    }
}

fn tell(ended: mpsc::Receiver<anyhow::Result<Ended>>, began: Instant) -> anyhow::Result<Totals> {
    let (mut totals, mut told) = (Totals::default(), Instant::now());
    for ended in ended {
        let Ended { seed, plan, outcome, small } = ended?;
        totals.seeds += 1;
        totals.simulated += outcome.simulated;
        totals.legs = (totals.legs.0 + outcome.legs.0, totals.legs.1 + outcome.legs.1);
        totals.requests += outcome.requests;
        if !outcome.broken.is_empty() {
            totals.failed.push(seed);
            println!("seed {seed}: {} promises broken in {:.1} s", outcome.broken.len(), outcome.took.as_secs_f64());
            show(&plan, &outcome);
            if let Some((small, outcome, runs)) = &small {
                println!("  the smallest plan found in {runs} runs:");
                show(small, outcome);
            }
            for what in &outcome.broken {
                let kind = totals.kinds.entry(kind(what)).or_insert((0, seed));
                kind.0 += 1;
            }
        }
        if told.elapsed() > Duration::from_secs(60) {
            told = Instant::now();
            println!("{}", totals.line(began));
        }
    }
    Ok(totals)
}

fn show(plan: &Plan, outcome: &Outcome) {
    println!("  {} tenants, {} consumers: {:?}", plan.tenants.len(), plan.consumers, plan.tenants);
    for fault in &plan.faults {
        println!("  at {:>9.2} h for {:>9.2} h: {:?}", hours(fault.at), hours(fault.lasts), fault.what);
    }
    for what in outcome.broken.iter().take(12) {
        println!("    {what}");
    }
}

fn hours(duration: Duration) -> f64 {
    duration.as_secs_f64() / 3600.0
}

/// What was broken, without the call that it was broken for.
fn kind(what: &str) -> String {
    let text = what.split_once("): ").map_or(what, |(_, text)| text);
    text.chars().map(|char| if char.is_ascii_digit() { '#' } else { char }).take(100).collect()
}
