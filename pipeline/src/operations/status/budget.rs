//! The state of a rate budget, as `status` shows it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::ApiFamily;
use quota::Usage;
use serde::{Deserialize, Serialize};

/// The state of a rate budget.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub(crate) struct BudgetStatus {
    pub(crate) family: String,
    /// Requests that may leave now.
    pub(crate) available: u32,
    /// The most in a window, by the settings.
    pub(crate) limit: u32,
    /// The most at present: less than `limit` after NICE refused a request.
    pub(crate) limit_now: u32,
    /// Requests of the present window.
    pub(crate) used: u32,
    /// The same by class.
    pub(crate) by_class: BTreeMap<String, u32>,
    /// For so long nothing is sent, where NICE refused a request just now.
    pub(crate) closed_seconds: Option<f64>,
    /// NICE's refusals since the limit was last that of the settings.
    pub(crate) refusals: u32,
    /// Until it is again, if nothing more is refused; none at full pace.
    pub(crate) full_pace_in_seconds: Option<f64>,
    /// Why the limit is where it is, in words.
    pub(crate) why: String,
}

impl BudgetStatus {
    pub(super) fn of(family: ApiFamily, usage: &Usage, now: Timestamp) -> Self {
        Self {
            family: family.as_str().to_owned(),
            available: usage.available(),
            limit: usage.limit,
            limit_now: usage.limit_now,
            used: usage.used(),
            by_class: usage.by_class.iter().map(|(class, used)| (class.as_str().to_owned(), *used)).collect(),
            closed_seconds: usage.refused.and_then(|refused| refused.closed_for).map(|left| left.as_secs_f64()),
            refusals: usage.refused.map_or(0, |refused| refused.count),
            full_pace_in_seconds: usage.refused.map(|refused| refused.full_pace_in.as_secs_f64()),
            why: usage.in_words(now),
        }
    }

    /// The same in a line.
    pub(super) fn line(&self) -> String {
        let BudgetStatus { family, available, limit, limit_now, used, .. } = self;
        let mut line = format!("{family}: {available} requests available now, {used} of {limit_now} used");
        if !self.by_class.is_empty() {
            let classes: Vec<_> = self.by_class.iter().map(|(class, used)| format!("{class} {used}")).collect();
            line.push_str(&format!(" ({})", classes.join(", ")));
        }
        if limit_now < limit {
            line.push_str(&format!(", lowered from {limit}"));
        }
        format!("{line}; {}", self.why)
    }
}
