//! `reconcile`, `backfill` and `report`: asked of the running daemon, or done here where none runs.

use std::time::Duration;

use catalog::{ReplayRun, RunState};
use indicatif::{ProgressBar, ProgressStyle};
use model::Members;
use reqwest::Method;
use runtime::{Clock, task};
use stages::{completeness::Completeness, source::listing::horizon};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{Access, Load, print, tables};
use crate::cli::{BackfillCommand, BackfillOptions, ReconcileOptions, ReportOptions};
use crate::config::{Config, Need};
use crate::doors::{Doors, Wanted};
use crate::failure::Failure;
use crate::nice_producer::NiceProducer;
use crate::operations::{
    OperationError, Operations,
    replays::{Change, Progress, Range, Window},
};
use crate::service;
use crate::service::Sources;

/// A run's trouble lasts at most so long before the command gives up waiting for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Time between two looks at a run.
const LOOK: Duration = Duration::from_millis(300);

/// A producer with no other source, for as long as a command needs it.
struct Worker {
    stopping: CancellationToken,
    producer: AbortOnDropHandle<()>,
}

impl Worker {
    /// Starts one on these doors. Where another producer has the tenant, this one waits, and that one works.
    async fn start(config: &Config, doors: &Doors) -> Result<(Self, Operations), Failure> {
        let stopping = CancellationToken::new();
        let context = doors.flow(config, stopping.clone());
        let producer = service::producer(config, doors, &context, Sources::Replays)?;
        let operations = doors.operations(config, Some(producer.sync.clone()));
        // Whether NICE can be asked is known before anything is begun. Where another producer has the tenant, the agents
        // are its business: who joins is announced to its poll.
        if let Some(_held) = producer.lease.try_hold().await? {
            producer.sync.run_once().await.map_err(OperationError::from)?;
        }
        Ok((Self { stopping, producer: task::spawn("producer", NiceProducer::run(producer)) }, operations))
    }

    /// What is on its way to the queue gets there.
    async fn stop(self) {
        self.stopping.cancel();
        drop(self.producer.await);
    }
}

/// Who works on a replay.
struct Replaying {
    access: Access,
    worker: Option<Worker>,
}

impl Replaying {
    async fn of(config: &Config) -> Result<Self, Failure> {
        let mut access = Access::of(config, Wanted::Replay).await?;
        let worker = match &mut access {
            Access::Daemon(_) => None,
            Access::Here(here) => {
                let (worker, operations) = Worker::start(config, &here.1).await?;
                here.0 = operations;
                Some(worker)
            }
        };
        Ok(Self { access, worker })
    }

    async fn close(self) -> Result<(), Failure> {
        if let Some(worker) = self.worker {
            worker.stop().await;
        }
        self.access.close().await
    }
}

/// `reconcile`.
pub(crate) async fn reconcile(options: ReconcileOptions, load: Load<'_>) -> Result<(), Failure> {
    let config = load(Need::Nice)?;
    let window = Window { window_seconds: options.window.map(|window| window.as_secs().max(1)) };
    window.begin(config.reconciliation.window, Clock::system().now())?;
    let replaying = Replaying::of(&config).await?;
    let mut run: ReplayRun = match &replaying.access {
        Access::Daemon(daemon) => daemon.post("/reconciliations", &window).await?,
        Access::Here(here) => here.0.reconcile(window).await?,
    };
    let bar = Bar::new();
    let mut trouble = Trouble::default();
    while run.state.is_open() {
        trouble.look(&run)?;
        tokio::time::sleep(LOOK).await;
        let id = run.id;
        run = match &replaying.access {
            Access::Daemon(daemon) => daemon.call(Method::GET, &format!("/reconciliations/{id}")).await?,
            Access::Here(here) => here.0.reconciliation(id).await?,
        };
        bar.listing(&run);
    }
    drop(bar);
    print(options.json, &run, tables::replays::reconciliation);
    replaying.close().await
}

/// `backfill` and its subcommands.
pub(crate) async fn backfill(options: BackfillOptions, load: Load<'_>) -> Result<(), Failure> {
    if let Some(command) = options.command {
        return change(command, load).await;
    }
    let (Some(from), Some(to)) = (options.from, options.to) else {
        return Err(Failure::usage("--from, --to: both are needed"));
    };
    let members = if options.members_now { Members::Now } else { Members::Then };
    let range = Range { from: from.0, to: to.0, members, plan_only: options.dry_run };
    let now = Clock::system().now();
    range.validate(now)?;
    if range.from < horizon(now) {
        eprintln!(
            "--from lies beyond the 30 days that NICE lists: days before {} are read by data extraction, one in 30 s",
            horizon(now)
        );
    }
    let replaying = Replaying::of(&load(Need::Nice)?).await?;
    let run: ReplayRun = match &replaying.access {
        Access::Daemon(daemon) => daemon.post("/backfills", &range).await?,
        Access::Here(here) => here.0.backfill(range).await?,
    };
    let bar = Bar::new();
    let (mut progress, mut planned) = (look(&replaying.access, run.id).await?, false);
    let mut trouble = Trouble::default();
    loop {
        if !planned && progress.run.plan.is_some() && !options.json {
            bar.above(|| crate::output::line(tables::replays::plan(&progress)));
            planned = true;
        }
        if !progress.run.state.is_open() {
            break;
        }
        bar.backfill(&progress);
        trouble.look(&progress.run)?;
        tokio::time::sleep(LOOK).await;
        progress = look(&replaying.access, run.id).await?;
    }
    drop(bar);
    match options.json {
        true => print(true, &progress, |_| String::new()),
        false => crate::output::line(tables::replays::outcome(&progress)),
    }
    replaying.close().await?;
    match progress.run.state {
        RunState::Done | RunState::Planned => Ok(()),
        RunState::Failed => {
            let reason = progress.run.reason.unwrap_or_default();
            Err(Failure::failed(format!("backfill {} failed: {reason}", run.id)))
        }
        state => Err(Failure::failed(format!("backfill {} is {}", run.id, state.as_str()))),
    }
}

