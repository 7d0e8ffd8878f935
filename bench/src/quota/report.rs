//! The tables of a run of `bench quota`.

use std::time::Duration;

use super::server::{Class, Event};
use crate::stats::percentile;

/// NICE's window in seconds, in which waits are told.
const NICES_WINDOW: f64 = 300.0;

/// A program is back at its full pace in a window in which it had this part of what it had before.
const BACK: f64 = 0.95;

/// The moments in a window from which a full one is looked for.
const MOMENTS: u32 = 20;

/// When what began, since the server did.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Phases {
    /// A window of the limit.
    pub(super) window: Duration,
    /// All programs have worked for a while; they want what a backfill may take, and some.
    pub(super) quiet_at: Duration,
    /// They want all of it.
    pub(super) full_at: Duration,
    /// They have for a while.
    pub(super) settled_at: Duration,
    /// They are killed.
    pub(super) killed_at: Duration,
    /// All work again.
    pub(super) again_at: Duration,
    /// A stranger comes.
    pub(super) stranger_at: Duration,
    /// He leaves.
    pub(super) left_at: Duration,
    /// Nothing counts from here on.
    pub(super) end: Duration,
}

impl Phases {
    fn windows(&self, from: Duration, to: Duration) -> f64 {
        (to - from).as_secs_f64() / self.window.as_secs_f64()
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
    quiet: Quiet,
    full: Full,
}

/// While only backfill, live calls and the comparison want something.
struct Quiet {
    used: f64,
    refused: usize,
    /// How long live calls waited: half of them, and 99 of 100; in windows.
    live: [f64; 2],
    /// By how much the backfill was faster than promised.
    promise: f64,
}

/// While all of the limit is wanted.
struct Full {
    used: f64,
    refused: usize,
    used_after_kill: f64,
    refused_after_kill: usize,
    /// In the stranger's first window, and in each later one.
    refused_with_stranger: [f64; 2],
    /// Of what the stranger leaves, from his second window on.
    used_with_stranger: f64,
    /// Windows from his leave to the full pace.
    back: Option<f64>,
}

impl Report {
    pub(super) fn new(limit: u32, phases: Phases) -> Self {
        Self { limit: limit.into(), phases, rows: Vec::new() }
    }

    /// Counts what one arena saw.
    pub(super) fn add(&mut self, program: &'static str, shape: &'static str, pace: f64, events: &[Event]) {
        let seen = Seen { limit: self.limit, phases: &self.phases, events };
        self.rows.push(Row { program, shape, quiet: seen.quiet(pace), full: seen.full() });
    }

    /// Prints all rows.
    pub(super) fn print(&mut self) {
        self.rows.sort_by_key(|row| row.shape);
        let phases = &self.phases;
        let windows = |from, to| format!("{:.1}", phases.windows(from, to));
        println!();
        println!(
            "{} requests in {} s; {} windows quiet, {} full, {} after kill -9, {} with a stranger, {} without him",
            self.limit,
            phases.window.as_secs_f64(),
            windows(phases.quiet_at, phases.full_at),
            windows(phases.settled_at, phases.killed_at),
            windows(phases.again_at, phases.stranger_at),
            windows(phases.stranger_at, phases.left_at),
            windows(phases.left_at, phases.end),
        );
        self.print_quiet();
        self.print_full();
    }

    fn print_quiet(&self) {
        println!();
        println!("Quiet: a backfill, live calls and the comparison. Waits are of live calls, seconds are NICE's.");
        println!();
        println!("| shape | program | p50 s | p99 s | p50 tokens | p99 tokens | ETA off by | used | 429 |");
        println!("|---|---|---|---|---|---|---|---|---|");
        for Row { shape, program, quiet, .. } in &self.rows {
            let [p50, p99] = quiet.live.map(|windows| windows * NICES_WINDOW);
            let [half, most] = quiet.live.map(|windows| windows * self.limit);
            let promise = format!("{:+.1} %", quiet.promise * 100.0);
            let Quiet { used, refused, .. } = quiet;
            println!(
                "| {shape} | {program} | {p50:.1} | {p99:.1} | {half:.2} | {most:.2} | {promise} | {:.1} % | {refused} |",
                used * 100.0
            );
        }
    }

    fn print_full(&self) {
        println!();
        println!("Full: all of the limit is wanted.");
        println!();
        println!(
            "| shape | program | used | 429 | 429 after kill -9 | used after it | 429 in the stranger's first window | \
             429 in each later one | used of what he leaves | windows until full pace without him |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|");
        for Row { shape, program, full, .. } in &self.rows {
            let Full { used, refused, used_after_kill, refused_after_kill, used_with_stranger, .. } = full;
            let [first, later] = full.refused_with_stranger;
            let back = full.back.map_or("-".to_owned(), |windows| format!("{windows:.2}"));
            println!(
                "| {shape} | {program} | {:.1} % | {refused} | {refused_after_kill} | {:.1} % | {first:.0} | {later:.1} | \
                 {:.1} % | {back} |",
                used * 100.0,
                used_after_kill * 100.0,
                used_with_stranger * 100.0,
            );
        }
    }
}

/// What one arena saw.
struct Seen<'a> {
    limit: f64,
    phases: &'a Phases,
    events: &'a [Event],
}

