//! Hours of requests in virtual time, over every store: one to twenty processes against the three shapes that a limiter
//! can have, strangers, bursts, floods, kills and clocks that jump.
//!
//! Nothing here sleeps. A world has a time of its own and a list of what happens next; a store is asked when a process
//! would ask it, and reads the world's clock. What a limiter counts it counts in its own way; of it the budget knows
//! nothing but the limit. Each run prints its seed when it fails.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicI64, Ordering},
};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use limiter::{Limiter, Shape};
use model::QuotaClass;
use rand::{Rng, SeedableRng, rngs::StdRng};
use runtime::Clock;

use super::request::CLASSES;
use super::*;

mod checks;
mod limiter;

const SECOND: Micros = 1_000_000;
const EPOCH: Micros = 1_795_348_800 * SECOND;

/// NICE's usual limit.
const NICE: Rate = Rate { limit: 150, window: Duration::from_secs(300) };
const WINDOW: Micros = 300 * SECOND;

/// The store's clock: the world's time, and what the clock is ahead of it.
#[derive(Clone, Default)]
struct WorldClock {
    now: Arc<AtomicI64>,
    ahead: Arc<AtomicI64>,
}

impl WorldClock {
    fn reads(&self) -> i64 {
        self.now.load(Ordering::SeqCst) + self.ahead.load(Ordering::SeqCst)
    }

    fn clock(&self) -> Clock {
        let clock = self.clone();
        Clock::asking(move || Timestamp::from_microsecond(clock.reads()).unwrap())
    }
}

/// Under what a request is settled, and when it was granted.
type GrantTimes = (Micros, Micros);

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A process asks the store, if it is still the one that meant to.
    Asks { process: usize, life: u32 },
    /// A request reaches NICE.
    Arrives { process: usize, life: u32, class: usize, at: GrantTimes, answered_in: Micros },
    /// Its answer is back.
    Answered { process: usize, life: u32, class: usize, at: GrantTimes, taken: bool },
    /// Work of a class comes to be done, and the next one some time later.
    Due { process: usize, class: usize },
    /// Work of a class comes to be done.
    Once { process: usize, class: usize },
    /// Somebody else asks NICE.
    Stranger { until: Micros },
}

/// What one process does.
struct Process {
    life: u32,
    born: Micros,
    /// Work that waits, by class: since when.
    waiting: [VecDeque<Micros>; CLASSES],
    reports: Vec<GrantReport>,
    witness: Option<Witness>,
    asks_at: Option<Micros>,
}

/// What is to be simulated.
#[derive(Debug, Clone)]
struct Plan {
    seed: u64,
    shape: Shape,
    processes: usize,
    terms: Terms,
    /// By class: workers of each process that take all they get.
    saturating: [u32; CLASSES],
    /// By class: work that comes at random, so many a window.
    poisson: [f64; CLASSES],
    /// The longest that an answer takes, in milliseconds; one in a hundred takes thirty times as long.
    latency: u64,
}

impl Plan {
    fn new(seed: u64, shape: Shape) -> Self {
        Self {
            seed,
            shape,
            processes: 1,
            terms: Terms::new(NICE, 0.5),
            saturating: [0; CLASSES],
            poisson: [0.0; CLASSES],
            latency: 200,
        }
    }

    fn saturating(mut self, class: QuotaClass, workers: u32) -> Self {
        self.saturating[class as usize] = workers;
        self
    }

    fn poisson(mut self, class: QuotaClass, a_window: f64) -> Self {
        self.poisson[class as usize] = a_window;
        self
    }
}

/// Everything, and what has happened so far.
struct SimulatedNice<S> {
    plan: Plan,
    store: S,
    clock: WorldClock,
    now: Micros,
    rng: StdRng,
    nice: Limiter,
    processes: Vec<Process>,
    next: BinaryHeap<Reverse<(Micros, u64, Event)>>,
    counter: u64,
    /// Our requests as they reached NICE: when, of which class, and whether it took them.
    arrived: Vec<(Micros, usize, bool)>,
    /// What a stranger was given.
    strangers: Vec<Micros>,
    /// How long the work of a class waited for its grant, by when it was granted.
    waited: Vec<(Micros, usize, Micros)>,
    /// The limit as the store told it, whenever it changed.
    limits: Vec<(Micros, u32)>,
}

