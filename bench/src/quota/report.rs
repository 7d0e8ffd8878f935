//! The tables of a run of `bench quota`.

use std::time::Duration;

use super::server::{Class, Event};
use crate::stats::percentile;

/// When what began, since the server did.
#[derive(Debug, Clone, Copy)]
pub(super) struct Phases {
    /// A window of the limit.
    pub(super) window: Duration,
    /// All programs have worked for a while.
    pub(super) quiet_at: Duration,
    /// They are killed and started again.
    pub(super) killed_at: Duration,
    /// A stranger comes.
    pub(super) stranger_at: Duration,
    /// Nothing counts from here on.
    pub(super) end: Duration,
}

impl Phases {
    pub(super) fn new(window: Duration) -> Self {
        let [quiet_at, killed_at, stranger_at, end] = [Duration::ZERO; 4];
        Self { window, quiet_at, killed_at, stranger_at, end }
    }
}

/// Gathers what was measured.
pub(super) struct Report {
    limit: f64,
    phases: Phases,
    rows: Vec<Row>,
}

/// One program in one arena.
struct Row {
    program: &'static str,
    shape: &'static str,
    used: f64,
    refused: [usize; 3],
    live: [f64; 2],
    requests: f64,
    promise: Option<f64>,
    after_kill: f64,
    remains: f64,
    windows: Option<usize>,
}

impl Report {
    pub(super) fn new(limit: u32, phases: Phases) -> Self {
        Self { limit: limit.into(), phases, rows: Vec::new() }
    }

    /// Counts what one arena saw.
    pub(super) fn add(&mut self, program: &'static str, shape: &'static str, pace: Option<f64>, events: &[Event]) {
        let Phases { window, quiet_at, killed_at, stranger_at, end } = self.phases;
        let within =
            |from: Duration, to: Duration| events.iter().filter(move |event| event.at >= from && event.at < to);
        let taken = |from, to| within(from, to).filter(|event| event.taken && event.class != Class::Stranger).count();
        let strangers = |from, to| within(from, to).filter(|event| event.class == Class::Stranger).count();
        let refused = |from, to| within(from, to).filter(|event| !event.taken).count();
        let windows = |from: Duration, to: Duration| (to - from).as_secs_f64() / window.as_secs_f64();
        let share = |from, to| taken(from, to) as f64 / (self.limit * windows(from, to) - strangers(from, to) as f64);

        let live = within(quiet_at, killed_at).filter(|event| event.taken && event.class == Class::Live);
        let mut live: Vec<u32> =
            live.map(|event| u32::try_from(event.waited.as_micros()).unwrap_or(u32::MAX)).collect();
        let token = window.as_micros() as f64 / self.limit;
        let live = [0.5, 0.99].map(|part| f64::from(percentile(&mut live, part)) / token);

        let backfill = within(quiet_at, killed_at).filter(|event| event.taken && event.class == Class::Backfill);
        let backfill = backfill.count() as f64;
        let promise = pace.map(|pace| backfill / pace / (killed_at - quiet_at).as_secs_f64() - 1.0);
        let asked = (taken(quiet_at, killed_at) + refused(quiet_at, killed_at)) as f64;
        let count = windows(stranger_at, end).round() as u32;
        let nth = |n: u32| share(stranger_at + window * n, stranger_at + window * (n + 1)) >= 0.95;
        self.rows.push(Row {
            program,
            shape,
            used: share(quiet_at, killed_at),
            refused: [refused(quiet_at, killed_at), refused(killed_at, stranger_at), refused(stranger_at, end)],
            live,
            requests: asked / taken(quiet_at, killed_at).max(1) as f64,
            promise,
            after_kill: share(killed_at, stranger_at),
            remains: share(stranger_at + window * 2, end),
            windows: (0..count).position(nth).map(|n| n + 1),
        });
    }

    /// Prints all rows.
    pub(super) fn print(&self) {
        let Phases { window, quiet_at, killed_at, stranger_at, end } = self.phases;
        let windows = |from: Duration, to: Duration| (to - from).as_secs_f64() / window.as_secs_f64();
        println!();
        println!(
            "{} requests in {} s; {:.0} windows undisturbed, {:.0} after kill -9, {:.0} with a stranger",
            self.limit,
            window.as_secs_f64(),
            windows(quiet_at, killed_at),
            windows(killed_at, stranger_at),
            windows(stranger_at, end),
        );
        println!(
            "the ETA is that of the backfill's requests in the undisturbed windows; what remains is what the stranger \
             leaves, from his third window on"
        );
        println!();
        println!(
            "| shape | program | used | 429 | live p50 tokens | live p99 tokens | requests a conversation | ETA off by | \
             429 after kill -9 | used after it | 429 with the stranger | used of what remains | windows until 95 % |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|");
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by_key(|row| row.shape);
        for row in rows {
            let [quiet, killed, stranger] = row.refused;
            let [p50, p99] = row.live;
            let promise = row.promise.map_or("-".to_owned(), |off| format!("{:+.1} %", off * 100.0));
            let windows = row.windows.map_or("-".to_owned(), |windows| windows.to_string());
            println!(
                "| {} | {} | {:.1} % | {quiet} | {p50:.2} | {p99:.2} | {:.3} | {promise} | {killed} | {:.1} % | {stranger} | \
                 {:.1} % | {windows} |",
                row.shape,
                row.program,
                row.used * 100.0,
                row.requests,
                row.after_kill * 100.0,
                row.remains * 100.0,
            );
        }
    }
}
