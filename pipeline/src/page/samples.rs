//! What the stages of this process did in the last minute, while somebody looks.

use std::collections::VecDeque;
use std::time::Duration;

use flow::metrics::STAGES;
use stages::metrics::Metrics;
use tokio::time::Instant;

/// Rates are of so long.
const WINDOW: Duration = Duration::from_secs(60);

/// Samples that are kept: one a second of the window.
const MOST: usize = 64;

/// What a stage has done so far.
#[derive(Debug, Clone, Copy, Default)]
struct StageCounts {
    through: u64,
    failed: u64,
}

/// What a stage does now.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct StageRate {
    /// Items that it is working on.
    pub(super) in_flight: i64,
    /// Items that it finished in a minute; none before there is a second look.
    pub(super) per_minute: Option<f64>,
    /// Failures within the last minute.
    pub(super) failed: u64,
}

/// The last minute of every stage.
#[derive(Default)]
pub(super) struct Samples {
    taken: VecDeque<(Instant, [StageCounts; STAGES.len()])>,
    in_flight: [i64; STAGES.len()],
}

impl Samples {
    /// Looks at the counters.
    pub(super) fn take(&mut self, metrics: &Metrics, now: Instant) {
        let count = |stage: &str, outcome: &str| metrics.flow.stage_items.with_label_values(&[stage, outcome]).get();
        let mut counts = [StageCounts::default(); STAGES.len()];
        for (at, stage) in STAGES.iter().enumerate() {
            counts[at] = StageCounts {
                through: count(stage, "ok") + count(stage, "done"),
                failed: count(stage, "retry") + count(stage, "dead_letter"),
            };
            self.in_flight[at] = metrics.flow.stage_in_flight.with_label_values(&[stage]).get();
        }
        // What is older than the window is of no more use, but for the newest of it: rates reach back to that.
        while self.taken.len() >= MOST || self.taken.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= WINDOW) {
            self.taken.pop_front();
        }
        self.taken.push_back((now, counts));
    }

    /// What a stage does now.
    pub(super) fn rate(&self, stage: &str) -> StageRate {
        let Some(index) = STAGES.iter().position(|name| *name == stage) else { return StageRate::default() };
        let (Some((from, first)), Some((to, last))) = (self.taken.front(), self.taken.back()) else {
            return StageRate::default();
        };
        let seconds = to.duration_since(*from).as_secs_f64();
        let through = last[index].through.saturating_sub(first[index].through) as f64;
        StageRate {
            in_flight: self.in_flight[index],
            per_minute: (seconds >= 0.5).then(|| through * 60.0 / seconds),
            failed: last[index].failed.saturating_sub(first[index].failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_last_minute() {
        let (metrics, mut samples, mut now) = (Metrics::new(), Samples::default(), Instant::now());
        let done = metrics.flow.stage_items.with_label_values(&["upload", "ok"]);
        done.inc_by(1000);
        samples.take(&metrics, now);
        assert_eq!(samples.rate("upload").per_minute, None);
        for _ in 0..300 {
            now += Duration::from_secs(1);
            done.inc_by(2);
            samples.take(&metrics, now);
        }
        assert_eq!(samples.rate("upload").per_minute, Some(120.0));
        now += Duration::from_secs(600);
        metrics.flow.stage_items.with_label_values(&["upload", "retry"]).inc();
        samples.take(&metrics, now);
        let rate = samples.rate("upload");
        assert_eq!((rate.failed, rate.per_minute), (1, Some(0.0)));
        assert!(samples.taken.len() <= MOST);
    }
}
