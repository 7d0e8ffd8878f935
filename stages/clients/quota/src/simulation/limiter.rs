//! How NICE may count: three shapes of the same limit, with windows that nobody is told of.

use std::collections::VecDeque;

use super::{Micros, Rate};

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
}

/// NICE as seen from its limit.
pub(super) struct Limiter {
    shape: Shape,
    limit: u32,
    window: Micros,
    begun: Micros,
    taken: VecDeque<Micros>,
    tokens: f64,
    last: Micros,
    /// Until then a part of all requests is refused, whatever the limit.
    pub(super) sick_until: Micros,
    pub(super) sick_share: f64,
    sick: f64,
}

impl Limiter {
    /// Nothing is taken yet; a fixed window has begun a while ago.
    pub(super) fn new(shape: Shape, rate: Rate, begun: Micros) -> Self {
        Self {
            shape,
            limit: rate.limit,
            window: rate.window.as_micros() as Micros,
            begun,
            taken: VecDeque::new(),
            tokens: rate.limit.into(),
            last: begun,
            sick_until: 0,
            sick_share: 0.0,
            sick: 0.0,
        }
    }

    /// Whether a request is taken that arrives now.
    pub(super) fn takes(&mut self, now: Micros) -> bool {
        if now < self.sick_until {
            self.sick += self.sick_share;
            if self.sick >= 1.0 {
                self.sick -= 1.0;
                return false;
            }
        }
        match self.shape {
            Shape::Bucket => {
                let came = (now - self.last) as f64 * f64::from(self.limit) / self.window as f64;
                self.tokens = (self.tokens + came).min(self.limit.into());
                self.last = now;
                let takes = self.tokens >= 1.0;
                self.tokens -= f64::from(u8::from(takes));
                return takes;
            }
            Shape::Fixed => {
                let number = |at: Micros| (at - self.begun) / self.window;
                self.taken.retain(|at| number(*at) == number(now));
            }
            Shape::Sliding => self.taken.retain(|at| now - *at <= self.window),
        }
        let takes = self.taken.len() < self.limit as usize;
        self.taken.extend(takes.then_some(now));
        takes
    }
}
