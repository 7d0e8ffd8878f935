//! What is promised of the calls: one rule, from which panels and alerts take their expressions.
//!
//! Failures are a share of the calls that came. Where none came there is no share: no number on a panel, and no alert.

/// A promise: of the calls that are counted, no more than `budget` fail.
pub(crate) struct ServiceLevel {
    budget: &'static str,
    /// Calls that failed; `T` stands for the tenants that are chosen.
    failed: &'static [&'static str],
    counted: &'static str,
}

const DEAD: &str = "nice_knovvu_calls_finished_total{T,result=\"dead\"}";
const MISSED: &str = "nice_knovvu_replay_conversations_total{T,kind=\"reconciliation\",verdict=\"missing\"}";

/// Of 100 calls, 99 are ready within the goal.
pub(crate) const FRESH: ServiceLevel = ServiceLevel {
    budget: "0.01",
    failed: &["nice_knovvu_calls_ready_total{T,freshness=\"beyond_goal\"}"],
    counted: "nice_knovvu_calls_ready_total{T}",
};

/// Of 1000 calls, 999 are neither a dead letter nor missed until the night.
pub(crate) const COMPLETE: ServiceLevel =
    ServiceLevel { budget: "0.001", failed: &[DEAD, MISSED], counted: "nice_knovvu_calls_finished_total{T}" };

/// The same without what the nights find, which comes once a day.
pub(crate) const COMPLETE_BY_DAY: ServiceLevel = ServiceLevel { failed: &[DEAD], ..COMPLETE };

/// For all calls together.
pub(crate) const TOGETHER: &str = "";
/// For each tenant.
pub(crate) const BY_TENANT: &str = "by (tenant) ";

impl ServiceLevel {
    /// The share of calls that failed within a time; nothing where none was counted.
    pub(crate) fn share(&self, by: &str, within: &str) -> String {
        format!("{} / ({} > 0)", self.failures(by, within), sum(by, self.counted, within))
    }

    /// What is left of the budget of a time, from 1 to -1.
    pub(crate) fn left(&self, within: &str) -> String {
        format!("clamp_min(1 - {} / {}, -1)", self.share(TOGETHER, within), self.budget)
    }

    fn failures(&self, by: &str, within: &str) -> String {
        // A series that nobody shows counts as none.
        let none = format!("0 * {}", sum(by, self.counted, within));
        let failed = self.failed.iter().map(|failed| format!("({} or {none})", sum(by, failed, within)));
        format!("({})", failed.collect::<Vec<_>>().join(" + "))
    }

    /// The expression of an alert, as it stands in `alerts.yaml`: too fast in a long window, and still so in a short one.
    fn burns(&self, windows: &[Window]) -> String {
        let burns = windows.iter().map(|Window { long, short, times }| {
            let lines = [long, short].map(|within| {
                let share = self.share(BY_TENANT, within);
                format!("            {share} > {times} * {}\n            and\n", self.budget)
            });
            let failures = self.failures(BY_TENANT, long);
            format!("          (\n{}            {failures} > 4\n          )\n", lines.concat())
        });
        let burns = burns.collect::<Vec<_>>().join("          or\n");
        burns.replace("{T}", "").replace("{T,", "{")
    }
}

/// In which time how many times the budget is too much.
struct Window {
    long: &'static str,
    short: &'static str,
    times: &'static str,
}

const fn window(long: &'static str, short: &'static str, times: &'static str) -> Window {
    Window { long, short, times }
}

fn sum(by: &str, series: &str, within: &str) -> String {
    format!("sum {by}(increase({series}[{within}]))").replace("sum (", "sum(")
}

/// The rules of alerts with the expressions of the table in place of those that they have.
pub(crate) fn written_into(alerts: &str) -> String {
    let table = [
        ("FreshnessBurnsFast", FRESH.burns(&[window("1h", "5m", "14.4"), window("6h", "30m", "6")])),
        ("FreshnessBurnsSlowly", FRESH.burns(&[window("1d", "2h", "3"), window("3d", "6h", "1")])),
        ("CompletenessBurnsFast", COMPLETE_BY_DAY.burns(&[window("1h", "5m", "14.4"), window("6h", "30m", "6")])),
        ("CompletenessBurnsSlowly", COMPLETE.burns(&[window("3d", "1d", "1")])),
    ];
    table.into_iter().fold(alerts.to_owned(), |alerts, (name, expression)| {
        let head = format!("- alert: {name}\n        expr: |\n");
        let (before, rest) = alerts.split_once(&head).unwrap_or_else(|| panic!("alerts.yaml has no {name}"));
        let (_, after) = rest.split_once("        for: ").expect("an alert says for how long");
        format!("{before}{head}{expression}        for: {after}")
    })
}