async fn look(access: &Access, id: u64) -> Result<Progress, Failure> {
    match access {
        Access::Daemon(daemon) => daemon.call(Method::GET, &format!("/backfills/{id}")).await,
        Access::Here(here) => Ok(here.0.backfill_progress(id).await?),
    }
}

async fn change(command: BackfillCommand, load: Load<'_>) -> Result<(), Failure> {
    let access = Access::of(&load(Need::Local)?, Wanted::Listing).await?;
    let change = match command {
        BackfillCommand::Status { id, json } => {
            let all = match (&access, id) {
                (access, Some(id)) => vec![look(access, id).await?],
                (Access::Daemon(daemon), None) => daemon.call(Method::GET, "/backfills").await?,
                (Access::Here(here), None) => here.0.backfills().await?,
            };
            print(json, &all, |all| tables::replays::backfills(all));
            return access.close().await;
        }
        BackfillCommand::Pause { id } => (id, Change::Pause),
        BackfillCommand::Resume { id } => (id, Change::Resume),
        BackfillCommand::Cancel { id } => (id, Change::Cancel),
    };
    let (id, change) = change;
    let progress: Progress = match &access {
        Access::Daemon(daemon) => daemon.call(Method::POST, &format!("/backfills/{id}/{}", change.as_str())).await?,
        Access::Here(here) => here.0.change_backfill(id, change).await?,
    };
    crate::output::line(tables::replays::outcome(&progress));
    if matches!(access, Access::Here(_)) && progress.run.state.is_open() {
        crate::output::line("no daemon runs here: a producer goes on with it when it starts");
    }
    access.close().await
}

/// `report`.
pub(crate) async fn report(options: ReportOptions, load: Load<'_>) -> Result<(), Failure> {
    let range = Range { from: options.from.0, to: options.to.0, members: Members::Then, plan_only: true };
    range.validate_listed(Clock::system().now())?;
    let access = Access::of(&load(Need::Nice)?, Wanted::Listing).await?;
    let report: Completeness = match &access {
        Access::Daemon(daemon) => daemon.post("/report", &range).await?,
        Access::Here(here) => here.0.report(range).await?,
    };
    print(options.json, &report, tables::replays::completeness);
    access.close().await?;
    match report.total.missing {
        0 => Ok(()),
        missing => Err(Failure::partly(format!("{missing} calls are missing"))),
    }
}

/// What stands in a run's way, and since when.
#[derive(Default)]
struct Trouble(Option<(String, Instant)>);

impl Trouble {
    /// Says what is new of it; a trouble that lasts ends the command, and the run goes on where it stands.
    fn look(&mut self, run: &ReplayRun) -> Result<(), Failure> {
        let Some(reason) = &run.reason else {
            self.0 = None;
            return Ok(());
        };
        let since = match &self.0 {
            Some((known, since)) => {
                if known != reason {
                    eprintln!("{} {} waits: {reason}", run.kind.as_str(), run.id);
                }
                *since
            }
            None => {
                eprintln!("{} {} waits: {reason}", run.kind.as_str(), run.id);
                Instant::now()
            }
        };
        self.0 = Some((reason.clone(), since));
        match since.elapsed() < PATIENCE {
            true => Ok(()),
            false => Err(Failure::unreachable(format!(
                "{} {} waits: {reason}; a producer goes on with it as soon as that is over",
                run.kind.as_str(),
                run.id
            ))),
        }
    }
}

/// Progress on a terminal; nothing elsewhere, for stderr may be a log.
struct Bar(ProgressBar);

impl Bar {
    fn new() -> Self {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    /// Runs `print` while the bar is out of its way.
    fn above(&self, print: impl FnOnce()) {
        self.0.suspend(print);
    }

    fn listing(&self, run: &ReplayRun) {
        self.spans(run);
        let reason = run.reason.as_ref().map(|reason| format!(" (waits: {reason})")).unwrap_or_default();
        self.0.set_message(format!("seconds compared, {} missing{reason}", run.found.missing));
    }

    fn backfill(&self, progress: &Progress) {
        let run = &progress.run;
        let reason = run.reason.as_ref().map(|reason| format!(" (waits: {reason})")).unwrap_or_default();
        match run.plan {
            None => {
                self.spans(run);
                self.0.set_message(format!("seconds listed for the plan, {} calls{reason}", run.found.listed));
            }
            Some(plan) => {
                self.0.set_length(plan.missing);
                self.0.set_position(run.published().min(plan.missing));
                self.0.set_message(format!("calls on the queue, {}{reason}", tables::replays::eta(progress)));
            }
        }
    }

    /// How much of the range is behind.
    fn spans(&self, run: &ReplayRun) {
        let seconds = |span: jiff::SignedDuration| u64::try_from(span.as_secs()).unwrap_or_default();
        self.0.set_length(seconds(run.to.duration_since(run.from)));
        self.0.set_position(seconds(run.reached.duration_since(run.from)));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
