//! `status` for a person: the answer first, then the figures, in 80 columns.

use catalog::ConversationCounts;
use jiff::Timestamp;
use queue::Backlog;

use super::{Status, Verdict};
use crate::style;
use crate::systems::{SystemState, SystemStatus};
use crate::tables::{self, time};

/// Columns of the names on the left.
const NAME: usize = 18;

/// Groups of dead letters that are shown.
const GROUPS: usize = 5;

/// Services that are shown.
const SERVICES: usize = 12;

/// Outcomes of stages, and the words over their columns.
const COLUMNS: [(&str, &str); 7] = [
    ("ok", "passed"),
    ("done", "done"),
    ("not_ready", "unready"),
    ("busy", "waits"),
    ("retry", "retried"),
    ("dead_letter", "dead"),
    ("handed_back", "back"),
];

/// The whole.
pub(super) fn page(status: &Status) -> String {
    let mut page = StatusText::default();
    let who = status.tenant.as_ref().map_or("every tenant", |tenant| tenant.as_str());
    let daemon = match status.started_at {
        Some(since) => format!("running since {since:.0}"),
        None => "not running here".to_owned(),
    };
    let word = status.verdict.as_str().to_uppercase();
    let word = match status.verdict {
        Verdict::Well => style::good(&word),
        Verdict::Degraded => style::warn(&word),
        Verdict::Away => style::bad(&word),
    };
    page.raw(format!("{who}: {word}  (nice-knovvu {}, {daemon})", status.version));
    for concern in &status.concerns {
        page.raw(tables::folded("  - ", concern));
    }
    page.raw(String::new());
    for system in &status.systems {
        page.system(system);
    }
    page.freshness(status);
    page.lost(status);
    page.services(status);
    page.figures(status);
    if status.started_at.is_some() {
        page.stages(status);
    }
    if !status.not_asked.is_empty() {
        page.raw(tables::folded("", &format!("as last seen, not asked now: {}", status.not_asked.join(", "))));
    }
    page.lines.join("\n")
}

/// A span of time for a person.
pub(crate) fn span(seconds: f64) -> String {
    match seconds.max(0.0) {
        seconds if seconds < 120.0 => format!("{seconds:.0} s"),
        seconds if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        seconds if seconds < 172_800.0 => format!("{:.1} h", seconds / 3600.0),
        seconds => format!("{:.1} d", seconds / 86_400.0),
    }
}

#[derive(Default)]
struct StatusText {
    lines: Vec<String>,
}

impl StatusText {
    fn raw(&mut self, line: String) {
        self.lines.push(line);
    }

    fn line(&mut self, name: &str, text: &str) {
        self.raw(tables::folded(&format!("{name:<NAME$}"), text));
    }

    fn system(&mut self, system: &SystemStatus) {
        let (name, word) = (system.name(), system.state.as_str());
        let word = match system.state {
            SystemState::Well | SystemState::BuiltIn => style::good(word),
            SystemState::Unasked => word.to_owned(),
            SystemState::Limited => style::warn(word),
            SystemState::Failing | SystemState::Away | SystemState::Refused => style::bad(word),
        };
        let since = system.since.map(|since| format!(" since {since:.0}")).unwrap_or_default();
        let reason = system.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        self.line(&name, &format!("{word}{since}{reason}"));
        if system.waiting > 0 {
            self.line("", &format!("{} calls wait for it", system.waiting));
        }
        if let Some(remedy) = &system.remedy {
            self.line("", &format!("what to do: {remedy}"));
        }
    }

    fn freshness(&mut self, status: &Status) {
        let freshness = &status.freshness;
        let text = match freshness.oldest_due_seconds {
            Some(seconds) => {
                let waits = freshness.waits_for.as_ref();
                let waits = waits.map(|system| format!(", waits for {}", system.replace('_', " "))).unwrap_or_default();
                format!("oldest call due for {}{waits}", span(seconds))
            }
            None if freshness.is_known => "no call is due".to_owned(),
            None => "not known: calls may wait on the queue, and no consumer tells of them".to_owned(),
        };
        self.line("freshness", &format!("{text} (goal {})", span(freshness.goal_seconds)));
        if let Some(at) = freshness.listed_at {
            self.line("", &format!("NICE's list last read whole {at:.0}"));
        }
    }

