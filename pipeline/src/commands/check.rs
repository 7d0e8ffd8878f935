//! `check`: the settings are valid already; each outside system follows, one line each.

use std::future::Future;
use std::sync::Arc;

use catalog::{Catalog, EmbeddedCatalog};
use flow::StageError;
use model::{ContactId, TenantId, Unmetered};
use nice::{NiceClient, NiceError};
use runtime::Clock;
use stages::{metrics::Metrics, tenants::Tenants};
use state::{Opened, StateOptions};

use crate::admin_client::AdminClient;
use crate::command_error::CommandError;
use crate::config::{CatalogKind, Config, QueueKind};
use crate::doors;
use crate::doors::{Database, QueuePlace, Service, Wanted};
use crate::{output, telemetry};

/// Exit code 3 when one of the outside systems does not answer as it must, 1 when it is our own state.
pub(crate) async fn check(config: Config, show_settings: bool) -> Result<(), CommandError> {
    telemetry::start(&config.log)?;
    doors::validate(&config, Service::Run)?;
    let database = doors::database(&config)?;
    let tenants = doors::Nice::unmetered(&config, database.as_ref(), Arc::new(Unmetered))?;
    if show_settings {
        output::line(config.to_redacted_toml());
    }
    output::line("settings         ok");
    let (mut broken_here, mut broken) = (Vec::new(), Vec::new());
    let daemon = AdminClient::find(&config.state.dir).await?;
    let state = match &daemon {
        Some(daemon) => {
            report("daemon", daemon.ready(), &mut broken_here).await;
            None
        }
        None if Wanted::Service(Service::Run).local(&config) => local(&config, &mut broken_here).await,
        None => None,
    };
    // Where a daemon has the state that the queue needs, its readiness tells of the queue too.
    let asks_queue = match config.queue.kind {
        QueueKind::Embedded => state.is_some(),
        QueueKind::Rabbitmq => true,
        QueueKind::Fluvio => state.is_some() || database.is_some(),
    };
    if asks_queue {
        report("queue", queue(&config, state.as_ref(), database.as_ref()), &mut broken).await;
    }
    if state.is_some() || config.catalog.kind != CatalogKind::Embedded {
        report("catalog", catalog(&config, state.as_ref()), &mut broken).await;
    }
    let mut caveat = None;
    report("recording store", recordings(&config, &mut caveat), &mut broken).await;
    if let Some(caveat) = caveat {
        output::line(format!("                 {caveat}"));
    }
    ask_nice(&tenants, &doors::tenant(&config)?, &mut broken).await;
    if let Some(opened) = state {
        report("local state", opened.state.store().close(), &mut broken_here).await;
    }
    if !broken_here.is_empty() {
        return Err(CommandError::failed(format!("not in order: {}", [broken_here, broken].concat().join(", "))));
    }
    if !broken.is_empty() {
        return Err(CommandError::unreachable(format!("not in order: {}", broken.join(", "))));
    }
    Ok(())
}

/// Asks a tenant's NICE for everything that the services need of it, one line each.
pub(super) async fn ask_nice(tenants: &Tenants, tenant: &TenantId, broken: &mut Vec<String>) {
    let nice = match tenants.get(tenant).await {
        Ok(tenant) => tenant.nice.clone(),
        Err(error) => return report("nice", async { Err::<(), StageError>(error) }, broken).await,
    };
    report("nice", nice.check(), broken).await;
    report("media playback", playback(&nice), broken).await;
}

/// The local state, which only one process at a time can open. Its line says what is wrong with it.
async fn local(config: &Config, broken: &mut Vec<String>) -> Option<Opened> {
    match doors::open_state(config, StateOptions::default(), &Metrics::new()).await {
        Ok(opened) => {
            if let Err(error) = opened.state.store().check() {
                report("local state", async { Err::<(), _>(error) }, broken).await;
            }
            Some(opened)
        }
        Err(failure) => {
            report("local state", async { Err::<(), _>(failure.message()) }, broken).await;
            None
        }
    }
}

async fn queue(config: &Config, state: Option<&Opened>, database: Option<&Database>) -> Result<(), String> {
    let place = QueuePlace { state: state.map(|opened| opened.state.store()), database };
    let queue = doors::queue(config, config.queue.kind, place, &Clock::system(), &Metrics::new()).await;
    let queue = queue.map_err(|failure| failure.message().to_owned())?;
    let answer = queue.check().await.map_err(|error| error.to_string());
    queue.close().await;
    answer
}

async fn catalog(config: &Config, state: Option<&Opened>) -> Result<(), String> {
    if let Some(database) = doors::database(config).map_err(|failure| failure.message().to_owned())? {
        doors::check_session(&database).await.map_err(|failure| failure.message().to_owned())?;
        let catalog = doors::server_catalog(config, &database).await;
        let catalog = catalog.map_err(|failure| failure.message().to_owned())?;
        return catalog.check().await.map_err(|error| error.to_string());
    }
    match state {
        Some(opened) => {
            let catalog = EmbeddedCatalog::open(opened.state.store()).map_err(|error| error.to_string())?;
            catalog.check().await.map_err(|error| error.to_string())
        }
        None => Ok(()),
    }
}

async fn recordings(config: &Config, caveat: &mut Option<String>) -> Result<(), String> {
    let store =
        doors::recordings(config, None, &Metrics::new()).await.map_err(|failure| failure.message().to_owned())?;
    store.check().await.map_err(|error| error.to_string())?;
    *caveat = store.caveat();
    Ok(())
}

/// Asks for a call that cannot be: "not there" is the answer of a service that works and lets us in.
async fn playback(nice: &NiceClient) -> Result<(), NiceError> {
    let nobodys = ContactId::from_number(1).map_err(|error| NiceError::permanent(error.to_string()))?;
    match nice.contact_playback(nobodys).await {
        Ok(_) | Err(NiceError::NotReady { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn report<E: std::fmt::Display>(
    name: &'static str,
    answer: impl Future<Output = Result<(), E>>,
    broken: &mut Vec<String>,
) {
    match answer.await {
        Ok(()) => output::line(format!("{name:<16} ok")),
        Err(error) => {
            output::line(format!("{name:<16} {error}"));
            broken.push(format!("{name} ({error})"));
        }
    }
}
