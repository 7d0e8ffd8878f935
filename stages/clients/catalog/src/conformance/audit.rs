//! What operators did.

use std::time::Duration;

use super::{Subject, at};
use crate::OperatorAct;

const YEAR: Duration = Duration::from_secs(365 * 86_400);

fn act(subject: &str, seconds: i64) -> OperatorAct {
    OperatorAct {
        id: 0,
        at: at(seconds),
        who: "act token".to_owned(),
        act: "replay".to_owned(),
        subject: subject.to_owned(),
    }
}

fn subjects(acts: &[OperatorAct]) -> Vec<&str> {
    acts.iter().map(|act| act.subject.as_str()).collect()
}

pub async fn acts_are_listed_newest_first_and_survive<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    assert_eq!(catalog.acts(None, 10).await.unwrap(), []);
    for n in 0..5 {
        catalog.record_act(&act(&format!("dead letter {n}\0"), n), YEAR).await.unwrap();
    }
    drop(catalog);
    let subject = subject.crash().await;
    let catalog = subject.catalog();
    let first = catalog.acts(None, 2).await.unwrap();
    assert!(first[0].subject.starts_with("dead letter 4") && first[1].subject.starts_with("dead letter 3"));
    assert_eq!((first[0].who.as_str(), first[0].act.as_str()), ("act token", "replay"));
    let rest = catalog.acts(Some(first[1].id), 10).await.unwrap();
    assert_eq!(rest.len(), 3, "{rest:?}");
    assert!(rest.iter().all(|act| act.id < first[1].id));
}

pub async fn old_acts_go<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    catalog.record_act(&act("old", 0), YEAR).await.unwrap();
    catalog.record_act(&act("young", 40 * 86_400), YEAR).await.unwrap();
    assert_eq!(subjects(&catalog.acts(None, 10).await.unwrap()), ["young", "old"]);
    // A catalog with a clock of its own finds both young; one without goes by the acts' own times.
    catalog.record_act(&act("younger", 40 * 86_400), 31 * Duration::from_secs(86_400)).await.unwrap();
    let left = catalog.acts(None, 10).await.unwrap();
    assert_eq!(subjects(&left)[..2], ["younger", "young"]);
}
