//! How NICE may count: three shapes of the same limit, with windows that nobody is told of.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Tokens that come evenly, up to the limit.
    Bucket,
    /// Windows one after the other, from some moment on.
    Fixed,
    /// The last window's length, at any time.
    Sliding,
}

impl Shape {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Bucket, Self::Fixed, Self::Sliding];

    /// The name in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bucket => "token bucket",
            Self::Fixed => "fixed window",
            Self::Sliding => "sliding window",
        }
    }
}

/// A limit.
#[derive(Debug)]
pub(super) struct Limiter {
    shape: Shape,
    limit: u32,
    window: Duration,
    begun: Instant,
    taken: VecDeque<Instant>,
    tokens: f64,
    last: Instant,
}

impl Limiter {
    /// Nothing is taken yet; a fixed window has begun a while ago.
    pub(super) fn new(shape: Shape, limit: u32, window: Duration, now: Instant) -> Self {
        let begun = now.checked_sub(window.mul_f64(0.26)).unwrap_or(now);
        Self { shape, limit, window, begun, taken: VecDeque::new(), tokens: limit.into(), last: now }
    }

    /// Whether a request is taken that arrives now.
    pub(super) fn takes(&mut self, now: Instant) -> bool {
        match self.shape {
            Shape::Bucket => {
                let came = (now - self.last).as_secs_f64() * f64::from(self.limit) / self.window.as_secs_f64();
                self.tokens = (self.tokens + came).min(self.limit.into());
                self.last = now;
                let takes = self.tokens >= 1.0;
                self.tokens -= f64::from(u8::from(takes));
                return takes;
            }
            Shape::Fixed => {
                let (begun, window) = (self.begun, self.window.as_nanos().max(1));
                let number = |at: Instant| (at - begun).as_nanos() / window;
                self.taken.retain(|at| number(*at) == number(now));
            }
            Shape::Sliding => self.taken.retain(|at| now - *at <= self.window),
        }
        let takes = self.taken.len() < self.limit as usize;
        self.taken.extend(takes.then_some(now));
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    /// How many of five a second are taken within so many windows.
    fn taken(shape: Shape, windows: u64) -> usize {
        let begin = Instant::now();
        let mut limiter = Limiter::new(shape, 20, WINDOW, begin);
        (0..windows * 50).filter(|n| limiter.takes(begin + Duration::from_millis(200 * n))).count()
    }

    #[test]
    fn each_shape_takes_its_limit_a_window() {
        assert!((218..=219).contains(&taken(Shape::Bucket, 10)), "a full bucket, and what came meanwhile");
        assert_eq!(taken(Shape::Fixed, 10), 10 * 20 + 13, "the first window had begun, of the last a quarter is over");
        assert_eq!(taken(Shape::Sliding, 10), 10 * 20);
    }
}
