//! One program that stays, and is killed and started again.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::home::Home;
use crate::probe::Probe;
use crate::process::{POLL, continue_all_in, cpu_seconds_in, kill_all_in, stop_all_in};

/// How long it may take to answer, on a slow machine that has other things to do.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// How much of a log a failure shows.
const LOG_TAIL: usize = 4_000;

/// A program that runs in the foreground.
pub(crate) struct Daemon {
    name: &'static str,
    /// It and its children work here; so they are found, whatever group or session they put themselves into.
    dir: PathBuf,
    log: PathBuf,
    probe: Probe,
    state: Mutex<State>,
}

struct State {
    command: Command,
    child: Option<Child>,
    /// The processor time of those that were killed.
    spent: f64,
}

impl Daemon {
    /// Starts the program in `dir`, which is its alone, and returns once it answers. An error says why not.
    pub(crate) fn start(
        name: &'static str,
        home: &Home,
        dir: PathBuf,
        mut command: Command,
        probe: Probe,
    ) -> Result<Self, String> {
        let log = home.file(&format!("{name}.log"), "");
        let append = || File::options().append(true).open(&log).expect("it was just made");
        command.current_dir(&dir).stdin(Stdio::null()).stdout(append()).stderr(append()).process_group(0);
        let state = Mutex::new(State { command, child: None, spent: 0.0 });
        let daemon = Self { name, dir, log, probe, state };
        daemon.start_again()?;
        Ok(daemon)
    }

    /// Starts it on what it left, and returns once it answers. Kills it before if it runs.
    pub(crate) fn start_again(&self) -> Result<(), String> {
        self.kill();
        let mut state = self.state();
        let child = state.command.spawn().map_err(|error| format!("start {}: {error}", self.name))?;
        let child = state.child.insert(child);
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if let Some(status) = child.try_wait().map_err(|error| format!("wait for {}: {error}", self.name))? {
                return Err(format!("{} ended with {status}; {}", self.name, tail(&self.log)));
            }
            if self.probe.answers() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("{} gave no answer within {READY_WITHIN:?}; {}", self.name, tail(&self.log)));
            }
            thread::sleep(POLL);
        }
    }

    /// `kill -9` of it and its children; returns when they are gone.
    pub(crate) fn kill(&self) {
        let mut state = self.state();
        let Some(mut child) = state.child.take() else { return };
        state.spent += cpu_seconds_in(&self.dir);
        // The parent first: it starts no more children, nor mourns those that it has.
        let killed = child.kill();
        kill_all_in(&self.dir);
        killed.and_then(|()| child.wait()).unwrap_or_else(|error| panic!("kill {}: {error}", self.name));
    }

    /// Stops it and its children where they are.
    pub(crate) fn freeze(&self) {
        stop_all_in(&self.dir);
    }

    /// Lets them go on.
    pub(crate) fn thaw(&self) {
        continue_all_in(&self.dir);
    }

    /// User and system time since the first start.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let state = self.state();
        state.spent + cpu_seconds_in(&self.dir)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

fn tail(log: &Path) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    let from = text.ceil_char_boundary(text.len().saturating_sub(LOG_TAIL));
    format!("{} ends with:\n{}", log.display(), &text[from..])
}
