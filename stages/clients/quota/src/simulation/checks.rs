//! What must hold in every world.

use model::ApiFamily;
use rand::Rng;

use super::*;

impl<S: BudgetStore> SimulatedNice<S> {
    /// No window of the limit's length holds more than the limit of our requests.
    fn assert_no_window_above_the_limit(&self) {
        let limit = self.plan.terms.rate.limit as usize;
        for pair in self.arrived.windows(limit + 1) {
            let span = pair[limit].0 - pair[0].0;
            assert!(
                span > self.plan.terms.rate.window.as_micros() as Micros,
                "{} requests within {span} µs: {:?}",
                limit + 1,
                self.plan
            );
        }
    }

    fn taken(&self, from: Micros, to: Micros) -> usize {
        self.arrived.iter().filter(|(at, _, taken)| *taken && (from..to).contains(at)).count()
    }

    fn taken_by(&self, class: QuotaClass, from: Micros, to: Micros) -> usize {
        let ours =
            |(at, of, taken): &&(Micros, usize, bool)| *taken && *of == class as usize && (from..to).contains(at);
        self.arrived.iter().filter(ours).count()
    }

    fn refused(&self, from: Micros, to: Micros) -> usize {
        self.arrived.iter().filter(|(at, _, taken)| !*taken && (from..to).contains(at)).count()
    }

    fn strangers(&self, from: Micros, to: Micros) -> usize {
        self.strangers.iter().filter(|at| (from..to).contains(*at)).count()
    }

    /// How long those of a class waited that came last, in seconds: of so many in a hundred not longer.
    fn waited(&self, class: QuotaClass, from: Micros, percent: usize) -> f64 {
        let mut waits: Vec<Micros> = self
            .waited
            .iter()
            .filter(|(at, of, _)| *at >= from && *of == class as usize)
            .map(|(_, _, wait)| *wait)
            .collect();
        waits.sort_unstable();
        waits
            .get((waits.len() * percent / 100).min(waits.len().saturating_sub(1)))
            .map_or(0.0, |wait| *wait as f64 / 1e6)
    }

    fn limit_now(&self) -> u32 {
        self.limits.last().map_or(0, |(_, limit)| *limit)
    }
}

/// One world for each shape of the limiter.
fn each_shape(seed: u64) -> impl Iterator<Item = Plan> {
    Shape::ALL.into_iter().map(move |shape| Plan::new(seed, shape))
}

#[tokio::test]
async fn all_of_the_limit_is_used_and_nothing_refused() {
    for processes in [1, 3, 20] {
        for plan in each_shape(1) {
            let workers = (24 / processes).max(1) as u32;
            let plan =
                Plan { processes, ..plan }.saturating(QuotaClass::Retry, workers).poisson(QuotaClass::Live, 20.0);
            let plan = plan.saturating(QuotaClass::Backfill, workers).poisson(QuotaClass::Reconciliation, 3.0);
            let mut world = in_memory(plan);
            world.run(2 * WINDOW).await;
            let from = world.now;
            world.run(8 * WINDOW).await;
            let used = world.taken(from, world.now) as f64 / f64::from(8 * NICE.limit);
            assert!(used >= 0.99, "{used}: {:?}", world.plan);
            assert_eq!(world.refused(0, world.now), 0, "{:?}", world.plan);
            world.assert_no_window_above_the_limit();
        }
    }
}

