//! Results on stdout, and the last word on stderr. A reader that has gone (`| head`) is no error: the work goes on.

use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

/// How a command shows its answer: one way for all commands.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct AnswerForm {
    /// As JSON
    #[arg(long = "json")]
    pub(crate) is_json: bool,
}

impl AnswerForm {
    /// Prints the answer: as one JSON document for a script, or as a table for a person.
    pub(crate) fn print<T: Serialize + ?Sized>(self, answer: &T, table: impl FnOnce(&T) -> String) {
        match self.is_json.then(|| serde_json::to_string_pretty(answer)) {
            Some(Ok(text)) => line(text),
            Some(Err(error)) => eprintln!("nice-knovvu: {error}"),
            None => line(table(answer)),
        }
    }
}

/// Prints a result and a line break.
pub(crate) fn line(text: impl Display) {
    bytes(format!("{text}\n").as_bytes());
}

/// How long the end of a process waits for a reader of its last word.
const LAST_WORD: Duration = Duration::from_secs(2);

/// Says on stderr why the process ends. Nobody may read there: the process ends all the same.
pub(crate) fn last_word(text: String) {
    let (done, is_done) = std::sync::mpsc::sync_channel(1);
    let say = move || {
        // A reader that is gone is nothing that could be mended here.
        writeln!(std::io::stderr(), "{text}").ok();
        done.send(()).ok();
    };
    if std::thread::Builder::new().name("last-word".to_owned()).spawn(say).is_ok() {
        // Either it is said, or the time is up.
        is_done.recv_timeout(LAST_WORD).ok();
    }
}

/// Prints a result as it is.
pub(crate) fn bytes(result: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    // Nothing that could be done: the reader is gone, and stderr is for what goes wrong with the work itself.
    drop(stdout.write_all(result).and_then(|()| stdout.flush()));
}
