//! B4: recordings of a gibibyte, from NICE through the running daemon into the store.
//!
//! The daemon runs as a process of its own; NICE is simulated in this one. Measured are the daemon's resident
//! memory above idle, and the rate of the `upload` stage as the daemon's own timeline has it. The peer,
//! `curl | tee | sha256sum`, does the same with the same link in the same run; the denominator is the lower of
//! what SHA-256 and a plain download reach.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use nice_sim::{CallSpec, Sim, SimConfig};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::machine;

const MIB: f64 = 1024.0 * 1024.0;

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The daemon
    #[arg(long, default_value = "target/release/nice-knovvu")]
    daemon: PathBuf,
    /// Size of one recording in MiB
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Where to put state and recordings; a temporary folder unless named
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Runs every case and prints a line for each.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let temporary = tempfile::tempdir()?;
    let dir = options.dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    println!("load {}; {} MiB a recording", machine::load_average()?, options.mib);
    println!("SHA-256 of one core                      {:>8.0} MiB/s", sha256_rate());
    for case in &CASES {
        runtime.block_on(measure(case, options, &dir.join(case.name)))?;
    }
    Ok(())
}

struct Case {
    name: &'static str,
    recordings: usize,
    with_length: bool,
    broken: bool,
}

const CASES: [Case; 4] = [
    Case { name: "one, with length", recordings: 1, with_length: true, broken: false },
    Case { name: "one, chunked", recordings: 1, with_length: false, broken: false },
    Case { name: "one, cut at half", recordings: 1, with_length: true, broken: true },
    Case { name: "four at once", recordings: 4, with_length: true, broken: false },
];

async fn measure(case: &Case, options: &Options, dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut config = SimConfig::default().hurried();
    config.playback.content_length = case.with_length;
    let sim = Sim::start(config).await?;
    let mut daemon = Daemon::start(&options.daemon, &sim, dir)?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let idle = daemon.memory("VmRSS:")?;
    let agent = sim.group(1001)[0];
    let size = options.mib * 1024 * 1024;
    let spec = CallSpec { size: Some(size), break_first: u32::from(case.broken), ..CallSpec::new(agent) };
    let calls: Vec<i64> = (0..case.recordings).map(|_| sim.add_call(spec.clone()).contact_ids[0]).collect();
    let mut seconds = 0.0_f64;
    for call in &calls {
        seconds = seconds.max(daemon.upload_seconds(&options.daemon, dir, *call).await?);
    }
    let peak = daemon.memory("VmHWM:")?;
    let moved = size as f64 * case.recordings as f64 / MIB;
    println!(
        "{:<40} {:>8.0} MiB/s   RSS idle {:>5.1} MiB, peak above idle {:>5.1} MiB{}",
        format!("daemon: {}", case.name),
        moved / seconds,
        idle / MIB,
        (peak - idle) / MIB,
        if case.broken {
            format!(", asked for {:.2} times, the cut withheld 0.50", sim.media_bytes() as f64 / MIB / moved)
        } else {
            String::new()
        }
    );
    daemon.stop()?;
    if case.recordings == 1 && !case.broken {
        let link = playback_link(&sim, calls[0]).await?;
        let rate = |seconds: f64| moved / seconds;
        println!(
            "{:<40} {:>8.0} MiB/s",
            "  peer: curl | tee file | sha256sum",
            rate(shell(&format!("curl -sS '{link}' | tee '{}' | sha256sum", dir.join("peer").display())).await?)
        );
        println!(
            "{:<40} {:>8.0} MiB/s",
            "  plain download: curl to /dev/null",
            rate(shell(&format!("curl -sS -o /dev/null '{link}'")).await?)
        );
    }
    sim.shutdown().await;
    std::fs::remove_dir_all(dir)?;
    Ok(())
}