impl<S: BudgetStore> SimulatedNice<S> {
    fn new(plan: Plan, store: S, clock: WorldClock) -> Self {
        let rng = StdRng::seed_from_u64(plan.seed);
        let mut world = Self {
            nice: Limiter::new(plan.shape, plan.terms.rate, EPOCH - 77 * SECOND),
            store,
            clock,
            now: EPOCH,
            rng,
            processes: Vec::new(),
            next: BinaryHeap::new(),
            counter: 0,
            arrived: Vec::new(),
            strangers: Vec::new(),
            waited: Vec::new(),
            limits: Vec::new(),
            plan,
        };
        world.clock.now.store(EPOCH as i64, Ordering::SeqCst);
        for _ in 0..world.plan.processes {
            let process = Process {
                life: 0,
                born: EPOCH,
                waiting: Default::default(),
                reports: Vec::new(),
                witness: None,
                asks_at: None,
            };
            world.processes.push(process);
            world.begin(world.processes.len() - 1);
        }
        world
    }

    fn at(&mut self, at: Micros, event: Event) {
        self.counter += 1;
        self.next.push(Reverse((at, self.counter, event)));
    }

    /// The work of a process that has just begun to live.
    fn begin(&mut self, process: usize) {
        for class in 0..CLASSES {
            for _ in 0..self.plan.saturating[class] {
                self.wait_for(process, class);
            }
            if self.plan.poisson[class] > 0.0 {
                self.next_due(process, class);
            }
        }
    }

    fn next_due(&mut self, process: usize, class: usize) {
        let chance: f64 = self.rng.random_range(1e-9..1.0);
        let every = WINDOW as f64 * self.plan.processes as f64 / self.plan.poisson[class];
        let at = self.now + (-chance.ln() * every) as Micros;
        self.at(at, Event::Due { process, class });
    }

    fn wait_for(&mut self, process: usize, class: usize) {
        let now = self.now;
        self.processes[process].waiting[class].push_back(now);
        self.ask_at(process, now);
    }

    /// A process asks at this time, or earlier if it means to already.
    fn ask_at(&mut self, process: usize, at: Micros) {
        let state = &mut self.processes[process];
        if state.asks_at.is_none_or(|asks_at| at < asks_at) {
            state.asks_at = Some(at);
            let life = state.life;
            self.at(at, Event::Asks { process, life });
        }
    }

    /// Lets the world go on for so long.
    async fn run(&mut self, span: Micros) {
        let end = self.now + span;
        while let Some(Reverse((at, ..))) = self.next.peek() {
            if *at > end {
                break;
            }
            let Some(Reverse((at, _, event))) = self.next.pop() else { break };
            self.now = self.now.max(at);
            self.clock.now.store(self.now as i64, Ordering::SeqCst);
            self.happen(event).await;
        }
        self.now = end;
        self.clock.now.store(end as i64, Ordering::SeqCst);
    }

    async fn happen(&mut self, event: Event) {
        match event {
            Event::Asks { process, life } => {
                let state = &mut self.processes[process];
                if state.life == life && state.asks_at == Some(self.now) {
                    state.asks_at = None;
                    self.ask(process).await;
                }
            }
            Event::Arrives { process, life, class, at, answered_in } => {
                let taken = self.nice.takes(self.now);
                self.arrived.push((self.now, class, taken));
                let event = Event::Answered { process, life, class, at, taken };
                self.at(self.now + answered_in, event);
            }
            Event::Answered { process, life, class, at, taken } => self.answered(process, life, class, at, taken),
            Event::Due { process, class } => {
                self.wait_for(process, class);
                self.next_due(process, class);
            }
            Event::Once { process, class } => self.wait_for(process, class),
            Event::Stranger { until } => {
                if self.nice.takes(self.now) {
                    self.strangers.push(self.now);
                }
                if self.now < until {
                    // Who was refused tries again in a second, until he has his 30 %.
                    let began = self.now - WINDOW;
                    let has = self.strangers.iter().rev().take_while(|at| **at > began).count() as u32;
                    let every = if has < NICE.limit * 3 / 10 { SECOND } else { 6 * SECOND };
                    self.at(self.now + every, Event::Stranger { until });
                }
            }
        }
    }

