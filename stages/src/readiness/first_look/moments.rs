//! The moments at which recordings that were late may have appeared.
//!
//! Of a late recording it is known when it was last missing and when it was found; it appeared in between. Recordings
//! that an incident held up all appear at its end. So they are put down to as few moments as can explain them all, and
//! each moment teaches hardly more than one call does. Recordings that are slow by themselves appear at many moments.

use std::collections::VecDeque;

use jiff::Timestamp;

/// Moments that are remembered: hours of them. What was last missing before those teaches nothing.
const REMEMBERED: usize = 64;

/// The latest moments, in the order of time.
#[derive(Debug, Clone, Default)]
pub(super) struct Moments {
    latest: VecDeque<Moment>,
    /// The last one that is not remembered any more.
    forgotten: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy)]
struct Moment {
    at: Timestamp,
    /// How much is yet to be learned from it.
    room: f64,
}

impl Moments {
    /// How much of `weight` counts, of a recording that was missing at `missed_at` and found `now`.
    pub(super) fn admit(&mut self, missed_at: Timestamp, now: Timestamp, weight: f64) -> f64 {
        if self.forgotten.is_some_and(|at| missed_at < at) {
            return 0.0;
        }
        let first_that_explains = self.latest.partition_point(|moment| moment.at <= missed_at);
        if first_that_explains == self.latest.len() {
            self.latest.push_back(Moment { at: now.max(missed_at), room: 1.0 });
        }
        let Some(moment) = self.latest.get_mut(first_that_explains) else { return 0.0 };
        let counts = weight.min(moment.room);
        moment.room -= counts;
        if self.latest.len() > REMEMBERED {
            self.forgotten = self.latest.pop_front().map(|moment| moment.at);
        }
        counts
    }

    /// Lets the latest moment teach so much more. While recordings are found in time, as many others may be late as the
    /// wished share allows, at whatever moment: the two are in balance.
    pub(super) fn give_room(&mut self, weight: f64) {
        if let Some(moment) = self.latest.back_mut() {
            moment.room += weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_may_have_appeared_at_one_moment_teaches_as_much_as_one_call() {
        let mut moments = Moments::default();
        // At 1,000 all appeared that others were waiting for.
        assert_eq!(moments.admit(at(970), at(1001), 1.0), 1.0);
        for (missed_at, now) in [(900, 1020), (0, 1100), (1000, 1060), (999, 4000)] {
            assert_eq!(moments.admit(at(missed_at), at(now), 1.0), 0.0, "{missed_at} {now}");
        }
        // This one did not.
        assert_eq!(moments.admit(at(1001), at(1100), 0.25), 0.25);
        assert_eq!(moments.admit(at(1050), at(1100), 1.0), 0.75);
        assert_eq!(moments.admit(at(1000), at(2000), 1.0), 0.0, "a straggler of the first moment");
        assert_eq!(moments.admit(at(1100), at(1101), 1.0), 1.0);
    }

    #[test]
    fn the_memory_is_bounded_and_what_it_has_lost_teaches_nothing() {
        let mut moments = Moments::default();
        for second in 0..10_000 {
            assert_eq!(moments.admit(at(10 * second), at(10 * second + 10), 1.0), 1.0);
        }
        assert_eq!(moments.latest.len(), REMEMBERED);
        assert_eq!(moments.admit(at(5), at(100_001), 1.0), 0.0);
    }

    #[test]
    fn recordings_in_time_let_as_many_be_late_as_is_wished() {
        let mut moments = Moments::default();
        moments.give_room(9.0);
        assert_eq!(moments.admit(at(970), at(1001), 2.0), 1.0);
        moments.give_room(0.5);
        assert_eq!(moments.admit(at(980), at(1010), 2.0), 0.5);
        assert_eq!(moments.admit(at(990), at(1020), 2.0), 0.0);
    }

    #[test]
    fn a_clock_that_goes_back_breaks_nothing() {
        let mut moments = Moments::default();
        assert_eq!(moments.admit(at(1000), at(900), 1.0), 1.0);
        assert_eq!(moments.admit(at(100), at(200), 1.0), 0.0);
        assert_eq!(moments.admit(at(1000), at(1200), 1.0), 1.0);
    }
}
