//! The demo's live view: stage by stage, on a terminal; a line every few seconds elsewhere.

use std::cell::Cell;
use std::time::Duration;

use catalog::ConversationCounts;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use stages::metrics::Metrics;
use tokio::time::Instant;

/// The stages shown, in the order of the flow.
const SHOWN: [&str; 9] = [
    "source",
    "dedupe",
    "enqueue",
    "dequeue",
    "await_recording",
    "fetch_metadata",
    "download_recording",
    "persist",
    "upload",
];

/// Time between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// The live view; it is wiped when it is dropped.
pub(super) struct ProgressView {
    lines: MultiProgress,
    calls: ProgressBar,
    stages: Vec<ProgressBar>,
    last_line: Cell<Option<Instant>>,
}

impl ProgressView {
    /// An empty view.
    pub(super) fn new() -> Self {
        let lines = MultiProgress::new();
        let plain = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressStyle::with_template("{bar:40} {pos}/{len} calls final   {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let stages = SHOWN.map(|_| lines.add(ProgressBar::no_length().with_style(plain.clone())));
        let calls = lines.add(ProgressBar::new(0).with_style(bar));
        Self { lines, calls, stages: stages.into(), last_line: Cell::new(None) }
    }

    /// Shows where the calls are.
    pub(super) fn show(&self, metrics: &Metrics, ended: u64, expected: u64, counts: &ConversationCounts) {
        let settled = counts.ready + counts.no_recording + counts.dead_letters;
        let summary = format!(
            "{ended} ended, {} ready, {} without recording, {} dead",
            counts.ready, counts.no_recording, counts.dead_letters
        );
        if self.lines.is_hidden() {
            if self.last_line.get().is_none_or(|last| last.elapsed() >= LINE_INTERVAL) {
                self.last_line.set(Some(Instant::now()));
                eprintln!("{settled}/{expected} calls final: {summary}");
            }
            return;
        }
        for (stage, line) in SHOWN.iter().zip(&self.stages) {
            let count = |outcome: &str| metrics.flow.stage_items.with_label_values(&[stage, outcome]).get();
            let in_flight = metrics.flow.stage_in_flight.with_label_values(&[stage]).get();
            line.set_message(format!(
                "{stage:<19} {:>5} passed on {:>5} dropped {:>4} not ready {:>3} retried {in_flight:>3} in flight",
                count("ok"),
                count("done"),
                count("not_ready"),
                count("retry"),
            ));
        }
        self.calls.set_length(expected);
        self.calls.set_position(settled);
        self.calls.set_message(summary);
    }
}

impl Drop for ProgressView {
    fn drop(&mut self) {
        for line in self.stages.iter().chain([&self.calls]) {
            line.abandon();
        }
    }
}
