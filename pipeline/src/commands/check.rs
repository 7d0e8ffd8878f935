//! `check`: the settings are valid already; each outside system follows, in a line with its remedy, and then what the
//! running services say.

use std::time::Duration;

use stages::metrics::Metrics;
use state::{Opened, StateOptions};

use super::status::find_status;
use crate::admin_client::AdminClient;
use crate::command_error::CommandError;
use crate::config::Config;
use crate::doors::{self, Service, Wanted};
use crate::operations::status::{Status, Verdict};
use crate::probes::{self, ProbeAnswer};
use crate::{output, style, tables, telemetry};

/// How long each system may take. All are asked at once.
const PATIENCE: Duration = Duration::from_secs(8);

/// Columns of the names.
const NAME: usize = 16;

/// Exit code 3 when one of the outside systems does not answer as it must, 1 when it is our own state.
pub(crate) async fn check(config: Config, show_settings: bool) -> Result<(), CommandError> {
    telemetry::start(&config.log)?;
    doors::validate(&config, Service::Run)?;
    if show_settings {
        output::line(config.to_redacted_toml());
    }
    line("settings", &style::good("ok"));
    let (mut broken_here, mut broken) = (Vec::new(), Vec::new());
    let daemon = AdminClient::find(&config.state.dir).await?;
    let state = match &daemon {
        Some(_) => None,
        None if Wanted::Service(Service::Run).local(&config) => local(&config, &mut broken_here).await,
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
        let shown = ready.as_ref().map_or_else(|error| style::bad(error), |()| style::good("ok"));
        line("daemon", &shown);
        if let Err(error) = ready {
            let first = format!("daemon ({})", error.lines().next().unwrap_or_default());
            // What it waits for is outside, or another producer has its work.
            match ["away since", "waits for"].iter().any(|word| error.contains(word)) {
                true => broken.push(first),
                false => broken_here.push(first),
            }
        }
    }
    for answer in answers? {
        show(&answer, &mut broken);
    }
    if doors::tenant(&config).is_err() {
        line("nice", "not asked: [tenant] id is not set; ask with `settings check --tenant ID`");
    }
    if let Some(opened) = state {
        let closed = opened.state.store().close().await;
        let shown = closed.as_ref().map_or_else(|error| style::bad(&error.to_string()), |()| style::good("ok"));
        line("local state", &shown);
        broken_here.extend(closed.err().map(|error| format!("local state ({error})")));
    }
    match running {
        Some(Ok(status)) => tell(&status, &mut broken),
        Some(Err(failure)) => line("services", &format!("could not be asked: {}", failure.message())),
        None => {}
    }
    if !broken_here.is_empty() {
        return Err(CommandError::failed(format!("not in order: {}", [broken_here, broken].concat().join(", "))));
    }
    if !broken.is_empty() {
        return Err(CommandError::unreachable(format!("not in order: {}", broken.join(", "))));
    }
    Ok(())
}

fn line(name: &str, text: &str) {
    output::line(tables::folded(&format!("{name:<NAME$} "), text));
}

/// What a system answered, and what to do about it.
pub(super) fn show(answer: &ProbeAnswer, broken: &mut Vec<String>) {
    match &answer.answer {
        Ok(caveat) => {
            line(answer.name, &style::good("ok"));
            caveat.iter().for_each(|caveat| line("", caveat));
        }
        Err(error) => {
            line(answer.name, &style::bad(error));
            if let Some(remedy) = answer.remedy() {
                line("", &format!("what to do: {remedy}"));
            }
            broken.push(format!("{} ({error})", answer.name));
        }
    }
}

/// What the running services say: they may be asked with other settings, and refused where this command is not.
fn tell(status: &Status, broken: &mut Vec<String>) {
    if status.services.is_empty() && status.started_at.is_none() {
        return line("services", "none runs, or none could be asked");
    }
    let shown = match status.verdict {
        Verdict::Well => style::good("well"),
        Verdict::Degraded => style::warn("degraded"),
        Verdict::Away => style::bad("in trouble"),
    };
    line("services", &shown);
    for concern in &status.concerns {
        line("", concern);
    }
    if status.verdict == Verdict::Away {
        broken.push(format!("services ({})", status.concerns.first().cloned().unwrap_or_default()));
    }
}

/// The local state, which only one process at a time can open. Its line says what is wrong with it.
async fn local(config: &Config, broken: &mut Vec<String>) -> Option<Opened> {
    let opened = doors::open_state(config, StateOptions::default(), &Metrics::new()).await;
    let fault = match &opened {
        Ok(opened) => opened.state.store().check().err().map(|error| error.to_string()),
        Err(failure) => Some(failure.message().to_owned()),
    };
    if let Some(fault) = fault {
        line("local state", &style::bad(&fault));
        broken.push(format!("local state ({fault})"));
    }
    opened.ok()
}
