//! Asks each outside system once whether it answers and lets us in: all of them at the same time, each within a limit.
//!
//! It is for commands. Nothing comes from a cache: every connection and every token is a new one.

use std::sync::Arc;
use std::time::Duration;

use catalog::{Catalog, EmbeddedCatalog};
use futures::future::BoxFuture;
use model::{ContactId, System, Unmetered};
use nice::{NiceClient, NiceError};
use runtime::Clock;
use stages::{metrics::Metrics, tenants::Tenants};
use state::Opened;
use tokio::time::Instant;

use crate::command_error::CommandError;
use crate::config::{CatalogKind, Config, QueueKind};
use crate::doors::{self, Database, QueuePlace};
use crate::systems::{SystemState, remedy};

/// What a system answered.
#[derive(Debug)]
pub(crate) struct ProbeAnswer {
    /// What was asked.
    pub(crate) name: &'static str,
    /// The system that answers for it.
    pub(crate) system: System,
    /// Nothing, or a caveat; or why it does not do.
    pub(crate) answer: Result<Option<String>, String>,
}

impl ProbeAnswer {
    /// How the system stands, where it does not do.
    pub(crate) fn state(&self) -> SystemState {
        let Err(reason) = &self.answer else { return SystemState::Well };
        let is_refused =
            ["refuse", "401", "403", "password", "authentication"].iter().any(|word| reason.contains(word));
        match is_refused && !reason.contains("onnection refused") {
            true => SystemState::Refused,
            false => SystemState::Away,
        }
    }

    /// What to do, where it does not do.
    pub(crate) fn remedy(&self) -> Option<&'static str> {
        let reason = self.answer.as_ref().err()?;
        remedy(self.system, self.state(), reason)
    }
}

/// Queue, catalog, recording store and NICE of the settings, as far as they are on servers or the local state is open
/// here.
pub(crate) async fn all(
    config: &Config,
    state: Option<&Opened>,
    patience: Duration,
) -> Result<Vec<ProbeAnswer>, CommandError> {
    let database = doors::database(config)?;
    let asks_queue = match config.queue.kind {
        QueueKind::Embedded => state.is_some(),
        QueueKind::Rabbitmq => true,
        QueueKind::Fluvio => state.is_some() || database.is_some(),
    };
    let asks_catalog = state.is_some() || config.catalog.kind != CatalogKind::Embedded;
    let mut probes: Vec<BoxFuture<'_, ProbeAnswer>> = Vec::new();
    if asks_catalog {
        let asked = catalog(config, state, database.as_ref());
        probes.push(Box::pin(in_time("catalog", System::Catalog, patience, asked)));
    }
    if asks_queue {
        let asked = queue(config, state, database.as_ref());
        probes.push(Box::pin(in_time("queue", System::Queue, patience, asked)));
    }
    probes.push(Box::pin(in_time("recording store", System::RecordingStore, patience, recordings(config))));
    let tenants = doors::Nice::unmetered(config, database.as_ref(), Arc::new(Unmetered))?;
    let (mut answers, nice) = tokio::join!(futures::future::join_all(probes), async {
        match doors::tenant(config) {
            Ok(tenant) => nice(&tenants, &tenant, patience).await,
            // A consumer serves every tenant.
            Err(_) => Vec::new(),
        }
    });
    answers.extend(nice);
    Ok(answers)
}

/// A tenant's NICE: token, discovery and group; then whether it lets us have recordings.
pub(crate) async fn nice(tenants: &Tenants, tenant: &model::TenantId, patience: Duration) -> Vec<ProbeAnswer> {
    let client = async {
        let found = tenants.get(tenant).await.map_err(|error| error.to_string())?;
        Ok(found.nice.clone())
    };
    let deadline = Instant::now() + patience;
    let client = match tokio::time::timeout_at(deadline, client).await {
        Ok(Ok(client)) => client,
        Ok(Err(reason)) => return vec![ProbeAnswer { name: "nice", system: System::Nice, answer: Err(reason) }],
        Err(_) => {
            return vec![ProbeAnswer { name: "nice", system: System::Nice, answer: Err(late(System::Nice, patience)) }];
        }
    };
    let checked = async { client.check().await.map(|()| None).map_err(|error| error.to_string()) };
    let left = deadline.saturating_duration_since(Instant::now());
    let (checked, played) = tokio::join!(
        in_time("nice", System::Nice, left, checked),
        in_time("media playback", System::Nice, left, playback(&client)),
    );
    vec![checked, played]
}

async fn in_time(
    name: &'static str,
    system: System,
    patience: Duration,
    asked: impl Future<Output = Result<Option<String>, String>>,
) -> ProbeAnswer {
    let answer = tokio::time::timeout(patience, asked).await.unwrap_or_else(|_| Err(late(system, patience)));
    ProbeAnswer { name, system, answer }
}

fn late(system: System, patience: Duration) -> String {
    let setting = match system {
        System::Catalog => "[catalog] url: ",
        System::Queue => "[queue] url: ",
        System::RecordingStore => "[recordings] endpoint: ",
        System::Nice => "[nice] issuer: ",
        System::MediaHost | System::Call => "",
    };
    format!("{setting}no answer within {:.1} s", patience.as_secs_f64())
}

async fn queue(config: &Config, state: Option<&Opened>, database: Option<&Database>) -> Result<Option<String>, String> {
    let place = QueuePlace { state: state.map(|opened| opened.state.store()), database };
    let queue = doors::queue(config, config.queue.kind, place, &Clock::system(), &Metrics::new()).await;
    let queue = queue.map_err(|failure| failure.message().to_owned())?;
    let answer = queue.check().await.map_err(|error| error.to_string());
    queue.close().await;
    answer.map(|()| None)
}

async fn catalog(
    config: &Config,
    state: Option<&Opened>,
    database: Option<&Database>,
) -> Result<Option<String>, String> {
    let catalog = match (database, state) {
        (Some(database), _) => {
            doors::check_session(database).await.map_err(|failure| failure.message().to_owned())?;
            let catalog = doors::server_catalog(config, database).await;
            catalog.map_err(|failure| failure.message().to_owned())?
        }
        (None, Some(opened)) => {
            let catalog = EmbeddedCatalog::open(opened.state.store()).map_err(|error| error.to_string())?;
            Arc::new(catalog) as Arc<dyn Catalog>
        }
        (None, None) => return Ok(None),
    };
    catalog.check().await.map(|()| None).map_err(|error| error.to_string())
}

async fn recordings(config: &Config) -> Result<Option<String>, String> {
    let store =
        doors::recordings(config, None, &Metrics::new()).await.map_err(|failure| failure.message().to_owned())?;
    store.check().await.map_err(|error| error.to_string())?;
    Ok(store.caveat())
}

/// Asks for a call that cannot be: "not there" is the answer of a service that works and lets us in.
async fn playback(nice: &NiceClient) -> Result<Option<String>, String> {
    let nobodys = ContactId::from_number(1).map_err(|error| error.to_string())?;
    match nice.contact_playback(nobodys).await {
        Ok(_) | Err(NiceError::NotReady { .. }) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}