impl Seen<'_> {
    fn within(&self, from: Duration, to: Duration) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |event| event.at >= from && event.at < to)
    }

    fn refused(&self, from: Duration, to: Duration) -> usize {
        self.within(from, to).filter(|event| !event.taken).count()
    }

    /// The program's part of what the stranger left it.
    fn used(&self, from: Duration, to: Duration) -> f64 {
        let taken = |is_strangers: bool| {
            let of = move |event: &&Event| event.taken && (event.class == Class::Stranger) == is_strangers;
            self.within(from, to).filter(of).count() as f64
        };
        taken(false) / (self.limit * self.phases.windows(from, to) - taken(true))
    }

    fn quiet(&self, pace: f64) -> Quiet {
        let (from, to) = (self.phases.quiet_at, self.phases.full_at);
        let of_class = |class| self.within(from, to).filter(move |event| event.taken && event.class == class);
        let micros = |event: &Event| u32::try_from(event.waited.as_micros()).unwrap_or(u32::MAX);
        let mut live: Vec<u32> = of_class(Class::Live).map(micros).collect();
        let window = self.phases.window.as_micros() as f64;
        let backfill = of_class(Class::Backfill).count() as f64;
        Quiet {
            used: self.used(from, to),
            refused: self.refused(from, to),
            live: [0.5, 0.99].map(|part| f64::from(percentile(&mut live, part)) / window),
            promise: backfill / pace / (to - from).as_secs_f64() - 1.0,
        }
    }

    fn full(&self) -> Full {
        let Phases { window, full_at, settled_at, killed_at, again_at, stranger_at, left_at, .. } = *self.phases;
        let used = self.used(settled_at, killed_at);
        let second_at = stranger_at + window;
        let later = self.refused(second_at, left_at) as f64 / self.phases.windows(second_at, left_at);
        Full {
            used,
            refused: self.refused(full_at, killed_at),
            used_after_kill: self.used(again_at, stranger_at),
            refused_after_kill: self.refused(killed_at, stranger_at),
            refused_with_stranger: [self.refused(stranger_at, second_at) as f64, later],
            used_with_stranger: self.used(second_at, left_at),
            back: self.back(used * BACK),
        }
    }

    /// When the first whole window begins of which so much is used, in windows since the stranger left.
    fn back(&self, share: f64) -> Option<f64> {
        let Phases { window, left_at, end, .. } = *self.phases;
        let moments = (0..).map(|moment| left_at + window * moment / MOMENTS);
        let mut whole = moments.take_while(|from| *from + window <= end);
        let from = whole.find(|from| self.used(*from, *from + window) >= share)?;
        Some(self.phases.windows(left_at, from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    fn event(millis: u64, class: Class, taken: bool) -> Event {
        Event { at: Duration::from_millis(millis), class, taken, waited: Duration::from_secs(1) }
    }

    /// Ten requests in a window: half of them for three windows, all of them from then on.
    #[test]
    fn the_full_pace_is_found_where_it_begins() {
        let phases = Phases { window: WINDOW, end: WINDOW * 5, ..Phases::default() };
        let half = (0..15).map(|n| event(n * 2000, Class::Backfill, true));
        let whole = (30..50).map(|n| event(n * 1000, Class::Backfill, true));
        let events: Vec<Event> = half.chain(whole).collect();
        let seen = Seen { limit: 10.0, phases: &phases, events: &events };
        assert_eq!(seen.back(1.0), Some(2.95), "ten of the fast ones make a whole window");
        assert_eq!(seen.back(0.5), Some(0.0));
        assert_eq!(seen.back(1.1), None);
    }

    #[test]
    fn what_a_stranger_takes_is_not_there_to_be_used() {
        let phases = Phases { window: WINDOW, ..Phases::default() };
        let classes = [Class::Stranger, Class::Stranger, Class::Live, Class::Retry];
        let mut events: Vec<Event> = classes.iter().map(|class| event(0, *class, true)).collect();
        events.push(event(0, Class::Live, false));
        let seen = Seen { limit: 10.0, phases: &phases, events: &events };
        assert_eq!(seen.used(Duration::ZERO, WINDOW), 0.25);
        assert_eq!(seen.refused(Duration::ZERO, WINDOW), 1);
    }

    #[test]
    fn live_waits_are_told_in_windows() {
        let phases = Phases { window: WINDOW, full_at: WINDOW, ..Phases::default() };
        let events = [event(0, Class::Live, true), event(5000, Class::Backfill, true)];
        let quiet = Seen { limit: 10.0, phases: &phases, events: &events }.quiet(0.2);
        assert_eq!(quiet.live, [0.1, 0.1]);
        assert_eq!(quiet.promise, -0.5, "one in ten seconds, and not two");
    }
}