    fn lost(&mut self, status: &Status) {
        let count = match status.conversations {
            None => return self.line("lost", "not known: the catalog does not answer"),
            Some(counts) if counts.dead_letters == 0 => return self.line("lost", "nothing"),
            Some(counts) => counts.dead_letters,
        };
        self.line(
            "lost",
            &format!("{count} dead letters: set aside with their reason, until a person replays or drops them"),
        );
        for group in status.lost.iter().take(GROUPS) {
            self.line("", &format!("{} at {}: {}", group.count, group.stage, group.reason));
        }
        if status.lost.len() > GROUPS {
            self.line("", "… and more: nice-knovvu dead-letters list --groups");
        }
    }

    fn services(&mut self, status: &Status) {
        for (index, service) in status.services.iter().take(SERVICES).enumerate() {
            let state = match (service.is_missed, service.producer) {
                (true, _) => style::bad(&format!("silent for {}", span(service.silent_seconds))),
                (false, Some(producer)) => format!("{}; {} in flight", producer.as_str(), service.in_flight),
                (false, None) => format!("{} in flight, {} made ready", service.in_flight, service.made_ready),
            };
            let name = if index == 0 { "services" } else { "" };
            self.line(name, &format!("{}: {state}", service.name()));
        }
        if status.services.len() > SERVICES {
            self.line("", &format!("… and {} more", status.services.len() - SERVICES));
        }
    }

    fn figures(&mut self, status: &Status) {
        let inbox = status.webhook_inbox.map(|count| format!(", {count} in the webhook inbox")).unwrap_or_default();
        match status.backlog {
            Some(Backlog { live, backfill, delayed, in_flight }) => {
                let text = format!("{live} live, {backfill} backfill, {delayed} delayed, {in_flight} in flight{inbox}");
                self.line("backlog", &text);
            }
            None => self.line("backlog", &format!("not known{inbox}")),
        }
        match status.conversations {
            Some(ConversationCounts { metadata_saved, ready, no_recording, dead_letters }) => {
                let text = format!(
                    "{ready} ready, {no_recording} no recording, {metadata_saved} metadata saved, {dead_letters} dead letters"
                );
                self.line("conversations", &text);
            }
            None => self.line("conversations", "not known"),
        }
        let (active, inactive) = (status.agents_active, status.agents_inactive);
        let is_known = status.agents_last_sync.is_some() || !status.not_asked.iter().any(|name| name == "agents");
        let read = whole(status.agents_last_sync);
        let agents = is_known.then(|| format!("{active} active, {inactive} inactive; last read {read}"));
        self.line("agents", agents.as_deref().unwrap_or("not known"));
        if status.agents_missing > 0 {
            self.line("", &format!("NICE counts {} more than it names", status.agents_missing));
        }
        self.line("found up to", &format!("{} (each poll looks back to there)", whole(status.poll_watermark)));
        for budget in &status.rate_budget {
            self.line("rate budget", &budget.line());
        }
        self.line("reconciliation", &format!("last run {}", whole(status.last_reconciliation)));
        if let (Some(ids), Some(bytes)) = (status.processed_ids, status.state_disk_bytes) {
            let mib = bytes as f64 / f64::from(1 << 20);
            self.line("local state", &format!("{ids} processed ids, {mib:.1} MiB on disk"));
        }
    }

    fn stages(&mut self, status: &Status) {
        let row = |name: &str, cells: [String; 8]| {
            let cells = cells.map(|cell| format!("{cell:>7}"));
            format!("{name:<NAME$}{}", cells.concat())
        };
        let heads = std::array::from_fn(|at| if at == 0 { "now".to_owned() } else { COLUMNS[at - 1].1.to_owned() });
        self.raw(row("stage", heads));
        for stage in &status.stages {
            let count = |outcome| stage.outcomes.get(outcome).copied().unwrap_or_default().to_string();
            let cells = |at: usize| if at == 0 { stage.in_flight.to_string() } else { count(COLUMNS[at - 1].0) };
            self.raw(row(
                &stage.stage.replace('_', " ").chars().take(NAME).collect::<String>(),
                std::array::from_fn(cells),
            ));
        }
    }
}

fn whole(at: Option<Timestamp>) -> String {
    at.map_or_else(|| time(None), |at| format!("{at:.0}"))
}
