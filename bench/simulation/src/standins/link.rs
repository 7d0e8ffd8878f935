//! A machine's link to a server: a request goes there, is done, and its answer comes back, if the weather lets it.
//!
//! Of what changes something there is an await between leaving and being done, and between being done and the answer:
//! whoever is killed or gives up there has asked for something that is done or is not, and does not know. A question
//! that is prompt and changes nothing has none: most of what a program asks while nothing happens is of that kind, and
//! a simulation spends its time on awaits.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use super::{Sky, Weather, lock};

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It changes nothing.
    Read,
    /// It changes nothing, and asks whether there is room.
    Probe,
    /// It changes something and needs no room.
    Change,
    /// It needs room.
    Write,
}

impl Kind {
    /// Whether it is refused where there is no room.
    fn needs_room(self) -> bool {
        matches!(self, Self::Probe | Self::Write)
    }

    /// Whether it matters if it was done.
    fn changes(self) -> bool {
        matches!(self, Self::Change | Self::Write)
    }
}

/// A request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unanswered {
    /// What whoever asked is told.
    pub reason: &'static str,
    /// Whether it may have been done all the same.
    pub may_be_done: bool,
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason)
    }
}

/// The share of requests, and of answers, that are there at once: of those that change something, and of questions.
const PROMPT: f64 = 0.9;
const PROMPT_QUESTION: f64 = 0.98;

/// How a link is in clear weather.
#[derive(Debug, Clone)]
pub struct LinkOptions {
    /// How long a request takes to the server, and the answer back, each; drawn for each.
    pub latency: Range<Duration>,
    /// Who asks waits so long for an answer.
    pub patience: Duration,
    /// What has failed and may be repeated is asked again for so long.
    pub insists: Duration,
}

impl Default for LinkOptions {
    fn default() -> Self {
        let latency = Duration::from_millis(1)..Duration::from_millis(4);
        Self { latency, patience: Duration::from_secs(15), insists: Duration::ZERO }
    }
}

impl LinkOptions {
    /// As the program is with its database.
    pub fn database() -> Self {
        Self { insists: Duration::from_secs(30), ..Self::default() }
    }

    /// As the program is with its broker.
    pub fn broker() -> Self {
        Self { patience: Duration::from_secs(10), ..Self::default() }
    }
}

/// Before a repetition, growing.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// A machine's link to one server; clones share it.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    weather: Weather,
    machine: u32,
    is_killed: Box<dyn Fn() -> bool + Send + Sync>,
    options: LinkOptions,
    chance: Mutex<StdRng>,
}

impl Link {
    /// The link of a machine, which `is_killed` speaks for. `seed` draws all that happens on it.
    pub fn new(
        weather: Weather,
        machine: u32,
        seed: u64,
        options: LinkOptions,
        is_killed: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        let chance = Mutex::new(StdRng::seed_from_u64(seed));
        Self(Arc::new(Inner { weather, machine, is_killed: Box::new(is_killed), options, chance }))
    }

    /// Sends a request, which `effect` does on the server, and waits for its answer.
    pub async fn call<T>(&self, kind: Kind, effect: impl Future<Output = T> + Send) -> Result<T, Unanswered> {
        let ((there, back), breaks) = (self.way(kind), self.breaks());
        self.travel(kind, there).await;
        let sky = self.sky();
        if sky.is_away {
            return Err(Unanswered { reason: "the connection is refused", may_be_done: false });
        }
        let is_lost = sky.is_silent || self.draw(sky.refuses);
        let is_done = !is_lost || self.draw(0.5);
        if sky.is_full && kind.needs_room() {
            return Err(Unanswered { reason: "there is no room left", may_be_done: false });
        }
        let mut waited = there;
        if sky.is_silent {
            // Whoever asks may have given up by then.
            let late = self.share_of(self.0.options.patience.saturating_sub(waited));
            self.travel(kind, late).await;
            waited += late;
        }
        let answer = match is_done {
            true => Some(effect.await),
            false => None,
        };
        if sky.is_silent || there + back > self.0.options.patience {
            self.travel(kind, self.0.options.patience.saturating_sub(waited)).await;
            return Err(Unanswered { reason: "there is no answer in time", may_be_done: true });
        }
        self.travel(kind, back).await;
        match answer {
            _ if self.breaks() != breaks || !self.sky().carries() => {
                Err(Unanswered { reason: "the connection broke", may_be_done: true })
            }
            Some(answer) if !is_lost => Ok(answer),
            answer => Err(Unanswered { reason: "the server failed", may_be_done: answer.is_some() }),
        }
    }

