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
    extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request as HttpRequest, State as Context},
    http::{StatusCode, Uri, header},
    middleware,
    middleware::Next,
    response::{IntoResponse, Response},
    routing::{MethodFilter, get, on},
};
use flow::{Blame, Outside, StageError, outside::SystemHealth};
use futures::{FutureExt, future::BoxFuture};
use runtime::{Clock, task};
use serde::{Deserialize, Serialize};
use stages::{completeness::ReportError, metrics::Metrics, serve, source::ListError};
use state::State;
use subtle::ConstantTimeEq;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::command_error::CommandError;
use crate::operations::{
    AdminRequest, AdminRoute, OperationError, Operations,
    agents::{ListAgents, ReadGroup, ShowHeldReading},
    dead_letters::{DropDeadLetter, DropDeadLetters, ListDeadLetters, ReplayDeadLetter, ShowDeadLetter},
    erase::{EraseConversation, ShowErasable},
    proof::ListSignedDays,
    recheck::{RecheckConversation, RecheckRange},
    replays::{Backfill, ChangeBackfill, ListBackfills, Reconcile, ShowBackfill, ShowReconciliation},
    report::ShowReport,
    status::ShowStatus,
    trace::TraceConversation,
    verify::{ListRecorded, Verify},
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

/// The admin pages of a service, as `[admin] listen` serves them.
pub struct AdminPages {
    /// What answers.
    pub router: Router,
    /// The bearer token of `/api/v1`.
    pub token: String,
}

impl AdminPages {
    /// The pages of a process.
    pub(crate) fn new(operations: Operations, metrics: Metrics, readiness: ReadinessCheck) -> Self {
        #[expect(clippy::disallowed_methods, reason = "nobody may guess it")]
        let token = format!("{:032x}", rand::random::<u128>());
        let context = AdminContext { operations, metrics, readiness, token: token.as_str().into() };
        Self { router: router(context), token }
    }
}

/// What the pages are answered from.
#[derive(Clone)]
struct AdminContext {
    operations: Operations,
    metrics: Metrics,
    readiness: ReadinessCheck,
    token: Arc<str>,
}

/// What `/readyz` looks at.
#[derive(Clone)]
pub(crate) struct ReadinessCheck {
    pub(crate) service: ServiceReadiness,
    /// The local state, where the process keeps one.
    pub(crate) state: Option<State>,
    pub(crate) outside: Outside,
    pub(crate) blame: Blame,
    pub(crate) clock: Clock,
}

/// Whether the process works; clones share it.
#[derive(Clone)]
pub(crate) struct ServiceReadiness {
    serving: Arc<AtomicBool>,
    producing: Option<watch::Receiver<bool>>,
}

/// What the pages say of a producer that waits.
pub(crate) const WAITS: &str = "waiting for the lease: another producer has the tenant";

impl ServiceReadiness {
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

    /// Why it does not work, if it does not.
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
    let api = api().route_layer(middleware::from_fn_with_state(context.clone(), authorized));
    Router::new()
        .route("/livez", get(|| async { ALIVE }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .nest("/api/v1", api)
        .with_state(context)
}

async fn authorized(Context(context): Context<AdminContext>, request: HttpRequest, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let given = given.strip_prefix("Bearer ").unwrap_or_default();
    if bool::from(given.as_bytes().ct_eq(context.token.as_bytes())) {
        next.run(request).await
    } else {
        (StatusCode::UNAUTHORIZED, "the token is in admin.json in the state directory\n").into_response()
    }
}

async fn readyz(Context(context): Context<AdminContext>) -> Response {
    let ReadinessCheck { service, state, outside, blame, clock } = context.readiness;
    if let Err(error) = state.map_or(Ok(()), |state| state.store().check()) {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("local state: {error}\n")).into_response();
    }
    let now = clock.now();
    let health = outside.health().into_iter().map(|(system, health)| match health {
        // It answers, but does not do what it is asked for: its disk is full, or we lack a right.
        SystemHealth::Up if blame.fails_for_some(system, now) => (
            system,
            SystemHealth::Down { since: now, why: "it answers, and fails for many calls: the log says why".to_owned() },
        ),
        health => (system, health),
    });
    let health: Vec<_> = health.collect();
    let away = health.iter().any(|(_, health)| *health != SystemHealth::Up);
    let (status, mut page) = match service.hindrance() {
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        None if away => (StatusCode::SERVICE_UNAVAILABLE, "an outside system is away\n".to_owned()),
        None => (StatusCode::OK, "ready\n".to_owned()),
    };
    for (system, health) in health {
        let line = match health {
            SystemHealth::Up => format!("{system}: answers\n"),
            SystemHealth::Down { since, why } => format!("{system}: away since {since:.0}: {why}\n"),
        };
        page.push_str(&line);
    }
    (status, page).into_response()
}

async fn metrics(Context(context): Context<AdminContext>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], context.metrics.render()).into_response()
}