fn sha256_rate() -> f64 {
    let block = vec![7_u8; 64 * 1024 * 1024];
    let begun = Instant::now();
    let digest = Sha256::digest(&block);
    std::hint::black_box(digest);
    block.len() as f64 / MIB / begun.elapsed().as_secs_f64()
}

async fn shell(line: &str) -> anyhow::Result<f64> {
    let line = line.to_owned();
    tokio::task::spawn_blocking(move || {
        let begun = Instant::now();
        let status = Command::new("sh").args(["-c", &line]).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "the peer failed; is curl installed?");
        Ok(begun.elapsed().as_secs_f64())
    })
    .await?
}

/// The link that the daemon got too.
async fn playback_link(sim: &Sim, call: i64) -> anyhow::Result<String> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let tenant = &sim.config().tenant;
    let keys = serde_json::json!({
        "accessKeyId": tenant.access_key_id, "accessKeySecret": tenant.access_key_secret,
    });
    let url = format!("{}/authentication/v1/token/access-key", sim.base_url());
    let token: Value = client.post(url).json(&keys).send().await?.json().await?;
    let token = token["access_token"].as_str().context("no token")?;
    let url = format!("{}/media-playback/v1/contacts?acd-call-id={call}", sim.base_url());
    let answer = client.get(url).bearer_auth(token).header("accept", "application/json").send().await?;
    let answer: Value = answer.json().await?;
    let link = answer["interactions"][0]["data"]["fileToPlayUrl"].as_str().context("no link")?;
    Ok(link.to_owned())
}

struct Daemon(Child);

impl Daemon {
    fn start(executable: &Path, sim: &Sim, dir: &Path) -> anyhow::Result<Self> {
        let log = std::fs::File::create(dir.join("daemon.log"))?;
        let child = Command::new(executable)
            .arg("run")
            .envs(settings(sim, dir))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}; build it first: cargo build --release", executable.display()))?;
        Ok(Self(child))
    }

    /// A line of `/proc/PID/status`, in bytes.
    fn memory(&self, line: &str) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let value = status.lines().find_map(|text| text.strip_prefix(line)).context("no such line")?;
        Ok(value.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
    }

    /// Waits until the conversation is ready; how long its upload took, by the daemon's timeline.
    async fn upload_seconds(&mut self, executable: &Path, dir: &Path, call: i64) -> anyhow::Result<f64> {
        let begun = Instant::now();
        loop {
            ensure!(begun.elapsed() < Duration::from_secs(600), "not ready after ten minutes");
            if let Some(status) = self.0.try_wait()? {
                bail!("the daemon ended: {status}");
            }
            let mut trace = Command::new(executable);
            trace.args(["trace", &call.to_string(), "--json"]).env("NICE_KNOVVU_STATE__DIR", dir.join("data"));
            trace.env("NICE_KNOVVU_TENANT__ID", "bench");
            let output = tokio::task::spawn_blocking(move || trace.output()).await??;
            if output.status.success() {
                let trace: Value = serde_json::from_slice(&output.stdout)?;
                if trace["state"] == "ready" {
                    let hops = trace["hops"].as_array().context("no timeline")?;
                    let upload = hops.iter().rfind(|hop| hop["stage"] == "upload").context("no upload")?;
                    return Ok(upload["took_millis"].as_f64().context("no duration")? / 1000.0);
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have been stopped already.
        drop(self.0.kill());
    }
}

fn settings(sim: &Sim, dir: &Path) -> Vec<(String, String)> {
    let pairs = [
        ("TENANT__ID", "bench".to_owned()),
        ("EVENTS__POLL_INTERVAL", "200ms".to_owned()),
        ("RETRY__NOT_READY_DELAYS", "200ms".to_owned()),
        ("LIMITS__ACD", "100/s".to_owned()),
        ("STATE__DIR", dir.join("data").display().to_string()),
        ("ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
    ];
    let pairs = pairs.map(|(key, value)| (format!("NICE_KNOVVU_{key}"), value));
    pairs.into_iter().chain(sim.environment()).collect()
}
