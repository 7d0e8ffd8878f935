//! What holds for every address of the page: by which name it is asked for, and the headers that bound what a browser
//! does with the answer.

use axum::{
    extract::{Request, State as Context},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::context::PageContext;

/// Nothing but what this address serves, no inline script or style, and in no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; \
                      connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

const FOREIGN_HOST: &str = "this page is not asked for by that name: ask for it as localhost or by the address, or add \
                            the name to [admin] hosts\n";

const CLOSED: &str = "the operator page is closed: it listens beyond this machine, and nobody could be told from anybody \
                      else. Set [admin] read_token_file and act_token_file, then restart.\n";

/// Refuses foreign names and a page without tokens; adds the headers.
pub(super) async fn guarded(Context(context): Context<PageContext>, request: Request, next: Next) -> Response {
    let mut answer = if !context.admission.knows_host(request.headers()) {
        (StatusCode::MISDIRECTED_REQUEST, FOREIGN_HOST).into_response()
    } else if context.admission.is_closed() {
        (StatusCode::FORBIDDEN, CLOSED).into_response()
    } else {
        next.run(request).await
    };
    bound(&mut answer);
    answer
}

/// Adds the headers to what anybody may see by any name.
pub(super) async fn bounded(request: Request, next: Next) -> Response {
    let mut answer = next.run(request).await;
    bound(&mut answer);
    answer
}

fn bound(answer: &mut Response) {
    for (name, value) in HEADERS {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
}
