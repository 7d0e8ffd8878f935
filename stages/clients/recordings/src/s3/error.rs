//! Why a request failed, read from the status and S3's own code, and what the door makes of it.
//!
//! A call is never given up because of the store: whatever is wrong there, a person can mend it, and the call is
//! tried again. What only a person can mend is an alarm that names the setting.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use model::retry_after::longest_retry_after;
use runtime::Clock;
use rusoto_core::{RusotoError, request::BufferedHttpResponse};
use tokio::time::Instant;

use super::dispatcher::class;
use super::operation::Operation;
use crate::RecordingStoreError;

/// Why a request failed.
///
/// The text reaches logs and dead letters: it names what was attempted and S3's code, never a key or a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("recording store: {}: {what}", operation.name())]
pub(super) struct S3Error {
    operation: Operation,
    what: String,
    pub(super) kind: S3ErrorKind,
    /// What the store asked for, at most five minutes.
    pub(super) retry_after: Option<Duration>,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum S3ErrorKind {
    /// Send it again.
    Busy,
    /// There is no such object.
    Missing,
    /// There is no such upload: finished, or aborted by somebody.
    NoUpload,
    /// Something else lies under the key than the request asked for.
    Conflict,
    /// Only a person can mend it, or other keys.
    Refused,
    /// The store does not know how to do it.
    Unable,
    /// The same request would fail again; the whole may not.
    Rejected,
    /// A success that does not say what was done.
    Unsaid,
}

impl S3Error {
    /// Reads what rusoto made of an answer, or of there being none.
    pub(super) fn of<E>(operation: Operation, error: RusotoError<E>) -> Self {
        match error {
            RusotoError::Unknown(answer) => Self::of_answer(operation, &answer),
            RusotoError::HttpDispatch(error) => Self::of_transport(operation, &error.to_string()),
            RusotoError::Credentials(error) => Self::new(operation, S3ErrorKind::Refused, error.message),
            RusotoError::ParseError(_) => Self::new(operation, S3ErrorKind::Busy, "the answer is not what S3 answers"),
            // The errors that rusoto knows by name all say that what was named is not there.
            RusotoError::Service(_) => Self::new(operation, S3ErrorKind::Missing, "not there"),
            RusotoError::Validation(_) | RusotoError::Blocking => {
                Self::new(operation, S3ErrorKind::Rejected, "the request is not valid")
            }
        }
    }

    pub(super) fn new(operation: Operation, kind: S3ErrorKind, what: impl Into<String>) -> Self {
        Self { operation, what: what.into(), kind, retry_after: None }
    }

    pub(super) fn timeout(operation: Operation) -> Self {
        Self::new(operation, S3ErrorKind::Busy, "no answer in time")
    }

    fn of_answer(operation: Operation, answer: &BufferedHttpResponse) -> Self {
        let status = answer.status.as_u16();
        let code = code(&answer.body);
        let (kind, remedy) = classify(status, code);
        let mut what = status.to_string();
        for (between, text) in [(" ", code), ("; ", remedy)] {
            if !text.is_empty() {
                what.push_str(between);
                what.push_str(text);
            }
        }
        let waits = answer.headers.get_all("retry-after").iter();
        let wait = longest_retry_after(waits.map(String::as_bytes), Clock::system().now());
        Self { operation, what, kind, retry_after: wait }
    }

