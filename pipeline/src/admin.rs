//! The admin address: health, metrics, and what an operator may ask or do.
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200 while the process runs |
//! | `/readyz` | 200 once the process works; 503 before, while it drains, while its producer waits for the lease, and while a system is away that every call needs; it names each of them |
//! | `/metrics` | Prometheus text format, or OpenMetrics 1.0 for who prefers that |
//! | `/api/v1/…` | for this program's own commands and other programs, behind a token |
//! | the rest | the operator page |
//!
//! Who may read, and who may act: [`crate::admission`].

use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use axum::{Router, extract::State as Context, routing::get};
use runtime::task;
use serde::{Deserialize, Serialize};
use stages::{metrics::Metrics, serve};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::admission::AccessRules;
use crate::command_error::CommandError;
use crate::config::Config;
use crate::operations::Operations;
use crate::page::{self, PageContext};

mod api;
mod description;
mod idempotency;
mod metrics_page;
mod problem;
mod readiness;

pub(crate) use api::Served;
#[cfg(test)]
pub(crate) use api::api_description;
use idempotency::AnsweredActs;
pub(crate) use problem::Problem;
pub(crate) use readiness::{ReadinessCheck, ServiceReadiness};

/// What `/livez` answers.
const ALIVE: &str = "alive\n";

/// How a command finds the daemon of a state directory.
#[derive(Serialize, Deserialize)]
pub(crate) struct AdminFile {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
}

/// The running admin server; dropping it ends it.
pub(crate) struct Admin {
    address: SocketAddr,
    file: Option<PathBuf>,
    stopping: CancellationToken,
    _server: AbortOnDropHandle<()>,
}

/// The admin pages of a service, as `[admin] listen` serves them.
pub struct AdminPages {
    /// What answers.
    pub router: Router,
    /// The bearer token of `/api/v1`.
    pub token: String,
}

impl AdminPages {
    /// The pages of a process.
    pub(crate) fn new(config: &Config, operations: Operations, metrics: Metrics, readiness: ReadinessCheck) -> Self {
        #[expect(clippy::disallowed_methods, reason = "nobody may guess it")]
        let token = format!("{:032x}", rand::random::<u128>());
        let admission = AccessRules::new(&config.admin, token.as_str().into());
        let page = PageContext::new(config, operations.clone(), admission.clone(), readiness.clock.clone());
        let context = AdminContext { operations, metrics, readiness, admission, answered: AnsweredActs::default() };
        Self { router: router(context).merge(page::router(page)), token }
    }
}

/// What the addresses are answered from.
#[derive(Clone)]
struct AdminContext {
    operations: Operations,
    metrics: Metrics,
    readiness: ReadinessCheck,
    admission: AccessRules,
    answered: AnsweredActs,
}

impl Admin {
    /// Serves on `listener` and writes `file`, by which commands find it.
    pub(crate) fn start(listener: TcpListener, file: Option<PathBuf>, pages: AdminPages) -> Result<Self, CommandError> {
        let address = listener.local_addr().map_err(CommandError::failed)?;
        if let Some(file) = &file {
            write_file(file, &AdminFile { address, token: pages.token.clone() })
                .map_err(|error| CommandError::failed(format!("{}: {error}", file.display())))?;
        }
        let stopping = CancellationToken::new();
        let server = task::spawn("admin", serve::serve(listener, pages.router, stopping.clone()));
        Ok(Self { address, file, stopping, _server: server })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends the server and removes the file.
    pub(crate) fn stop(self) {
        self.stopping.cancel();
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.file.as_ref().map(std::fs::remove_file) {
            tracing::debug!(%error, "admin file not removed");
        }
    }
}

fn write_file(path: &Path, content: &AdminFile) -> std::io::Result<()> {
    use std::io::Write;
    // Left over by a run that was killed; removed, so that the mode below holds.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&serde_json::to_vec(content)?)
}

fn router(context: AdminContext) -> Router {
    Router::new()
        .route("/livez", get(|| async { ALIVE }))
        .route(
            "/readyz",
            get(|Context(context): Context<AdminContext>| async move { readiness::readyz(context.readiness) }),
        )
        .route(
            "/metrics",
            get(|Context(context): Context<AdminContext>, headers| async move {
                metrics_page::answer(&context.metrics, &headers)
            }),
        )
        .nest("/api/v1", api::router(&context))
        .with_state(context)
}
