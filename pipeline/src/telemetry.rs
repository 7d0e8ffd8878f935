//! Logs on stderr, as text for people or JSON for machines; and [`traces`], for a collector.
//!
//! A service writes them on a thread of their own, through a buffer with a bound: a reader that stands still, such as a
//! stuck collector, costs lines, which are counted, and never the service. A command writes them itself.

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::command_error::CommandError;
use crate::config::{LogConfig, LogFormat};

pub(crate) mod traces;

/// The clients of RabbitMQ and Fluvio call a lost connection an error and write out messages; what matters of it is
/// logged by ours. The filter of the settings comes after it and may change it.
const ALWAYS: &str = "lapin=off,fluvio=off";

/// Lines that wait for the reader: some seconds of a service that logs much, and a megabyte or two.
const BUFFERED_LINES: usize = 4096;

/// Lines that found no place.
static DROPPED: OnceLock<ErrorCounter> = OnceLock::new();

/// Writes what is left when it is dropped, for two seconds at most.
#[must_use = "lines are lost once it is dropped"]
pub(crate) struct LogWriter {
    worker: Option<WorkerGuard>,
}

/// The worker itself waits for a second; then it says so on stdout, which may be the pipe that nobody reads.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl Drop for LogWriter {
    /// On a thread of its own, so that the end of the service waits for no reader.
    fn drop(&mut self) {
        let (done, is_done) = std::sync::mpsc::sync_channel(1);
        let worker = self.worker.take();
        let last_words = move || {
            drop(worker);
            // Nobody waits any more where the time was up.
            done.send(()).ok();
        };
        if std::thread::Builder::new().name("log-end".to_owned()).spawn(last_words).is_ok() {
            // Either it is done, or the time is up: the process ends.
            is_done.recv_timeout(LAST_WORDS).ok();
        }
    }
}

/// Starts the logging of a command.
pub(crate) fn start(config: &LogConfig) -> Result<(), CommandError> {
    start_on(config, std::io::stderr)
}

/// Starts the logging of a service.
pub(crate) fn start_service(config: &LogConfig) -> Result<LogWriter, CommandError> {
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(BUFFERED_LINES).thread_name("log");
    let (writer, worker) = builder.finish(std::io::stderr());
    // Only the first one writes, as only the first one logs.
    let _counter = DROPPED.get_or_init(|| writer.error_counter());
    start_on(config, writer)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(LogWriter { worker: Some(worker) })
}

/// A panic is a line of the log like any other: by default it is written to stderr, and waits for its reader.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let at = panic.location().map(ToString::to_string).unwrap_or_default();
    let what = panic.payload_as_str().unwrap_or("of an unknown kind");
    let backtrace = std::backtrace::Backtrace::capture();
    match backtrace.status() {
        std::backtrace::BacktraceStatus::Captured => tracing::error!(path = at, error = what, %backtrace, "panicked"),
        _ => tracing::error!(path = at, error = what, "panicked"),
    }
}

/// Lines that were lost since the start.
pub(crate) fn dropped_lines() -> u64 {
    DROPPED.get().map_or(0, |dropped| dropped.dropped_lines() as u64)
}

/// The modules of this program. A module of a library needs its level: `hyper=debug`.
const MODULES: [&str; 12] = [
    "nice_knovvu",
    "stages",
    "flow",
    "nice",
    "queue",
    "catalog",
    "recordings",
    "quota",
    "database",
    "model",
    "runtime",
    "state",
];

/// Whether a word of a filter is taken for a module that there is not: a level that is misspelled would log nothing.
fn is_mistaken(word: &str) -> bool {
    let is_plain = !word.is_empty() && word.chars().all(|char| char.is_alphanumeric() || char == '_' || char == '-');
    is_plain && word.parse::<tracing_subscriber::filter::LevelFilter>().is_err() && !MODULES.contains(&word)
}

/// A filter that cannot be read is a mistake of the settings.
fn start_on<W>(config: &LogConfig, writer: W) -> Result<(), CommandError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let unusable = |fault: String| {
        CommandError::usage(format!("[log] filter: {fault}; write a level such as \"info\", or \"info,stages=debug\""))
    };
    if let Some(word) = config.filter.split(',').map(str::trim).find(|word| is_mistaken(word)) {
        return Err(unusable(format!(
            "{word:?} is neither a level (off, error, warn, info, debug, trace) nor a module of ours"
        )));
    }
    let filter =
        EnvFilter::try_new(format!("{ALWAYS},{}", config.filter)).map_err(|error| unusable(error.to_string()))?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(std::io::stderr().is_terminal());
    match config.format {
        LogFormat::Text => registry.with(layer.with_target(false)).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    }
    .map_err(CommandError::failed)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use tokio::time::Instant;

    use super::*;

    /// Set in the process that plays the daemon: its stderr is a pipe that nobody reads.
    const PLAYS_THE_DAEMON: &str = "PLAYS_THE_MUTED_DAEMON";

    #[test]
    fn neither_a_panic_nor_the_last_word_waits_for_a_reader() {
        if std::env::var_os(PLAYS_THE_DAEMON).is_some() {
            let config = LogConfig { format: LogFormat::Text, filter: "info".to_owned() };
            let log = start_service(&config).unwrap();
            // More than the pipe and the buffer hold.
            for line in 0..3 * BUFFERED_LINES {
                tracing::info!(line, "fills the pipe, and some more words so that it is soon full");
            }
            let panicking = (0..3).map(|_| std::thread::spawn(|| panic!("a poison conversation")));
            assert!(panicking.collect::<Vec<_>>().into_iter().all(|thread| thread.join().is_err()));
            drop(log);
            let _code = CommandError::failed("the last word").report();
            std::process::exit(7);
        }
        let (_unread, pipe) = std::io::pipe().unwrap();
        let mut daemon = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "telemetry::tests::neither_a_panic_nor_the_last_word_waits_for_a_reader", "--nocapture"])
            .env(PLAYS_THE_DAEMON, "yes")
            .stdout(Stdio::null())
            .stderr(pipe)
            .spawn()
            .unwrap();
        let begun = Instant::now();
        let ended = loop {
            match daemon.try_wait().unwrap() {
                None if begun.elapsed() < Duration::from_secs(60) => std::thread::sleep(Duration::from_millis(50)),
                ended => break ended,
            }
        };
        if ended.is_none() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
        assert_eq!(ended.expect("it waits for the reader").code(), Some(7));
    }
}
