//! Starts the daemon and the simulated NICE, and asks them questions.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nice_sim::{Sim, SimConfig};
use serde_json::Value;

/// The bearer secret of the webhook receiver.
pub(crate) const WEBHOOK_SECRET: &str = "canary-webhook-secret";

/// Long enough for the slowest machine; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The size of a test: `short`, or `long` where `SOAK` is set.
pub(crate) fn sized(short: usize, long: usize) -> usize {
    if std::env::var_os("SOAK").is_some() { long } else { short }
}

/// A simulated NICE, a state directory, and the settings that join them.
pub(crate) struct Bed {
    pub(crate) sim: Sim,
    pub(crate) dir: tempfile::TempDir,
    settings: Vec<(String, String)>,
}

/// A simulated world whose calls live fast.
pub(crate) fn hurried(seed: u64, calls: usize) -> SimConfig {
    let mut config = SimConfig { seed, ..SimConfig::default() }.hurried();
    config.day.calls = calls;
    config.day.over = Duration::from_secs(3);
    // The first leg of a transferred call must not be past the deadline before the last one has ended.
    config.day.talk_secs = (1, 4);
    config.playback.limit = 1_000_000;
    config
}

/// Settings for such a world, named as in the environment.
pub(crate) fn hurried_settings() -> Vec<(String, String)> {
    let settings = [
        ("TENANT__ID", "acme"),
        ("AGENTS__SYNC_INTERVAL", "1s"),
        ("EVENTS__POLL_INTERVAL", "200ms"),
        ("EVENTS__POLL_OVERLAP", "2m"),
        ("RETRY__NOT_READY_DELAYS", "200ms,500ms,1s"),
        ("RETRY__RECORDING_DEADLINE", "20s"),
        ("RETRY__ERROR_DELAY_MIN", "50ms"),
        ("RETRY__ERROR_DELAY_MAX", "1s"),
        ("LIMITS__MEDIA_PLAYBACK", "1000000/5m"),
        ("LIMITS__ACD", "10000/s"),
        ("FLOW__GRACE", "5s"),
        ("ADMIN__LISTEN", "127.0.0.1:0"),
        ("LOG__FILTER", "info,stages=debug,flow=debug,nice=debug,queue=debug,catalog=debug,nice_knovvu=debug"),
    ];
    settings.map(|(key, value)| (format!("NICE_KNOVVU_{key}"), value.to_owned())).into()
}

impl Bed {
    pub(crate) async fn new(config: SimConfig) -> Self {
        let sim = Sim::start(config).await.expect("the simulated NICE starts");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut settings = hurried_settings();
        settings.extend(sim.environment());
        // By its name, as an operator would say it.
        settings.retain(|(key, _)| key != "NICE_KNOVVU_NICE__GROUP");
        settings.push(("NICE_KNOVVU_NICE__GROUP".to_owned(), "Knovvu".to_owned()));
        let mut bed = Self { sim, dir, settings };
        bed.set("STATE__DIR", bed.data().display().to_string());
        bed
    }

    /// Changes a setting, named as in the environment without its prefix.
    pub(crate) fn set(&mut self, key: &str, value: impl Into<String>) {
        let key = format!("NICE_KNOVVU_{key}");
        self.settings.retain(|(known, _)| *known != key);
        self.settings.push((key, value.into()));
    }

    /// Switches the webhook receiver on, at an address that stays the same over restarts.
    pub(crate) fn with_webhook(&mut self) -> SocketAddr {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        self.set("EVENTS__WEBHOOK", "true");
        self.set("EVENTS__WEBHOOK_LISTEN", free.to_string());
        self.set("EVENTS__WEBHOOK_TOKEN", WEBHOOK_SECRET);
        free
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.path().join("daemon.log")
    }

