//! A family's quota: the throttle, the strangers who use it as well, and the record of what was asked and granted.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;

use crate::{
    clock::{Millis, millis, timestamp},
    throttle::Throttle,
};

/// Breaches kept; a client that breaks a limit all the time shall not fill the memory.
const KEPT: usize = 1000;

/// A time during which some window held more requests of the client than the limit allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaBreach {
    /// `playback` or `acd`.
    pub family: &'static str,
    /// What was too much.
    pub kind: QuotaCount,
    /// The end of the first window that held too many.
    pub at: Timestamp,
    /// The most that a window of this time held.
    pub count: usize,
    /// The highest limit in force during that window.
    pub limit: u32,
}

/// What is counted in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaCount {
    /// Requests of the client, refused ones included.
    Asked,
    /// Requests of the client that the quota let pass.
    Granted,
    /// The same and those of strangers.
    GrantedToAll,
}

/// The most that any window of a family's length has held, by what is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuotaPeaks {
    /// Requests of the client, refused ones included.
    pub asked: usize,
    /// Requests of the client that the quota let pass.
    pub granted: usize,
    /// The same and those of strangers.
    pub granted_to_all: usize,
}

/// The instants of a sliding window.
#[derive(Debug, Default)]
struct Window {
    at: VecDeque<Millis>,
    peak: usize,
    /// The place of the breach that goes on, among those kept.
    breach: Option<usize>,
}

impl Window {
    /// Adds one and returns how many the window holds.
    fn add(&mut self, now: Millis, length: Millis) -> usize {
        self.at.push_back(now);
        self.drop_old(now, length);
        self.peak = self.peak.max(self.at.len());
        self.at.len()
    }

    fn drop_old(&mut self, now: Millis, length: Millis) {
        while self.at.front().is_some_and(|first| *first <= now - length) {
            self.at.pop_front();
        }
    }
}

/// The quota of a family of requests.
#[derive(Debug)]
pub(crate) struct Quota {
    family: &'static str,
    is_strict: bool,
    throttle: Option<Throttle>,
    window: Millis,
    /// The limits in force, each from its instant on; the last one now.
    limits: VecDeque<(Millis, u32)>,
    strangers: f64,
    /// Strangers have asked up to here.
    strangers_to: Millis,
    asked: Window,
    granted: Window,
    granted_to_all: Window,
    breaches: Vec<QuotaBreach>,
}

impl Quota {
    /// A quota; without a limit nothing is refused or counted.
    pub(crate) fn new(family: &'static str, limit: Option<(u32, Duration)>, is_strict: bool, now: Millis) -> Self {
        let mut quota = Self {
            family,
            is_strict,
            throttle: None,
            window: 0,
            limits: VecDeque::new(),
            strangers: 0.0,
            strangers_to: now,
            asked: Window::default(),
            granted: Window::default(),
            granted_to_all: Window::default(),
            breaches: Vec::new(),
        };
        quota.set_limit(limit, now);
        quota
    }

    /// Puts another limit in force. What was granted in a window of the same length still counts.
    pub(crate) fn set_limit(&mut self, limit: Option<(u32, Duration)>, now: Millis) {
        self.strangers(now);
        let Some((limit, window)) = limit else {
            (self.throttle, self.limits) = (None, VecDeque::new());
            return;
        };
        if self.window != millis(window) || self.throttle.is_none() {
            self.window = millis(window);
            (self.asked.at, self.granted.at, self.granted_to_all.at) = Default::default();
            self.limits.clear();
            self.throttle = Some(match self.is_strict {
                true => Throttle::sliding(limit, window),
                false => Throttle::bucket(limit, window, now),
            });
        } else if let Some(throttle) = &mut self.throttle {
            throttle.set_limit(limit, now);
        }
        self.limits.push_back((now, limit));
    }

    /// The limit and the window now.
    pub(crate) fn limit(&self) -> Option<(u32, Duration)> {
        let &(_, limit) = self.limits.back()?;
        Some((limit, Duration::from_millis(self.window.max(0) as u64)))
    }

    /// Has strangers ask for another share of the limit.
    pub(crate) fn set_strangers(&mut self, share: f64, now: Millis) {
        self.strangers(now);
        self.strangers = share.max(0.0);
    }

    /// Counts a request of the client, granted or not.
    pub(crate) fn asked(&mut self, now: Millis) {
        if self.throttle.is_some() {
            let count = self.asked.add(now, self.window);
            self.judge(QuotaCount::Asked, count, now);
        }
    }

    /// Takes a request of the client, or says how long to wait for the next.
    pub(crate) fn take(&mut self, now: Millis) -> Result<(), Duration> {
        self.strangers(now);
        let Some(throttle) = &mut self.throttle else { return Ok(()) };
        throttle.take(now)?;
        let count = self.granted.add(now, self.window);
        let all = self.granted_to_all.add(now, self.window);
        self.judge(QuotaCount::Granted, count, now);
        self.judge(QuotaCount::GrantedToAll, all, now);
        Ok(())
    }

