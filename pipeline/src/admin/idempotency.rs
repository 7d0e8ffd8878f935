//! `Idempotency-Key`: an act that is asked for twice with the same key is done once.
//!
//! In: a request with a key. Out: its answer, or that of the first time. Kept in this process for a day, in bounded
//! memory: the oldest answers give way, and a restart forgets them all. An act under way never gives way, or its
//! repetition would be done beside it: where there are too many of them, a new one is refused.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{FromRequest, Request as HttpRequest},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use ring::digest::{Context, SHA256};
use runtime::task;
use tokio::time::Instant;

use super::problem::Problem;

/// The header of the key.
pub(super) const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The header that tells an answer of before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// How long an answer is kept.
const KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

/// Keys that are kept, with those of acts under way; the oldest answer gives way.
const MOST_KEYS: usize = 10_000;

/// The bytes of all answers that are kept; the oldest give way.
const MOST_BYTES: usize = 16 << 20;

/// The longest key.
const LONGEST_KEY: usize = 255;

/// When who finds no place may ask again: acts end in seconds.
const ASK_AGAIN_SECS: u16 = 5;

/// The longest answer that is kept. Those of acts are short; that of a report may be longer, and is made anew.
const LONGEST_ANSWER: usize = 1 << 20;

/// The acts that were answered lately; clones share them.
#[derive(Clone, Default)]
pub(super) struct AnsweredActs(Arc<Mutex<ActBook>>);