#[tokio::test]
async fn a_saturating_backfill_keeps_no_live_call_waiting_and_has_what_it_was_promised() {
    for processes in [1, 3] {
        for plan in each_shape(2) {
            let plan = Plan { processes, ..plan }.saturating(QuotaClass::Backfill, 8);
            let plan = plan.poisson(QuotaClass::Live, 20.0).poisson(QuotaClass::Reconciliation, 3.0);
            let mut world = in_memory(plan);
            world.run(2 * WINDOW).await;
            let from = world.now;
            world.run(30 * WINDOW).await;
            assert_eq!(world.refused(0, world.now), 0, "{:?}", world.plan);
            let p99 = world.waited(QuotaClass::Live, from, 99);
            let promised = world.plan.terms.pace(QuotaClass::Backfill) * (world.now - from) as f64 / 1e6;
            let had = world.taken_by(QuotaClass::Backfill, from, world.now) as f64;
            assert!(p99 <= 2.0, "{p99}: {:?}", world.plan);
            assert!((had / promised - 1.0).abs() <= 0.05, "{had} of {promised}: {:?}", world.plan);
        }
    }
}

#[tokio::test]
async fn a_lasting_stranger_costs_two_refusals_a_window_at_most_and_what_remains_is_used() {
    for seed in 0..6 {
        for plan in each_shape(seed) {
            let processes = [1, 3][seed as usize % 2];
            let plan = Plan { processes, ..plan }.saturating(QuotaClass::Retry, 8).poisson(QuotaClass::Live, 20.0);
            let mut world = in_memory(plan);
            world.run(2 * WINDOW).await;
            world.stranger(24 * WINDOW);
            world.run(4 * WINDOW).await;
            let from = world.now;
            world.run(20 * WINDOW).await;
            let refused = world.refused(from, world.now);
            assert!(refused <= 20 * 2, "{refused} in 20 windows: {:?}", world.plan);
            let remains = 20 * NICE.limit as usize - world.strangers(from, world.now);
            let used = world.taken(from, world.now);
            assert!(used * 100 >= remains * 95, "{used} of {remains}: {:?}", world.plan);
            world.assert_no_window_above_the_limit();
        }
    }
}

#[tokio::test]
async fn a_stranger_that_has_left_is_forgotten_within_two_quiet_windows() {
    for seed in 0..6 {
        for plan in each_shape(seed) {
            let mut world = in_memory(plan.saturating(QuotaClass::Retry, 8));
            world.run(WINDOW).await;
            world.stranger(6 * WINDOW);
            world.run(7 * WINDOW).await;
            let usage = world.store.usage(&world.plan.terms).await.unwrap();
            if let Some(refused) = usage.refused {
                let pause = refused.closed_for.unwrap_or_default();
                assert!(refused.full_pace_in <= pause + world.plan.terms.rate.counted_for() * 2, "{refused:?}");
                world.run(refused.full_pace_in.as_micros() as Micros + 2 * SECOND).await;
            }
            assert_eq!(world.limit_now(), NICE.limit, "{:?}", world.plan);
            world.run(WINDOW).await;
            let from = world.now;
            world.run(8 * WINDOW).await;
            assert!(world.taken(from, world.now) >= 8 * NICE.limit as usize * 97 / 100, "{:?}", world.plan);
        }
    }
}

#[tokio::test]
async fn a_few_refusals_in_a_quiet_minute_only_pause() {
    for seed in 0..6 {
        for plan in each_shape(seed) {
            let mut world = in_memory(Plan { processes: 3, ..plan }.poisson(QuotaClass::Live, 30.0));
            world.run(2 * WINDOW).await;
            (world.nice.sick_until, world.nice.sick_share) = (world.now + 60 * SECOND, 0.4);
            world.run(WINDOW / 5).await;
            for process in 0..41 {
                world.wait_for(process % 3, QuotaClass::Live as usize);
            }
            let healed = world.now;
            world.run(120 * SECOND).await;
            assert_eq!(world.limit_now(), NICE.limit, "{:?}", world.plan);
            let waiting: usize = world.processes.iter().map(|process| process.waiting[0].len()).sum();
            assert!(waiting <= 1, "{waiting} still wait two minutes after {healed}: {:?}", world.plan);
        }
    }
}

