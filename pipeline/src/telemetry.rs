//! Logs on stderr, as text for people or JSON for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, LogFormat};
use crate::failure::Failure;

/// The client of RabbitMQ calls a lost connection an error and writes out messages; what matters of it is logged by
/// ours. It stands before the settings, which may say otherwise.
const ALWAYS: &str = "lapin=off";

/// Starts logging. A filter that cannot be read is a mistake of the settings.
pub(crate) fn start(config: &LogConfig) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(format!("{ALWAYS},{}", config.filter)).map_err(|error| {
        Failure::usage(format!("[log] filter: {error}; write a level such as \"info\", or \"info,stages=debug\""))
    })?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    match config.format {
        LogFormat::Text => registry.with(layer.with_target(false)).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    }
    .map_err(Failure::failed)
}
