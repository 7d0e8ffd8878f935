//! `/api/v1`: the requests of operators, for programs that show a token.

use axum::{
    Json, Router,
    extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request as HttpRequest, State as Context},
    http::{Method, StatusCode, Uri, header},
    middleware,
    middleware::Next,
    response::{IntoResponse, Response},
    routing::{MethodFilter, on},
};
use flow::StageError;
use futures::{FutureExt, future::BoxFuture};
use serde::{Deserialize, Serialize};
use stages::{completeness::ReportError, source::ListError};

use super::AdminContext;
use crate::admission::OperatorRole;
use crate::operations::{
    AdminRequest, AdminRoute, OperationError, Operations,
    agents::{ListAgents, ReadGroup, ShowHeldReading},
    audit::ListActs,
    dead_letters::{
        DropDeadLetter, DropDeadLetters, GroupDeadLetters, ListDeadLetters, ReplayDeadLetter, ShowDeadLetter,
    },
    erase::{EraseConversation, ShowErasable},
    overview::{CountDays, FindConversations},
    personal::ShowCustomerNumber,
    proof::ListSignedDays,
    recheck::{RecheckConversation, RecheckRange},
    replays::{
        Backfill, ChangeBackfill, ListBackfills, ListReconciliations, Reconcile, ShowBackfill, ShowReconciliation,
    },
    report::ShowReport,
    status::{ShowDaemon, ShowStatus},
    trace::TraceConversation,
    verify::{ListRecorded, Verify},
};

/// Everything below `/api/v1`.
pub(super) fn router(context: &AdminContext) -> Router<AdminContext> {
    api().route_layer(middleware::from_fn_with_state(context.clone(), authorized))
}

/// A reading needs a token that may read; all else one that may act, and is written to the audit first.
async fn authorized(Context(context): Context<AdminContext>, request: HttpRequest, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let given = given.strip_prefix("Bearer ").unwrap_or_default();
    let Some((role, name)) = context.admission.of_token(given) else {
        return (StatusCode::UNAUTHORIZED, "the token is in admin.json in the state directory\n").into_response();
    };
    if request.method() == Method::GET {
        return next.run(request).await;
    }
    if role < OperatorRole::Act {
        return refused(StatusCode::FORBIDDEN, "this token may read only; show the one that may act");
    }
    let asked = format!("{} /api/v1{}", request.method(), request.uri().path());
    match context.operations.audit.record(name, "API", &asked).await {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn refused(status: StatusCode, why: &str) -> Response {
    (status, Json(ErrorBody { error: why.to_owned() })).into_response()
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
    status: ShowDaemon, ShowStatus;
    trace: TraceConversation;
    erasure: EraseConversation, ShowErasable;
    recheck: RecheckConversation, RecheckRange;
    verification: ListRecorded, Verify;
    agents: ListAgents, ShowHeldReading, ReadGroup;
    dead_letters: ListDeadLetters, GroupDeadLetters, DropDeadLetters, ShowDeadLetter, DropDeadLetter, ReplayDeadLetter;
    replays: Reconcile, ShowReconciliation, ListReconciliations, Backfill, ListBackfills, ShowBackfill, ChangeBackfill;
    report: ShowReport;
    proof: ListSignedDays;
    audit: ListActs;
    overview: CountDays, FindConversations;
    personal: ShowCustomerNumber;
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
