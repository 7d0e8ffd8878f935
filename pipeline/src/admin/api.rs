//! `/api/v1`: the requests of operators, for programs that show a token.

use std::sync::LazyLock;

use axum::{
    Json, Router,
    extract::{
        DefaultBodyLimit, FromRequest, FromRequestParts, Query, RawPathParams, Request as HttpRequest,
        State as Context, rejection::JsonRejection,
    },
    http::{HeaderValue, StatusCode, Uri, header},
    middleware,
    middleware::Next,
    response::{IntoResponse, Response},
    routing::{MethodFilter, get, on},
};
use futures::{FutureExt, future::BoxFuture};
use serde_json::Value;

use super::AdminContext;
use super::description::{self, DescribedRoute};
use super::idempotency;
use super::problem::{Problem, told_as_problem, unauthorized};
use crate::admission::OperatorRole;
use crate::operations::{
    AdminRequest, AdminRoute, Operations,
    agents::{ListAgents, ReadGroup, ShowHeldReading},
    audit::ListActs,
    dead_letters::{
        DropDeadLetter, DropDeadLetters, GroupDeadLetters, ListDeadLetters, ReplayDeadLetter, ShowDeadLetter,
    },
    erase::{EraseConversation, ShowErasable},
    overview::{CountDays, FindConversations},
    paging::{AnswerPage, PageStart},
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

/// The longest body of a request; the longest that makes sense has some hundred bytes.
const LONGEST_BODY: usize = 64 * 1024;

/// The description of the routes, as other programs read it.
static DESCRIPTION: LazyLock<Value> = LazyLock::new(|| description::document(&described()));

/// The description of the API.
pub(crate) fn api_description() -> &'static Value {
    &DESCRIPTION
}

/// Everything below `/api/v1`.
pub(super) fn router(context: &AdminContext) -> Router<AdminContext> {
    // The description holds nothing that the sources do not tell: it needs no token.
    api(context)
        .route("/openapi.json", get(|| async { Json(api_description()) }))
        .fallback(|| async { StatusCode::NOT_FOUND })
        .layer(DefaultBodyLimit::max(LONGEST_BODY))
        .layer(middleware::from_fn(told_as_problem))
}

/// A reading needs a token that may read; all else one that may act, and is written to the audit first.
async fn authorized(Context(context): Context<AdminContext>, request: HttpRequest, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let given = given.strip_prefix("Bearer ").unwrap_or_default();
    let Some((role, name)) = context.admission.of_token(given) else { return unauthorized() };
    let is_reading = request.method().is_safe();
    // The message of one dead letter may tell of people, as the list of them does not.
    let tells_of_people = request.uri().path().starts_with("/dead-letters/");
    if role < OperatorRole::Act && (!is_reading || tells_of_people) {
        let why = "this token may read only; show the one that may act";
        return Problem::new(StatusCode::FORBIDDEN, why).into_response();
    }
    if is_reading {
        return next.run(request).await;
    }
    match request.headers().contains_key(idempotency::KEY) {
        true => context.answered.clone().once(name, request, move |request| acted(context, name, request, next)).await,
        false => acted(context, name, request, next).await,
    }
}

/// Writes down what is about to be done, then does it.
async fn acted(context: AdminContext, who: &str, request: HttpRequest, next: Next) -> Response {
    let asked = format!("{} /api/v1{}", request.method(), request.uri().path());
    match context.operations.audit.record(who, "API", &asked).await {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
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

        fn api(context: &AdminContext) -> Router<AdminContext> {
            Router::new()$($(.merge(route(context, <$request>::ROUTE, answer::<$request>)))+)+
        }

        /// What is described of each.
        fn described() -> Vec<DescribedRoute> {
            vec![$($(DescribedRoute::of::<$request>()),+),+]
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
fn route(context: &AdminContext, route: AdminRoute, answer: AnswerRequest) -> Router<AdminContext> {
    let filter = MethodFilter::try_from(route.method).expect("a route has a usual method");
    let handler = move |Context(context): Context<AdminContext>, asked: HttpRequest| answer(context, asked);
    // Only the route's own method: another one is no act, and nothing for the audit.
    let admitted = on(filter, handler).route_layer(middleware::from_fn_with_state(context.clone(), authorized));
    Router::new().route(route.path, admitted)
}

fn answer<R: Served>(context: AdminContext, asked: HttpRequest) -> BoxFuture<'static, Response> {
    let answering = async move {
        let handler = R::handler(&context.operations);
        if R::ROUTE.is_body {
            let request: R = serde_json::from_value(body(asked).await?).map_err(unreadable)?;
            return Ok(written(&request.fulfil(handler).await.map_err(IntoResponse::into_response)?));
        }
        let uri = fields(asked).await?;
        let Query(request) = Query::<R>::try_from_uri(&uri).map_err(IntoResponse::into_response)?;
        if !R::IS_PAGED {
            return Ok(written(&request.fulfil(handler).await.map_err(IntoResponse::into_response)?));
        }
        let Query(start) = Query::<PageStart>::try_from_uri(&uri).map_err(IntoResponse::into_response)?;
        let AnswerPage { items, next } =
            request.fulfil_page(handler, start).await.map_err(IntoResponse::into_response)?;
        Ok((next.and_then(|cursor| link(&uri, &cursor)).map(|link| [(header::LINK, link)]), written(&items))
            .into_response())
    };
    answering.map(|answer: Result<_, Response>| answer.unwrap_or_else(|refused| refused)).boxed()
}

/// The address of the next page, as it stands to that of this one.
fn link(uri: &Uri, cursor: &str) -> Option<HeaderValue> {
    let mut next = reqwest::Url::parse("http://admin/").expect("it is one");
    let query = uri.query().unwrap_or_default();
    let this = reqwest::Url::parse(&format!("http://admin/?{query}")).ok()?;
    next.query_pairs_mut()
        .extend_pairs(this.query_pairs().filter(|(name, _)| name != "cursor"))
        .append_pair("cursor", cursor);
    HeaderValue::try_from(format!("<?{}>; rel=\"next\"", next.query()?)).ok()
}

/// The body of a request that has one.
async fn body(asked: HttpRequest) -> Result<Value, Response> {
    let read = Json::from_request(asked, &()).await.map(|Json(value)| value);
    read.map_err(|refused: JsonRejection| refused.into_response())
}

fn written(answer: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(answer) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => {
            let why = format!("the answer cannot be written: {error}");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, why).into_response()
        }
    }
}

fn unreadable(error: serde_json::Error) -> Response {
    let why = format!("the request cannot be read: {error}");
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why).into_response()
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
