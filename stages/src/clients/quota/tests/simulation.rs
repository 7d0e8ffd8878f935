//! Hours of requests against the three shapes that a limiter can have, in virtual time.
//!
//! What is asserted are counts. The limiter counts 150 requests in 300 seconds, in its own way and with windows of its
//! own; nothing of that is known to the budget but the limit.

use std::collections::VecDeque;

use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::*;

const LIMIT: u32 = 150;
const WINDOW: Duration = Duration::from_secs(300);
const NICE: Rate = Rate { limit: LIMIT, window: WINDOW };

/// How NICE counts.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// Tokens that come evenly, up to the limit.
    Bucket,
    /// Windows one after the other, from some moment on.
    Fixed,
    /// The last 300 seconds, at any time.
    Sliding,
}

/// NICE as seen from its limit.
struct Limiter {
    shape: Shape,
    begun: Instant,
    taken: VecDeque<Instant>,
    tokens: f64,
    last: Instant,
}

impl Limiter {
    fn new(shape: Shape) -> Self {
        let now = Instant::now();
        Self { shape, begun: now - Duration::from_secs(77), taken: VecDeque::new(), tokens: LIMIT.into(), last: now }
    }

    fn takes(&mut self) -> bool {
        let now = Instant::now();
        match self.shape {
            Shape::Bucket => {
                let came = (now - self.last).as_secs_f64() * f64::from(LIMIT) / WINDOW.as_secs_f64();
                self.tokens = (self.tokens + came).min(LIMIT.into());
                self.last = now;
                let takes = self.tokens >= 1.0;
                self.tokens -= f64::from(u8::from(takes));
                return takes;
            }
            Shape::Fixed => {
                let index = |at: Instant| (at - self.begun).as_secs() / WINDOW.as_secs();
                self.taken.retain(|at| index(*at) == index(now));
            }
            Shape::Sliding => self.taken.retain(|at| now - *at <= WINDOW),
        }
        let takes = self.taken.len() < LIMIT as usize;
        self.taken.extend(takes.then_some(now));
        takes
    }
}

/// What happened so far.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    taken: usize,
    refused: usize,
    backfill: usize,
    strangers: usize,
    live: usize,
    live_kept_waiting: usize,
}

/// NICE, and all who ask it.
#[derive(Clone)]
struct World {
    nice: Arc<Mutex<Limiter>>,
    counts: Arc<Mutex<Counts>>,
    ledger: LocalLedger,
}

impl World {
    fn new(shape: Shape, live_reserve: f64) -> Self {
        let (wall, begun) = (Timestamp::from_second(1_795_348_800).unwrap(), Instant::now());
        let clock = Clock::new(move || wall + SignedDuration::try_from(begun.elapsed()).unwrap());
        let counted_for = SignedDuration::try_from(NICE.counted_for()).unwrap();
        let window = || RateWindow::in_memory(clock.clone(), LIMIT, counted_for);
        let shares = Shares::new(NICE, live_reserve);
        let ledger = LocalLedger::new((window(), shares), (window(), shares), Metrics::new());
        Self { nice: Arc::new(Mutex::new(Limiter::new(shape))), counts: Arc::default(), ledger }
    }

    fn counts(&self) -> Counts {
        *self.counts.lock().unwrap()
    }

    fn send(&self, taken: impl FnOnce(&mut Counts)) -> bool {
        let takes = self.nice.lock().unwrap().takes();
        let mut counts = self.counts.lock().unwrap();
        match takes {
            true => taken(&mut counts),
            false => counts.refused += 1,
        }
        takes
    }

    /// One request within the budget.
    async fn ask(&self, class: QuotaClass) {
        let quota = LocalQuota::new(self.ledger.clone(), Patience::Endless);
        let since = Instant::now();
        quota.admit(ApiFamily::MediaPlayback, class).await.unwrap();
        let waited = since.elapsed();
        sleep(Duration::from_millis(rand::random_range(20..200))).await;
        let takes = self.send(|counts| {
            counts.taken += 1;
            counts.backfill += usize::from(class == QuotaClass::Backfill);
        });
        if class == QuotaClass::Live {
            let mut counts = self.counts.lock().unwrap();
            counts.live += 1;
            counts.live_kept_waiting += usize::from(waited > NICE.spacing() + Duration::from_millis(100));
        }
        if !takes {
            quota.refused(ApiFamily::MediaPlayback, None).await;
        }
    }

    /// As many requests as the budget admits.
    fn saturating(&self, class: QuotaClass, workers: usize) -> Vec<AbortOnDropHandle<()>> {
        let worker = |_| {
            let world = self.clone();
            task::spawn("saturate", async move {
                loop {
                    world.ask(class).await;
                }
            })
        };
        (0..workers).map(worker).collect()
    }

    /// Calls that end at random, so many in a window.
    fn live(&self, per_window: f64) -> AbortOnDropHandle<()> {
        let world = self.clone();
        task::spawn("live", async move {
            let mut calls = Vec::new();
            loop {
                let chance: f64 = rand::random_range(1e-9..1.0);
                sleep(WINDOW.mul_f64(-chance.ln() / per_window)).await;
                let world = world.clone();
                calls.push(task::spawn("call", async move { world.ask(QuotaClass::Live).await }));
            }
        })
    }