#[tokio::test]
async fn after_six_seconds_of_refusals_all_is_done_within_two_minutes() {
    for seed in 0..12 {
        for shape in Shape::ALL {
            let terms = Terms::new(Rate { limit: 5000, ..NICE }, 0.5);
            let mut world = in_memory(Plan { processes: 3, terms, ..Plan::new(seed, shape) });
            world.run(SECOND).await;
            let (begin, works) = (world.now, 227 * 3);
            for work in 0..works {
                let class = if work % 3 == 0 { QuotaClass::Live } else { QuotaClass::Retry };
                world.at(
                    begin + work * 30 * SECOND / works,
                    Event::Once { process: work as usize % 3, class: class as usize },
                );
            }
            world.run(12 * SECOND).await;
            (world.nice.sick_until, world.nice.sick_share) = (world.now + 6 * SECOND, 0.4);
            world.run(6 * SECOND).await;
            world.run(120 * SECOND).await;
            let done = world.taken(begin, world.now);
            assert_eq!(done, works as usize, "{:?}", world.plan);
        }
    }
}

#[tokio::test]
async fn refusals_of_what_was_under_way_together_are_one() {
    let terms = Terms::new(Rate { limit: 5000, ..NICE }, 0.5);
    let mut world = in_memory(Plan { terms, latency: 400, ..Plan::new(1, Shape::Sliding) });
    world.run(SECOND).await;
    (world.nice.sick_until, world.nice.sick_share) = (world.now + SECOND, 1.0);
    for _ in 0..16 {
        world.wait_for(0, QuotaClass::Live as usize);
    }
    world.run(5 * SECOND).await;
    let usage = world.store.usage(&world.plan.terms).await.unwrap();
    let refused = usage.refused.unwrap();
    assert!(refused.count >= 16 && refused.closed_for.is_none(), "{refused:?}");
    assert_eq!(usage.limit_now, 5000);
    assert_eq!(world.taken(0, world.now), 16);
}

#[tokio::test]
async fn right_after_a_refusal_every_class_has_its_floor() {
    for (seed, processes) in [(0, 1), (1, 3)] {
        let live = 30 / processes as u32;
        let mut plan = Plan { processes, ..Plan::new(seed, Shape::Sliding) }.saturating(QuotaClass::Live, live);
        for class in QuotaClass::ALL.into_iter().skip(1) {
            plan = plan.saturating(class, 1);
        }
        let mut world = in_memory(plan);
        (world.nice.sick_until, world.nice.sick_share) = (world.now + SECOND, 1.0);
        world.run(SECOND).await;
        let from = world.now;
        world.run(WINDOW / 2).await;
        for class in QuotaClass::ALL {
            let is_first = |(at, of, taken): &&(Micros, usize, bool)| *taken && *at > from && *of == class as usize;
            let first = world.arrived.iter().find(is_first).map(|(at, ..)| (at - from) / SECOND);
            assert!(first.is_some_and(|after| after <= 40), "{class:?} waited {first:?} s: {:?}", world.plan);
        }
    }
}

#[tokio::test]
async fn calls_that_a_webhook_told_are_not_slowed_by_a_backfill() {
    let terms = Terms::new(Rate { limit: 2, window: Duration::from_secs(1) }, 0.5);
    let plan = Plan { terms, ..Plan::new(3, Shape::Sliding) }.saturating(QuotaClass::Backfill, 4);
    let mut world = in_memory(plan.poisson(QuotaClass::Unconfirmed, 75.0));
    world.run(4 * WINDOW).await;
    let waited = world.waited(QuotaClass::Unconfirmed, 0, 95);
    assert!(waited <= 3.0, "{waited}");
}

#[tokio::test]
async fn a_clock_that_was_put_right_again_gives_no_second_window() {
    let mut world = in_memory(Plan { processes: 2, ..Plan::new(1, Shape::Sliding) });
    for process in 0..2 {
        world.wait_for(process, 0);
    }
    world.run(SECOND).await;
    world.run(2 * WINDOW).await;
    world.jump(-(2 * WINDOW as i64));
    (0..150).for_each(|_| world.wait_for(0, 0));
    world.run(SECOND).await;
    world.jump(2 * WINDOW as i64);
    (0..150).for_each(|_| world.wait_for(1, 0));
    world.run(2 * SECOND).await;
    world.assert_no_window_above_the_limit();
}

