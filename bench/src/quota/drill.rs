//! A drill: NICE refuses some requests for a few seconds, far below its limit, while calls come in. What is counted is
//! what the server saw; the limit that is left is what the processes see.

mod worker;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use serde::Deserialize;
use serde::de::IgnoredAny;

pub(crate) use worker::{DrillWorkerOptions, run as worker};

use super::limiter::Shape;
use super::server::{Arena, Event, Server, Trouble};
use super::{Database, Place, Program};
use crate::lines::Lines;
use crate::machine;

/// A limit that nobody comes near to.
const LIMIT: u32 = 5000;
const WINDOW: Duration = Duration::from_secs(300);

/// The setting by default.
const RESERVE: f64 = 0.5;

/// A drill that takes longer has failed.
const LONGEST: Duration = Duration::from_secs(900);

const PROGRAMS: [Program; 2] = [Program::Local, Program::Shared3];

/// What `bench quota-drill` may be told.
#[derive(Debug, Clone, Args)]
pub(crate) struct DrillOptions {
    /// Calls in all, every other one of them tried once more
    #[arg(long, default_value_t = 227)]
    conversations: usize,
    /// The seconds in which they come, evenly
    #[arg(long, default_value_t = 30.0)]
    arrival: f64,
    /// The seconds of trouble, in the middle of it
    #[arg(long, default_value_t = 6.0)]
    trouble: f64,
    /// The part of the requests that is refused meanwhile, from 0 to 1
    #[arg(long, default_value_t = 0.4)]
    refused: f64,
    /// Where states and logs go
    #[arg(long, default_value = ".")]
    dir: std::path::PathBuf,
}

/// What a process says when its calls are done.
#[derive(Debug, Deserialize)]
struct Done {
    /// The lowest limit that it saw.
    limit_now: u32,
    /// How often a call was sent away by the budget.
    sent_away: usize,
}

/// A program in its arena.
struct Running {
    program: Program,
    arena: Arc<Arena>,
    processes: Vec<Lines>,
}

/// Runs all programs at once, and prints the table.
pub(crate) async fn run(options: &DrillOptions) -> anyhow::Result<()> {
    let temporary = tempfile::Builder::new().prefix("bench-drill-").tempdir_in(&options.dir)?;
    let (arrival, trouble) = (Duration::from_secs_f64(options.arrival), Duration::from_secs_f64(options.trouble));
    ensure!((0.0..=1.0).contains(&options.refused), "--refused is a part from 0 to 1");
    let database = Database::start().await?;
    let server = Server::start(&PROGRAMS.map(|_| Shape::Sliding), LIMIT, WINDOW).await?;
    println!("load average {} at the start", machine::load_average()?);
    let mut all = Vec::new();
    for (number, program) in PROGRAMS.into_iter().enumerate() {
        let url = format!("{}{number}", server.url);
        let place = Place { number, url, dir: temporary.path(), database: Some(&database) };
        let arena = server.arena(number).context("no arena")?;
        all.push(Running { program, arena, processes: start(options, program, &place, temporary.path())? });
    }
    for process in all.iter_mut().flat_map(|running| &mut running.processes) {
        process.answer::<IgnoredAny>().await?;
    }
    let from = server.begun.elapsed() + arrival.saturating_sub(trouble) / 2;
    let trouble = Trouble { from, to: from + trouble, refused: options.refused };
    for running in &mut all {
        running.arena.expect(trouble);
        running.processes.iter_mut().try_for_each(|process| process.order("go"))?;
    }
    let mut rows = Vec::new();
    for running in &mut all {
        let done = tokio::time::timeout(LONGEST, running.done()).await;
        let done = done.with_context(|| format!("{} is not done", running.program.name()))??;
        rows.push((running.program.name(), done, Seen::new(&running.arena.events(), trouble)));
    }
    println!("load average {} at the end", machine::load_average()?);
    for (program, _, seen) in &rows {
        let wanted = options.conversations * worker::REQUESTS;
        ensure!(seen.taken == wanted, "{program} had {} requests taken of {wanted}", seen.taken);
    }
    print(options, &rows);
    Ok(())
}