    fn of_transport(operation: Operation, text: &str) -> Self {
        let (class, why) = text.split_once(": ").unwrap_or((text, ""));
        match class {
            class::CERTIFICATE => {
                let remedy = "[recordings] ca_file: add the authority that signed the certificate of the endpoint";
                Self::new(operation, S3ErrorKind::Refused, format!("the certificate is not trusted ({why}); {remedy}"))
            }
            class::UNSENDABLE => Self::new(operation, S3ErrorKind::Rejected, why),
            _ => Self::new(
                operation,
                S3ErrorKind::Busy,
                format!("[recordings] endpoint: the store cannot be reached ({class})"),
            ),
        }
    }
}

/// The text of `<Code>`: a word, or nothing.
fn code(body: &[u8]) -> &str {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map_or("", |(code, _)| code);
    let is_word = code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.');
    if is_word { code } else { "" }
}

const ID: &str = "[recordings] access_key_id: the store does not know it";
const SECRET: &str = "[recordings] secret_access_key: it does not belong to access_key_id";
const TOKEN: &str = "[recordings] session_token: it is expired or wrong, give a fresh one";
const RIGHT: &str =
    "[recordings] access_key_id, secret_access_key: wrong, or without the right to do this in the bucket";
const CLOCK: &str = "the clocks of this machine and of the store differ too much, correct them";
const BUCKET: &str = "[recordings] bucket: there is none of this name, create it or correct the name";
const PLACE: &str = "[recordings] region, endpoint: the bucket is elsewhere, and redirects are not followed";
const ENCRYPTION: &str = "[recordings] encryption, kms_key_id: the store cannot encrypt so";
const FULL: &str = "the store is full, make room or raise its quota";

fn classify(status: u16, code: &str) -> (S3ErrorKind, &'static str) {
    let refused = |remedy| (S3ErrorKind::Refused, remedy);
    match code {
        "NoSuchUpload" => (S3ErrorKind::NoUpload, ""),
        "NoSuchKey" => (S3ErrorKind::Missing, ""),
        // A body that was damaged or cut on its way, however S3 calls it.
        "BadDigest" | "IncompleteBody" | "RequestTimeout" | "XAmzContentSHA256Mismatch" => (S3ErrorKind::Busy, ""),
        "PreconditionFailed" => (S3ErrorKind::Conflict, "another recording was stored there meanwhile"),
        "OperationAborted" | "ConditionalRequestConflict" => (S3ErrorKind::Busy, ""),
        "InvalidAccessKeyId" | "NotSignedUp" => refused(ID),
        "SignatureDoesNotMatch" => refused(SECRET),
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => refused(TOKEN),
        "RequestTimeTooSkewed" | "RequestExpired" => refused(CLOCK),
        "NoSuchBucket" | "InvalidBucketName" => refused(BUCKET),
        "AuthorizationHeaderMalformed" | "PermanentRedirect" | "TemporaryRedirect" | "Redirect" => refused(PLACE),
        "QuotaExceeded" | "XMinioStorageFull" | "InsufficientStorage" => refused(FULL),
        code if code.starts_with("KMS.") || code.contains("Encryption") => refused(ENCRYPTION),
        _ => match status {
            300..=399 => refused(PLACE),
            401 | 403 => refused(RIGHT),
            404 => (S3ErrorKind::Missing, ""),
            412 => (S3ErrorKind::Conflict, "another recording was stored there meanwhile"),
            501 => (S3ErrorKind::Unable, ENCRYPTION),
            507 => refused(FULL),
            408 | 425 | 429 | 500.. => (S3ErrorKind::Busy, ""),
            _ => (S3ErrorKind::Rejected, ""),
        },
    }
}

/// How long a call waits after the store refused us: only a person can mend it.
const REFUSED_DELAY: Duration = Duration::from_secs(60);

/// The shortest time between two alarms, however many calls meet the same refusal.
const ALARM_INTERVAL: Duration = Duration::from_secs(60);

impl From<S3Error> for RecordingStoreError {
    fn from(failure: S3Error) -> Self {
        let reason = failure.to_string();
        match failure.kind {
            S3ErrorKind::Conflict => Self::Overtaken(reason),
            S3ErrorKind::Busy
            | S3ErrorKind::Missing
            | S3ErrorKind::NoUpload
            | S3ErrorKind::Rejected
            | S3ErrorKind::Unsaid => Self::Unavailable { reason, retry_after: failure.retry_after },
            S3ErrorKind::Refused | S3ErrorKind::Unable => {
                if alarm_is_due(Instant::now()) {
                    tracing::error!(reason, "the recording store refuses us, a person must look");
                }
                let retry_after = Some(failure.retry_after.unwrap_or(REFUSED_DELAY));
                Self::Unavailable { reason, retry_after }
            }
        }
    }
}

fn alarm_is_due(now: Instant) -> bool {
    static LAST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let due = last.is_none_or(|last| now.saturating_duration_since(last) >= ALARM_INTERVAL);
    if due {
        *last = Some(now);
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_classified_on_status_and_code() {
        for (status, code, kind, names) in [
            (503, "SlowDown", S3ErrorKind::Busy, ""),
            (500, "InternalError", S3ErrorKind::Busy, ""),
            (503, "", S3ErrorKind::Busy, ""),
            (429, "TooManyRequests", S3ErrorKind::Busy, ""),
            (400, "RequestTimeout", S3ErrorKind::Busy, ""),
            (400, "BadDigest", S3ErrorKind::Busy, ""),
            (409, "OperationAborted", S3ErrorKind::Busy, ""),
            (403, "InvalidAccessKeyId", S3ErrorKind::Refused, "access_key_id"),
            (403, "SignatureDoesNotMatch", S3ErrorKind::Refused, "secret_access_key"),
            (400, "ExpiredToken", S3ErrorKind::Refused, "session_token"),
            (403, "AccessDenied", S3ErrorKind::Refused, "access_key_id"),
            (403, "", S3ErrorKind::Refused, "access_key_id"),
            (403, "RequestTimeTooSkewed", S3ErrorKind::Refused, "clocks"),
            (403, "QuotaExceeded", S3ErrorKind::Refused, "full"),
            (404, "NoSuchBucket", S3ErrorKind::Refused, "bucket"),
            (400, "AuthorizationHeaderMalformed", S3ErrorKind::Refused, "region"),
            (307, "TemporaryRedirect", S3ErrorKind::Refused, "region"),
            (301, "", S3ErrorKind::Refused, "endpoint"),
            (400, "KMS.NotFoundException", S3ErrorKind::Refused, "kms_key_id"),
            (400, "ServerSideEncryptionConfigurationNotFoundError", S3ErrorKind::Refused, "encryption"),
            (404, "NoSuchUpload", S3ErrorKind::NoUpload, ""),
            (404, "NoSuchKey", S3ErrorKind::Missing, ""),
            (404, "", S3ErrorKind::Missing, ""),
            (412, "PreconditionFailed", S3ErrorKind::Conflict, "meanwhile"),
            (412, "", S3ErrorKind::Conflict, "meanwhile"),
            (501, "NotImplemented", S3ErrorKind::Unable, "encryption"),
            (400, "EntityTooSmall", S3ErrorKind::Rejected, ""),
            (400, "InvalidPart", S3ErrorKind::Rejected, ""),
        ] {
            let (found, remedy) = classify(status, code);
            assert_eq!(found, kind, "{status} {code}");
            assert!(remedy.contains(names) && remedy.is_empty() == names.is_empty(), "{status} {code}: {remedy}");
        }
    }

    #[test]
    fn no_failure_of_the_store_is_permanent() {
        for kind in [
            S3ErrorKind::Busy,
            S3ErrorKind::Missing,
            S3ErrorKind::NoUpload,
            S3ErrorKind::Refused,
            S3ErrorKind::Rejected,
            S3ErrorKind::Unsaid,
        ] {
            let error = RecordingStoreError::from(S3Error::new(Operation::Put, kind, "what"));
            assert!(matches!(&error, RecordingStoreError::Unavailable { .. }), "{error:?}");
            assert_eq!(error.to_string(), "recording store: put: what");
        }
    }

    #[test]
    fn what_another_one_stored_meanwhile_is_no_fault_of_the_store() {
        let error = RecordingStoreError::from(S3Error::new(Operation::Put, S3ErrorKind::Conflict, "what"));
        assert!(matches!(&error, RecordingStoreError::Overtaken(_)), "{error:?}");
    }

    #[test]
    fn a_code_is_a_word_or_nothing() {
        assert_eq!(code(b"<?xml?><Error><Code>SlowDown</Code></Error>"), "SlowDown");
        for bad in [&b""[..], b"<Code>", b"<Code>a b</Code>", b"<html>", b"\xff<Code>A</Code>"] {
            assert_eq!(code(bad), "", "{bad:?}");
        }
    }
}