#[tokio::test]
async fn a_clock_that_goes_back_and_forth_gives_no_second_window_to_those_that_were_silent() {
    for (back, silence) in [(2 * WINDOW, 2 * WINDOW), (WINDOW + 2 * SECOND, 2 * WINDOW), (9 * SECOND, 20 * SECOND)] {
        let rate = if back < WINDOW { Rate { limit: 2, window: Duration::from_secs(1) } } else { NICE };
        let plan = Plan { processes: 3, terms: Terms::new(rate, 0.5), ..Plan::new(1, Shape::Sliding) };
        let mut world = in_memory(plan);
        (0..3).for_each(|process| world.wait_for(process, 0));
        world.run(10 * SECOND).await;
        for process in [0, 1, 2, 0, 1] {
            world.jump(-(back as i64));
            (0..150).for_each(|_| world.wait_for(process, 0));
            world.run(SECOND).await;
            world.run(silence).await;
            world.jump(back as i64);
            (0..150).for_each(|_| world.wait_for((process + 1) % 3, 0));
            world.run(SECOND).await;
        }
        world.assert_no_window_above_the_limit();
    }
}

#[tokio::test]
async fn after_a_clock_was_set_back_the_time_goes_on_however_seldom_processes_ask() {
    for processes in [2, 20] {
        let mut world = in_memory(Plan { processes, ..Plan::new(1, Shape::Sliding) });
        world.run(SECOND).await;
        let turn = async |world: &mut SimulatedNice<MemoryStore>| {
            for process in 0..processes {
                world.run(60 * SECOND / processes as u64).await;
                world.wait_for(process, 0);
                world.run(SECOND / 10).await;
            }
        };
        turn(&mut world).await;
        world.jump(-(3600 * SECOND as i64));
        for _ in 0..3 {
            turn(&mut world).await;
        }
        let (now, seen) = (world.now, world.processes[0].witness.unwrap().seen);
        for _ in 0..10 {
            turn(&mut world).await;
        }
        let (passed, counted) = (world.now - now, world.processes[0].witness.unwrap().seen - seen);
        assert!(counted * 100 >= passed * 99, "{counted} of {passed}");
    }
}

#[tokio::test]
async fn unconfirmed_ids_leave_half_of_a_long_window_to_the_calls() {
    let mut world = in_memory(Plan::new(1, Shape::Sliding));
    (0..150).for_each(|_| world.wait_for(0, QuotaClass::Unconfirmed as usize));
    world.run(SECOND).await;
    (0..60).for_each(|_| world.wait_for(0, QuotaClass::Live as usize));
    world.run(10 * SECOND).await;
    assert_eq!(world.taken_by(QuotaClass::Live, 0, world.now), 60);
    assert!(world.taken_by(QuotaClass::Unconfirmed, 0, world.now) <= 75 + 7);
}

/// Of all windows but one, which the others had filled, the class has its floor; a twentieth less, since its workers do
/// not always wait, but for an answer now and then.
fn assert_floor<S: BudgetStore>(world: &SimulatedNice<S>, class: QuotaClass, from: Micros) {
    let windows = (world.now - from) / WINDOW - 1;
    let floor = Terms::floor(class) * f64::from(world.plan.terms.rate.limit) * windows as f64;
    let had = world.taken_by(class, from, world.now);
    assert!(had as f64 >= floor * 0.95, "{class:?} had {had} of {floor}: {:?}", world.plan);
}

