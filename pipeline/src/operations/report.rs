//! `report`: what became of every call that ended in a date range.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use stages::completeness::{self, CallCounts, Completeness, ReportRequest};
use stages::source::{compare::Compare, roster::Roster};
use tokio::sync::watch;

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
#[derive(Debug, Serialize, Deserialize)]
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
            "no recording",
            "dead",
            "in flight",
            "excluded",
            "not looked for",
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
            lines.push(format!(
                "{:<20} {:<18} ended {}  {}",
                exception.conversation_id,
                exception.what,
                time(exception.ended_at),
                exception.reason
            ));
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
        lines.join("\n")
    }

    fn verdict(report: &Completeness) -> Result<(), CommandError> {
        match report.total.missing {
            0 => Ok(()),
            missing => Err(CommandError::partly(format!("{missing} calls are missing"))),
        }
    }
}
