//! `demo`: a simulated NICE, both services on embedded defaults, and a report.
//!
//! The same flow as `run`, with a day squeezed into half a minute: calls end, some are transferred, one recording
//! is late, one download breaks twice and heals, some calls were never recorded. At the end every recording is
//! compared with what the simulated NICE holds.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use catalog::{Catalog, ConversationRow};
use jiff::SignedDuration;
use model::{ConversationKey, ConversationState, DeadLetter, TenantId};
use nice_sim::{CallSpec, Sim, SimConfig, TruthLeg};
use progress::ProgressView;
use recordings::DESCRIPTION;
use runtime::{Clock, task};
use sha2::{Digest, Sha256};
use stages::metrics::Metrics;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admin::AdminFile;
use crate::cli::DemoOptions;
use crate::command_error::CommandError;
use crate::config::{Config, Need};
use crate::doors;
use crate::doors::{Service, Wanted};
use crate::{service, shutdown, tables, telemetry};

mod progress;

/// Hang-ups are spread over this time.
const DAY: Duration = Duration::from_secs(25);

/// A call without a recording for this long counts as never recorded.
const RECORDING_DEADLINE: &str = "35s";

/// The demo ends at the latest after this time.
const LONGEST: Duration = Duration::from_secs(150);

/// Marks a folder that the demo may empty.
const MARKER: &str = "made-by-nice-knovvu-demo";

/// The demo's tenant.
const TENANT: &str = "demo";

/// Runs the demo.
pub(crate) async fn run(options: DemoOptions) -> Result<(), CommandError> {
    prepare(&options.dir)?;
    let (stopping, _signals) = shutdown::on_signal().map_err(CommandError::failed)?;
    let sim = Sim::start(simulated_day(&options)).await.map_err(CommandError::failed)?;
    add_special_calls(&sim);
    let config = settings(&sim, &options.dir)?;
    telemetry::start(&config.log)?;
    eprintln!("simulated NICE at {}; {} calls end within {} s", sim.base_url(), options.calls, DAY.as_secs());

    let doors = doors::open(&config, Wanted::Service(Service::Run)).await?;
    let watched = DemoState {
        catalog: doors.shared.catalog.clone(),
        metrics: doors.metrics.clone(),
        tenant: doors::tenant(&config)?,
    };
    let ending = stopping.child_token();
    let daemon = task::spawn("daemon", {
        let (config, ending) = (config.clone(), ending.clone());
        async move { service::serve_until(&config, Service::Run, doors, service::Front::Listens, ending).await }
    });
    let ended = watch(&sim, &watched, &stopping).await;
    let report = match ended {
        Ok(()) => DemoReport::of(&watched, &sim.truth(), &options.dir.join("recordings")).await,
        Err(failure) => Err(failure),
    };
    if let (Ok(report), true) = (&report, options.stay) {
        report.print(&options.dir, stopping.is_cancelled())?;
        stay(&sim, &options.dir, &stopping).await;
        ending.cancel();
        daemon.await.map_err(CommandError::failed)??;
        sim.shutdown().await;
        return Ok(());
    }
    ending.cancel();
    daemon.await.map_err(CommandError::failed)??;
    sim.shutdown().await;
    report?.print(&options.dir, stopping.is_cancelled())
}

/// Time between two more calls, for who looks on.
const NEXT_CALL: Duration = Duration::from_secs(2);

/// One call in so many is of the kind that ends as a dead letter.
const FOREIGN: usize = 12;

/// Says where the operator page is, and goes on with calls until a signal. Now and then NICE hands out a link that leads
/// off the allowed hosts, so that there is a dead letter to be looked at.
async fn stay(sim: &Sim, dir: &Path, stopping: &CancellationToken) {
    let file = doors::admin_file(dir);
    let admin: Option<AdminFile> = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok());
    if let Some(AdminFile { address, .. }) = admin {
        println!("\noperator page  http://{address}/");
        println!("to act there   sign in with the token in {}", file.display());
        println!("the end        Ctrl-C");
    }
    let group = sim.group(sim.config().directory.wanted_group);
    for (at, agent) in group.iter().cycle().enumerate() {
        if stopping.run_until_cancelled(tokio::time::sleep(NEXT_CALL)).await.is_none() {
            return;
        }
        sim.change_faults(|faults| faults.foreign_media_link = if at % FOREIGN == 0 { 1.0 } else { 0.0 });
        sim.add_call(CallSpec::new(*agent));
    }
}

struct DemoState {
    catalog: Arc<dyn Catalog>,
    metrics: Metrics,
    tenant: TenantId,
}

