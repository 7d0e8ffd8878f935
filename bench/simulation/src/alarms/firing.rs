//! From the moments at which a rule's expression gave something to the time in which its alert fires.

use std::collections::BTreeSet;

/// In which spans an alert fires whose expression gave something at `moments`. All is in milliseconds; evaluations are
/// `step` apart, and `last` is the last one. The end of a span is the first evaluation without it, if there is one.
///
/// It is pending from the first moment on, fires at the first evaluation that is `hold` later or more, and begins anew
/// after an evaluation without.
pub(super) fn spans(moments: &BTreeSet<i64>, step: i64, hold: i64, last: i64) -> Vec<(i64, Option<i64>)> {
    let mut spans = Vec::new();
    let mut moments = moments.iter().copied().peekable();
    while let Some(began) = moments.next() {
        let mut seen = began;
        while let Some(next) = moments.next_if_eq(&(seen + step)) {
            seen = next;
        }
        let steps = (hold + step - 1) / step;
        let fires = began + steps * step;
        if fires <= seen {
            spans.push((fires, (seen < last).then_some(seen + step)));
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(moments: &[i64], hold: i64) -> Vec<(i64, Option<i64>)> {
        spans(&moments.iter().copied().collect(), 10, hold, 100)
    }

    #[test]
    fn an_alert_without_for_fires_at_once() {
        assert_eq!(of(&[0, 10, 30], 0), [(0, Some(20)), (30, Some(40))]);
    }

    #[test]
    fn an_alert_waits_for_as_long_as_its_rule_says() {
        assert_eq!(of(&[0, 10], 20), []);
        assert_eq!(of(&[0, 10, 20], 20), [(20, Some(30))]);
        // Between two evaluations nobody looks.
        assert_eq!(of(&[0, 10, 20], 15), [(20, Some(30))]);
    }

    #[test]
    fn a_gap_begins_the_wait_anew() {
        assert_eq!(of(&[0, 10, 30, 40, 50, 60], 20), [(50, Some(70))]);
    }

    #[test]
    fn what_fires_at_the_last_evaluation_has_no_end() {
        assert_eq!(of(&[80, 90, 100], 20), [(100, None)]);
    }
}
