//! A child that takes orders on stdin and answers each with one line of JSON on stdout.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command};

use anyhow::{Context, ensure};
use serde::de::DeserializeOwned;

use crate::process::Process;

/// A running child, killed when dropped.
pub(crate) struct Lines {
    /// Its process.
    pub(crate) process: Process,
    name: String,
    orders: ChildStdin,
    answers: Option<BufReader<ChildStdout>>,
}

impl Lines {
    /// Starts it; what it says on stderr goes to `log`.
    pub(crate) fn start(name: &str, command: &Command, log: &Path) -> anyhow::Result<Self> {
        let mut process = Process::start(name, command, log, true)?;
        let (orders, answers) = (process.stdin()?, BufReader::new(process.stdout()?));
        Ok(Self { process, name: name.to_owned(), orders, answers: Some(answers) })
    }

    /// Writes one line.
    pub(crate) fn order(&mut self, order: &str) -> anyhow::Result<()> {
        writeln!(self.orders, "{order}").with_context(|| format!("order to {}", self.name))
    }

    /// Reads one line.
    pub(crate) async fn answer<T: DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let mut answers = self.answers.take().context("an answer was given up")?;
        let (answers, line) = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            let read = answers.read_line(&mut line);
            (answers, read.map(|_| line))
        })
        .await?;
        self.answers = Some(answers);
        let line = line?;
        ensure!(!line.is_empty(), "{} ended", self.name);
        serde_json::from_str(&line).with_context(|| format!("{} said {line:?}", self.name))
    }
}