    fn answered(&mut self, process: usize, life: u32, class: usize, (at, granted_at): GrantTimes, taken: bool) {
        let state = &mut self.processes[process];
        if state.life != life {
            return;
        }
        let age = Duration::from_micros(self.now - state.born);
        let outcome = if taken { GrantOutcome::Over(age) } else { GrantOutcome::Refused(None) };
        state.reports.push(GrantReport { at, granted_at, class: QuotaClass::ALL[class], outcome });
        if taken {
            self.ask_at(process, self.now + SECOND);
        } else {
            // The work is still to be done.
            self.processes[process].waiting[class].push_front(self.now);
            self.ask_at(process, self.now);
        }
        if taken && self.plan.saturating[class] > 0 {
            self.wait_for(process, class);
        }
    }

    async fn ask(&mut self, process: usize) {
        let state = &mut self.processes[process];
        let wanted = std::array::from_fn(|class| state.waiting[class].len() as u32);
        let reports = std::mem::take(&mut state.reports);
        let age = Duration::from_micros(self.now - state.born);
        let request = BudgetRequest { terms: self.plan.terms, witness: state.witness, reports, wanted };
        let decision = self.store.turn(&request, &move || age).await.unwrap();
        state.witness = Some(Witness { seen: decision.now, withheld: decision.withheld, began: age, ended: age });
        if self.limits.last().is_none_or(|(_, limit)| *limit != decision.limit_now) {
            self.limits.push((self.now, decision.limit_now));
        }
        for grant in &decision.grants {
            for _ in 0..grant.count {
                self.send(process, grant.class as usize, (grant.at, decision.now));
            }
        }
        let waits = decision.not_before.iter().flatten().min().copied();
        if let Some(wait) = waits {
            let wait = wait.clamp(Duration::from_millis(100), Duration::from_secs(1));
            self.ask_at(process, self.now + wait.as_micros() as Micros);
        }
    }

    fn send(&mut self, process: usize, class: usize, at: GrantTimes) {
        let state = &mut self.processes[process];
        let life = state.life;
        let since = state.waiting[class].pop_front().unwrap();
        self.waited.push((self.now, class, self.now - since));
        let slow = if self.rng.random_ratio(1, 100) { 30 } else { 1 };
        let mut half = || self.rng.random_range(5..=self.plan.latency.max(6) / 2) * 1000 * slow;
        let (there, back) = (half(), half());
        self.at(self.now + there, Event::Arrives { process, life, class, at, answered_in: back });
    }

    /// Kills a process, and starts another in its place: what it sent reaches NICE all the same.
    fn kill(&mut self, process: usize) {
        let state = &mut self.processes[process];
        *state = Process {
            life: state.life + 1,
            born: self.now,
            waiting: Default::default(),
            reports: Vec::new(),
            witness: None,
            asks_at: None,
        };
        let due = |Reverse((_, _, event)): &Reverse<(Micros, u64, Event)>| !matches!(event, Event::Due { process: of, .. } if *of == process);
        self.next.retain(due);
        self.begin(process);
    }

    fn jump(&mut self, by: i64) {
        self.clock.ahead.fetch_add(by, Ordering::SeqCst);
    }

    fn stranger(&mut self, span: Micros) {
        let until = self.now + span;
        self.at(self.now, Event::Stranger { until });
    }
}

/// A budget that nothing outlives.
#[derive(Debug, Clone)]
pub(crate) struct MemoryStore {
    budget: Arc<Mutex<Budget>>,
    clock: Clock,
}

impl MemoryStore {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { budget: Arc::default(), clock }
    }

    fn now(&self) -> Micros {
        Micros::try_from(self.clock.now().as_microsecond()).unwrap()
    }
}

#[async_trait]
impl BudgetStore for MemoryStore {
    async fn turn(
        &self,
        request: &BudgetRequest,
        age: &(dyn Fn() -> Duration + Send + Sync),
    ) -> Result<BudgetDecision, StoreError> {
        Ok(self.budget.lock().unwrap().turn(self.now(), age(), request))
    }

    async fn usage(&self, terms: &Terms) -> Result<Usage, StoreError> {
        Ok(self.budget.lock().unwrap().usage(self.now(), terms))
    }
}

/// A world on a store in memory.
fn in_memory(plan: Plan) -> SimulatedNice<MemoryStore> {
    let clock = WorldClock::default();
    clock.now.store(EPOCH as i64, Ordering::SeqCst);
    let store = MemoryStore::new(clock.clock());
    SimulatedNice::new(plan, store, clock)
}