#[tokio::test]
async fn no_flood_of_one_class_takes_another_below_its_floor() {
    for flood in QuotaClass::ALL {
        for processes in [1, 3, 20] {
            let mut plan = Plan { processes, ..Plan::new(flood as u64, Shape::Sliding) };
            for class in QuotaClass::ALL {
                plan = plan.saturating(class, if class == flood { 100 } else { 2 });
            }
            let mut world = in_memory(plan);
            world.run(2 * WINDOW).await;
            let from = world.now;
            world.run(10 * WINDOW).await;
            for class in QuotaClass::ALL {
                assert_floor(&world, class, from);
            }
            world.assert_no_window_above_the_limit();
            assert_eq!(world.refused(0, world.now), 0);
        }
    }
}

#[tokio::test]
async fn unconfirmed_ids_keep_no_agent_sync_and_no_listing_waiting() {
    let terms = Terms::new(Rate { limit: 2, window: Duration::from_secs(1) }, 0.5);
    for seed in 0..6 {
        let plan = Plan { terms, processes: 2, ..Plan::new(seed, Shape::Sliding) };
        let plan = plan.poisson(QuotaClass::Agents, 30.0).poisson(QuotaClass::Reconciliation, 60.0);
        let mut world = in_memory(plan.poisson(QuotaClass::Live, 20.0));
        for work in 0..1500 {
            world.wait_for(work % 2, QuotaClass::Unconfirmed as usize);
        }
        world.run(2 * WINDOW).await;
        // Those come in bursts of their own, and a comparison has one request a second.
        for (class, most) in [(QuotaClass::Live, 6.0), (QuotaClass::Agents, 6.0), (QuotaClass::Reconciliation, 20.0)] {
            let longest = world.waited(class, 0, 100);
            assert!(longest <= most, "{class:?} waited {longest} s: {:?}", world.plan);
        }
        assert!(world.taken_by(QuotaClass::Unconfirmed, 0, world.now) > 60);
    }
}

/// A world in which everything happens: floods, strangers, kills, clocks that jump, slow answers.
async fn turbulent<S: BudgetStore>(world: &mut SimulatedNice<S>, windows: u64) {
    let kills = world.plan.processes;
    for _ in 0..windows * 10 {
        world.run(WINDOW / 10).await;
        match world.rng.random_range(0..6) {
            0 | 1 => {
                let process = world.rng.random_range(0..kills);
                world.kill(process);
            }
            // Backwards at any time.
            2 => {
                let by = world.rng.random_range(1..86_400 * SECOND as i64);
                world.jump(-by);
            }
            // Ahead while every process has seen the time of before.
            3 if world.processes.iter().all(|process| process.witness.is_some()) => {
                let by = world.rng.random_range(1..86_400 * SECOND as i64);
                world.jump(by);
            }
            4 => {
                let span = world.rng.random_range(1..WINDOW);
                world.stranger(span);
            }
            _ => {
                let (process, class) = (world.rng.random_range(0..kills), world.rng.random_range(0..CLASSES));
                for _ in 0..30 {
                    world.wait_for(process, class);
                }
            }
        }
    }
    world.assert_no_window_above_the_limit();
}

fn turbulent_plan(seed: u64) -> Plan {
    let processes = [1, 2, 3, 20][seed as usize % 4];
    let shape = Shape::ALL[seed as usize % 3];
    let plan = Plan { processes, latency: [50, 200, 5000][seed as usize % 3], ..Plan::new(seed, shape) };
    QuotaClass::ALL.into_iter().fold(plan, |plan, class| plan.saturating(class, 2))
}

#[tokio::test]
async fn no_window_is_above_the_limit_whatever_happens() {
    for seed in 0..40 {
        turbulent(&mut in_memory(turbulent_plan(seed)), 8).await;
    }
}

