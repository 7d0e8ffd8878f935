//! `check`: the settings are valid already; each outside system follows, in a line with its remedy, and then what the
//! running services say.

use std::time::Duration;

use serde::Serialize;
use stages::metrics::Metrics;
use state::{Opened, StateOptions};

use super::status::find_status;
use crate::admin_client::AdminClient;
use crate::command_error::CommandError;
use crate::config::{Config, EffectiveSetting};
use crate::doors::{self, Service, Wanted};
use crate::operations::status::{Status, Verdict};
use crate::output::AnswerForm;
use crate::probes::{self, ProbeAnswer};
use crate::systems::SystemState;
use crate::{output, style, tables, telemetry};

/// How long each system may take. All are asked at once.
const PATIENCE: Duration = Duration::from_secs(8);

/// Columns of the names.
const NAME: usize = 16;

/// What was asked and what it answered. A person reads each line as soon as it is known; a script gets the whole.
#[derive(Debug, Default, Serialize)]
pub(super) struct CheckReport {
    /// Whether everything is in order.
    ok: bool,
    /// The settings in force, where they were asked for; secrets are masked.
    settings: Option<Vec<EffectiveSetting>>,
    /// Each part, in the order of the lines.
    checks: Vec<CheckedPart>,
    /// How the running services stand; none where none runs, or none could be asked.
    verdict: Option<Verdict>,
    /// What is not well by their word.
    concerns: Vec<String>,
    #[serde(skip)]
    form: AnswerForm,
    /// What is wrong on this machine.
    #[serde(skip)]
    broken_here: Vec<String>,
    /// What is wrong outside.
    #[serde(skip)]
    broken: Vec<String>,
}

/// One part that was asked.
#[derive(Debug, Serialize)]
struct CheckedPart {
    name: String,
    ok: bool,
    /// How an outside system stands; none of what is no outside system.
    state: Option<SystemState>,
    /// Why it is not in order, or was not asked.
    reason: Option<String>,
    /// What to do about it.
    remedy: Option<String>,
    /// What is worth to be known though it is in order.
    caveat: Option<String>,
}

impl CheckedPart {
    fn new(name: &str, reason: Option<&str>) -> Self {
        Self {
            name: name.replace(' ', "_"),
            ok: reason.is_none(),
            state: None,
            reason: reason.map(str::to_owned),
            remedy: None,
            caveat: None,
        }
    }
}

/// Exit code 3 when one of the outside systems does not answer as it must, 1 when it is our own state.
pub(crate) async fn check(config: Config, show_settings: bool, form: AnswerForm) -> Result<(), CommandError> {
    telemetry::start(&config.log)?;
    doors::validate(&config, Service::Run)?;
    let mut report = CheckReport { form, ..CheckReport::default() };
    if show_settings {
        match form.is_json {
            true => report.settings = Some(config.effective().to_vec()),
            false => output::line(config.to_redacted_toml()),
        }
    }
    report.part("settings", None);
    let daemon = AdminClient::find(&config.state.dir).await?;
    let state = match &daemon {
        Some(_) => None,
        None if Wanted::Service(Service::Run).local(&config) => report.open_state(&config).await,
        None => None,
    };
    let ready = async {
        match &daemon {
            Some(daemon) => Some(daemon.ready().await),
            None => None,
        }
    };
    let running = async {
        // Where the state is open here, nothing runs that could say more.
        match state {
            Some(_) => None,
            None => Some(find_status(&config).await),
        }
    };
    let (answers, ready, running) = tokio::join!(probes::all(&config, state.as_ref(), PATIENCE), ready, running);
    if let Some(ready) = ready {
        report.part("daemon", ready.as_ref().err().map(String::as_str));
        if let Err(error) = ready {
            let first = format!("daemon ({})", error.lines().next().unwrap_or_default());
            // What it waits for is outside, or another producer has its work.
            match ["away since", "waits for"].iter().any(|word| error.contains(word)) {
                true => report.broken.push(first),
                false => report.broken_here.push(first),
            }
        }
    }
    for answer in answers? {
        report.system(&answer);
    }
    if doors::tenant(&config).is_err() {
        report.unasked("nice", "not asked: [tenant] id is not set; ask with `settings check --tenant ID`");
    }
    if let Some(opened) = state {
        let closed = opened.state.store().close().await.err().map(|error| error.to_string());
        // A fault that was found when it was opened stands there already.
        if !report.checks.iter().any(|part| part.name == "local_state") {
            report.part("local state", closed.as_deref());
        }
        report.broken_here.extend(closed.map(|error| format!("local state ({error})")));
    }
    match running {
        Some(Ok(status)) => report.services(status),
        Some(Err(failure)) => report.unasked("services", &format!("could not be asked: {}", failure.message())),
        None => {}
    }
    report.end()
}

