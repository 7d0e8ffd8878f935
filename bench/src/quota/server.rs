//! NICE as seen from its limit: one arena for each program and shape, each with a limiter and a record of its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde::Deserialize;
use tokio::task::AbortHandle;

use super::limiter::{Limiter, Shape};

/// The longest that a request is under way before it is counted.
const UNDER_WAY: Duration = Duration::from_millis(40);

/// On whose account a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Class {
    /// A call that has just ended.
    Live,
    /// Such a call once more.
    Retry,
    /// The nightly comparison.
    Reconciliation,
    /// The replay of a date range.
    Backfill,
    /// Somebody else.
    Stranger,
}

/// A request as it was counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event {
    /// Since the server began.
    pub(super) at: Duration,
    pub(super) class: Class,
    pub(super) taken: bool,
    /// Since its work was there to be done.
    pub(super) waited: Duration,
}

/// One limiter and what it saw.
pub(super) struct Arena {
    limiter: Mutex<Limiter>,
    events: Mutex<Vec<Event>>,
    begun: Instant,
}

impl Arena {
    /// All requests so far.
    pub(super) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn asked(&self, class: Class, waited: Duration) -> bool {
        let now = Instant::now();
        let at = now - self.begun;
        let taken = self.limiter.lock().unwrap_or_else(PoisonError::into_inner).takes(now);
        // A stranger's refusals are his own.
        if taken || class != Class::Stranger {
            let event = Event { at, class, taken, waited };
            self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
        }
        taken
    }

    /// Somebody else, who asks evenly until he has his share of a window.
    pub(super) async fn stranger(self: Arc<Self>, a_window: u32, window: Duration) {
        let (begun, every) = (Instant::now(), window / a_window);
        for number in 1.. {
            tokio::time::sleep((every * number).saturating_sub(begun.elapsed())).await;
            while !self.asked(Class::Stranger, Duration::ZERO) {
                tokio::time::sleep(window / 300).await;
            }
        }
    }
}

/// The server; it ends when dropped.
pub(super) struct Server {
    /// Its root, with a slash at the end.
    pub(super) url: String,
    /// When it began.
    pub(super) begun: Instant,
    arenas: Arc<HashMap<usize, Arc<Arena>>>,
    task: AbortHandle,
}

impl Server {
    /// Serves an arena for each of these shapes, under its number.
    pub(super) async fn start(shapes: &[Shape], limit: u32, window: Duration) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let arena = |shape: &Shape| {
            let limiter = Mutex::new(Limiter::new(*shape, limit, window, begun));
            Arc::new(Arena { limiter, events: Mutex::default(), begun })
        };
        let arenas: Arc<HashMap<_, _>> = Arc::new(shapes.iter().map(arena).enumerate().collect());
        let router = Router::new().route("/{arena}", get(asked)).with_state(Arc::clone(&arenas));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let task = tokio::spawn(async move { axum::serve(listener, router).await }).abort_handle();
        Ok(Self { url, begun, arenas, task })
    }

    /// The arena of this number.
    pub(super) fn arena(&self, number: usize) -> Option<Arc<Arena>> {
        self.arenas.get(&number).cloned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug, Deserialize)]
struct Asked {
    class: Class,
    /// When its work was there to be done, in microseconds since 1970.
    due: u64,
}

async fn asked(
    State(arenas): State<Arc<HashMap<usize, Arc<Arena>>>>,
    Path(arena): Path<usize>,
    Query(asked): Query<Asked>,
) -> StatusCode {
    let under_way = UNDER_WAY.mul_f64(rand::random_range(0.0..1.0));
    tokio::time::sleep(under_way).await;
    let Some(arena) = arenas.get(&arena) else { return StatusCode::NOT_FOUND };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let waited = now.saturating_sub(Duration::from_micros(asked.due)).saturating_sub(under_way);
    match arena.asked(asked.class, waited) {
        true => StatusCode::OK,
        false => StatusCode::TOO_MANY_REQUESTS,
    }
}