/// A key, and by whose token it came: two programs may choose the same one.
type ActKey = (&'static str, String);

#[derive(Default)]
struct ActBook {
    acts: HashMap<ActKey, KeyedAct>,
    /// Those that were answered, the oldest answer first: no other one is ever forgotten.
    answered: VecDeque<ActKey>,
    bytes: usize,
}

struct KeyedAct {
    /// Of the request.
    digest: Vec<u8>,
    /// None while it is under way.
    answer: Option<KeptAnswer>,
}

#[derive(Clone)]
struct KeptAnswer {
    at: Instant,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl AnsweredActs {
    /// Does what is asked, unless it was done with this key: then that answer is given again.
    ///
    /// It is done to its end, also when who asked goes away.
    pub(super) async fn once<F, A>(&self, who: &'static str, request: HttpRequest, act: A) -> Response
    where
        A: FnOnce(HttpRequest) -> F + Send + 'static,
        F: Future<Output = Response> + Send + 'static,
    {
        let key = match key(request.headers()) {
            Ok(key) => (who, key),
            Err(problem) => return problem.into_response(),
        };
        let (parts, body) = request.into_parts();
        // By its extensions it knows the longest body.
        let body = HttpRequest::from_parts(parts.clone(), body);
        let body = match Bytes::from_request(body, &()).await {
            Ok(body) => body,
            Err(refused) => return refused.into_response(),
        };
        let asked = format!("{} {}\n", parts.method, parts.uri);
        let mut digest = Context::new(&SHA256);
        digest.update(asked.as_bytes());
        digest.update(&body);
        let digest = digest.finish().as_ref().to_vec();
        if let Err(answer) = self.book().begin(key.clone(), digest, Instant::now()) {
            return *answer;
        }
        let under_way = ActUnderWay { acts: self.clone(), key };
        let request = HttpRequest::from_parts(parts, Body::from(body));
        let acting = task::spawn("keyed_act", async move { under_way.answered(act(request).await).await });
        let ended_early = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the act ended early, the log says why");
        acting.detach().await.unwrap_or_else(|_| ended_early().into_response())
    }

    fn book(&self) -> MutexGuard<'_, ActBook> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ActBook {
    /// Notes that an act begins; or the answer, where its key came before.
    fn begin(&mut self, key: ActKey, digest: Vec<u8>, now: Instant) -> Result<(), Box<Response>> {
        while self.answered.front().is_some_and(|oldest| self.is_old(oldest, now)) {
            self.forget_oldest();
        }
        let refusal = |status, why| Err(Box::new(Problem::new(status, why).into_response()));
        match self.acts.get(&key) {
            Some(act) if act.digest != digest => refusal(
                StatusCode::UNPROCESSABLE_ENTITY,
                "Idempotency-Key: it came with another request before; choose a new one for each act",
            ),
            Some(KeyedAct { answer: None, .. }) => {
                refusal(StatusCode::CONFLICT, "Idempotency-Key: this act is under way; ask again in a moment")
            }
            Some(KeyedAct { answer: Some(answer), .. }) => {
                let mut headers = answer.headers.clone();
                headers.insert(REPLAYED, HeaderValue::from_static("true"));
                Err(Box::new((answer.status, headers, answer.body.clone()).into_response()))
            }
            None => {
                while self.acts.len() >= MOST_KEYS && !self.answered.is_empty() {
                    self.forget_oldest();
                }
                if self.acts.len() >= MOST_KEYS {
                    return Err(Box::new(too_many()));
                }
                self.acts.insert(key, KeyedAct { digest, answer: None });
                Ok(())
            }
        }
    }

    fn is_old(&self, key: &ActKey, now: Instant) -> bool {
        let answer = self.acts.get(key).and_then(|act| act.answer.as_ref());
        answer.is_none_or(|answer| now.duration_since(answer.at) > KEPT_FOR)
    }

    /// Keeps the answer of an act under way.
    fn keep(&mut self, key: &ActKey, answer: KeptAnswer) {
        if let Some(act) = self.acts.get_mut(key).filter(|act| act.answer.is_none()) {
            self.bytes += answer.body.len();
            act.answer = Some(answer);
            self.answered.push_back(key.clone());
        }
        while self.bytes > MOST_BYTES && !self.answered.is_empty() {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let oldest = self.answered.pop_front().and_then(|key| self.acts.remove(&key));
        self.bytes -= oldest.and_then(|act| act.answer).map_or(0, |answer| answer.body.len());
    }

    /// An act has ended without an answer to keep.
    fn end(&mut self, key: &ActKey) {
        if self.acts.get(key).is_some_and(|act| act.answer.is_none()) {
            self.acts.remove(key);
        }
    }
}

fn too_many() -> Response {
    let why =
        format!("{MOST_KEYS} acts with an Idempotency-Key are under way; nothing was done, ask again in a moment");
    let mut problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    problem.headers_mut().insert(RETRY_AFTER, ASK_AGAIN_SECS.into());
    problem
}

/// An act under way. If it ends without an answer to keep, it is forgotten, so that it can be asked for again.
struct ActUnderWay {
    acts: AnsweredActs,
    key: ActKey,
}

impl ActUnderWay {
    /// Keeps the answer. One of a failure is not kept: the next request with the key tries again.
    async fn answered(self, response: Response) -> Response {
        let (parts, body) = response.into_parts();
        let Ok(body) = to_bytes(body, usize::MAX).await else {
            return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the answer was cut off").into_response();
        };
        if !parts.status.is_server_error() && body.len() <= LONGEST_ANSWER {
            let (status, headers) = (parts.status, parts.headers.clone());
            let answer = KeptAnswer { at: Instant::now(), status, headers, body: body.clone() };
            self.acts.book().keep(&self.key, answer);
        }
        Response::from_parts(parts, Body::from(body))
    }
}

impl Drop for ActUnderWay {
    fn drop(&mut self) {
        self.acts.book().end(&self.key);
    }
}

/// The key of a request.
fn key(headers: &HeaderMap) -> Result<String, Problem> {
    let mut keys = headers.get_all(KEY).iter();
    let key = keys.next().filter(|_| keys.next().is_none()).map(HeaderValue::as_bytes).unwrap_or_default();
    if !(1..=LONGEST_KEY).contains(&key.len()) || !key.iter().all(u8::is_ascii_graphic) {
        let rule = format!("Idempotency-Key: one of 1 to {LONGEST_KEY} visible ASCII characters, without blanks");
        return Err(Problem::new(StatusCode::BAD_REQUEST, rule));
    }
    Ok(String::from_utf8_lossy(key).into_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    fn request(key: &str, body: &str) -> HttpRequest {
        let request = HttpRequest::post("/backfills").header(KEY, key);
        request.body(Body::from(body.to_owned())).unwrap()
    }

    /// Acts, counts it, and answers with the number.
    async fn asked(
        acts: &AnsweredActs,
        done: &Arc<AtomicUsize>,
        status: StatusCode,
        key: &str,
        body: &str,
    ) -> (u16, String) {
        let done = done.clone();
        let act = move |_| async move { (status, done.fetch_add(1, Ordering::SeqCst).to_string()).into_response() };
        let response = acts.once("act token", request(key, body), act).await;
        let status = response.status().as_u16();
        let text = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(text.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn an_act_with_the_same_key_is_done_once() {
        let (acts, done) = (AnsweredActs::default(), Arc::default());
        for _ in 0..2 {
            assert_eq!(asked(&acts, &done, StatusCode::OK, "a", "one").await, (200, "0".to_owned()));
        }
        assert_eq!(asked(&acts, &done, StatusCode::OK, "a", "two").await.0, 422);
        assert_eq!(asked(&acts, &done, StatusCode::OK, "b", "two").await, (200, "1".to_owned()));
        for key in ["", "with a blank", "\u{e9}", &"a".repeat(256)] {
            assert_eq!(asked(&acts, &done, StatusCode::OK, key, "one").await.0, 400, "{key}");
        }
        let other = acts.once("another token", request("a", "two"), |_| async { StatusCode::OK.into_response() }).await;
        assert_eq!(other.status(), StatusCode::OK, "the key of another asker");
    }

    #[tokio::test]
    async fn a_refusal_is_kept_and_a_failure_is_not() {
        let (acts, done) = (AnsweredActs::default(), Arc::default());
        for _ in 0..2 {
            assert_eq!(asked(&acts, &done, StatusCode::NOT_FOUND, "a", "").await, (404, "0".to_owned()));
        }
        assert_eq!(asked(&acts, &done, StatusCode::BAD_GATEWAY, "b", "").await, (502, "1".to_owned()));
        assert_eq!(asked(&acts, &done, StatusCode::OK, "b", "").await, (200, "2".to_owned()));
    }

    #[tokio::test]
    async fn of_two_at_the_same_time_the_second_is_refused_and_the_first_goes_on_alone() {
        let acts = AnsweredActs::default();
        let (goes_on, may_go_on) = oneshot::channel::<()>();
        let act = |_| async move {
            may_go_on.await.unwrap();
            "done".into_response()
        };
        let mut first = Box::pin(acts.once("act token", request("a", ""), act));
        assert!(futures::poll!(&mut first).is_pending());
        let second = |acts: AnsweredActs| async move {
            acts.once("act token", request("a", ""), |_| async { "twice".into_response() }).await
        };
        assert_eq!(second(acts.clone()).await.status(), StatusCode::CONFLICT);
        // Who asked goes away.
        drop(first);
        goes_on.send(()).unwrap();
        let answer = loop {
            match second(acts.clone()).await {
                refused if refused.status() == StatusCode::CONFLICT => tokio::task::yield_now().await,
                answer => break answer,
            }
        };
        assert_eq!(answer.headers()[REPLAYED], "true");
        assert_eq!(to_bytes(answer.into_body(), 100).await.unwrap(), "done");
    }

    fn named(name: usize) -> ActKey {
        ("act token", name.to_string())
    }

    fn answer(at: Instant, bytes: usize) -> KeptAnswer {
        KeptAnswer { at, status: StatusCode::OK, headers: HeaderMap::new(), body: Bytes::from(vec![0; bytes]) }
    }

    #[tokio::test]
    async fn old_and_many_answers_give_way() {
        let mut book = ActBook::default();
        let now = Instant::now();
        for name in 0..MOST_KEYS + 5 {
            assert!(book.begin(named(name), Vec::new(), now).is_ok());
            book.keep(&named(name), answer(now, 1));
        }
        assert_eq!((book.acts.len(), book.answered.len(), book.bytes), (MOST_KEYS, MOST_KEYS, MOST_KEYS));
        assert!(!book.acts.contains_key(&named(4)) && book.acts.contains_key(&named(5)));
        let later = now + KEPT_FOR + Duration::from_secs(1);
        assert!(book.begin(named(0), Vec::new(), later).is_ok());
        assert_eq!((book.acts.len(), book.bytes), (1, 0));
        for name in 1..=40 {
            assert!(book.begin(named(name), Vec::new(), later).is_ok());
            book.keep(&named(name), answer(later, LONGEST_ANSWER));
        }
        assert!(book.bytes <= MOST_BYTES && book.acts.contains_key(&named(40)));
        assert!(book.acts.contains_key(&named(0)), "it is under way");
    }

    #[tokio::test]
    async fn an_act_under_way_never_gives_way_and_one_more_is_refused() {
        let mut book = ActBook::default();
        let now = Instant::now();
        let status = |begun: Result<(), Box<Response>>| begun.map_or_else(|answer| answer.status().as_u16(), |()| 0);
        assert_eq!(status(book.begin(named(0), Vec::new(), now)), 0);
        for name in 1..=MOST_KEYS {
            assert_eq!(status(book.begin(named(name), Vec::new(), now)), 0);
            book.keep(&named(name), answer(now, 1));
        }
        assert!(!book.acts.contains_key(&named(1)), "the oldest answer gave way");
        let in_two_days = now + 2 * KEPT_FOR;
        assert_eq!(status(book.begin(named(0), Vec::new(), in_two_days)), 409, "it is still under way");
        assert_eq!(book.acts.len(), 1);
        for name in 1..MOST_KEYS {
            assert_eq!(status(book.begin(named(name), Vec::new(), now)), 0);
        }
        let refused = book.begin(named(MOST_KEYS), Vec::new(), now).unwrap_err();
        assert_eq!((refused.status().as_u16(), &refused.headers()[RETRY_AFTER]), (503, &HeaderValue::from(5)));
        assert_eq!(refused.headers()["content-type"], super::super::problem::PROBLEM);
        assert_eq!(status(book.begin(named(0), Vec::new(), now)), 409, "a repetition is told what it is");
        book.end(&named(7));
        assert_eq!(status(book.begin(named(MOST_KEYS), Vec::new(), now)), 0, "there is a place again");
    }
}
