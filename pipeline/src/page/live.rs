//! Keeps a view live by server-sent events: a part of the page, rendered anew when it is different.

use std::convert::Infallible;
use std::time::Duration;

use axum::{
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::stream;
use tokio::time::{Instant, sleep};

use super::now as now_view;
use super::visit::Visit;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// A feed ends after this time; the browser asks again, and shows who it is.
const LONGEST: Duration = Duration::from_secs(600);

/// The feed of *Now*.
pub(super) async fn now(visit: Visit) -> Response {
    let Ok(place) = visit.context.feeds.clone().try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many feeds\n").into_response();
    };
    let begun = Instant::now();
    let feed = stream::unfold((visit, place, false), move |(mut visit, place, is_later)| async move {
        if begun.elapsed() >= LONGEST {
            return None;
        }
        if is_later {
            sleep(EVERY).await;
        }
        visit.0.now = visit.context.clock.now();
        let part = now_view::part(&visit).await.into_string();
        let event = Event::default().event("part").data(part.replace('\r', ""));
        Some((Ok::<_, Infallible>(event), (visit, place, true)))
    });
    Sse::new(feed).keep_alive(KeepAlive::default()).into_response()
}
