//! Asks the running daemon of a state directory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use reqwest::{RequestBuilder, StatusCode, Url, header};
use serde_json::Value;

use crate::admin::{AdminFile, Problem, Served};
use crate::command_error::CommandError;
use crate::doors;
use crate::operations::{
    AdminRequest, AdminRoute,
    status::{DaemonStatus, ShowDaemon},
};

/// A sync reads a whole group; everything else answers in milliseconds.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A daemon says at once who it is; another program, which has the port of one that was killed, may say nothing for
/// ever.
const ALIVE_WITHIN: Duration = Duration::from_secs(1);

/// Readiness is known without asking anybody.
const READY_WITHIN: Duration = Duration::from_secs(5);

/// A report reads up to a month of NICE's list, within its rate limit.
const LONGEST: Duration = Duration::from_secs(3600);

/// The most pages of a listing: 100,000 items. The rest comes after these are dealt with.
const MOST_PAGES: usize = 200;

/// A connection to the daemon.
pub(crate) struct AdminClient {
    http: reqwest::Client,
    base: String,
    token: String,
    /// The file with address and token.
    file: PathBuf,
}

impl AdminClient {
    /// Finds the daemon; none when no process answers (the file may be left over by one that was killed).
    pub(crate) async fn find(state_dir: &Path) -> Result<Option<Self>, CommandError> {
        let path = doors::admin_file(state_dir);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(CommandError::failed(format!("{}: {error}", path.display()))),
        };
        let Ok(AdminFile { address, token }) = serde_json::from_slice(&text) else { return Ok(None) };
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(TIMEOUT)
            .connect_timeout(Duration::from_secs(2))
            .build()
            .map_err(CommandError::failed)?;
        let client = Self { http, base: format!("http://{address}"), token, file: path };
        // Another program, or another daemon, may have been given the port of a daemon that was killed: only ours knows
        // the token.
        let asked =
            client.http.get(client.url(ShowDaemon::ROUTE.path)).bearer_auth(&client.token).timeout(ALIVE_WITHIN);
        let Ok(answer) = asked.send().await else { return Ok(None) };
        let is_ours = answer.status().is_success() && answer.json::<DaemonStatus>().await.is_ok();
        Ok(is_ours.then_some(client))
    }

    /// Whether the daemon is ready: its local state, queue and catalog work.
    pub(crate) async fn ready(&self) -> Result<(), String> {
        let answer = self.http.get(format!("{}/readyz", self.base)).timeout(READY_WITHIN).send().await;
        let answer = answer.map_err(|error| format!("does not answer: {error}"))?;
        match answer.status() {
            StatusCode::OK => Ok(()),
            _ => Err(answer.text().await.unwrap_or_default().trim().to_owned()),
        }
    }

    /// Asks for one thing that is answered at once, or not at all.
    pub(crate) async fn ask_within<R: Served>(
        &self,
        request: &R,
        patience: Duration,
    ) -> Result<R::Answer, CommandError> {
        let late = || CommandError::unreachable(format!("the daemon does not answer within {} s", patience.as_secs()));
        tokio::time::timeout(patience, self.ask(request)).await.unwrap_or_else(|_| Err(late()))
    }

    /// Asks for one thing; what has a body may take as long as it takes. Of a long listing, all pages.
    pub(crate) async fn ask<R: Served>(&self, request: &R) -> Result<R::Answer, CommandError> {
        let fields = serde_json::to_value(request).map_err(CommandError::failed)?;
        let (first, mut next) = self.answer(R::ROUTE, fields).await?;
        if next.is_none() {
            return serde_json::from_slice(&first).map_err(CommandError::failed);
        }
        let mut items: Vec<Value> = serde_json::from_slice(&first).map_err(CommandError::failed)?;
        for _ in 1..MOST_PAGES {
            let Some(page) = next.take() else { break };
            let (more, after) = self.send(self.http.get(page)).await?;
            items.extend(serde_json::from_slice::<Vec<Value>>(&more).map_err(CommandError::failed)?);
            next = after;
        }
        serde_json::from_value(items.into()).map_err(CommandError::failed)
    }

    /// The answer to the request with these fields, and the address of its next page.
    async fn answer(&self, route: AdminRoute, fields: Value) -> Result<(Bytes, Option<Url>), CommandError> {
        let AdminRoute { method, path, is_body } = route;
        if is_body {
            return self.send(self.http.request(method, self.url(path)).timeout(LONGEST).json(&fields)).await;
        }
        let (mut path, mut query) = (path.to_owned(), Vec::new());
        for (name, value) in fields.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            match format!("{{{name}}}") {
                place if path.contains(&place) => path = path.replace(&place, &text),
                _ => query.push((name, text)),
            }
        }
        self.send(self.http.request(method, self.url(&path)).query(&query)).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}/api/v1{path}", self.base)
    }

    async fn send(&self, request: RequestBuilder) -> Result<(Bytes, Option<Url>), CommandError> {
        let answer = request.bearer_auth(&self.token).send().await;
        let answer =
            answer.map_err(|error| CommandError::unreachable(format!("the daemon does not answer: {error}")))?;
        let status = answer.status();
        if status.is_success() {
            let link = answer.headers().get(header::LINK).and_then(|link| link.to_str().ok());
            let link = link.and_then(|link| link.strip_prefix('<')?.strip_suffix(">; rel=\"next\""));
            let next = link.map(|link| answer.url().join(link)).transpose().map_err(CommandError::failed)?;
            return Ok((answer.bytes().await.map_err(CommandError::failed)?, next));
        }
        let problem = answer.json::<Problem>().await;
        let message = problem.map_or_else(|_| format!("the daemon answered {status}"), |problem| problem.detail);
        match status {
            StatusCode::UNAUTHORIZED => Err(CommandError::failed(format!(
                "{}: left over by a daemon that is gone, and another one has its address; remove this file",
                self.file.display()
            ))),
            StatusCode::BAD_REQUEST => Err(CommandError::usage(message)),
            StatusCode::BAD_GATEWAY => Err(CommandError::unreachable(message)),
            _ => Err(CommandError::failed(message)),
        }
    }
}