    /// The most that any window has held.
    pub(crate) fn peaks(&self) -> QuotaPeaks {
        QuotaPeaks { asked: self.asked.peak, granted: self.granted.peak, granted_to_all: self.granted_to_all.peak }
    }

    /// What was too much.
    pub(crate) fn breaches(&self) -> &[QuotaBreach] {
        &self.breaches
    }

    /// Strangers ask evenly, from where they were to now.
    fn strangers(&mut self, now: Millis) {
        let since = self.strangers_to.max(now - self.window); // what is older counts no more
        let rate = self.limits.back().map_or(0.0, |(_, limit)| f64::from(*limit) * self.strangers);
        let Some(throttle) = self.throttle.as_mut().filter(|_| rate > 0.0) else {
            self.strangers_to = self.strangers_to.max(now);
            return;
        };
        let step = ((self.window as f64 / rate) as Millis).max(1);
        let mut at = since + step;
        while at <= now {
            if throttle.take(at).is_ok() {
                self.granted_to_all.add(at, self.window);
            }
            at += step;
        }
        self.strangers_to = self.strangers_to.max(at - step);
    }

    /// Compares a window that ends now with the highest limit in force during it.
    fn judge(&mut self, kind: QuotaCount, count: usize, now: Millis) {
        while self.limits.get(1).is_some_and(|(from, _)| *from <= now - self.window) {
            self.limits.pop_front();
        }
        let limit = self.limits.iter().map(|(_, limit)| *limit).max().unwrap_or(0);
        let window = match kind {
            QuotaCount::Asked => &mut self.asked,
            QuotaCount::Granted => &mut self.granted,
            QuotaCount::GrantedToAll => &mut self.granted_to_all,
        };
        if count <= limit as usize {
            window.breach = None;
            return;
        }
        if let Some(breach) = window.breach.and_then(|place| self.breaches.get_mut(place)) {
            if breach.count < count {
                (breach.count, breach.limit) = (count, limit);
            }
        } else if self.breaches.len() < KEPT {
            window.breach = Some(self.breaches.len());
            self.breaches.push(QuotaBreach { family: self.family, kind, at: timestamp(now), count, limit });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(300);

    #[test]
    fn strangers_use_their_share_and_count_apart() {
        let mut quota = Quota::new("playback", Some((100, WINDOW)), true, 0);
        quota.set_strangers(0.6, 0);
        let granted = (0..100).filter(|_| quota.take(300_000).is_ok()).count();
        assert_eq!(granted, 40);
        assert_eq!(quota.peaks(), QuotaPeaks { asked: 0, granted: 40, granted_to_all: 100 });
        quota.set_strangers(0.0, 300_000);
        assert_eq!((0..100).filter(|_| quota.take(600_000).is_ok()).count(), 100);
        assert_eq!(quota.breaches(), []);
    }

    #[test]
    fn a_limit_that_falls_counts_what_was_granted_before() {
        let mut quota = Quota::new("acd", Some((10, WINDOW)), true, 0);
        assert!((0..10).all(|_| quota.take(0).is_ok()));
        quota.set_limit(Some((4, WINDOW)), 1000);
        assert!(quota.take(2000).is_err());
        assert_eq!((0..10).filter(|_| quota.take(301_000).is_ok()).count(), 4);
        quota.set_limit(Some((10, WINDOW)), 302_000);
        assert_eq!((0..10).filter(|_| quota.take(302_000).is_ok()).count(), 6);
        assert_eq!(quota.breaches(), [], "no window held more than the highest limit during it");
        assert_eq!(quota.limit(), Some((10, WINDOW)));
    }

    #[test]
    fn too_many_requests_are_one_breach_until_a_window_is_within_the_limit_again() {
        let mut quota = Quota::new("playback", Some((2, WINDOW)), true, 0);
        for at in [0, 1, 2, 3] {
            quota.asked(at);
        }
        quota.asked(400_000);
        for at in [800_000, 800_001, 800_002] {
            quota.asked(at);
        }
        let seen: Vec<_> = quota.breaches().iter().map(|one| (one.at.as_millisecond(), one.count, one.limit)).collect();
        assert_eq!(seen, [(2, 4, 2), (800_002, 3, 2)]);
    }

    #[test]
    fn a_bucket_lets_more_pass_than_its_limit_in_one_window() {
        let mut quota = Quota::new("playback", Some((10, WINDOW)), false, 0);
        assert!((0..10).all(|_| quota.take(0).is_ok()));
        assert!((1..=9).all(|turn| quota.take(turn * 30_001).is_ok()));
        assert_eq!(quota.breaches().iter().filter(|breach| breach.kind == QuotaCount::Granted).count(), 1);
        assert_eq!(quota.peaks().granted, 19);
    }
}