/// Empties the demo's own folder; never one that it did not make.
fn prepare(dir: &Path) -> Result<(), CommandError> {
    let fail = |error: std::io::Error| CommandError::failed(format!("--dir {}: {error}", dir.display()));
    match std::fs::read_dir(dir).map(|mut entries| entries.next().is_none()) {
        Ok(true) => {}
        Ok(false) if dir.join(MARKER).exists() => std::fs::remove_dir_all(dir).map_err(fail)?,
        Ok(false) => {
            let remedy = "choose an empty or new folder";
            return Err(CommandError::usage(format!("--dir {}: not made by the demo; {remedy}", dir.display())));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(fail(error)),
    }
    std::fs::create_dir_all(dir).map_err(fail)?;
    std::fs::write(dir.join(MARKER), "").map_err(fail)
}

fn simulated_day(options: &DemoOptions) -> SimConfig {
    let mut config = SimConfig { seed: options.seed, ..SimConfig::default() };
    config.day.calls = options.calls as usize;
    config.day.over = DAY;
    // The first leg of a transferred call must not be past the deadline before the last one has ended.
    config.day.talk_secs = (4, 10);
    config.life.acw = Duration::from_secs(1);
    config.life.completed_delay = Duration::from_secs(1);
    config.life.second_update_delay = Duration::from_secs(8);
    config.life.recording_delay = (Duration::from_secs(1), Duration::from_secs(8));
    config.playback.limit = 1_000;
    config.playback.window = Duration::from_secs(60);
    config
}

/// What a day brings now and then, brought for sure.
fn add_special_calls(sim: &Sim) {
    let group = sim.group(sim.config().directory.wanted_group);
    let outsider = sim.agents().into_iter().find(|agent| !group.contains(agent));
    let [first, second, ..] = group[..] else { return };
    let at = |seconds| SignedDuration::from_secs(seconds);
    let back_and_forth = [first, outsider.unwrap_or(second), first];
    sim.add_call(CallSpec::transferred(&back_and_forth).hang_up_in(at(4)));
    sim.add_call(CallSpec::transferred(&[first, second]).hang_up_in(at(6)));
    sim.add_call(CallSpec {
        recording_delay: Some(Duration::from_secs(25)),
        ..CallSpec::new(second).hang_up_in(at(3))
    });
    sim.add_call(CallSpec {
        break_first: 2,
        size: Some(4 << 20),
        recording_delay: Some(Duration::from_secs(2)),
        ..CallSpec::new(first).hang_up_in(at(5))
    });
    sim.add_call(CallSpec { never_recorded: true, ..CallSpec::new(second).hang_up_in(at(2)) });
}

/// The settings of the demo, given as the environment would give them.
fn settings(sim: &Sim, dir: &Path) -> Result<Config, CommandError> {
    let dir = dir.to_str().ok_or_else(|| CommandError::usage("--dir: not UTF-8; choose another folder"))?;
    let filter = std::env::var_os("NICE_KNOVVU_LOG__FILTER").and_then(|filter| filter.into_string().ok());
    let pairs = [
        ("TENANT__ID", TENANT.to_owned()),
        ("AGENTS__SYNC_INTERVAL", "10s".to_owned()),
        ("EVENTS__POLL_INTERVAL", "1s".to_owned()),
        ("EVENTS__POLL_OVERLAP", "10s".to_owned()),
        ("RETRY__NOT_READY_DELAYS", "2s,3s,5s,8s".to_owned()),
        ("RETRY__RECORDING_DEADLINE", RECORDING_DEADLINE.to_owned()),
        ("LIMITS__MEDIA_PLAYBACK", "1000/1m".to_owned()),
        ("LIMITS__ACD", "50/s".to_owned()),
        ("FLOW__GRACE", "5s".to_owned()),
        ("STATE__DIR", dir.to_owned()),
        ("ADMIN__LISTEN", "127.0.0.1:0".to_owned()),
        ("LOG__FILTER", filter.unwrap_or_else(|| "error".to_owned())),
    ];
    let environment = pairs.map(|(key, value)| (format!("NICE_KNOVVU_{key}"), value));
    Config::load(None, environment.into_iter().chain(sim.environment()), Need::Service).map_err(CommandError::failed)
}

/// Shows the flow until every call of the group is final, the time is up, or a signal came.
async fn watch(sim: &Sim, watched: &DemoState, stopping: &CancellationToken) -> Result<(), CommandError> {
    let progress = ProgressView::new();
    let begun = Instant::now();
    loop {
        let truth = sim.truth();
        let ended = truth.iter().filter(|leg| leg.in_group && leg.hung_up_at <= Clock::system().now()).count();
        let expected = truth.iter().filter(|leg| leg.in_group).count() as u64;
        let counts = watched.catalog.counts().await.map_err(CommandError::failed)?;
        progress.show(&watched.metrics, ended as u64, expected, &counts);
        let settled = counts.ready + counts.no_recording + counts.dead_letters;
        if settled >= expected || begun.elapsed() >= LONGEST || stopping.is_cancelled() {
            return Ok(());
        }
        let _stopped = stopping.run_until_cancelled(tokio::time::sleep(Duration::from_millis(250))).await;
    }
}

/// What the demo brought, against what the simulated NICE holds.
#[derive(Default)]
struct DemoReport {
    ended: usize,
    ready: usize,
    no_recording: usize,
    dead: usize,
    unfinished: usize,
    recordings: usize,
    equal: usize,
    example: Option<PathBuf>,
}

impl DemoReport {
    async fn of(watched: &DemoState, truth: &[TruthLeg], recordings: &Path) -> Result<Self, CommandError> {
        let mut report = Self::default();
        let letters = watched.catalog.dead_letters(0, usize::MAX).await.map_err(CommandError::failed)?;
        for leg in truth.iter().filter(|leg| leg.in_group && leg.hung_up_at <= Clock::system().now()) {
            report.ended += 1;
            let external_id = leg.contact_id.to_string().parse().map_err(CommandError::failed)?;
            let key = ConversationKey { tenant: watched.tenant.clone(), external_id };
            let row = watched.catalog.conversation(&key).await.map_err(CommandError::failed)?;
            report.count(row.as_ref(), &letters, leg);
            if let Some(row) = row.filter(|row| row.state.is_final()) {
                report.compare(&row, leg, recordings);
            }
        }
        Ok(report)
    }

    fn count(&mut self, row: Option<&ConversationRow>, letters: &[DeadLetter], leg: &TruthLeg) {
        let id = leg.contact_id.to_string();
        match row.map(|row| row.state) {
            Some(ConversationState::Ready) => self.ready += 1,
            Some(ConversationState::NoRecording) => self.no_recording += 1,
            _ if letters.iter().any(|letter| letter.conversation_id.as_ref() == Some(&id)) => self.dead += 1,
            _ => self.unfinished += 1,
        }
    }

    fn compare(&mut self, row: &ConversationRow, leg: &TruthLeg, recordings: &Path) {
        self.recordings += leg.recordings.len().max(row.recordings.len());
        for (stored, truth) in row.recordings.iter().zip(&leg.recordings) {
            let path = recordings.join(&stored.object_key);
            // The bytes on disk, not what the row says of them.
            let digest = std::fs::read(&path).map(|bytes| hex::encode(Sha256::digest(bytes)));
            if digest.is_ok_and(|digest| digest == truth.sha256) {
                self.equal += 1;
            }
            self.example.get_or_insert(path);
        }
    }

    fn print(&self, dir: &Path, stopped: bool) -> Result<(), CommandError> {
        let mut table = tables::table(&["calls of the group", "count"]);
        table.add_row(["ended", &self.ended.to_string()]);
        table.add_row(["ready for analysis", &self.ready.to_string()]);
        table.add_row(["no recording", &self.no_recording.to_string()]);
        table.add_row(["dead letters", &self.dead.to_string()]);
        if self.unfinished > 0 {
            table.add_row(["unfinished", &self.unfinished.to_string()]);
        }
        tables::numbers(&mut table, 1);
        println!("{table}");
        println!("recordings equal to what NICE sent, byte for byte: {} of {}", self.equal, self.recordings);
        println!("they lie in  {}/recordings/{TENANT}/, each call with its {DESCRIPTION}", dir.display());
        if let Some(example) = &self.example {
            println!("play one     ffplay -autoexit {}", example.display());
        }
        println!(
            "look closer  NICE_KNOVVU_STATE__DIR={} NICE_KNOVVU_TENANT__ID={TENANT} nice-knovvu status",
            dir.display()
        );
        if stopped {
            println!("stopped early, before every call was final");
            return Ok(());
        }
        if self.equal != self.recordings {
            return Err(CommandError::failed("a recording differs from what NICE sent"));
        }
        if self.unfinished > 0 {
            return Err(CommandError::failed(format!("{} calls did not finish in time", self.unfinished)));
        }
        if self.dead > 0 {
            return Err(CommandError::partly(format!("{} calls are dead letters", self.dead)));
        }
        Ok(())
    }
}