    /// The same for what may be repeated, as long as the link insists.
    pub async fn insist<T, Effect>(&self, kind: Kind, effect: impl Fn() -> Effect) -> Result<T, Unanswered>
    where
        Effect: Future<Output = T> + Send,
    {
        let until = Instant::now() + self.0.options.insists;
        let mut pause = FIRST_PAUSE;
        loop {
            match self.call(kind, effect()).await {
                Err(_) if Instant::now() + pause < until => tokio::time::sleep(self.jittered(pause)).await,
                answer => return answer,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The weather on this link now.
    pub fn sky(&self) -> Sky {
        self.0.weather.of(self.0.machine)
    }

    /// How often its connections broke so far.
    pub(super) fn breaks(&self) -> u64 {
        self.0.weather.breaks(self.0.machine)
    }

    /// Whether the machine is dead.
    pub fn is_killed(&self) -> bool {
        (self.0.is_killed)()
    }

    /// True with this probability.
    pub fn draw(&self, probability: f64) -> bool {
        probability > 0.0 && lock(&self.0.chance).random_bool(probability.min(1.0))
    }

    /// A duration between half of it and all of it.
    pub fn jittered(&self, duration: Duration) -> Duration {
        duration.mul_f64(lock(&self.0.chance).random_range(0.5..1.0))
    }

    /// A part of a duration.
    pub(super) fn share_of(&self, duration: Duration) -> Duration {
        duration.mul_f64(lock(&self.0.chance).random_range(0.0..1.0))
    }

    /// How long there, and how long back.
    fn way(&self, kind: Kind) -> (Duration, Duration) {
        let LinkOptions { latency, patience, .. } = &self.0.options;
        let slow = self.sky().slow;
        let prompt = if kind.changes() { PROMPT } else { PROMPT_QUESTION };
        let mut chance = lock(&self.0.chance);
        let mut one = || {
            let clear = match latency.is_empty() {
                true => latency.start,
                // Time passes on some of the ways only: a simulation spends its own on timers.
                false if chance.random_bool(prompt) => Duration::ZERO,
                false => chance.random_range(latency.clone()),
            };
            clear + if slow.is_zero() { slow } else { slow.mul_f64(chance.random_range(0.25..0.75)) }
        };
        (one().min(*patience), one())
    }

    /// One way, where no answer is expected.
    pub(super) async fn travel_once(&self) {
        self.travel(Kind::Change, self.way(Kind::Change).0).await;
    }

    /// Takes so long; the request of a dead machine never arrives.
    async fn travel(&self, kind: Kind, duration: Duration) {
        if !duration.is_zero() {
            tokio::time::sleep(duration).await;
        } else if kind.changes() {
            tokio::task::yield_now().await;
        }
        if self.is_killed() {
            std::future::pending::<()>().await;
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("machine", &self.0.machine).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::standins::Condition;

    #[tokio::test(start_paused = true)]
    async fn only_what_changes_something_may_be_given_up_half_way() {
        let weather = Weather::clear();
        let link = Link::new(weather.clone(), 1, 1, LinkOptions::default(), || false);
        let at_once = |kind: Kind| (0..200).filter(|_| link.call(kind, async {}).now_or_never().is_some()).count();
        for question in [Kind::Read, Kind::Probe] {
            assert!((150..200).contains(&at_once(question)), "time passes on some");
        }
        assert_eq!((at_once(Kind::Change), at_once(Kind::Write)), (0, 0));
        let _full = weather.begin(Condition::Full);
        for (kind, is_done) in [(Kind::Read, true), (Kind::Change, true), (Kind::Probe, false), (Kind::Write, false)] {
            assert_eq!(link.call(kind, async {}).await.is_ok(), is_done, "{kind:?}");
        }
    }
}
