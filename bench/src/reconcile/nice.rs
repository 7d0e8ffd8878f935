//! NICE's list of completed contacts, served from memory: a page is copied, not computed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use tokio::task::AbortHandle;

use super::calls::Calls;

/// NICE answers with no more rows.
const MOST_ROWS: usize = 10_000;

/// What it served so far.
#[derive(Debug, Default)]
pub(super) struct Served {
    /// Requests for a page.
    pub(super) requests: AtomicU64,
    /// Rows in them.
    pub(super) rows: AtomicU64,
}

struct Shared {
    calls: Calls,
    heads: String,
    head: usize,
    tail: &'static str,
    served: Arc<Served>,
}

/// The server; it ends when dropped.
pub(super) struct Nice {
    /// Its root.
    pub(super) url: String,
    /// What it served.
    pub(super) served: Arc<Served>,
    task: AbortHandle,
}

impl Nice {
    /// Renders the rows and serves them.
    pub(super) async fn start(calls: &Calls, long: bool) -> anyhow::Result<Self> {
        let (heads, head) = calls.heads()?;
        let served = Arc::<Served>::default();
        let tail = Calls::tail(long);
        let shared = Shared { calls: calls.clone(), heads, head, tail, served: Arc::clone(&served) };
        let token = json!({ "access_token": "e30.e30.x", "expires_in": 36_000, "token_type": "Bearer" });
        let router = Router::new()
            .route("/authentication/v1/token/access-key", post(|| async { Json(token) }))
            .route("/inContactAPI/services/v33.0/contacts/completed", get(completed))
            .with_state(Arc::new(shared));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let task = tokio::spawn(async move { axum::serve(listener, router).await }).abort_handle();
        Ok(Self { url, served, task })
    }
}

impl Drop for Nice {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Served {
    /// Counts from here on.
    pub(super) fn forget(&self) {
        self.requests.store(0, Ordering::SeqCst);
        self.rows.store(0, Ordering::SeqCst);
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    /// Absent where calls are asked for by their last change.
    start_date: Option<Timestamp>,
    end_date: Option<Timestamp>,
    top: usize,
    skip: usize,
}

async fn completed(State(nice): State<Arc<Shared>>, Query(asked): Query<Asked>) -> Response {
    let (Some(from), Some(to)) = (asked.start_date, asked.end_date) else {
        // No call began before the range and changed in it.
        return StatusCode::NO_CONTENT.into_response();
    };
    let (first, last) = (nice.calls.place(from), nice.calls.place(to));
    let total = last.saturating_sub(first);
    let begin = first.saturating_add(asked.skip).min(last);
    let end = begin.saturating_add(asked.top.min(MOST_ROWS)).min(last);
    nice.served.rows.fetch_add((end - begin) as u64, Ordering::SeqCst);
    nice.served.requests.fetch_add(1, Ordering::SeqCst);
    if total == 0 {
        return StatusCode::NO_CONTENT.into_response();
    }
    ([(CONTENT_TYPE, "application/json")], nice.page(begin, end, total)).into_response()
}

impl Shared {
    fn page(&self, begin: usize, end: usize, total: usize) -> String {
        let mut page = String::with_capacity((end - begin) * (self.head + self.tail.len() + 1) + 100);
        page.push_str(r#"{"lastPollTime":"2026-04-01T12:00:00.000Z","totalRecords":"#);
        page.push_str(&total.to_string());
        page.push_str(r#","completedContacts":["#);
        for place in begin..end {
            if place > begin {
                page.push(',');
            }
            page.push_str(&self.heads[place * self.head..(place + 1) * self.head]);
            page.push_str(self.tail);
        }
        page.push_str("]}");
        page
    }
}

/// All pages of so many rows, as they are served.
pub(super) fn pages(calls: &Calls, long: bool, rows: usize) -> anyhow::Result<Vec<String>> {
    let (heads, head) = calls.heads()?;
    let shared = Shared { calls: calls.clone(), heads, head, tail: Calls::tail(long), served: Arc::default() };
    let listed = calls.listed as usize;
    Ok((0..listed).step_by(rows).map(|begin| shared.page(begin, listed.min(begin + rows), listed)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_in_the_slice_of_its_start_only() {
        let calls = Calls { known: 5_000, listed: 1_000, to: "2026-04-21T00:00:00Z".parse().unwrap() };
        let page = pages(&calls, true, 1_000).unwrap().remove(0);
        let page: serde_json::Value = serde_json::from_str(&page).unwrap();
        let rows = page["completedContacts"].as_array().unwrap();
        assert_eq!(rows.len(), 1_000);
        for (place, row) in rows.iter().enumerate() {
            let start: Timestamp = row["contactStartDate"].as_str().unwrap().parse().unwrap();
            assert_eq!(calls.place(start), place);
            assert!(start >= calls.from() && start < calls.to);
        }
        assert_eq!((calls.place(calls.from()), calls.place(calls.to)), (0, 1_000));
    }

    #[test]
    fn one_in_a_thousand_of_the_listed_is_missing() {
        let calls = Calls { known: 50_000, listed: 10_000, to: Timestamp::UNIX_EPOCH };
        assert_eq!(calls.missing(), 10);
        assert_eq!(calls.stored().count(), 49_990);
    }
}
