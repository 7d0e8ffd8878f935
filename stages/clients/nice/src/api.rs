//! API calls in our name: bearer, budget, one renewed token, and what refusals say.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
};
use std::time::Duration;

use model::{Quota, QuotaClass};
use reqwest::{StatusCode, Url, header::AUTHORIZATION};
use runtime::chance;
use serde_json::Value;

use super::NiceError;
use super::cached::CachedValue;
use super::endpoint::Endpoint;
use super::http::{ApiAnswer, Http, Reply};
use super::token::{Token, Tokens};

/// What NICE made of a POST.
#[derive(Debug)]
pub(super) enum Posted {
    /// It was answered as a GET is.
    Answered(ApiAnswer),
    /// 403, which may stand for "not now".
    Forbidden,
}

/// Sends API calls in our name.
pub(super) struct Api {
    pub(super) http: Http,
    pub(super) tokens: Tokens,
    pub(super) quota: Arc<dyn Quota>,
    /// Tokens in a row that NICE issued and never took.
    pub(super) never_taken: AtomicU32,
    /// How often NICE has refused us.
    pub(super) refusals: AtomicU64,
    /// Calls under way, but for long polls.
    pub(super) under_way: AtomicUsize,
}

/// After so many requests without an answer NICE counts as silent, until it answers one.
const SILENT_AFTER: u32 = 4;

/// So many at a time go on trying whether a silent NICE answers.
const PROBES: usize = 2;

/// Counts a call for as long as it lives.
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// So many tokens in a row must be refused from the first request on before it is a matter for a person. A token
/// that was taken and is refused later was revoked between two requests, and another will do.
const NEVER_TAKEN: u32 = 2;

impl Api {
    /// Whether NICE is silent, and enough callers wait for it as it is.
    pub(super) fn is_stuck(&self) -> bool {
        self.http.unanswered.load(Ordering::Relaxed) >= SILENT_AFTER && self.under_way.load(Ordering::Relaxed) >= PROBES
    }

    /// Asks for `url` with a bearer token, as one of `class`; a token that is refused is renewed once.
    pub(super) async fn get(&self, endpoint: Endpoint, url: &Url, class: QuotaClass) -> Result<ApiAnswer, NiceError> {
        let answer = self.reply(endpoint, url, class, None).await?.answer(endpoint);
        self.listen(endpoint, &answer);
        answer
    }

    /// Sends `body` to `url`, otherwise as [`Api::get`].
    pub(super) async fn post(
        &self,
        endpoint: Endpoint,
        url: &Url,
        class: QuotaClass,
        body: &Value,
    ) -> Result<Posted, NiceError> {
        let reply = self.reply(endpoint, url, class, Some(body)).await?;
        match reply.status {
            StatusCode::FORBIDDEN => Ok(Posted::Forbidden),
            _ => {
                let answer = reply.answer(endpoint);
                self.listen(endpoint, &answer);
                answer.map(Posted::Answered)
            }
        }
    }

    /// As [`Api::get`], for who looks at the status; a body is posted.
    pub(super) async fn reply(
        &self,
        endpoint: Endpoint,
        url: &Url,
        class: QuotaClass,
        body: Option<&Value>,
    ) -> Result<Reply, NiceError> {
        let _under_way = (!endpoint.is_long_poll()).then(|| UnderWay::new(&self.under_way));
        let reply = self.ask(endpoint, url, class, body).await;
        let refused = match &reply {
            Ok(reply) => reply.status == StatusCode::FORBIDDEN,
            Err(error) => matches!(error, NiceError::Refused { .. }),
        };
        if refused {
            self.refusals.fetch_add(1, Ordering::Relaxed);
        }
        self.listen(endpoint, &reply);
        reply
    }

    /// Tells of a refusal that a fresh token has not ended.
    pub(super) fn listen<T>(&self, endpoint: Endpoint, answer: &Result<T, NiceError>) {
        if let Err(NiceError::Refused { what }) = answer {
            let of = if what.contains(FRESH_TOKEN) || what.starts_with("token:") { Endpoint::Token } else { endpoint };
            self.http.health.refused(of, what, self.http.now());
        }
    }

    async fn ask(
        &self,
        endpoint: Endpoint,
        url: &Url,
        class: QuotaClass,
        body: Option<&Value>,
    ) -> Result<Reply, NiceError> {
        let (mut reply, mut token) = self.attempt(endpoint, url, class, body).await?;
        if reply.status == StatusCode::UNAUTHORIZED {
            self.count_refusal(&token);
            if !self.tokens.reject(&token) {
                return Err(refused(endpoint));
            }
            (reply, token) = self.attempt(endpoint, url, class, body).await?;
            if reply.status == StatusCode::UNAUTHORIZED {
                self.count_refusal(&token);
                if self.never_taken.load(Ordering::Relaxed) < NEVER_TAKEN {
                    self.tokens.reject(&token);
                    return Err(NiceError::transient(format!("{}: a renewed token was refused", endpoint.name())));
                }
                self.tokens.settle();
                return Err(refused(endpoint));
            }
        }
        token.value.mark_taken();
        self.http.health.token_taken(self.http.now());
        self.never_taken.store(0, Ordering::Relaxed);
        Ok(reply)
    }

    fn count_refusal(&self, token: &CachedValue<Token>) {
        if token.value.is_first_refusal() {
            self.never_taken.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn attempt(
        &self,
        endpoint: Endpoint,
        url: &Url,
        class: QuotaClass,
        body: Option<&Value>,
    ) -> Result<(Reply, Arc<CachedValue<Token>>), NiceError> {
        // First without the budget: while there is no token, no request of it is spent.
        let token = self.tokens.current(&self.http).await?;
        let Some(family) = endpoint.family() else {
            let request = self.http.request(endpoint, url, body)?.header(AUTHORIZATION, token.value.bearer());
            return Ok((self.http.send(endpoint, request).await?, token));
        };
        loop {
            let mut permit = self.quota.admit(token.value.account.as_deref(), family, class).await?;
            let token = self.tokens.current(&self.http).await?;
            let request = self.http.request(endpoint, url, body)?.header(AUTHORIZATION, token.value.bearer());
            if !permit.leave() {
                continue;
            }
            let reply = self.http.send(endpoint, request).await?;
            if reply.status == StatusCode::TOO_MANY_REQUESTS {
                permit.refused(reply.retry_after);
                // No fault of the item: it waits for the budget, which has learned of it.
                let what = format!("{}: NICE takes no more requests for now (429)", endpoint.name());
                return Err(NiceError::Quota { what, retry_after: Some(again_after(reply.retry_after)) });
            }
            return Ok((reply, token));
        }
    }
}

/// Whom NICE refused asks the budget again after this time at the latest; the budget knows when it is open again.
const LONGEST_REFUSAL: Duration = Duration::from_secs(60);

fn again_after(retry_after: Option<Duration>) -> Duration {
    let asked = retry_after.unwrap_or(Duration::from_secs(2)).max(Duration::from_secs(1)).min(LONGEST_REFUSAL);
    asked.mul_f64(chance::range(0.5..1.0)).max(Duration::from_secs(1))
}

/// What is wrong then is the token, whatever was asked for.
const FRESH_TOKEN: &str = "NICE refuses a fresh token";

fn refused(endpoint: Endpoint) -> NiceError {
    NiceError::refused(format!("{}: {FRESH_TOKEN}", endpoint.name()))
}
