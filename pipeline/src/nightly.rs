//! When the nightly comparison is due, and over which window.
//!
//! Pure functions of times. The hour is that of a wall clock in a time zone: where the clocks are put forward over it,
//! it comes that much later; where they are put back, it counts once, the first time.

use std::time::Duration;

use catalog::{ReplayRun, RunState};
use jiff::{SignedDuration, Span, Timestamp, civil::Time, tz::TimeZone};
use stages::source::REACH;

/// The schedule, from `[reconciliation]`.
#[derive(Debug, Clone)]
pub(crate) struct Nightly {
    /// The hour of the day.
    pub(crate) at: Time,
    /// Where that hour is told.
    pub(crate) timezone: TimeZone,
    /// How far a run looks back at least.
    pub(crate) window: Duration,
    /// A call may have begun so long before it ended.
    pub(crate) longest_call: Duration,
    /// NICE may list a call so long after its end.
    pub(crate) lateness: Duration,
    /// The age at which a call that lacks recordings is looked at once more; none for never.
    pub(crate) recheck: Option<Duration>,
}

impl Nightly {
    /// The last time at or before `now` that the comparison was due.
    pub(crate) fn last_due(&self, now: Timestamp) -> Option<Timestamp> {
        let today = now.to_zoned(self.timezone.clone()).date();
        // Tomorrow as well: where a day has no such hour, its turn may fall on the next.
        [1_i32, 0, -1, -2].into_iter().find_map(|days| {
            let day = today.checked_add(Span::new().days(days)).ok()?;
            let due = self.timezone.to_ambiguous_zoned(day.to_datetime(self.at)).compatible().ok()?.timestamp();
            (due <= now).then_some(due)
        })
    }

    /// The window of a run that is due: none if one was begun since. `runs` are the comparisons so far in any order,
    /// also those of another producer; before the first of them nothing was due until `since`, when this producer first
    /// worked. Nights that were missed are made up for in one window.
    pub(crate) fn due_window(
        &self,
        runs: &[ReplayRun],
        since: Timestamp,
        now: Timestamp,
    ) -> Option<(Timestamp, Timestamp)> {
        let due = self.last_due(now)?;
        // No clock of the past is believed beyond the present.
        let since = since.min(now);
        let runs: Vec<_> = runs.iter().filter(|run| run.started_at <= now && run.from < now).collect();
        if due <= since && runs.iter().all(|run| run.started_at >= since) {
            return None;
        }
        if runs.iter().any(|run| self.is_of_this_night(run, due, now)) {
            return None;
        }
        Some(self.window_to(&runs, since, now))
    }

    /// Whether a run is that of the night that was due; it may still be under way. A run over a shorter window is not,
    /// nor one that an earlier night has left unfinished.
    fn is_of_this_night(&self, run: &ReplayRun, due: Timestamp, now: Timestamp) -> bool {
        // A run's begin is kept less finely than its window.
        let is_whole = run.started_at.duration_since(run.from) + SignedDuration::from_secs(1) >= span(self.window);
        // What it says it has compared is from that night: a clock that ran ahead has begun runs of nights to come.
        let is_done = run.state == RunState::Done && run.to > due - SignedDuration::from_hours(12);
        // Where NICE's clock is that far behind, a run has done what it can: once an hour is enough.
        let is_fresh =
            run.state == RunState::Done && now.duration_since(run.started_at) < SignedDuration::from_hours(1);
        (is_done || is_fresh || !run.state.is_final()) && is_whole && run.started_at >= due
    }

    /// The window up to `now` that leaves no gap behind it, as far as NICE lists.
    fn window_to(&self, runs: &[&ReplayRun], since: Timestamp, now: Timestamp) -> (Timestamp, Timestamp) {
        let reach = now.checked_sub(REACH).unwrap_or(Timestamp::MIN);
        let reach = SignedDuration::try_from(self.longest_call).ok().and_then(|by| reach.checked_add(by).ok());
        let reach = reach.unwrap_or(Timestamp::MIN);
        let covered = covered(runs, reach, now).unwrap_or(since);
        let from = earlier(now, self.window).min(earlier(covered, self.lateness));
        (from.max(reach).min(now), now)
    }
}

