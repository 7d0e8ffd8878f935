//! `reconcile` and `backfill`: asked of the running daemon, or done here where none runs.

use std::time::Duration;

use catalog::{ReplayRun, RunState};
use indicatif::{ProgressBar, ProgressStyle};
use model::Members;
use runtime::{Clock, task};
use stages::source::listing::horizon;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::access::{Access, Load};
use crate::cli::{BackfillCommand, BackfillOptions, ReconcileOptions};
use crate::command_error::CommandError;
use crate::config::{Config, Need};
use crate::doors::{OpenDoors, Wanted};
use crate::nice_producer::{NiceProducer, Sources};
use crate::operations::{
    OperationError, Operations, Running,
    range::check_range,
    replays::{
        Backfill, BackfillProgress, Change, ChangeBackfill, ListBackfills, Reconcile, ShowBackfill, ShowReconciliation,
        backfills, eta, outcome, plan, reconciliation,
    },
};
use crate::output;

/// How long a run may wait before the command gives up.
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
    async fn start(config: &Config, doors: &OpenDoors) -> Result<(Self, Operations), CommandError> {
        let stopping = CancellationToken::new();
        let context = doors.flow(config, stopping.clone());
        let producer = NiceProducer::new(config, doors, &context, Sources::Replays)?;
        let running = Running { sync: Some(producer.sync.clone()), ..Running::default() };
        let operations = Operations::new(config, doors, running);
        // Whether NICE can be asked is known before anything is begun. Where another producer has the tenant, the
        // agents are its business: who joins is announced to its poll.
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

/// The process that works on a replay: the daemon, or a producer of this command.
struct ReplaySession {
    access: Access,
    worker: Option<Worker>,
}

impl ReplaySession {
    async fn of(config: &Config) -> Result<Self, CommandError> {
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

    async fn close(self) -> Result<(), CommandError> {
        if let Some(worker) = self.worker {
            worker.stop().await;
        }
        self.access.close().await
    }
}

/// `reconcile`.
pub(crate) async fn reconcile(options: ReconcileOptions, load: Load<'_>) -> Result<(), CommandError> {
    let config = load(Need::Nice)?;
    let reconcile = Reconcile { window_seconds: options.window.map(|window| window.as_secs().max(1)) };
    reconcile.begin(config.reconciliation.window, Clock::system().now())?;
    let replaying = ReplaySession::of(&config).await?;
    let mut run = replaying.access.ask(reconcile).await?;
    let bar = Bar::new();
    let mut stall = StallWatch::default();
    while run.state.is_open() {
        stall.look(&run)?;
        tokio::time::sleep(LOOK).await;
        run = replaying.access.ask(ShowReconciliation { id: run.id }).await?;
        bar.listing(&run);
    }
    drop(bar);
    options.form.print(&run, reconciliation);
    replaying.close().await
}

/// `backfill` and its subcommands.
pub(crate) async fn backfill(options: BackfillOptions, load: Load<'_>) -> Result<(), CommandError> {
    if let Some(command) = options.command {
        return change(command, load).await;
    }
    let (Some(from), Some(to)) = (options.from, options.to) else {
        return Err(CommandError::usage("--from, --to: both are needed"));
    };
    let members = if options.members_now { Members::Now } else { Members::Then };
    let now = Clock::system().now();
    check_range(from, to, now)?;
    if from < horizon(now) {
        eprintln!(
            "--from lies beyond the 30 days that NICE lists: days before {} are read by data extraction, one in 30 s",
            horizon(now)
        );
    }
    let replaying = ReplaySession::of(&load(Need::Nice)?).await?;
    let run = replaying.access.ask(Backfill { from, to, members, plan_only: options.dry_run }).await?;
    let bar = Bar::new();
    let (mut progress, mut planned) = (replaying.access.ask(ShowBackfill { id: run.id }).await?, false);
    let mut stall = StallWatch::default();
    loop {
        if !planned && progress.run.plan.is_some() && !options.form.is_json {
            bar.above(|| output::line(plan(&progress)));
            planned = true;
        }
        if !progress.run.state.is_open() {
            break;
        }
        bar.backfill(&progress);
        stall.look(&progress.run)?;
        tokio::time::sleep(LOOK).await;
        progress = replaying.access.ask(ShowBackfill { id: run.id }).await?;
    }
    drop(bar);
    options.form.print(&progress, outcome);
    replaying.close().await?;
    match progress.run.state {
        RunState::Done | RunState::Planned => Ok(()),
        RunState::Failed => {
            let reason = progress.run.reason.unwrap_or_default();
            Err(CommandError::failed(format!("backfill {} failed: {reason}", run.id)))
        }
        state => Err(CommandError::failed(format!("backfill {} is {}", run.id, state.as_str()))),
    }
}

async fn change(command: BackfillCommand, load: Load<'_>) -> Result<(), CommandError> {
    let access = Access::of(&load(Need::Local)?, Wanted::Listing).await?;
    let (id, change, form) = match command {
        BackfillCommand::Status { id, form } => {
            let all = match id {
                Some(id) => vec![access.ask(ShowBackfill { id }).await?],
                None => access.ask(ListBackfills {}).await?,
            };
            form.print(&all, |all| backfills(all));
            return access.close().await;
        }
        BackfillCommand::Pause { id, form } => (id, Change::Pause, form),
        BackfillCommand::Resume { id, form } => (id, Change::Resume, form),
        BackfillCommand::Cancel { id, form } => (id, Change::Cancel, form),
    };
    let progress = access.ask(ChangeBackfill { id, change }).await?;
    let is_left_to_another = matches!(access, Access::Here(_)) && progress.run.state.is_open();
    form.print(&progress, |progress| match is_left_to_another {
        true => format!("{}\nno daemon runs here: a producer goes on with it when it starts", outcome(progress)),
        false => outcome(progress),
    });
    access.close().await
}

/// Why a run waits, and since when.
#[derive(Default)]
struct StallWatch(Option<(String, Instant)>);

impl StallWatch {
    /// Tells a new reason. A wait that lasts ends the command; a producer goes on with the run.
    fn look(&mut self, run: &ReplayRun) -> Result<(), CommandError> {
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
            false => Err(CommandError::unreachable(format!(
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

    fn backfill(&self, progress: &BackfillProgress) {
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
                self.0.set_message(format!("calls on the queue, {}{reason}", eta(progress)));
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