fn start(options: &DrillOptions, program: Program, place: &Place<'_>, dir: &Path) -> anyhow::Result<Vec<Lines>> {
    let processes = program.processes();
    let log = dir.join(format!("{program}.log"));
    let start = |number: usize| {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("quota-drill-worker");
        place.tell(&mut command, program.is_shared(), RESERVE);
        let settings = [
            ("limit", LIMIT.to_string()),
            ("window", WINDOW.as_secs().to_string()),
            ("conversations", options.conversations.to_string()),
            ("arrival", options.arrival.to_string()),
            ("first", number.to_string()),
            ("every", processes.to_string()),
        ];
        for (name, value) in settings {
            command.args([format!("--{name}"), value]);
        }
        Lines::start(program.name(), &command, &log)
    };
    (0..processes).map(start).collect()
}

impl Running {
    /// Returns when all calls are done: the lowest limit of all processes, and who was sent away by any.
    async fn done(&mut self) -> anyhow::Result<Done> {
        let mut all = Done { limit_now: u32::MAX, sent_away: 0 };
        for process in &mut self.processes {
            let done: Done = process.answer().await.with_context(|| self.program.name())?;
            all.limit_now = all.limit_now.min(done.limit_now);
            all.sent_away += done.sent_away;
        }
        Ok(all)
    }
}

/// What an arena saw.
struct Seen {
    taken: usize,
    refused: usize,
    /// The last request of all that was taken, after the trouble.
    last: Duration,
    /// The last one of a call that had come before the trouble was over.
    last_of_backlog: Duration,
    /// The longest time from a call's coming to a request of it that was taken.
    longest: Duration,
}

impl Seen {
    fn new(events: &[Event], trouble: Trouble) -> Self {
        let taken = || events.iter().filter(|event| event.taken);
        let came_before = |event: &&Event| event.at.saturating_sub(event.waited) < trouble.to;
        let after = |at: Option<Duration>| at.unwrap_or_default().saturating_sub(trouble.to);
        Self {
            taken: taken().count(),
            refused: events.len() - taken().count(),
            last: after(taken().map(|event| event.at).max()),
            last_of_backlog: after(taken().filter(came_before).map(|event| event.at).max()),
            longest: taken().map(|event| event.waited).max().unwrap_or_default(),
        }
    }
}

fn print(options: &DrillOptions, rows: &[(&str, Done, Seen)]) {
    println!();
    println!(
        "{} calls of {} requests come in {} s, {:.0} % of the requests are refused for {} s; limit {LIMIT} in {} s",
        options.conversations,
        worker::REQUESTS,
        options.arrival,
        options.refused * 100.0,
        options.trouble,
        WINDOW.as_secs(),
    );
    println!();
    println!(
        "| program | 429 | sent away by the budget | lowest limit | backlog done after healing, s | all done after \
         healing, s | longest call, s |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (program, Done { limit_now, sent_away }, seen) in rows {
        let [backlog, last, longest] = [seen.last_of_backlog, seen.last, seen.longest].map(|span| span.as_secs_f64());
        println!(
            "| {program} | {} | {sent_away} | {limit_now} | {backlog:.1} | {last:.1} | {longest:.1} |",
            seen.refused
        );
    }
    let calm = (options.arrival - options.trouble) / 2.0;
    println!();
    println!("The last call comes {calm:.1} s after healing.");
}

#[cfg(test)]
mod tests {
    use super::super::server::Class;
    use super::*;

    #[test]
    fn a_call_belongs_to_the_backlog_by_when_it_came() {
        let event = |at, waited, taken| Event {
            at: Duration::from_secs(at),
            class: Class::Live,
            taken,
            waited: Duration::from_secs(waited),
        };
        let trouble = Trouble { from: Duration::from_secs(5), to: Duration::from_secs(10), refused: 1.0 };
        let seen = Seen::new(&[event(6, 1, false), event(13, 8, true), event(20, 2, true)], trouble);
        assert_eq!((seen.taken, seen.refused), (2, 1));
        assert_eq!([seen.last_of_backlog, seen.last, seen.longest], [3, 10, 8].map(Duration::from_secs));
    }
}
