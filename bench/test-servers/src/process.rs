//! The processes of a server, as /proc tells them.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long signals may take to show.
const SIGNALS_WITHIN: Duration = Duration::from_secs(30);

/// How often what cannot be awaited is looked at.
pub(crate) const POLL: Duration = Duration::from_millis(10);

/// A process that works in a server's directory: its main one or a child, whatever group and session it is in.
pub(crate) struct Process {
    pid: Pid,
    stopped: bool,
    /// User and system time, with that of the children that have ended.
    cpu_seconds: f64,
}

impl Process {
    /// All that work in `dir` or below it.
    pub(crate) fn all_in(dir: &Path) -> Vec<Self> {
        let entries = std::fs::read_dir("/proc").expect("/proc is mounted");
        let inside = entries.filter_map(Result::ok).filter(|entry| {
            // One that has just ended, or is another user's, has none to read.
            std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(dir))
        });
        inside.filter_map(|entry| Self::read(&entry.path())).collect()
    }

    fn read(proc: &Path) -> Option<Self> {
        let pid = Pid::from_raw(proc.file_name()?.to_str()?.parse().ok()?)?;
        let stat = std::fs::read_to_string(proc.join("stat")).ok()?;
        // After the name, which may hold anything: state, …, and from the 12th on the four times.
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks =
            |from: usize| Some(fields.get(from..from + 2)?.iter().filter_map(|ticks| ticks.parse::<f64>().ok()).sum());
        let seconds = |ticks: f64| ticks / rustix::param::clock_ticks_per_second() as f64;
        // Its own, and that of children which have ended.
        let cpu_seconds = seconds(ticks(11)?).max(threads_seconds(proc)) + seconds(ticks(13)?);
        Some(Self { pid, stopped: fields.first() == Some(&"T"), cpu_seconds })
    }

    fn signal(&self, signal: Signal) {
        // One that is gone by now needs no signal.
        let _gone = kill_process(self.pid, signal);
    }
}

/// Kills all that work in `dir`; returns when none is left.
pub(crate) fn kill_all_in(dir: &Path) {
    until(&format!("kill the processes in {}", dir.display()), || {
        let left = Process::all_in(dir);
        left.iter().for_each(|process| process.signal(Signal::KILL));
        left.is_empty()
    });
}

/// Stops all that work in `dir`; returns when none runs.
pub(crate) fn stop_all_in(dir: &Path) {
    until(&format!("stop the processes in {}", dir.display()), || {
        let mut running = Process::all_in(dir).into_iter().filter(|process| !process.stopped).peekable();
        let none = running.peek().is_none();
        running.for_each(|process| process.signal(Signal::STOP));
        none
    });
}

/// Lets those in `dir` run on.
pub(crate) fn continue_all_in(dir: &Path) {
    Process::all_in(dir).iter().for_each(|process| process.signal(Signal::CONT));
}

/// User and system seconds of all that work in `dir`, and of their children that have ended.
pub(crate) fn cpu_seconds_in(dir: &Path) -> f64 {
    Process::all_in(dir).iter().map(|process| process.cpu_seconds).sum()
}

/// The processor time of the threads that a process has now. It counts nanoseconds where the process's own account
/// counts hundredths of a second, cut off: too coarse for a database whose every connection is a process.
fn threads_seconds(proc: &Path) -> f64 {
    let Ok(threads) = std::fs::read_dir(proc.join("task")) else { return 0.0 };
    let nanos = threads.filter_map(Result::ok).filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    });
    nanos.sum::<f64>() / 1e9
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + SIGNALS_WITHIN;
    while !done() {
        assert!(Instant::now() < deadline, "{what}: not done within {SIGNALS_WITHIN:?}");
        thread::sleep(POLL);
    }
}
