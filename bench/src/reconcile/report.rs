//! The tables of a run of `bench reconcile`.

use std::sync::atomic::Ordering;

use nice::PAGE_SIZE as PAGE;

use super::Whole;
use super::calls::Calls;
use super::nice::Served;
use crate::stats::median;

const MIB: f64 = 1024.0 * 1024.0;

/// Gathers what was measured.
pub(super) struct Report {
    calls: Calls,
    weather: Vec<String>,
    look_ups: Vec<(&'static str, f64)>,
    order: Vec<&'static str>,
    bytes: usize,
    runs: Vec<Run>,
}

/// A whole run and what NICE saw of it.
struct Run {
    catalog: &'static str,
    killed: usize,
    whole: Whole,
    requests: u64,
    rows: u64,
}

impl Report {
    pub(super) fn new(calls: &Calls) -> Self {
        Self {
            calls: calls.clone(),
            weather: Vec::new(),
            look_ups: Vec::new(),
            order: Vec::new(),
            bytes: 0,
            runs: Vec::new(),
        }
    }

    /// Notes the load before a round.
    pub(super) fn weather(&mut self, load: String) {
        self.weather.push(load);
    }

    /// Notes one comparison of all ids.
    pub(super) fn looked_up(&mut self, name: &'static str, seconds: f64) {
        self.look_ups.push((name, seconds));
    }

    /// The rows of the table, and the bytes of all pages.
    pub(super) fn order(&mut self, names: &[&'static str], bytes: usize) {
        self.order = names.to_vec();
        self.bytes = bytes;
    }

    /// Notes a whole run.
    pub(super) fn ran(&mut self, catalog: &'static str, whole: &Whole, killed: usize, served: &Served) {
        let [requests, rows] = [&served.requests, &served.rows].map(|count| count.load(Ordering::SeqCst));
        self.runs.push(Run { catalog, killed, whole: whole.clone(), requests, rows });
    }

    /// Prints both tables.
    pub(super) fn print(&self) {
        let Calls { known, listed, .. } = self.calls;
        println!();
        println!("{listed} ids listed, {known} known, {} of the listed missing; medians", self.calls.missing());
        if let (Some(first), Some(last)) = (self.weather.first(), self.weather.last()) {
            println!("load average {first} before the first round, {last} before the last");
        }
        if !self.order.is_empty() {
            self.print_look_ups();
        }
        self.print_runs();
    }

    fn print_look_ups(&self) {
        let of = |name: &str| median(self.look_ups.iter().filter(|(other, _)| *other == name).map(|(_, took)| *took));
        println!();
        println!("| all {} ids | ms | ids/s |", self.calls.listed);
        println!("|---|---|---|");
        for name in &self.order {
            let seconds = of(name);
            let rate = self.calls.listed as f64 / seconds;
            println!("| {name} | {:.0} | {rate:.0} |", seconds * 1000.0);
        }
        println!();
        println!("the pages have {:.0} MiB", self.bytes as f64 / MIB);
    }

    fn print_runs(&self) {
        println!();
        println!(
            "| catalog | killed | s in all | ids/s | CPU s | RSS above idle MiB | requests | pages beyond one listing | listed | missing | replayed | on the queue | twice there | wrong there | state |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
        for Run { catalog, killed, whole, requests, rows } in &self.runs {
            // Of a killed run only the last life was timed.
            let (seconds, rate) = match killed {
                0 => (format!("{:.2}", whole.seconds), format!("{:.0}", whole.listed as f64 / whole.seconds)),
                _ => ("-".to_owned(), "-".to_owned()),
            };
            println!(
                "| {catalog} | {killed} | {seconds} | {rate} | {:.2} | {:.1} | {requests} | {:.1} | {} | {} | \
                 {} | {} | {} | {} | {} |",
                whole.cpu,
                whole.above_idle / MIB,
                rows.saturating_sub(self.calls.listed) as f64 / f64::from(PAGE),
                whole.listed,
                whole.missing,
                whole.replayed,
                whole.published,
                whole.doubled,
                whole.strange,
                whole.state,
            );
        }
    }
}