/// A request that the daemon takes: it is in the list of routes.
pub(crate) trait Served: AdminRequest {
    /// The part of the operations that does it.
    fn handler(operations: &Operations) -> &Self::Handler;
}

/// The list of routes below `/api/v1`: the requests of each part of the operations.
macro_rules! served {
    ($($part:ident: $($request:ty),+;)+) => {
        $($(impl Served for $request {
            fn handler(operations: &Operations) -> &Self::Handler {
                &operations.$part
            }
        })+)+

        fn api() -> Router<AdminContext> {
            Router::new()$($(.merge(route(<$request>::ROUTE, answer::<$request>)))+)+
        }
    };
}

served! {
    status: ShowStatus;
    trace: TraceConversation;
    erasure: EraseConversation, ShowErasable;
    recheck: RecheckConversation, RecheckRange;
    verification: ListRecorded, Verify;
    agents: ListAgents, ShowHeldReading, ReadGroup;
    dead_letters: ListDeadLetters, DropDeadLetters, ShowDeadLetter, DropDeadLetter, ReplayDeadLetter;
    replays: Reconcile, ShowReconciliation, Backfill, ListBackfills, ShowBackfill, ChangeBackfill;
    report: ShowReport;
    proof: ListSignedDays;
}

/// Does a request, and answers it.
type AnswerRequest = fn(AdminContext, HttpRequest) -> BoxFuture<'static, Response>;

/// The route of a request. It is the same for all of them, so that it is compiled once.
fn route(route: AdminRoute, answer: AnswerRequest) -> Router<AdminContext> {
    let filter = MethodFilter::try_from(route.method).expect("a route has a usual method");
    let handler = move |Context(context): Context<AdminContext>, asked: HttpRequest| answer(context, asked);
    Router::new().route(route.path, on(filter, handler))
}

fn answer<R: Served>(context: AdminContext, asked: HttpRequest) -> BoxFuture<'static, Response> {
    let answering = async move {
        let request = match R::ROUTE.is_body {
            true => serde_json::from_value(body(asked).await?).map_err(unreadable)?,
            false => Query::<R>::try_from_uri(&fields(asked).await?).map_err(IntoResponse::into_response)?.0,
        };
        let answer = request.fulfil(R::handler(&context.operations)).await.map_err(IntoResponse::into_response)?;
        Ok(written(serde_json::to_vec(&answer)))
    };
    answering.map(|answer: Result<_, Response>| answer.unwrap_or_else(|refused| refused)).boxed()
}

/// The body of a request that has one.
async fn body(asked: HttpRequest) -> Result<serde_json::Value, Response> {
    Json::from_request(asked, &()).await.map(|Json(value)| value).map_err(IntoResponse::into_response)
}

fn written(answer: Result<Vec<u8>, serde_json::Error>) -> Response {
    match answer {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("the answer cannot be written: {error}\n")).into_response()
        }
    }
}

fn unreadable(error: serde_json::Error) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, format!("the request cannot be read: {error}\n")).into_response()
}

/// The fields of another request, from path and query, as one query.
async fn fields(asked: HttpRequest) -> Result<Uri, Response> {
    let (mut parts, _) = asked.into_parts();
    let path = RawPathParams::from_request_parts(&mut parts, &()).await.map_err(IntoResponse::into_response)?;
    let mut fields = reqwest::Url::parse("http://admin/").expect("it is one");
    fields.set_query(parts.uri.query());
    fields.query_pairs_mut().extend_pairs(path.iter());
    fields.as_str().parse().map_err(|_| StatusCode::BAD_REQUEST.into_response())
}

/// An error as a command reads it.
#[derive(Serialize, Deserialize)]
pub(crate) struct ErrorBody {
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
        (status, Json(ErrorBody { error: self.to_string() })).into_response()
    }
}
