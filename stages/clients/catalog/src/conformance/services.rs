//! The services that run.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::{Subject, acme};
use crate::Heartbeat;

fn beat(id: &str, service: &str, waits: u64) -> Heartbeat {
    Heartbeat {
        id: id.to_owned(),
        service: service.to_owned(),
        tenant: (service == "producer").then(acme),
        host: "machine".to_owned(),
        version: "0.1.0".to_owned(),
        started_at: "2026-04-01T12:00:00Z".parse().unwrap(),
        report: json!({ "waits": waits }),
    }
}

pub async fn services_are_known_by_their_last_word_until_they_retire<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    let now = Timestamp::now();
    for one in [beat("one", "producer", 1), beat("two", "consumer", 1)] {
        assert!(!catalog.beat(&one, now).await.unwrap(), "it was not noted yet");
        catalog.enlist(&one, now).await.unwrap();
    }
    assert!(catalog.beat(&beat("two", "consumer", 2), now).await.unwrap());
    let mut known = catalog.services(now, 10).await.unwrap();
    known.sort_by(|one, other| one.beat.id.cmp(&other.beat.id));
    let beats: Vec<_> = known.iter().map(|service| service.beat.clone()).collect();
    assert_eq!(beats, [beat("one", "producer", 1), beat("two", "consumer", 2)]);
    assert!(known.iter().all(|service| service.silent_for < Duration::from_secs(3600)), "{known:?}");
    assert_eq!(catalog.services(now, 1).await.unwrap().len(), 1);
    catalog.retire("one").await.unwrap();
    catalog.retire("one").await.unwrap();
    assert!(!catalog.beat(&beat("one", "producer", 3), now).await.unwrap(), "a word that comes late");
    let known = catalog.services(now, 10).await.unwrap();
    assert_eq!(known.iter().map(|service| service.beat.id.as_str()).collect::<Vec<_>>(), ["two"]);
}
