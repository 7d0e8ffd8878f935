//! A program under measurement: started, watched from `/proc`, frozen before the gate, counted by strace, ended.

use std::fs::File;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// How long a program may take to start.
const START: Duration = Duration::from_secs(60);

/// How long it may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(15);

/// A running program, killed when dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts it; what it says goes to `log`, its stdout only where it is not to be read.
    pub(crate) fn start(name: &str, command: &Command, log: &Path, read_stdout: bool) -> anyhow::Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        let stdout = if read_stdout { Stdio::piped() } else { Stdio::from(log.try_clone()?) };
        let child = bound(command).stdin(Stdio::piped()).stdout(stdout).stderr(log).spawn();
        Ok(Self { name: name.to_owned(), child: child.with_context(|| format!("start {name}"))? })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its stdout, where that was to be read.
    pub(crate) fn stdout(&mut self) -> anyhow::Result<ChildStdout> {
        self.child.stdout.take().context("the stdout is not read")
    }

    /// Its stdin.
    pub(crate) fn stdin(&mut self) -> anyhow::Result<ChildStdin> {
        self.child.stdin.take().context("the stdin is taken")
    }

    /// SIGKILL, and returns when it is gone.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// An error once it has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("{} ended: {status}", self.name),
            None => Ok(()),
        }
    }

    /// Waits until `ready` says so.
    pub(crate) async fn until(&mut self, mut ready: impl AsyncFnMut() -> bool) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !ready().await {
            self.check()?;
            ensure!(begun.elapsed() < START, "{} was not ready after {} s", self.name, START.as_secs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Stops it in its tracks, or lets it go on.
    pub(crate) fn freeze(&self, frozen: bool) -> anyhow::Result<()> {
        self.signal(if frozen { Signal::STOP } else { Signal::CONT })
    }

    /// SIGTERM, and SIGKILL where that is not heeded.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let begun = Instant::now();
        while begun.elapsed() < GRACE {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?).context("no process id")?;
        kill_process(pid, signal).with_context(|| format!("signal {}", self.name))
    }

    /// Seconds of processor time so far, of all its threads, in its own code and in the kernel's.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        cpu_seconds(self.child.id())
    }

    /// The memory that is resident now, in bytes.
    pub(crate) fn resident(&self) -> anyhow::Result<f64> {
        self.memory("VmRSS:")
    }

    /// The most that ever was.
    pub(crate) fn peak(&self) -> anyhow::Result<f64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, line: &str) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let value = status.lines().find_map(|text| text.strip_prefix(line)).context("no such line")?;
        Ok(value.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The same command, ended by the kernel when the benchmark is.
fn bound(command: &Command) -> Command {
    let mut bound = Command::new("setpriv");
    bound.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    bound.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    bound
}

/// Seconds of processor time that a process has used.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold blanks; utime and stime are the 12th and 13th field behind it.
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    let ticks: f64 = ticks.collect::<Result<Vec<_>, _>>()?.iter().sum();
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}

/// Counts the syncs of running processes; they are slow while it does.
pub(crate) struct SyncCount {
    strace: Process,
    table: std::path::PathBuf,
}

impl SyncCount {
    /// Attaches to a process and returns once it is watched.
    pub(crate) async fn attach(pid: u32, dir: &Path) -> anyhow::Result<Self> {
        let table = dir.join(format!("syncs-{pid}"));
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-e", "trace=fdatasync,fsync", "-p", &pid.to_string(), "-o"]).arg(&table);
        let mut strace = Process::start("strace", &command, &dir.join("strace.log"), false)?;
        let status = format!("/proc/{pid}/status");
        strace
            .until(async || std::fs::read_to_string(&status).is_ok_and(|text| !text.contains("TracerPid:\t0\n")))
            .await?;
        Ok(Self { strace, table })
    }

    /// Detaches; how many syncs there were.
    pub(crate) async fn syncs(self) -> anyhow::Result<f64> {
        self.strace.signal(Signal::INT)?;
        self.strace.stop().await?;
        let table = std::fs::read_to_string(&self.table)?;
        // % time, seconds, usecs/call, calls, [errors,] name
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let calls = rows
            .filter(|row| matches!(row.last(), Some(&("fdatasync" | "fsync"))))
            .filter_map(|row| row.get(3)?.parse::<f64>().ok());
        Ok(calls.sum())
    }
}
