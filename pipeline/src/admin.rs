//! The admin address: health, metrics, and what an operator may ask or do.
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200 while the process runs |
//! | `/readyz` | 200 once the process works; 503 before, while it drains, while its producer waits for the lease, and while a system is away that every call needs; it names each of them |
//! | `/metrics` | Prometheus text format |
//! | `/api/v1/…` | for this program's own commands, behind the token in `{state.dir}/admin.json` |
//!
//! The token keeps other users of the machine, and pages in their browsers, from reading or moving anything.

use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    Json, Router,
    extract::{Path as UrlPath, Query, Request, State},
    http::{StatusCode, header},
    middleware,
    middleware::Next,
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use catalog::{Recorded, ReplayRun};
use flow::{Blame, Outside, StageError, outside::Standing};
use model::ContactId;
use runtime::task;
use serde::{Deserialize, Serialize};
use stages::{
    completeness::{Completeness, ReportError},
    metrics::Metrics,
    serve,
    source::ListError,
    verify::Verified,
};
use subtle::ConstantTimeEq;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::failure::Failure;
use crate::operations::{
    Older, OperationError, Operations,
    replays::{Change, Progress, Range, Window},
    verify::Question,
};

/// What `/livez` answers.
pub(crate) const ALIVE: &str = "alive\n";

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

/// What is served, and the token that opens the API.
pub(crate) struct Pages {
    pub(crate) router: Router,
    pub(crate) token: String,
}

impl Pages {
    /// The pages of a process.
    pub(crate) fn new(
        operations: Operations,
        metrics: Metrics,
        readiness: Readiness,
        outside: Outside,
        blame: Blame,
    ) -> Self {
        #[expect(clippy::disallowed_methods, reason = "nobody may guess it")]
        let token = format!("{:032x}", rand::random::<u128>());
        let shared = Shared { operations, metrics, readiness, outside, blame, token: token.as_str().into() };
        Self { router: router(shared), token }
    }
}

#[derive(Clone)]
struct Shared {
    operations: Operations,
    metrics: Metrics,
    readiness: Readiness,
    outside: Outside,
    blame: Blame,
    token: Arc<str>,
}

/// Whether the process works; clones share it.
#[derive(Clone)]
pub(crate) struct Readiness {
    serving: Arc<AtomicBool>,
    producing: Option<watch::Receiver<bool>>,
}

/// What is said of a producer that does not work.
pub(crate) const WAITS: &str = "waiting for the lease: another producer has the tenant";

impl Readiness {
    /// Not ready yet. `producing`, where there is a producer, is set while it holds the tenant's lease.
    pub(crate) fn new(producing: Option<watch::Receiver<bool>>) -> Self {
        Self { serving: Arc::default(), producing }
    }

    /// Whether the producer works, where there is one.
    pub(crate) fn producing(&self) -> Option<watch::Receiver<bool>> {
        self.producing.clone()
    }

    /// Everything is started, or the end has begun.
    pub(crate) fn set_serving(&self, serving: bool) {
        self.serving.store(serving, Ordering::SeqCst);
    }

    /// What stands against it, if anything.
    pub(crate) fn hindrance(&self) -> Option<&'static str> {
        if !self.serving.load(Ordering::SeqCst) {
            return Some("starting or draining");
        }
        let waits = self.producing.as_ref().is_some_and(|producing| !*producing.borrow());
        waits.then_some(WAITS)
    }
}