    /// The executable with these settings.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = executable(arguments);
        command.current_dir(self.dir.path()).envs(self.settings.iter().cloned());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).stdin(Stdio::null()).output().expect("the executable runs")
    }

    /// Runs a command to its end and reads what it said.
    pub(crate) fn ended(&self, arguments: &[&str]) -> Ended {
        Ended::of(self.command(arguments))
    }

    /// Waits until these conversations are final (in a row or as a dead letter), as the daemon sees them.
    pub(crate) async fn final_states(&self, daemon: &mut Daemon, ids: &[i64]) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let mut states = Vec::new();
            for id in ids {
                states.push(daemon.state_of(*id).await);
            }
            if states.iter().all(|state| ["ready", "no_recording", "dead_letter"].contains(&state.as_str())) {
                return states;
            }
            assert!(begun.elapsed() < PATIENCE, "not final: {states:?}\n{}", tail(&self.log()));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until these conversations are ready.
    pub(crate) async fn ready(&self, daemon: &mut Daemon, ids: &[i64]) {
        let states = self.final_states(daemon, ids).await;
        assert!(states.iter().all(|state| state == "ready"), "{states:?}\n{}", tail(&self.log()));
    }

    /// What the daemon has logged.
    pub(crate) fn logged(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log()).unwrap_or_default()).into_owned()
    }

    /// Waits until the log holds a text.
    pub(crate) async fn says(&self, text: &str) {
        let begun = Instant::now();
        while !self.logged().contains(text) {
            assert!(begun.elapsed() < PATIENCE, "never said: {text}\n{}", tail(&self.log()));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the simulated NICE has answered an endpoint so often from now on.
    pub(crate) async fn asked(&self, endpoint: &str, times: u64) {
        let begun = Instant::now();
        let from = self.sim.requests_to(endpoint);
        while self.sim.requests_to(endpoint) < from + times {
            assert!(begun.elapsed() < PATIENCE, "{endpoint} is not asked\n{}", tail(&self.log()));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Runs a command that prints JSON, of what is done or of what is done in part.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.output(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        let allowed = [Some(0), Some(4), Some(3).filter(|_| arguments[0] == "status")];
        assert!(allowed.contains(&output.status.code()), "{arguments:?}: {:?} {errors}", output.status);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    }

    /// Starts the daemon; its log is appended to [`Bed::log`].
    pub(crate) fn start(&self) -> Daemon {
        self.start_with(&[])
    }

    pub(crate) fn start_with(&self, environment: &[(&str, &str)]) -> Daemon {
        let mut command = self.command(&["run"]);
        command.envs(environment.iter().copied());
        self.start_command(command)
    }

    /// Starts a command that becomes the daemon.
    pub(crate) fn start_command(&self, command: Command) -> Daemon {
        Daemon::spawn(command, self.data(), self.log())
    }

    /// Waits until every call of the group that has ended is final, as the daemon sees it.
    pub(crate) async fn settled(&self, daemon: &mut Daemon) {
        let begun = Instant::now();
        loop {
            let expected = self.sim.truth().iter().filter(|leg| leg.in_group).count() as u64;
            let status = daemon.status().await;
            let counts = &status["conversations"];
            let count = |name: &str| counts[name].as_u64().unwrap_or_default();
            let settled = count("ready") + count("no_recording") + count("dead_letters");
            let backlog = &status["backlog"];
            let waiting: u64 =
                ["live", "delayed", "in_flight"].iter().map(|lane| backlog[lane].as_u64().unwrap_or_default()).sum();
            if settled >= expected && waiting == 0 {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "not settled: {expected} expected, {status:#}\n{}", tail(&self.log()));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Bed {
    /// Keeps what a failed test leaves, to be looked at.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
            eprintln!("left to look at: {}", self.dir.path().display());
        }
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Runs a command to its end; one that does not end is killed, and the test fails.
    pub(crate) fn of(command: Command) -> Self {
        Self::fed(command, "")
    }

    /// The same with a text on its stdin.
    pub(crate) fn fed(mut command: Command, text: &str) -> Self {
        let what = format!("{:?}", command.get_args().collect::<Vec<_>>());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the executable runs");
        // It may have ended without reading.
        drop(child.stdin.take().unwrap().write_all(text.as_bytes()));
        let pid = rustix::process::Pid::from_child(&child);
        let (sender, ended) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(child.wait_with_output()));
        let Ok(output) = ended.recv_timeout(PATIENCE) else {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            panic!("{what} does not end");
        };
        let output = output.expect("its output can be read");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Everything it said.
    pub(crate) fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// The executable without any settings of this environment.
pub(crate) fn executable(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nice-knovvu"));
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("NICE_KNOVVU") {
            command.env_remove(key);
        }
    }
    command.args(arguments);
    command
}

/// The last lines of a log, for the message of a failed test.
pub(crate) fn tail(path: &Path) -> String {
    let log = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// A running daemon; killed when it is dropped.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    data: PathBuf,
    log: PathBuf,
    /// Where its part of the log begins.
    from: u64,
}

impl Daemon {
    /// Starts a command that becomes a daemon; what it logs is appended.
    pub(crate) fn spawn(mut command: Command, data: PathBuf, log: PathBuf) -> Self {
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let from = file.metadata().unwrap().len();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().expect("the daemon starts");
        Self { child, data, log, from }
    }

    /// The same, with a log that nobody reads: one pipe for stdout and stderr, open for as long as the other end lives.
    pub(crate) fn unread(mut command: Command, data: PathBuf) -> (Self, std::io::PipeReader) {
        let (unread, pipe) = std::io::pipe().unwrap();
        command.stdin(Stdio::null()).stdout(pipe.try_clone().unwrap()).stderr(pipe);
        let child = command.spawn().expect("the daemon starts");
        (Self { child, data, log: PathBuf::new(), from: 0 }, unread)
    }

    /// What it has logged since it was started.
    pub(crate) fn logged(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(log.get(self.from as usize..).unwrap_or_default()).into_owned()
    }

    /// Waits until it has logged a text.
    pub(crate) async fn says(&self, text: &str) {
        let begun = Instant::now();
        while !self.logged().contains(text) {
            assert!(begun.elapsed() < PATIENCE, "never said: {text}\n{}", tail(&self.log));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Its admin address with the token of the API; one that keeps no state tells the address in its log only.
    fn admin(&self) -> Option<(String, String)> {
        if let Ok(file) = std::fs::read(self.data.join("admin.json")) {
            let file: Value = serde_json::from_slice(&file).ok()?;
            return Some((file["address"].as_str()?.to_owned(), file["token"].as_str()?.to_owned()));
        }
        let log = self.logged();
        let (_, after) = log.lines().find(|line| line.contains("running"))?.split_once("admin")?;
        let after = after.trim_start_matches(['=', '"', ':', ' ']);
        let end = after.find(|char: char| !char.is_ascii_digit() && !['.', ':'].contains(&char));
        Some((after[..end.unwrap_or(after.len())].to_owned(), String::new()))
    }

    /// Waits until `/readyz` answers 200.
    pub(crate) async fn ready(&mut self) {
        let begun = Instant::now();
        while !matches!(self.get("/readyz").await, Some((200, _))) {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the daemon ended: {status}\n{}", tail(&self.log));
            }
            assert!(begun.elapsed() < PATIENCE, "not ready\n{}", tail(&self.log));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Where the admin address is, once the daemon is ready.
    pub(crate) fn admin_address(&self) -> String {
        let file: Value = serde_json::from_slice(&std::fs::read(self.data.join("admin.json")).unwrap()).unwrap();
        file["address"].as_str().unwrap().to_owned()
    }

    /// A path of the admin address; none while it does not answer.
    pub(crate) async fn get(&self, path: &str) -> Option<(u16, String)> {
        let (address, token) = self.admin()?;
        let client = http_client().timeout(Duration::from_secs(10)).build().ok()?;
        let answer = client.get(format!("http://{address}{path}")).bearer_auth(token).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// Asks the API of the admin address for something; none while it does not answer.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Option<(u16, String)> {
        let (address, token) = self.admin()?;
        let client = http_client().timeout(Duration::from_secs(10)).build().ok()?;
        let answer = client.post(format!("http://{address}{path}")).bearer_auth(token).json(body).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// What `status --json` would say.
    pub(crate) async fn status(&mut self) -> Value {
        let begun = Instant::now();
        loop {
            self.ready().await;
            match self.get("/api/v1/status").await.expect("the daemon answers") {
                (200, body) => return serde_json::from_str(&body).unwrap(),
                // The file of a daemon that was killed names a port that another test's daemon may have by now.
                (code, body) => assert!(code == 401 && begun.elapsed() < PATIENCE, "{code} {body}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What `trace` would call the state of a conversation.
    pub(crate) async fn state_of(&mut self, id: i64) -> String {
        let begun = Instant::now();
        loop {
            match self.get(&format!("/api/v1/trace/{id}")).await {
                Some((404, _)) => return "unknown".to_owned(),
                Some((200, body)) => {
                    let trace: Value = serde_json::from_str(&body).unwrap();
                    return trace["state"].as_str().unwrap().to_owned();
                }
                // A busy machine: the next answer will tell.
                other => assert!(begun.elapsed() < PATIENCE, "{other:?}\n{}", tail(&self.log)),
            }
        }
    }

    /// A line of `/proc/PID/status`, in KiB: `VmRSS` now, `VmHWM` at most so far.
    pub(crate) fn memory_kib(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':')).unwrap();
        value.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// SIGKILL, now.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the end.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.wait()
    }

    /// Waits for the end of the process.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "the daemon does not end\n{}", tail(&self.log));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended long ago.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A plain HTTP client.
pub(crate) fn http_client() -> reqwest::ClientBuilder {
    // Fails only where one is chosen already, and that is the same.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy()
}

/// Posts to the webhook receiver; none while nobody listens.
pub(crate) async fn post_event(receiver: SocketAddr, body: impl Into<reqwest::Body>) -> Option<u16> {
    let client = http_client().timeout(Duration::from_secs(30)).build().unwrap();
    let url = format!("http://{receiver}/nice/events/contact-ended");
    let answer = client.post(url).bearer_auth(WEBHOOK_SECRET).body(body).send().await.ok()?;
    Some(answer.status().as_u16())
}
