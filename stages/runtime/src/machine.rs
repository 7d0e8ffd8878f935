//! A simulated machine: tasks that share one chance, and can be suspended and killed together.
//!
//! A simulation runs many programs in one process. What a program begins with [`task::spawn`](super::task::spawn)
//! belongs to the machine that it runs on, so that all of it stops at once: for a while, as a computer that is
//! suspended, or for good, as one that loses its power. In production there is no machine, and a task costs one look
//! for it.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::task::AbortHandle;

tokio::task_local! {
    static MACHINE: Machine;
}

/// A simulated machine; clones are the same one.
#[derive(Clone)]
pub struct Machine {
    inner: Arc<Inner>,
}

struct Inner {
    /// A [`MachineStatus`]; every poll asks for it, and it changes under the lock of the state.
    status: AtomicU8,
    state: Mutex<MachineState>,
    chance: Mutex<StdRng>,
}

struct MachineState {
    /// By number, so that they are woken and ended in the order in which they began.
    gates: BTreeMap<u64, MachineTask>,
    begun: u64,
}

/// Whether its tasks are polled.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum MachineStatus {
    Running,
    Paused,
    Killed,
}

/// What the machine knows of a future that runs on it.
#[derive(Default)]
struct MachineTask {
    /// Wakes it when the machine goes on or is killed.
    waker: Option<Waker>,
    /// Ends the task; the future of [`Machine::run`] has none and ends by itself.
    abort: Option<AbortHandle>,
}

impl Machine {
    /// A machine that runs; its chance is the seed's.
    pub fn new(seed: u64) -> Self {
        let status = AtomicU8::new(MachineStatus::Running as u8);
        let state = Mutex::new(MachineState { gates: BTreeMap::new(), begun: 0 });
        let chance = Mutex::new(StdRng::seed_from_u64(seed));
        Self { inner: Arc::new(Inner { status, state, chance }) }
    }

    /// The machine of the running task.
    pub fn current() -> Option<Self> {
        MACHINE.try_with(Self::clone).ok()
    }

    /// Runs a future, and all tasks that it begins, on this machine. None: the machine was killed.
    pub async fn run<F: Future>(&self, future: F) -> Option<F::Output> {
        self.gate(future).await
    }

    /// Polls none of its tasks until it goes on. The time goes on without it: timers that are due meanwhile fire then.
    pub fn pause(&self) {
        let _state = self.state();
        if self.status() == MachineStatus::Running {
            self.set(MachineStatus::Paused);
        }
    }

    /// Goes on after a pause; a machine that was killed does not.
    pub fn resume(&self) {
        let woken: Vec<_> = {
            let state = self.state();
            if self.status() == MachineStatus::Paused {
                self.set(MachineStatus::Running);
            }
            // They stay: a gate gives its waker once, as long as that is the same.
            state.gates.values().filter_map(|held| held.waker.clone()).collect()
        };
        woken.into_iter().for_each(Waker::wake);
    }

    /// Polls none of its tasks ever again; all of their futures are dropped in the next turn of the scheduler. What
    /// they begin while they are dropped never runs. The task that calls this goes on to its next pause.
    pub fn kill(&self) {
        let (aborted, woken): (Vec<_>, Vec<_>) = {
            let mut state = self.state();
            self.set(MachineStatus::Killed);
            state.gates.values_mut().map(|held| (held.abort.take(), held.waker.take())).unzip()
        };
        aborted.iter().flatten().for_each(AbortHandle::abort);
        woken.into_iter().flatten().for_each(Waker::wake);
    }

    /// Whether it was killed.
    pub fn is_killed(&self) -> bool {
        self.status() == MachineStatus::Killed
    }

    fn status(&self) -> MachineStatus {
        match self.inner.status.load(Ordering::Acquire) {
            status if status == MachineStatus::Running as u8 => MachineStatus::Running,
            status if status == MachineStatus::Paused as u8 => MachineStatus::Paused,
            _ => MachineStatus::Killed,
        }
    }

    fn set(&self, status: MachineStatus) {
        self.inner.status.store(status as u8, Ordering::Release);
    }

    /// Its own source of chance.
    pub(super) fn chance(&self) -> MutexGuard<'_, StdRng> {
        self.inner.chance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A future that runs on this machine as far as the machine does.
    pub(super) fn gate<F: Future>(&self, future: F) -> MachineGate<F> {
        let mut state = self.state();
        let number = state.begun;
        state.begun += 1;
        state.gates.insert(number, MachineTask::default());
        MachineGate { machine: self.clone(), number, known: None, future: Some(Box::pin(future)) }
    }

