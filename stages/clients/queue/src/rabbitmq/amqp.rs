//! Channels closed, and what the broker's refusals mean.

use lapin::{Channel, ErrorKind, types::ShortString};
use tracing::debug;

use super::RabbitError;

/// The success code of AMQP, for closing what is no longer needed.
pub(super) const OK: u16 = 200;

/// The code with which the broker refused.
pub(super) fn code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

/// Another error than a refusal of what was asked.
pub(super) fn failed(error: lapin::Error) -> RabbitError {
    RabbitError::Failed(error.to_string())
}

/// Closes a channel that did its work; one that cannot be closed goes with its connection.
pub(super) async fn close(channel: &Channel) {
    if let Err(error) = channel.close(OK, "done".into()).await {
        debug!(%error, "channel not closed");
    }
}

/// The error of a refused exchange or queue.
pub(super) fn refused(what: &str, name: &ShortString, error: lapin::Error) -> RabbitError {
    let name = format!("{what} {name}");
    match code(&error) {
        Some(406) => RabbitError::Differs { name, reason: error.to_string() },
        Some(403) => RabbitError::Forbidden { name, reason: error.to_string() },
        _ => RabbitError::Failed(format!("{name}: {error}")),
    }
}
