//! The alternative to RabbitMQ: Fluvio.

use std::time::Duration;

use crate::QueueError;

mod cluster;
mod log;

/// The settings `[queue]` of Fluvio.
#[derive(Debug, Clone)]
pub struct FluvioOptions {
    /// `host:port` of the cluster's controller; none: what the profile says.
    pub address: Option<String>,
    /// The profile of Fluvio's own configuration that says where the cluster is, with its TLS; none: the current one.
    pub profile: Option<String>,
    /// What the names of all topics begin with.
    pub prefix: String,
    /// Into how many partitions each lane is divided: the most consumers that share it.
    pub partitions: u32,
    /// How many brokers keep each message.
    pub replication: u32,
    /// Delays that must exist exactly; others are rounded up to the next step.
    pub delays: Vec<Duration>,
    /// The name of the service, as the cluster's operators see it.
    pub service: String,
}

/// Why the cluster cannot be used. The texts name the setting and the remedy.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FluvioError {
    /// The address is none.
    #[error("[queue] url: {0}; write host:port of the cluster's controller")]
    Address(String),
    /// There is no such profile, or it cannot be used.
    #[error("[queue] profile: {0}")]
    Profile(String),
    /// The prefix cannot begin a topic's name.
    #[error("[queue] prefix: 1 to 40 letters, digits, '.', '-' and '_' for Fluvio, beginning with a letter")]
    Prefix,
    /// Nothing answers.
    #[error("[queue] url: the cluster at {address} cannot be reached: {reason}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What happened.
        reason: String,
    },
    /// Something of this name exists and is not what is needed.
    #[error(
        "the topic {name} exists with {found}, but {needed} are needed: delete it once it is empty, set {setting} to \
         what it has, or choose another [queue] prefix"
    )]
    Differs {
        /// The topic.
        name: String,
        /// What it has.
        found: String,
        /// What it must have.
        needed: String,
        /// The setting that says what it must have.
        setting: &'static str,
    },
    /// The cluster answered with another error, or not in time.
    #[error("the cluster did not do what was asked: {0}")]
    Failed(String),
}

impl From<FluvioError> for QueueError {
    fn from(error: FluvioError) -> Self {
        Self(error.to_string())
    }
}