/// Up to when calls were compared without a gap; one before `reach` is left behind.
fn covered(runs: &[&ReplayRun], reach: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let is_proven = |run: &&&ReplayRun| run.state == RunState::Done && run.to <= now;
    let mut windows: Vec<_> = runs.iter().filter(is_proven).map(|run| (run.from, proven(run))).collect();
    windows.sort_unstable();
    let mut covered = windows.first()?.1.max(reach);
    for (from, to) in windows {
        if from > covered {
            break;
        }
        covered = covered.max(to);
    }
    Some(covered)
}

/// Up to when everything of a run was final: what was on its way then is looked at again.
fn proven(run: &ReplayRun) -> Timestamp {
    run.open_since.map_or(run.to, |open| open.min(run.to)).max(run.from)
}

fn span(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

fn earlier(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_sub(by).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use catalog::RunKind;

    use super::*;

    fn nightly(at: &str, zone: &str) -> Nightly {
        Nightly {
            at: at.parse().unwrap(),
            timezone: TimeZone::get(zone).unwrap(),
            window: Duration::from_secs(24 * 3600),
            longest_call: Duration::from_secs(4 * 3600),
            lateness: Duration::from_secs(3600),
            recheck: None,
        }
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn done(from: &str, to: &str) -> ReplayRun {
        let tenant = "acme".parse().unwrap();
        let mut run = ReplayRun::new(tenant, RunKind::Reconciliation, at(from), at(to), at(to));
        run.state = RunState::Done;
        run
    }

    #[test]
    fn the_hour_is_that_of_the_zone() {
        let berlin = nightly("02:00", "Europe/Berlin");
        assert_eq!(berlin.last_due(at("2026-07-01T00:00:00Z")), Some(at("2026-07-01T00:00:00Z")));
        assert_eq!(berlin.last_due(at("2026-06-30T23:59:59Z")), Some(at("2026-06-30T00:00:00Z")));
        assert_eq!(berlin.last_due(at("2026-01-15T00:59:59Z")), Some(at("2026-01-14T01:00:00Z")));
    }

    #[test]
    fn an_hour_that_the_clocks_jump_over_comes_that_much_later() {
        // On 29 March 2026 Berlin goes from 02:00 to 03:00, which is 01:00 UTC.
        let berlin = nightly("02:30", "Europe/Berlin");
        assert_eq!(berlin.last_due(at("2026-03-29T01:29:59Z")), Some(at("2026-03-28T01:30:00Z")));
        assert_eq!(berlin.last_due(at("2026-03-29T01:30:00Z")), Some(at("2026-03-29T01:30:00Z")));
        assert_eq!(berlin.last_due(at("2026-03-30T00:30:00Z")), Some(at("2026-03-30T00:30:00Z")));
    }

    #[test]
    fn an_hour_that_comes_twice_counts_once() {
        // On 25 October 2026 Berlin has 02:30 at 00:30 UTC and again at 01:30 UTC.
        let berlin = nightly("02:30", "Europe/Berlin");
        for now in ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T23:00:00Z"] {
            assert_eq!(berlin.last_due(at(now)), Some(at("2026-10-25T00:30:00Z")), "{now}");
        }
    }

    #[test]
    fn a_day_that_a_zone_leaves_out_and_a_leap_day_are_days_like_others() {
        // Samoa had no 30 December 2011.
        let apia = nightly("12:00", "Pacific/Apia");
        let dues: std::collections::BTreeSet<_> = (0..96)
            .filter_map(|hour| apia.last_due(at("2011-12-28T23:00:00Z") + SignedDuration::from_hours(hour)))
            .collect();
        assert!(dues.len() >= 4, "{dues:?}");
        let utc = nightly("02:00", "UTC");
        assert_eq!(utc.last_due(at("2028-02-29T03:00:00Z")), Some(at("2028-02-29T02:00:00Z")));
        assert_eq!(utc.last_due(at("2028-03-01T01:00:00Z")), Some(at("2028-02-29T02:00:00Z")));
    }

    #[test]
    fn every_night_of_a_year_is_due_once_in_every_zone_at_every_hour() {
        for zone in ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"] {
            for hour in ["00:00", "00:30", "02:00", "02:30", "03:00", "23:59"] {
                let nightly = nightly(hour, zone);
                let (mut now, end) = (at("2027-12-01T12:00:00Z"), at("2028-12-01T12:00:00Z"));
                let (mut last, mut count) = (nightly.last_due(now).unwrap(), 0);
                while now < end {
                    now += SignedDuration::from_mins(30);
                    let due = nightly.last_due(now).unwrap();
                    if due != last {
                        assert!(due > last, "{zone} {hour} {now}");
                        (last, count) = (due, count + 1);
                    }
                }
                assert_eq!(count, 366, "{zone} {hour}");
            }
        }
    }

    #[test]
    fn a_night_is_compared_once() {
        let nightly = nightly("02:00", "UTC");
        let since = at("2026-03-01T12:00:00Z");
        assert_eq!(nightly.due_window(&[], since, at("2026-03-02T01:59:59Z")), None);
        let now = at("2026-03-02T02:00:07Z");
        assert_eq!(nightly.due_window(&[], since, now), Some((at("2026-03-01T02:00:07Z"), now)));
        let runs = [done("2026-03-01T02:00:07Z", "2026-03-02T02:00:07Z")];
        assert_eq!(nightly.due_window(&runs, since, at("2026-03-02T23:00:00Z")), None);
        assert!(nightly.due_window(&runs, since, at("2026-03-03T02:00:00Z")).is_some());
    }

    #[test]
    fn nights_that_were_missed_are_made_up_for_in_one_window() {
        let nightly = nightly("02:00", "UTC");
        let runs = [done("2026-03-01T02:00:00Z", "2026-03-02T02:00:00Z")];
        let now = at("2026-03-06T09:00:00Z");
        let since = at("2026-02-01T00:00:00Z");
        assert_eq!(nightly.due_window(&runs, since, now), Some((at("2026-03-02T01:00:00Z"), now)));
        // Not beyond what NICE lists.
        let late = at("2026-06-06T09:00:00Z");
        let (from, _) = nightly.due_window(&runs, since, late).unwrap();
        assert_eq!(from, at("2026-05-07T13:00:00Z"));
    }

    #[test]
    fn a_gap_that_a_shorter_run_left_is_closed_by_the_next() {
        let nightly = nightly("02:00", "UTC");
        let runs = [
            done("2026-03-05T08:00:00Z", "2026-03-05T09:00:00Z"),
            done("2026-03-01T02:00:00Z", "2026-03-02T02:00:00Z"),
        ];
        let now = at("2026-03-06T02:00:00Z");
        let (from, _) = nightly.due_window(&runs, at("2026-02-01T00:00:00Z"), now).unwrap();
        assert_eq!(from, at("2026-03-02T01:00:00Z"));
    }

    #[test]
    fn a_gap_that_nice_does_not_list_any_more_is_left_behind() {
        let nightly = nightly("02:00", "UTC");
        let runs = [
            done("2026-03-01T02:00:00Z", "2026-03-02T02:00:00Z"),
            done("2026-04-12T06:00:00Z", "2026-05-12T02:00:00Z"),
        ];
        let now = at("2026-05-13T02:00:00Z");
        let (from, _) = nightly.due_window(&runs, at("2026-02-01T00:00:00Z"), now).unwrap();
        assert_eq!(from, at("2026-05-12T01:00:00Z"), "a day, not thirty every night");
    }

    #[test]
    fn who_takes_over_makes_up_for_the_night_that_the_one_before_it_missed() {
        let nightly = nightly("02:00", "UTC");
        let runs = [done("2026-03-01T02:00:00Z", "2026-03-02T02:00:00Z")];
        let now = at("2026-03-03T02:05:00Z");
        let (from, _) = nightly.due_window(&runs, now, now).unwrap();
        assert_eq!(from, at("2026-03-02T01:00:00Z"));
    }

    #[test]
    fn a_call_that_was_on_its_way_one_night_is_looked_at_the_next() {
        let nightly = nightly("02:00", "UTC");
        let mut night = done("2026-03-01T02:00:00Z", "2026-03-02T02:00:00Z");
        night.open_since = Some(at("2026-03-01T17:00:00Z"));
        let now = at("2026-03-03T02:00:00Z");
        let (from, _) = nightly.due_window(&[night], at("2026-02-01T00:00:00Z"), now).unwrap();
        assert_eq!(from, at("2026-03-01T16:00:00Z"));
    }

    #[test]
    fn an_operators_look_at_the_last_hour_is_not_the_nights() {
        let nightly = nightly("02:00", "UTC");
        let runs = [
            done("2026-03-01T02:00:00Z", "2026-03-02T02:00:00Z"),
            done("2026-03-03T02:00:01Z", "2026-03-03T03:00:01Z"),
        ];
        assert!(nightly.due_window(&runs, at("2026-02-01T00:00:00Z"), at("2026-03-03T08:00:00Z")).is_some());
    }

    #[test]
    fn a_night_that_is_not_through_keeps_no_other_night_waiting() {
        let nightly = nightly("02:00", "UTC");
        let mut open = done("2026-03-01T02:00:00Z", "2026-03-02T02:00:00Z");
        open.state = RunState::Running;
        let since = at("2026-02-01T00:00:00Z");
        let due = |now| nightly.due_window(std::slice::from_ref(&open), since, at(now));
        assert_eq!(due("2026-03-02T23:00:00Z"), None, "no second one begins in the same night");
        let (from, _) = due("2026-03-03T02:00:00Z").unwrap();
        assert!(from <= open.from, "the next does the work of both");
    }

    #[test]
    fn what_a_clock_that_ran_ahead_has_written_is_not_believed() {
        let nightly = nightly("02:00", "UTC");
        let honest = done("2026-03-01T02:00:00Z", "2026-03-02T02:00:00Z");
        let ahead = done("2026-03-06T02:00:00Z", "2026-03-07T02:00:00Z");
        let runs = [ahead, honest];
        let now = at("2026-03-03T02:00:05Z");
        let (from, to) = nightly.due_window(&runs, at("2026-03-07T00:00:00Z"), now).unwrap();
        assert_eq!((from, to), (at("2026-03-02T01:00:00Z"), now));
        // Nor when its day has come: it listed nothing that was to come. Those that do what they can are enough.
        let mut ahead = done("2026-03-06T02:00:00Z", "2026-03-02T12:00:00Z");
        ahead.started_at = at("2026-03-07T02:00:00Z");
        let due = |now| nightly.due_window(std::slice::from_ref(&ahead), at("2026-03-01T00:00:00Z"), at(now));
        assert_eq!(due("2026-03-07T02:00:10Z"), None);
        assert!(due("2026-03-07T03:00:10Z").is_some());
    }

    #[test]
    fn what_nice_lists_late_is_compared_by_the_next_night() {
        let nightly = Nightly { lateness: Duration::from_secs(24 * 3600), ..nightly("02:00", "UTC") };
        let runs = [done("2026-03-01T02:00:00Z", "2026-03-02T02:00:00Z")];
        let now = at("2026-03-03T02:00:00Z");
        let (from, _) = nightly.due_window(&runs, at("2026-02-01T00:00:00Z"), now).unwrap();
        assert_eq!(from, at("2026-03-01T02:00:00Z"), "a call that ended then may have been listed a day later");
    }
}