#[tokio::test]
async fn no_window_is_above_the_limit_in_the_local_state() {
    for seed in 0..4 {
        let clock = WorldClock::default();
        clock.now.store(EPOCH as i64, Ordering::SeqCst);
        let dir = tempfile::tempdir().unwrap();
        let options = state::StateOptions { clock: clock.clock(), ..state::StateOptions::default() };
        let state = state::State::open(dir.path(), options).unwrap().state;
        let store = crate::local::LocalStore::open(&state, "nice.example/11ee", ApiFamily::MediaPlayback).unwrap();
        let mut world = SimulatedNice::new(Plan { processes: 1, ..turbulent_plan(seed) }, store, clock);
        turbulent(&mut world, 2).await;
        // What a new process reads is what the last one decided by.
        let again = crate::local::LocalStore::open(&state, "nice.example/11ee", ApiFamily::MediaPlayback).unwrap();
        let terms = &world.plan.terms;
        assert_eq!(again.usage(terms).await.unwrap(), world.store.usage(terms).await.unwrap());
    }
}

#[tokio::test]
async fn no_window_is_above_the_limit_in_postgresql() {
    use database::schema;

    use crate::postgres::SharedStores;

    /// A clock that the test sets, found before the server's own.
    const CLOCK: &str = "
        create table world_clock (micros bigint not null);
        insert into world_clock values (0);
        create function public.clock_timestamp() returns timestamptz language sql volatile as
            $$ select 'epoch'::timestamptz + micros * interval '1 microsecond' from public.world_clock $$;
        do $$ begin
            execute format('alter database %I set search_path = public, pg_catalog', current_database());
        end $$";

    /// Sets the server's clock before each turn.
    struct Moved<S> {
        store: S,
        database: database::Database,
        clock: WorldClock,
    }

    #[async_trait::async_trait]
    impl<S: BudgetStore> BudgetStore for Moved<S> {
        async fn turn(
            &self,
            request: &BudgetRequest,
            age: &(dyn Fn() -> Duration + Send + Sync),
        ) -> Result<BudgetDecision, StoreError> {
            let client = self.database.client().await.unwrap();
            client.execute("update world_clock set micros = $1", &[&self.clock.reads()]).await.unwrap();
            self.store.turn(request, age).await
        }

        async fn usage(&self, terms: &Terms) -> Result<Usage, StoreError> {
            self.store.usage(terms).await
        }
    }

    struct Boxed(Arc<dyn BudgetStore>);

    #[async_trait::async_trait]
    impl BudgetStore for Boxed {
        async fn turn(
            &self,
            request: &BudgetRequest,
            age: &(dyn Fn() -> Duration + Send + Sync),
        ) -> Result<BudgetDecision, StoreError> {
            self.0.turn(request, age).await
        }

        async fn usage(&self, terms: &Terms) -> Result<Usage, StoreError> {
            self.0.usage(terms).await
        }
    }

    let url = test_servers::postgres().await.database().await;
    let database = database::testing::open(&url);
    schema::migrate(&database).await.unwrap();
    database.client().await.unwrap().batch_execute(CLOCK).await.unwrap();
    // Sessions from here on find the test's clock.
    let database = database::testing::open(&url);
    for seed in 0..4 {
        let clock = WorldClock::default();
        clock.now.store(EPOCH as i64, Ordering::SeqCst);
        let account = format!("nice.example/{seed}");
        let store = SharedStores::new(database.clone()).open(&account, ApiFamily::MediaPlayback).unwrap();
        let store = Moved { store: Boxed(store), database: database.clone(), clock: clock.clone() };
        let plan = Plan { processes: [1, 2, 3, 5][seed as usize], ..turbulent_plan(seed) };
        turbulent(&mut SimulatedNice::new(plan, store, clock), 2).await;
    }
    let client = database.client().await.unwrap();
    let read: i64 =
        client.query_one("select (extract(epoch from clock_timestamp()) * 1000000)::bigint", &[]).await.unwrap().get(0);
    assert!((read - EPOCH as i64).abs() < 10 * 86_400 * SECOND as i64, "the server's own clock was asked");
}
