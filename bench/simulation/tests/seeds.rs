//! Seeds: a world each, that misbehaves for a while and is well again. Every promise is kept in all of them.

use simulation::plan::{Plan, Scale};
use simulation::run::{Outcome, Wishes, run};

fn lives(plan: &Plan) -> Outcome {
    run(plan, Wishes::default()).expect("the world is built")
}

/// A failing seed says what went wrong, and how to look closer.
fn keeps_its_promises(seed: u64) {
    let plan = Plan::of(seed, Scale::short());
    let outcome = lives(&plan);
    assert!(
        outcome.broken.is_empty(),
        "seed {seed} broke {} promises; make it small with\n  cargo run --release -p bench -- simulate --short --from {seed} \
         --seeds 1 --shrink\n{}\n{}",
        outcome.broken.len(),
        plan.faults.iter().map(|fault| format!("{fault:?}\n")).collect::<String>(),
        outcome.broken.join("\n"),
    );
    assert!(outcome.legs.1 > 0, "seed {seed} has no call to import: it proves nothing");
}

/// Runs the seeds on two threads, as each needs one for itself.
fn each(seeds: std::ops::Range<u64>) {
    let next = std::sync::atomic::AtomicU64::new(seeds.start);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    keeps_its_promises(seed);
                }
            });
        }
    });
}

#[test]
fn a_hundred_short_seeds_keep_every_promise() {
    each(1..101);
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [1, 2, 3] {
        let plan = Plan::of(seed, Scale::short());
        assert_eq!(lives(&plan).hash, lives(&plan).hash, "seed {seed}");
    }
}
