//! `report`: what became of every call that ended in a date range.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use stages::completeness::{self, CallCounts, Completeness, Exception, ReportRequest};
use stages::source::{compare::Compare, roster::Roster};
use tokio::sync::watch;
use utoipa::ToSchema;

use super::range::{check_listed, check_range};
use super::replays::doubt;
use super::{AdminRequest, AdminRoute, OperationError, ServedTenant, SingleCommand};
use crate::command_error::CommandError;
use crate::config::Need;
use crate::tables::{numbers, table, time};

/// Exceptions shown in a table; JSON has all of them.
const SHOWN: usize = 50;

/// What reports are made with.
#[derive(Clone)]
pub(crate) struct ReportOperations {
    pub(super) tenant: ServedTenant,
    pub(super) compare: Compare,
    /// A call may have begun so long before it ended.
    pub(super) longest_call: Duration,
}

/// What became of every call that ended in a range is asked for.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ShowReport {
    /// The first moment.
    pub(crate) from: Timestamp,
    /// The moment after the last.
    pub(crate) to: Timestamp,
}

impl AdminRequest for ShowReport {
    type Answer = Completeness;
    type Handler = ReportOperations;
    const ROUTE: AdminRoute = AdminRoute::post_body("/report");

    async fn fulfil(self, operations: &ReportOperations) -> Result<Completeness, OperationError> {
        let ReportOperations { tenant, compare, longest_call } = operations.clone();
        let (tenant, now) = (tenant.get()?.clone(), compare.clock.now());
        self.check(now)?;
        if compare.catalog.agents_read_at(&tenant).await?.is_none() {
            let reason = "the group was never read, so no call is known to be its; run `nice-knovvu agents sync`";
            return Err(OperationError::Refused(reason.to_owned()));
        }
        let (roster, reader) = watch::channel(Roster::default());
        Roster::replace(&roster, &compare.catalog.agents(&tenant).await?);
        let (from, to, tenants) = (self.from, self.to.min(now), compare.tenants.clone());
        let roster = reader.borrow().clone();
        Ok(completeness::report(ReportRequest { tenants, tenant, roster, compare, from, to, longest_call }).await?)
    }
}

/// A line at the width of a terminal: what is left of it stands below, further in.
fn folded(line: &str) -> Vec<String> {
    const WIDTH: usize = 80;
    if line.chars().count() <= WIDTH {
        return vec![line.to_owned()];
    }
    let indent = &line[..line.len() - line.trim_start().len()];
    let mut lines = vec![indent.to_owned()];
    for word in line.split_whitespace() {
        let last = lines.last_mut().expect("there is always one");
        let is_first = last.trim().is_empty();
        if !is_first && last.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(format!("{indent}  {word}"));
        } else {
            if !is_first {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

impl SingleCommand for ShowReport {
    const NEED: Need = Need::Nice;

    fn check(&self, now: Timestamp) -> Result<(), OperationError> {
        check_range(self.from, self.to, now)?;
        check_listed(self.from, now, "--from")
    }

    fn table(report: &Completeness) -> String {
        let mut table = table(&[
            "day (UTC)",
            "ended",
            "ready",
            "no\nrecording",
            "dead",
            "in\nflight",
            "excluded",
            "not\nlooked\nfor",
            "missing",
        ]);
        let row = |name: String, counted: &CallCounts| {
            let CallCounts {
                ended, ready, no_recording, dead, in_flight, excluded, not_looked_for_yet, missing, ..
            } = counted;
            let counts = [ended, ready, no_recording, dead, in_flight, excluded, not_looked_for_yet, missing];
            [name].into_iter().chain(counts.map(u64::to_string)).collect::<Vec<_>>()
        };
        for day in &report.days {
            table.add_row(row(day.day.to_string(), &day.counted));
        }
        table.add_row(row("total".to_owned(), &report.total));
        numbers(&mut table, 1);
        // Nine columns, in the 80 that a terminal has.
        for (place, column) in table.column_iter_mut().enumerate() {
            column.set_padding((u16::from(place > 0), 0));
        }
        let mut lines = vec![
            format!("calls of {} that ended from {} to {}", report.tenant, report.from, report.to),
            table.to_string(),
        ];
        if report.total.incomplete > 0 {
            lines.push(format!(
                "{} of the ready calls lack recordings that NICE names; `nice-knovvu recheck` asks for them again",
                report.total.incomplete
            ));
        }
        if report.unreadable > 0 {
            lines.push(format!(
                "{} listed rows cannot be read as calls; those without an id are not counted",
                report.unreadable
            ));
        }
        for exception in report.exceptions.iter().take(SHOWN) {
            let Exception { conversation_id, ended_at, what, reason } = exception;
            lines.push(format!("{conversation_id:<20} {what:<18} ended {}", time(*ended_at)));
            lines.push(format!("  {reason}"));
        }
        let left_out = report.exceptions.len().saturating_sub(SHOWN) as u64 + report.exceptions_left_out;
        if left_out > 0 {
            lines.push(format!("… and {left_out} more; --json names them"));
        }
        lines.extend(doubt(report.doubtful, report.doubt.as_deref()));
        lines.push(match report.total.missing {
            0 if report.doubtful > 0 || report.unreadable > 0 => "nothing of what can be read is missing".to_owned(),
            0 if report.total.not_looked_for_yet > 0 => "nothing is missing of what was looked for".to_owned(),
            0 => "nothing is missing".to_owned(),
            missing => format!("{missing} missing: `nice-knovvu reconcile` or `nice-knovvu backfill` replays them"),
        });
        let (before, table, after) = (&lines[..1], &lines[1..2], &lines[2..]);
        let texts = |lines: &[String]| lines.iter().flat_map(|line| folded(line)).collect::<Vec<_>>();
        [texts(before), table.to_vec(), texts(after)].concat().join("\n")
    }

    fn verdict(report: &Completeness) -> Result<(), CommandError> {
        match report.total.missing {
            0 => Ok(()),
            missing => Err(CommandError::partly(format!("{missing} calls are missing"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use stages::completeness::Day;

    use super::*;

    #[test]
    fn a_report_fits_a_terminal() {
        let at: Timestamp = "2026-04-01T09:12:44Z".parse().unwrap();
        let counted = CallCounts { ended: 123_456, ready: 123_000, dead: 456, incomplete: 7, ..CallCounts::default() };
        let exception = Exception {
            conversation_id: "698800000042".parse().unwrap(),
            ended_at: Some(at),
            what: "recordings_missing".to_owned(),
            reason: "the media host answered with one more redirect after five, and none of them led on ".repeat(3),
        };
        let report = Completeness {
            tenant: "acme".parse().unwrap(),
            from: at,
            to: at,
            at,
            days: vec![Day { day: "2026-04-01".parse().unwrap(), counted }],
            total: counted,
            exceptions: vec![exception],
            exceptions_left_out: 1,
            unreadable: 3,
            doubtful: 1,
            doubt: Some("NICE announced 1200 calls and gave 1100".to_owned()),
        };
        let text = ShowReport::table(&report);
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{}: {line}", line.chars().count());
        }
        for says in ["2026-04-01", "698800000042         recordings_missing", "\n  the media host", "led on"] {
            assert!(text.contains(says), "{says}: {text}");
        }
    }
}