    /// Ends the task of a gate when the machine is killed.
    pub(super) fn ends(&self, gate: u64, abort: AbortHandle) {
        let mut state = self.state();
        if self.is_killed() {
            drop(state);
            abort.abort();
        } else if let Some(held) = state.gates.get_mut(&gate) {
            held.abort = Some(abort);
        }
    }

    fn state(&self) -> MutexGuard<'_, MachineState> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the waker of a gate that is polled. While the machine runs, too: the kill wakes whoever has been polled
    /// and waits.
    fn holds(&self, gate: u64, waker: Waker) {
        if let Some(held) = self.state().gates.get_mut(&gate) {
            held.waker = Some(waker);
        }
    }
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").finish_non_exhaustive()
    }
}

/// A future on a machine: ready with `None` once the machine is killed.
pub(super) struct MachineGate<F> {
    machine: Machine,
    number: u64,
    /// The waker that the machine has.
    known: Option<Waker>,
    /// None once it has ended or the machine was killed.
    future: Option<Pin<Box<F>>>,
}

impl<F> MachineGate<F> {
    /// Its number on the machine.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Drops the future where it ran: what it begins in its last moment belongs to the machine, too.
    fn drop_future(&mut self) {
        if let Some(future) = self.future.take() {
            MACHINE.sync_scope(self.machine.clone(), || drop(future));
        }
    }
}

impl<F: Future> Future for MachineGate<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let gate = &mut *self;
        if !gate.known.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            gate.machine.holds(gate.number, context.waker().clone());
            gate.known = Some(context.waker().clone());
        }
        // After it is known whom to wake: whoever pauses or kills the machine in between wakes this one.
        match gate.machine.status() {
            MachineStatus::Paused => return Poll::Pending,
            MachineStatus::Killed => {
                gate.drop_future();
                return Poll::Ready(None);
            }
            MachineStatus::Running => {}
        }
        let Some(future) = &mut gate.future else { return Poll::Ready(None) };
        let polled = MACHINE.sync_scope(gate.machine.clone(), || future.as_mut().poll(context));
        if gate.machine.is_killed() {
            // By itself, in this turn.
            gate.drop_future();
            MACHINE.sync_scope(gate.machine.clone(), || drop(polled));
            return Poll::Ready(None);
        }
        if polled.is_ready() {
            gate.drop_future();
        }
        polled.map(Some)
    }
}