impl CheckReport {
    /// What some systems answered, and nothing else.
    pub(super) fn of_systems(answers: &[ProbeAnswer], form: AnswerForm) -> Result<(), CommandError> {
        let mut report = Self { form, ..Self::default() };
        answers.iter().for_each(|answer| report.system(answer));
        report.end()
    }

    /// Prints the whole for a script; the exit code says what is not in order.
    fn end(mut self) -> Result<(), CommandError> {
        self.ok = self.broken_here.is_empty() && self.broken.is_empty();
        if self.form.is_json {
            // The lines are out already.
            self.form.print(&self, |_| String::new());
        }
        let Self { broken_here, broken, .. } = self;
        if !broken_here.is_empty() {
            return Err(CommandError::failed(format!("not in order: {}", [broken_here, broken].concat().join(", "))));
        }
        if !broken.is_empty() {
            return Err(CommandError::unreachable(format!("not in order: {}", broken.join(", "))));
        }
        Ok(())
    }

    fn line(&self, name: &str, text: &str) {
        if !self.form.is_json {
            output::line(tables::folded(&format!("{name:<NAME$} "), text));
        }
    }

    /// A part of this machine: in order, or why it is not.
    fn part(&mut self, name: &str, reason: Option<&str>) {
        self.line(name, &reason.map_or_else(|| style::good("ok"), style::bad));
        self.checks.push(CheckedPart::new(name, reason));
    }

    /// A part that was not asked, which is no fault.
    fn unasked(&mut self, name: &str, reason: &str) {
        self.line(name, reason);
        self.checks.push(CheckedPart { ok: true, ..CheckedPart::new(name, Some(reason)) });
    }

    /// What a system answered, and what to do about it.
    fn system(&mut self, answer: &ProbeAnswer) {
        let reason = answer.answer.as_ref().err().map(String::as_str);
        let (caveat, remedy) = (answer.answer.as_ref().ok().cloned().flatten(), answer.remedy());
        self.line(answer.name, &reason.map_or_else(|| style::good("ok"), style::bad));
        if let Some(caveat) = &caveat {
            self.line("", caveat);
        }
        if let Some(remedy) = remedy {
            self.line("", &format!("what to do: {remedy}"));
        }
        if let Some(error) = reason {
            self.broken.push(format!("{} ({error})", answer.name));
        }
        self.checks.push(CheckedPart {
            state: Some(answer.state()),
            caveat,
            remedy: remedy.map(str::to_owned),
            ..CheckedPart::new(answer.name, reason)
        });
    }

    /// What the running services say: they may be asked with other settings, and refused where this command is not.
    fn services(&mut self, status: Status) {
        if status.services.is_empty() && status.started_at.is_none() {
            return self.unasked("services", "none runs, or none could be asked");
        }
        let shown = match status.verdict {
            Verdict::Well => style::good("well"),
            Verdict::Degraded => style::warn("degraded"),
            Verdict::Away => style::bad("in trouble"),
        };
        self.line("services", &shown);
        for concern in &status.concerns {
            self.line("", concern);
        }
        let first = status.concerns.first().cloned().unwrap_or_default();
        let is_away = status.verdict == Verdict::Away;
        self.checks.push(CheckedPart::new("services", is_away.then_some(first.as_str())));
        if is_away {
            self.broken.push(format!("services ({first})"));
        }
        (self.verdict, self.concerns) = (Some(status.verdict), status.concerns);
    }

    /// The local state, which only one process at a time can open. Its line says what is wrong with it.
    async fn open_state(&mut self, config: &Config) -> Option<Opened> {
        let opened = doors::open_state(config, StateOptions::default(), &Metrics::new()).await;
        let fault = match &opened {
            Ok(opened) => opened.state.store().check().err().map(|error| error.to_string()),
            Err(failure) => Some(failure.message().to_owned()),
        };
        if let Some(fault) = fault {
            self.part("local state", Some(&fault));
            self.broken_here.push(format!("local state ({fault})"));
        }
        opened.ok()
    }
}