    /// Somebody else, who asks until he has his, so many in a window at most.
    fn stranger(&self, per_window: u32) -> AbortOnDropHandle<()> {
        let world = self.clone();
        task::spawn("stranger", async move {
            loop {
                sleep(WINDOW / per_window).await;
                while !world.nice.lock().unwrap().takes() {
                    sleep(Duration::from_secs(1)).await;
                }
                world.counts.lock().unwrap().strangers += 1;
            }
        })
    }

    /// The same work without a budget: who is refused waits twice as long as the time before.
    fn backing_off(&self, workers: usize) -> Vec<AbortOnDropHandle<()>> {
        let worker = |_| {
            let world = self.clone();
            task::spawn("back off", async move {
                let mut delay = Duration::from_secs(1);
                loop {
                    sleep(Duration::from_millis(rand::random_range(20..200))).await;
                    if world.send(|counts| counts.taken += 1) {
                        delay = Duration::from_secs(1);
                    } else {
                        sleep(delay.mul_f64(rand::random_range(0.5..1.5))).await;
                        delay = (delay * 2).min(Duration::from_secs(60));
                    }
                }
            })
        };
        (0..workers).map(worker).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_stranger_all_is_used_and_nothing_refused() {
    for shape in [Shape::Bucket, Shape::Fixed, Shape::Sliding] {
        let world = World::new(shape, 0.0);
        let _backfill = world.saturating(QuotaClass::Backfill, 8);
        sleep(NICE.counted_for() * 8).await;
        let counts = world.counts();
        assert_eq!(counts.refused, 0, "{shape:?}");
        assert!(counts.taken * 1000 >= LIMIT as usize * 8 * 995, "{shape:?}: {counts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn live_calls_wait_for_one_token_at_most_while_a_backfill_takes_the_rest() {
    for shape in [Shape::Bucket, Shape::Fixed, Shape::Sliding] {
        let world = World::new(shape, 0.0);
        let _backfill = world.saturating(QuotaClass::Backfill, 8);
        let _reconciliation = world.saturating(QuotaClass::Reconciliation, 1);
        sleep(NICE.counted_for() * 2).await;
        let _live = world.live(20.0);
        let before = world.counts();
        sleep(NICE.counted_for() * 40).await;
        let counts = world.counts();
        assert_eq!(counts.refused, 0, "{shape:?}");
        assert!((counts.taken - before.taken) * 1000 >= LIMIT as usize * 40 * 995, "{shape:?}: {counts:?}");
        assert!(counts.live > 600, "{counts:?}");
        // Two that end within the same token wait for one more.
        assert!(counts.live_kept_waiting * 10 < counts.live, "{shape:?}: {counts:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backfill_leaves_the_reserve_alone() {
    let world = World::new(Shape::Sliding, 0.5);
    let _backfill = world.saturating(QuotaClass::Backfill, 8);
    let _reconciliation = world.saturating(QuotaClass::Reconciliation, 1);
    sleep(NICE.counted_for() * 2).await;
    for _ in 0..LIMIT / 2 {
        let live = LocalQuota::new(world.ledger.clone(), Patience::UpTo(Duration::ZERO));
        live.admit(ApiFamily::MediaPlayback, QuotaClass::Live).await.unwrap();
    }
    let counts = world.counts();
    assert!((148..=150).contains(&counts.taken), "the other half, twice: {counts:?}");
    assert!(counts.backfill <= 1, "the nightly comparison goes before it: {counts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stranger_is_given_way_and_what_remains_is_used() {
    for shape in [Shape::Bucket, Shape::Fixed, Shape::Sliding] {
        let world = World::new(shape, 0.0);
        let _backfill = world.saturating(QuotaClass::Backfill, 8);
        sleep(WINDOW * 2).await;
        let _stranger = world.stranger(LIMIT * 3 / 10);
        sleep(WINDOW * 2).await;
        let before = world.counts();
        sleep(WINDOW * 20).await;
        let counts = world.counts();
        let (taken, strangers) = (counts.taken - before.taken, counts.strangers - before.strangers);
        let remains = LIMIT as usize * 20 - strangers;

        let peer = World::new(shape, 0.0);
        let _peers = peer.backing_off(8);
        sleep(WINDOW * 2).await;
        let _stranger = peer.stranger(LIMIT * 3 / 10);
        sleep(WINDOW * 22).await;
        let refused = peer.counts().refused;
        assert!(taken * 100 >= remains * 95, "{shape:?}: {taken} of {remains}");
        assert!(counts.refused * 1000 <= refused * 27, "{shape:?}: {} against {refused}", counts.refused);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stranger_that_has_left_is_forgotten() {
    let world = World::new(Shape::Sliding, 0.0);
    let _backfill = world.saturating(QuotaClass::Backfill, 8);
    sleep(WINDOW).await;
    let stranger = world.stranger(LIMIT * 3 / 10);
    sleep(WINDOW * 4).await;
    assert!(world.ledger.usage(ApiFamily::MediaPlayback).limit_now < LIMIT as usize * 9 / 10);
    drop(stranger);
    sleep(WINDOW * 8).await;
    let before = world.counts();
    assert_eq!(world.ledger.usage(ApiFamily::MediaPlayback).limit_now, LIMIT as usize);
    sleep(NICE.counted_for() * 2).await;
    assert!(world.counts().taken - before.taken >= LIMIT as usize * 2 - 3);
}
