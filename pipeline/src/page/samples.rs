//! What the stages of all services did in the last minute, while somebody looks.

use std::collections::VecDeque;
use std::time::Duration;

use flow::metrics::STAGES;
use tokio::time::Instant;

use crate::heartbeat::StageStatus;

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
    pub(super) fn take(&mut self, stages: &[StageStatus], now: Instant) {
        let mut counts = [StageCounts::default(); STAGES.len()];
        for (at, name) in STAGES.iter().enumerate() {
            let Some(stage) = stages.iter().find(|stage| stage.stage == *name) else { continue };
            let count = |outcome: &str| stage.outcomes.get(outcome).copied().unwrap_or_default();
            counts[at] =
                StageCounts { through: count("ok") + count("done"), failed: count("retry") + count("dead_letter") };
            self.in_flight[at] = stage.in_flight;
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

    fn upload(ok: u64, retry: u64) -> [StageStatus; 1] {
        let outcomes = [("ok".to_owned(), ok), ("retry".to_owned(), retry)].into();
        [StageStatus { stage: "upload".to_owned(), in_flight: 3, outcomes }]
    }

    #[test]
    fn rates_are_of_the_last_minute() {
        let (mut samples, mut now) = (Samples::default(), Instant::now());
        samples.take(&upload(1000, 0), now);
        assert_eq!(samples.rate("upload").per_minute, None);
        for second in 1..=300 {
            now += Duration::from_secs(1);
            samples.take(&upload(1000 + 2 * second, 0), now);
        }
        let rate = samples.rate("upload");
        assert_eq!((rate.per_minute, rate.in_flight, rate.failed), (Some(120.0), 3, 0));
        now += Duration::from_secs(600);
        samples.take(&upload(1600, 1), now);
        let rate = samples.rate("upload");
        assert_eq!((rate.failed, rate.per_minute), (1, Some(0.0)));
        assert!(samples.taken.len() <= MOST);
    }
}
