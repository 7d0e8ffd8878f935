//! The learned delay of first looks.

use std::time::Duration;

use super::{Subject, acme, tenant};

/// The same delay but for the rounding of a database.
fn assert_near(delay: Duration, secs: f64) {
    assert!((delay.as_secs_f64() - secs).abs() < 1e-6, "{delay:?} is not {secs} s");
}

pub(crate) async fn the_learned_delay_is_one_for_all_consumers<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    assert_eq!(catalog.readiness(&acme()).await.unwrap(), None);
    let own = Duration::from_secs(100);
    assert_near(catalog.note_readiness(&acme(), 1.5, own).await.unwrap(), 100.0);
    // Each says by how much; what they say adds up.
    assert_near(catalog.note_readiness(&acme(), 0.5, Duration::from_secs(80)).await.unwrap(), 50.0);
    assert_near(catalog.note_readiness(&acme(), 0.5, Duration::from_secs(60)).await.unwrap(), 25.0);
    assert_near(catalog.note_readiness(&acme(), 2.0, Duration::from_secs(60)).await.unwrap(), 50.0);
    assert_eq!(catalog.readiness(&tenant("other")).await.unwrap(), None);
    catalog.check().await.unwrap();
    drop(catalog);
    let subject = subject.crash().await;
    assert_near(subject.catalog().readiness(&acme()).await.unwrap().unwrap(), 50.0);
}

pub(crate) async fn a_longer_delay_that_several_learned_at_once_counts_once<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    catalog.note_readiness(&acme(), 1.0, Duration::from_secs(10)).await.unwrap();
    let (tenant, own) = (acme(), Duration::from_secs(300));
    let consumers = (0..8).map(|_| catalog.note_readiness(&tenant, 30.0, own));
    for delay in futures::future::join_all(consumers).await {
        assert_near(delay.unwrap(), 300.0);
    }
    // Shorter than what stands: it does not make that one shorter either.
    assert_near(catalog.note_readiness(&acme(), 1.1, Duration::from_secs(20)).await.unwrap(), 300.0);
}
