//! Answers, and the faults that spoil their text.

use std::{io::Write, sync::OnceLock, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use flate2::{Compression, write::GzEncoder};
use futures::stream;
use serde_json::{Map, Value, json};

use crate::{chance::Dice, service::Service};

/// What the hostile bodies are measured by: a gibibyte is more than any reader should hold.
const HUGE: usize = 1 << 30;

/// What a handler decided.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A JSON body.
    Json(u16, Value),
    /// No body.
    Empty(u16),
    /// An ACD error: the text stands in a header and the body is empty.
    Status(u16, String),
}

impl Answer {
    /// An error of a gateway in front of the service.
    pub(crate) fn gateway(status: u16, message: &str) -> Self {
        Self::Json(status, json!({ "message": message }))
    }

    /// The answer as it is.
    pub(crate) fn plain(self) -> Response {
        match self {
            Self::Json(status, body) => (code(status), axum::Json(body)).into_response(),
            Self::Empty(status) => code(status).into_response(),
            Self::Status(status, text) => {
                let mut response = code(status).into_response();
                let text = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("error"));
                response.headers_mut().insert("icStatusDescription", text);
                response
            }
        }
    }

    /// The answer with the faults that a JSON answer of the service may have.
    pub(crate) fn spoiled(self, service: &Service) -> Response {
        let Self::Json(200, mut body) = self else { return self.plain() };
        let faults = &service.faults;
        if faults.strikes("ids as strings", |faults| faults.ids_as_strings) {
            ids_as_strings(&mut body);
        }
        if faults.strikes("unknown fields", |faults| faults.unknown_fields) {
            unknown_fields(&mut body, &mut Dice::new(service.config.seed, "unknown fields"));
        }
        if faults.strikes("gzip bomb", |faults| faults.gzip_bomb) {
            return gzip_bomb();
        }
        if faults.strikes("huge json", |faults| faults.huge_json) {
            return huge_json();
        }
        if faults.strikes("html", |faults| faults.html) {
            let page = "<!DOCTYPE html><html><body><h1>Scheduled maintenance</h1></body></html>";
            return ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response();
        }
        // Not by `Display`, which goes through a formatter byte by byte.
        let mut text = serde_json::to_string(&body).unwrap_or_default();
        if faults.strikes("truncated json", |faults| faults.truncated_json) {
            text.truncate(text.floor_char_boundary(text.len() / 2));
        }
        ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], text).into_response()
    }
}

/// The error that a surface answers with, if one is on.
pub(crate) fn server_error(service: &Service, surface: &'static str) -> Option<Response> {
    let is_limited = matches!(surface, "acd" | "playback");
    if is_limited && service.faults.strikes("throttled", |faults| faults.throttled) {
        let mut refusal = Answer::Json(429, json!({ "message": "API rate limit exceeded" })).plain();
        retry_after(service, &mut refusal, Duration::from_secs(1), false);
        return Some(refusal);
    }
    let status = service.faults.server_error(surface)?;
    let page = "<html><body>upstream error</body></html>";
    Some((code(status), [(header::CONTENT_TYPE, "text/html")], page).into_response())
}

/// Values of `Retry-After` that make no sense.
const ABSURD: [&str; 8] = [
    "-5",
    "soon",
    "99999999999999999999",
    "604800",
    "1e3",
    "0",
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "Fri, 31 Dec 9999 23:59:59 GMT",
];

/// Puts `Retry-After` on a 429, where the configuration (`always`) or a fault has it so.
pub(crate) fn retry_after(service: &Service, refusal: &mut Response, wait: Duration, always: bool) {
    let absurd = service.faults.strikes_with("absurd retry after", &ABSURD, |faults| faults.retry_after_absurd);
    if let Some(absurd) = absurd {
        refusal.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(absurd));
    } else if always || service.faults.strikes("retry after", |faults| faults.retry_after) {
        refusal.headers_mut().insert(header::RETRY_AFTER, (wait.as_secs() + 1).into());
    }
}

/// A status code.
pub(super) fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Turns every scalar into text, the way the oldest versions answered.
pub(crate) fn scalars_as_strings(value: &mut Value) {
    match value {
        Value::Number(number) => *value = Value::String(number.to_string()),
        Value::Bool(flag) => *value = Value::String(if *flag { "True" } else { "False" }.to_owned()),
        Value::Array(items) => items.iter_mut().for_each(scalars_as_strings),
        Value::Object(fields) => fields.values_mut().for_each(scalars_as_strings),
        Value::Null | Value::String(_) => {}
    }
}

/// Turns the numbers under keys that end in `id` into text.
fn ids_as_strings(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(ids_as_strings),
        Value::Object(fields) => {
            for (key, field) in fields.iter_mut() {
                match field {
                    Value::Number(number) if key.to_lowercase().ends_with("id") => {
                        *field = Value::String(number.to_string());
                    }
                    field => ids_as_strings(field),
                }
            }
        }
        _ => {}
    }
}

/// Adds fields of every JSON type to every object.
fn unknown_fields(value: &mut Value, dice: &mut Dice) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| unknown_fields(item, dice)),
        Value::Object(fields) => {
            fields.values_mut().for_each(|field| unknown_fields(field, dice));
            let odd =
                [json!(null), json!([1, "two"]), json!({ "contactId": null }), json!(-1.5e300), json!("ÿ\u{0000}")];
            fields.insert(format!("x-future{}", dice.between(0, 99)), dice.pick(&odd).clone());
        }
        _ => {}
    }
}

/// A small body that unpacks to [`HUGE`] blanks in front of nothing: as many members of a gzip file as that takes.
fn gzip_bomb() -> Response {
    const MEMBER: usize = 16 << 20;
    static PACKED: OnceLock<Bytes> = OnceLock::new();
    let packed = PACKED.get_or_init(|| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        let blanks = vec![b' '; 1 << 20];
        let written = (0..MEMBER >> 20).try_for_each(|_| encoder.write_all(&blanks));
        let member = written.and_then(|()| encoder.finish()).expect("writing to memory does not fail");
        Bytes::from(member.repeat(HUGE / MEMBER))
    });
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CONTENT_ENCODING, "gzip")];
    (headers, packed.clone()).into_response()
}

/// A JSON array of [`HUGE`] bytes, made as it is sent.
fn huge_json() -> Response {
    static PIECE: OnceLock<Bytes> = OnceLock::new();
    let piece = PIECE.get_or_init(|| Bytes::from("0,".repeat(32 * 1024))).clone();
    let pieces = HUGE / piece.len();
    let body = std::iter::once(Bytes::from_static(b"["))
        .chain(std::iter::repeat_n(piece, pieces))
        .chain(std::iter::once(Bytes::from_static(b"0]")));
    let body = Body::from_stream(stream::iter(body.map(Ok::<_, std::convert::Infallible>)));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Takes the object out of a JSON value made by `json!`.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
