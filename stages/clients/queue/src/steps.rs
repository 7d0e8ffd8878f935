//! The steps in which a queue on a server delays messages: a queue, or a topic, for each.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::DELAY_STEPS;

/// The steps, by their length in milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct DelaySteps(BTreeSet<u64>);

impl DelaySteps {
    /// Those of every queue, and some that must exist exactly.
    pub(crate) fn with(asked: &[Duration]) -> Self {
        let asked = asked.iter().map(|delay| millis(*delay)).filter(|millis| *millis > 0);
        Self(DELAY_STEPS.iter().map(|seconds| seconds * 1000).chain(asked).collect())
    }

    /// The shortest step that is not shorter than the delay; none for no delay. A delay beyond the longest step waits
    /// as long as that.
    pub(crate) fn of(&self, delay: Duration) -> Option<u64> {
        let delay = millis(delay);
        self.0.range(delay..).next().or_else(|| self.0.last()).copied().filter(|_| delay > 0)
    }

    /// All of them, the shortest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.iter().copied()
    }
}

/// How a step is called: `30s`, `150ms`.
pub(crate) fn step_name(millis: u64) -> String {
    match millis % 1000 {
        0 => format!("{}s", millis / 1000),
        _ => format!("{millis}ms"),
    }
}

/// Rounded up, so that no message comes before its time.
fn millis(delay: Duration) -> u64 {
    u64::try_from(delay.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_rounded_up_to_the_next_step() {
        let steps = DelaySteps::with(&[Duration::from_millis(150)]);
        let step = |delay| steps.of(delay).map(step_name);
        assert_eq!(step(Duration::ZERO), None);
        assert_eq!(step(Duration::from_nanos(1)).as_deref(), Some("150ms"));
        assert_eq!(step(Duration::from_millis(151)).as_deref(), Some("1s"));
        assert_eq!(step(Duration::from_secs(30)).as_deref(), Some("30s"));
        assert_eq!(step(Duration::from_micros(30_000_001)).as_deref(), Some("60s"));
        assert_eq!(step(Duration::MAX).as_deref(), Some("3600s"));
    }
}
