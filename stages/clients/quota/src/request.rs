//! What a process says to a budget and asks of it, and what the budget answers.

use std::time::Duration;

use model::QuotaClass;

use super::{Micros, Terms};

/// So many classes there are.
pub(super) const CLASSES: usize = QuotaClass::ALL.len();

/// Who waits in place asks again within this time; a class that was denied counts as waiting for a little longer.
pub(super) const ASKED_AGAIN: Duration = Duration::from_secs(1);

/// What a process knows of a budget's time from the turn before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witness {
    /// The budget's time then, as [`BudgetDecision::now`] said.
    pub seen: Micros,
    /// What had been withheld by then, as [`BudgetDecision::withheld`] said.
    pub withheld: Micros,
    /// The process's age before it asked.
    pub began: Duration,
    /// Its age when it had the answer.
    pub ended: Duration,
}

/// What became of a granted request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantOutcome {
    /// It never left.
    Unsent,
    /// NICE took it, or may have; at this age of the process all was over.
    Over(Duration),
    /// NICE refused it for its rate, and asks to wait for so long.
    Refused(Option<Duration>),
}

/// A granted request, and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrantReport {
    /// Under what it is settled, as [`Grant::at`] says.
    pub at: Micros,
    /// When it was granted, as [`BudgetDecision::now`] said.
    pub granted_at: Micros,
    /// For whom.
    pub class: QuotaClass,
    /// What became of it.
    pub outcome: GrantOutcome,
}

/// What a process reports to a budget, and what it asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetRequest {
    /// The limit.
    pub terms: Terms,
    /// None before the first answer.
    pub witness: Option<Witness>,
    /// What it has learned since it last asked.
    pub reports: Vec<GrantReport>,
    /// How many requests of each class wait.
    pub wanted: [u32; CLASSES],
}

impl BudgetRequest {
    /// The same after a turn of which nobody knows whether it was saved: nothing is settled twice, and what NICE
    /// refused is told again, which teaches nothing new where it was heard.
    pub fn once_more(&self) -> Self {
        let refused = self.reports.iter().filter(|report| matches!(report.outcome, GrantOutcome::Refused(_)));
        Self { reports: refused.map(|report| GrantReport { at: UNSETTLED, ..*report }).collect(), ..self.clone() }
    }
}

/// Under this nothing is settled.
pub(super) const UNSETTLED: Micros = 0;

/// Some requests that may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// For whom.
    pub class: QuotaClass,
    /// How many, one at least.
    pub count: u32,
    /// The time under which each of them is settled.
    pub at: Micros,
}

/// What the budget says.
#[derive(Debug, Clone, PartialEq)]
pub struct BudgetDecision {
    /// Its time.
    pub now: Micros,
    /// What has been withheld of it so far, because the clock was set back.
    pub withheld: Micros,
    /// Whether it must survive a crash: something was granted or refused, or the clock was set. All else may be
    /// forgotten, and makes the budget more careful.
    pub must_last: bool,
    /// What may leave once it is saved.
    pub grants: Vec<Grant>,
    /// For each class that got less than it wants: after so long it may ask again.
    pub not_before: [Option<Duration>; CLASSES],
    /// The most requests in a window, as far as NICE's refusals tell.
    pub limit_now: u32,
}