impl Admin {
    /// Serves on `listener` and writes `file`, by which commands find it.
    pub(crate) fn start(listener: TcpListener, file: Option<PathBuf>, pages: Pages) -> Result<Self, Failure> {
        let address = listener.local_addr().map_err(Failure::failed)?;
        if let Some(file) = &file {
            write_file(file, &AdminFile { address, token: pages.token.clone() })
                .map_err(|error| Failure::failed(format!("{}: {error}", file.display())))?;
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

fn router(shared: Shared) -> Router {
    let api = Router::new()
        .route("/status", get(status))
        .route("/trace/{id}", get(trace))
        .route("/conversations/{id}", delete(erase))
        .route("/conversations/{id}/erasure", get(erasable))
        .route("/conversations/{id}/recheck", post(recheck))
        .route("/rechecks", post(recheck_range))
        .route("/recorded", post(recorded))
        .route("/verifications", post(verify))
        .route("/agents", get(agents))
        .route("/agents/held", get(held_reading))
        .route("/agents/sync", post(sync_agents))
        .route("/agents/accept", post(accept_agents))
        .route("/dead-letters", get(dead_letters))
        .route("/dead-letters/drop", post(drop_dead_letters))
        .route("/dead-letters/{id}", get(dead_letter).delete(drop_dead_letter))
        .route("/dead-letters/{id}/replay", post(replay))
        .route("/reconciliations", post(reconcile))
        .route("/reconciliations/{id}", get(reconciliation))
        .route("/backfills", get(backfills).post(backfill))
        .route("/backfills/{id}", get(backfill_progress))
        .route("/backfills/{id}/{change}", post(change_backfill))
        .route("/report", post(report))
        .route_layer(middleware::from_fn_with_state(shared.clone(), authorized));
    Router::new()
        .route("/livez", get(|| async { ALIVE }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .nest("/api/v1", api)
        .with_state(shared)
}

async fn authorized(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let given = given.strip_prefix("Bearer ").unwrap_or_default();
    if bool::from(given.as_bytes().ct_eq(shared.token.as_bytes())) {
        next.run(request).await
    } else {
        (StatusCode::UNAUTHORIZED, "the token stands in admin.json in the state directory\n").into_response()
    }
}

async fn readyz(State(shared): State<Shared>) -> Response {
    if let Some(Err(error)) = shared.operations.local.as_ref().map(|local| local.state.store().check()) {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("local state: {error}\n")).into_response();
    }
    let now = shared.operations.clock.now();
    let standings = shared.outside.standings().into_iter().map(|(system, standing)| match standing {
        // It answers, and does not do what is asked: a full disk, a right that is missing.
        Standing::Here if shared.blame.fails_for_some(system, now) => (
            system,
            Standing::Away { since: now, why: "it answers, and fails for many calls: the log says why".to_owned() },
        ),
        standing => (system, standing),
    });
    let standings: Vec<_> = standings.collect();
    let away = standings.iter().any(|(_, standing)| *standing != Standing::Here);
    let (status, mut page) = match shared.readiness.hindrance() {
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        None if away => (StatusCode::SERVICE_UNAVAILABLE, "an outside system is away\n".to_owned()),
        None => (StatusCode::OK, "ready\n".to_owned()),
    };
    for (system, standing) in standings {
        let line = match standing {
            Standing::Here => format!("{system}: answers\n"),
            Standing::Away { since, why } => format!("{system}: away since {since:.0}: {why}\n"),
        };
        page.push_str(&line);
    }
    (status, page).into_response()
}

async fn metrics(State(shared): State<Shared>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], shared.metrics.render()).into_response()
}

type Answer<T> = Result<Json<T>, OperationError>;

async fn status(State(shared): State<Shared>) -> Answer<crate::operations::Status> {
    shared.operations.status().await.map(Json)
}

async fn trace(State(shared): State<Shared>, UrlPath(id): UrlPath<String>) -> Answer<crate::operations::Trace> {
    shared.operations.trace(&id).await.map(Json)
}

/// How a conversation is erased.
#[derive(Deserialize)]
struct Erasing {
    /// Also where nothing is known of it.
    #[serde(default)]
    yes_unknown: bool,
}

async fn erase(
    State(shared): State<Shared>,
    UrlPath(id): UrlPath<String>,
    Query(erasing): Query<Erasing>,
) -> Answer<crate::operations::Erased> {
    shared.operations.erase(&id, erasing.yes_unknown).await.map(Json)
}

async fn erasable(State(shared): State<Shared>, UrlPath(id): UrlPath<String>) -> Answer<crate::operations::Erasable> {
    shared.operations.erasable(&id).await.map(Json)
}

async fn recheck(State(shared): State<Shared>, UrlPath(id): UrlPath<String>) -> Answer<crate::operations::Rechecked> {
    shared.operations.recheck(&id).await.map(Json)
}

async fn recheck_range(State(shared): State<Shared>, Json(range): Json<Range>) -> Answer<crate::operations::Rechecked> {
    shared.operations.recheck_range(range).await.map(Json)
}

async fn recorded(State(shared): State<Shared>, Json(question): Json<Question>) -> Answer<Vec<Recorded>> {
    shared.operations.recorded(question).await.map(Json)
}

async fn verify(State(shared): State<Shared>, Json(ids): Json<Vec<ContactId>>) -> Answer<Verified> {
    shared.operations.verify(ids).await.map(Json)
}

async fn agents(State(shared): State<Shared>) -> Answer<Vec<model::Agent>> {
    shared.operations.agents().await.map(Json)
}

async fn sync_agents(State(shared): State<Shared>) -> Answer<stages::sync_agents::SyncReport> {
    shared.operations.sync_agents().await.map(Json)
}

async fn accept_agents(State(shared): State<Shared>) -> Answer<stages::sync_agents::SyncReport> {
    shared.operations.accept_agents().await.map(Json)
}

async fn held_reading(State(shared): State<Shared>) -> Answer<Option<catalog::HeldReading>> {
    shared.operations.held_reading().await.map(Json)
}

async fn dead_letters(State(shared): State<Shared>) -> Answer<Vec<model::DeadLetter>> {
    shared.operations.dead_letters().await.map(Json)
}

async fn dead_letter(State(shared): State<Shared>, UrlPath(id): UrlPath<u64>) -> Answer<model::DeadLetter> {
    shared.operations.dead_letter(id).await.map(Json)
}

async fn replay(State(shared): State<Shared>, UrlPath(id): UrlPath<u64>) -> Answer<()> {
    shared.operations.replay(id).await.map(Json)
}

async fn drop_dead_letter(State(shared): State<Shared>, UrlPath(id): UrlPath<u64>) -> Answer<()> {
    shared.operations.drop_dead_letter(id).await.map(Json)
}

async fn drop_dead_letters(State(shared): State<Shared>, Json(older): Json<Older>) -> Answer<u64> {
    shared.operations.drop_dead_letters(older).await.map(Json)
}

async fn reconcile(State(shared): State<Shared>, Json(window): Json<Window>) -> Answer<ReplayRun> {
    shared.operations.reconcile(window).await.map(Json)
}

async fn reconciliation(State(shared): State<Shared>, UrlPath(id): UrlPath<u64>) -> Answer<ReplayRun> {
    shared.operations.reconciliation(id).await.map(Json)
}

async fn backfill(State(shared): State<Shared>, Json(range): Json<Range>) -> Answer<ReplayRun> {
    shared.operations.backfill(range).await.map(Json)
}

async fn backfills(State(shared): State<Shared>) -> Answer<Vec<Progress>> {
    shared.operations.backfills().await.map(Json)
}

async fn backfill_progress(State(shared): State<Shared>, UrlPath(id): UrlPath<u64>) -> Answer<Progress> {
    shared.operations.backfill_progress(id).await.map(Json)
}

async fn change_backfill(
    State(shared): State<Shared>,
    UrlPath((id, change)): UrlPath<(u64, Change)>,
) -> Answer<Progress> {
    shared.operations.change_backfill(id, change).await.map(Json)
}

async fn report(State(shared): State<Shared>, Json(range): Json<Range>) -> Answer<Completeness> {
    shared.operations.report(range).await.map(Json)
}

/// An error as a command reads it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Problem {
    pub(crate) error: String,
}

impl IntoResponse for OperationError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::Report(ReportError::List(ListError::Settings(StageError::Permanent { .. }))) => StatusCode::CONFLICT,
            Self::Report(ReportError::List(_)) => StatusCode::BAD_GATEWAY,
            Self::Report(ReportError::Compare(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Refused(_) | Self::NoTenant(_) => StatusCode::CONFLICT,
            Self::Sync(_) | Self::Erasure(_) | Self::Verification(_) => StatusCode::BAD_GATEWAY,
            Self::Catalog(_) | Self::Queue(_) | Self::State(_) | Self::Budget(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        (status, Json(Problem { error: self.to_string() })).into_response()
    }
}
