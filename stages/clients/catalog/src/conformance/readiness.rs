//! The learned delay of first looks.

use std::time::Duration;

use super::{Subject, acme, tenant};
use crate::{LearnedDelay, Lessons};

fn own(first_look: u64) -> LearnedDelay {
    LearnedDelay {
        first_look: Duration::from_secs(first_look),
        usual: Duration::from_secs(90),
        learned_for: Duration::from_secs(7200),
        found: first_look,
    }
}

fn lessons(factor: f64, first_look: u64) -> Lessons {
    Lessons { factor, shortened: false, own: own(first_look) }
}

/// The same delay but for the rounding of a database.
fn assert_near(delay: LearnedDelay, secs: f64) {
    assert!((delay.first_look.as_secs_f64() - secs).abs() < 1e-6, "{delay:?} is not {secs} s");
}

pub async fn the_learned_delay_is_one_for_all_consumers<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    assert_eq!(catalog.readiness(&acme()).await.unwrap(), None);
    assert_eq!(catalog.note_readiness(&acme(), lessons(1.5, 100)).await.unwrap(), own(100));
    // Each says by how much; what they say adds up.
    assert_near(catalog.note_readiness(&acme(), lessons(0.5, 80)).await.unwrap(), 50.0);
    assert_near(catalog.note_readiness(&acme(), lessons(0.5, 60)).await.unwrap(), 25.0);
    assert_near(catalog.note_readiness(&acme(), lessons(2.0, 60)).await.unwrap(), 50.0);
    assert_eq!(catalog.readiness(&tenant("other")).await.unwrap(), None);
    catalog.check().await.unwrap();
    drop(catalog);
    let subject = subject.crash().await;
    let known = subject.catalog().readiness(&acme()).await.unwrap().unwrap();
    assert_near(known, 50.0);
    assert_eq!(LearnedDelay { first_look: own(0).first_look, ..known }, LearnedDelay { found: 100, ..own(0) });
}

pub async fn a_longer_delay_that_several_learned_at_once_counts_once<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    catalog.note_readiness(&acme(), lessons(1.0, 10)).await.unwrap();
    let tenant = acme();
    let consumers = (0..8).map(|_| catalog.note_readiness(&tenant, lessons(30.0, 300)));
    for delay in futures::future::join_all(consumers).await {
        assert_near(delay.unwrap(), 300.0);
    }
    // Shorter than what stands: it does not make that one shorter either.
    assert_near(catalog.note_readiness(&acme(), lessons(1.1, 20)).await.unwrap(), 300.0);
}

pub async fn a_delay_that_early_looks_have_shortened_counts_once<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    catalog.note_readiness(&acme(), lessons(1.0, 1000)).await.unwrap();
    let tenant = acme();
    let shortened = |first_look| Lessons { factor: 0.5, shortened: true, own: own(first_look) };
    for delay in futures::future::join_all((0..8).map(|_| catalog.note_readiness(&tenant, shortened(600)))).await {
        assert_near(delay.unwrap(), 600.0);
    }
    // Longer than what stands: it does not make that one longer.
    assert_near(catalog.note_readiness(&tenant, shortened(700)).await.unwrap(), 600.0);
}
