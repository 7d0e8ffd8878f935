//! The table of a run of `bench dedupe`.

use crate::callers::Outcome;
use crate::stats::median;

/// Gathers what was measured.
pub(super) struct Report {
    loaded: u64,
    millis: u64,
    engines: Vec<(String, Vec<f64>)>,
    machine: Vec<(String, f64)>,
    runs: Vec<(u64, String, Outcome)>,
}

impl Report {
    pub(super) fn new(loaded: u64, millis: u64) -> Self {
        Self { loaded, millis, engines: Vec::new(), machine: Vec::new(), runs: Vec::new() }
    }

    /// Notes what loading took: seconds, resident bytes an id, bytes on disk an id.
    pub(super) fn loaded(&mut self, engine: &str, figures: &[f64]) -> anyhow::Result<()> {
        let [seconds, resident, disk] = figures else { anyhow::bail!("{engine} answered with other figures") };
        println!("{engine:>14}: loaded in {seconds:.0} s, {resident:.1} B RSS and {disk:.1} B of disk an id");
        self.engines.push((engine.to_owned(), figures.to_vec()));
        Ok(())
    }

    /// Notes the weather before a round.
    pub(super) fn machine(&mut self, load: String, syncs: f64) {
        self.machine.push((load, syncs));
    }

    /// Notes one run.
    pub(super) fn ran(&mut self, callers: u64, engine: &str, outcome: Outcome) {
        self.runs.push((callers, engine.to_owned(), outcome));
    }

    /// Prints the medians, and each engine's ratio to the bare append.
    pub(super) fn print(&self) {
        let syncs: Vec<f64> = self.machine.iter().map(|(_, syncs)| *syncs).collect();
        let (least, most) = (syncs.iter().copied().fold(f64::MAX, f64::min), syncs.iter().copied().fold(0.0, f64::max));
        println!();
        println!("{} ids loaded, 30 % of the claims seen before, runs of {} ms, medians", self.loaded, self.millis);
        println!("bare page + fdatasync: {:.0}/s ({least:.0} to {most:.0})", median(syncs));
        if let (Some((first, _)), Some((last, _))) = (self.machine.first(), self.machine.last()) {
            println!("load average {first} before the first run, {last} before the last");
        }
        println!();
        println!(
            "| callers | engine | claims/s | durable ids/s | of raw | of recycled | syncs/s | ids a sync | p50 ms | p99 ms |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|");
        let mut callers: Vec<u64> = self.runs.iter().map(|(callers, ..)| *callers).collect();
        callers.dedup();
        for callers in callers {
            for (engine, _) in &self.engines {
                let of = |figure: fn(&Outcome) -> f64| self.median_of(callers, engine, figure);
                let (commits, syncs) = (of(|outcome| outcome.commits), of(|outcome| outcome.syncs));
                println!(
                    "| {callers} | {engine} | {:.0} | {commits:.0} | {} | {} | {syncs:.0} | {:.0} | {:.1} | {:.1} |",
                    of(|outcome| outcome.claims),
                    self.share_of("raw", callers, engine),
                    self.share_of("raw-recycled", callers, engine),
                    commits / syncs.max(1.0),
                    of(|outcome| f64::from(outcome.p50) / 1000.0),
                    of(|outcome| f64::from(outcome.p99) / 1000.0),
                );
            }
        }
    }

    /// The median of the ratios to a bare append of the same round: the weather changes from round to round.
    fn share_of(&self, denominator: &str, callers: u64, engine: &str) -> String {
        let of = |wanted: &str| {
            let runs = self.runs.iter().filter(move |(c, e, _)| *c == callers && e == wanted);
            runs.map(|(.., outcome)| outcome.commits).collect::<Vec<_>>()
        };
        let (own, bare) = (of(engine), of(denominator));
        if bare.is_empty() {
            return "-".to_owned();
        }
        let share = median(own.into_iter().zip(bare).map(|(commits, bare)| commits / bare.max(1.0)));
        format!("{:.0} %", share * 100.0)
    }

    fn median_of(&self, callers: u64, engine: &str, figure: fn(&Outcome) -> f64) -> f64 {
        median(self.runs.iter().filter(|(c, e, _)| *c == callers && e == engine).map(|(.., outcome)| figure(outcome)))
    }
}