impl<F> Drop for MachineGate<F> {
    fn drop(&mut self) {
        self.drop_future();
        self.machine.state().gates.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::{chance, task};

    const SECOND: Duration = Duration::from_secs(1);

    /// Counts those that are alive, and what they do.
    #[derive(Clone, Default)]
    struct Counts {
        alive: Arc<AtomicU32>,
        done: Arc<AtomicU32>,
    }

    struct Alive(Counts);

    impl Counts {
        fn enter(&self) -> Alive {
            self.alive.fetch_add(1, Ordering::Relaxed);
            Alive(self.clone())
        }

        fn alive(&self) -> u32 {
            self.alive.load(Ordering::Relaxed)
        }

        fn done(&self) -> u32 {
            self.done.load(Ordering::Relaxed)
        }
    }

    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.alive.fetch_sub(1, Ordering::Relaxed);
            // A last wish that must not be granted.
            let done = self.0.done.clone();
            drop(task::spawn("last wish", async move { done.fetch_add(1000, Ordering::Relaxed) }).detach());
        }
    }

    /// Does something each second, and so do its children and theirs.
    fn family(counts: Counts, generations: u32) -> futures::future::BoxFuture<'static, ()> {
        Box::pin(async move {
            let _alive = counts.enter();
            let _child = (generations > 1).then(|| task::spawn("child", family(counts.clone(), generations - 1)));
            loop {
                sleep(SECOND).await;
                counts.done.fetch_add(1, Ordering::Relaxed);
            }
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_holds_timers_until_it_ends() {
        let machine = Machine::new(1);
        let begun = Instant::now();
        let running = {
            let machine = machine.clone();
            task::spawn("machine", async move {
                let work = async {
                    let child = task::spawn("child", async {
                        sleep(SECOND).await;
                        Instant::now()
                    });
                    sleep(2 * SECOND).await;
                    (child.await.unwrap(), Instant::now())
                };
                machine.run(work).await.unwrap()
            })
        };
        sleep(SECOND / 2).await;
        machine.pause();
        sleep(60 * SECOND).await;
        assert!(!running.is_finished());
        machine.resume();
        let (child, root) = running.await.unwrap();
        let resumed = Duration::from_millis(60_500);
        assert!(child - begun >= resumed && child - begun < resumed + SECOND, "{:?}", child - begun);
        assert!(root - begun >= resumed && root - begun < resumed + SECOND, "{:?}", root - begun);
    }

    /// Counts how often it is called.
    struct Bell(AtomicU32);

    impl std::task::Wake for Bell {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_machine_wakes_whoever_polled_last_however_often_it_goes_on() {
        let (machine, bells) = (Machine::new(1), [0, 1].map(|_| Arc::new(Bell(AtomicU32::new(0)))));
        let mut running = Box::pin(machine.run(std::future::pending::<()>()));
        let mut poll = |by: usize| {
            let waker = Waker::from(bells[by].clone());
            assert!(running.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        };
        let rung = || [0, 1].map(|at: usize| bells[at].0.load(Ordering::Relaxed));
        let pause_and_resume = || {
            machine.pause();
            machine.resume();
        };
        poll(0);
        pause_and_resume();
        poll(0);
        pause_and_resume();
        assert_eq!(rung(), [2, 0]);
        poll(1);
        pause_and_resume();
        machine.pause();
        poll(0);
        machine.resume();
        assert_eq!(rung(), [3, 1]);
        machine.kill();
        assert_eq!(rung(), [4, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_kill_drops_children_and_grandchildren_and_nothing_runs_afterwards() {
        for paused in [false, true] {
            let (machine, counts) = (Machine::new(1), Counts::default());
            let running = {
                let (machine, counts) = (machine.clone(), counts.clone());
                task::spawn("machine", async move { machine.run(family(counts, 3)).await })
            };
            sleep(SECOND * 3 / 2).await;
            assert_eq!((counts.alive(), counts.done()), (3, 3));
            if paused {
                machine.pause();
                sleep(10 * SECOND).await;
            }
            machine.kill();
            assert_eq!(running.await.unwrap(), None);
            assert!(machine.is_killed());
            tokio::task::yield_now().await;
            assert_eq!(counts.alive(), 0);
            machine.resume();
            sleep(10 * SECOND).await;
            assert_eq!(counts.done(), 3, "paused: {paused}");
            assert_eq!(machine.run(async { counts.done.fetch_add(1, Ordering::Relaxed) }).await, None);
            assert_eq!(counts.done(), 3, "a dead machine begins nothing");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_without_an_owner_dies_with_its_machine() {
        let (machine, counts) = (Machine::new(1), Counts::default());
        let begin = || drop(task::spawn("orphan", family(counts.clone(), 1)).detach());
        machine.run(async { begin() }).await.unwrap();
        sleep(SECOND * 3 / 2).await;
        assert_eq!((counts.alive(), counts.done()), (1, 1));
        machine.kill();
        sleep(10 * SECOND).await;
        assert_eq!((counts.alive(), counts.done()), (0, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_may_kill_itself() {
        let (machine, counts) = (Machine::new(1), Counts::default());
        let suicidal = async {
            let _child = task::spawn("child", family(counts.clone(), 2));
            sleep(SECOND * 3 / 2).await;
            Machine::current().unwrap().kill();
            drop(task::spawn("too late", family(counts.clone(), 1)).detach());
            tokio::task::yield_now().await;
            counts.done.fetch_add(1000, Ordering::Relaxed);
        };
        assert_eq!(machine.run(suicidal).await, None);
        sleep(10 * SECOND).await;
        assert_eq!((counts.alive(), counts.done()), (0, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn the_chance_of_a_machine_is_the_seeds() {
        let drawn = |seed| async move {
            let draw = async {
                let child = task::spawn("child", async { chance::range(0..u64::MAX) }).await.unwrap();
                let jumbled = chance::with(|rng| {
                    use rand::seq::SliceRandom;
                    let mut numbers: Vec<u32> = (0..100).collect();
                    numbers.shuffle(rng);
                    numbers
                });
                (chance::random::<u128>(), child, jumbled)
            };
            Machine::new(seed).run(draw).await.unwrap()
        };
        assert_eq!(drawn(7).await, drawn(7).await);
        assert_ne!(drawn(7).await, drawn(8).await);
        assert!(Machine::current().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn blocking_work_needs_no_thread_on_a_machine() {
        let here = std::thread::current().id();
        let work = || std::thread::current().id();
        let on_machine = Machine::new(1).run(task::blocking(work)).await.unwrap();
        assert_eq!(on_machine.unwrap(), here);
        assert_ne!(task::blocking(work).await.unwrap(), here);
        let broken = Machine::new(1).run(task::blocking::<()>(|| panic!("on purpose"))).await.unwrap();
        assert_eq!(broken, Err(task::BrokenOff));
    }
}
