//! What `status` and `check` say while something is away: which system, what to do, and with which exit code.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::bed::{Role, ServerBed, terminate};
use super::calls::small;
use super::machines::{Server, Servers};
use crate::harness::{Ended, PATIENCE};

/// Asks `status` until it says what is awaited.
async fn says(bed: &ServerBed, role: Role, awaited: impl Fn(&Value, &Ended) -> bool) -> (Value, Ended) {
    let begun = Instant::now();
    loop {
        let ended = bed.ended(role, &["status", "--json"]);
        let status: Value = serde_json::from_str(&ended.stdout).unwrap_or_default();
        if awaited(&status, &ended) {
            return (status, ended);
        }
        assert!(begun.elapsed() < PATIENCE, "{status:#}\n{ended:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn system<'a>(status: &'a Value, name: &str) -> &'a Value {
    let systems = status["systems"].as_array().map(Vec::as_slice).unwrap_or_default();
    systems.iter().find(|system| system["system"] == name).unwrap_or(&Value::Null)
}

fn services(status: &Value) -> Vec<(String, bool)> {
    let services = status["services"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = |service: &Value| (service["service"].as_str().unwrap().to_owned(), service["is_missed"] == true);
    services.iter().map(named).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn status_knows_the_services_and_misses_a_consumer_that_died() {
    let bed = ServerBed::new(small(71, 12)).await;
    let (producer, mut consumer) = (bed.producer(), bed.consumer("consumer"));
    // The stages of the consumer count, though the producer answers.
    let made_ready = |status: &Value| {
        let stages = status["stages"].as_array().map(Vec::as_slice).unwrap_or_default();
        stages.iter().any(|stage| stage["stage"] == "upload" && stage["outcomes"]["ok"].as_u64() > Some(0))
    };
    let (status, _) = says(&bed, Role::Producer, |status, _| services(status).len() == 2 && made_ready(status)).await;
    assert!(services(&status).iter().all(|(_, is_missed)| !is_missed), "{status:#}");
    assert_eq!(system(&status, "catalog")["state"], "well", "{status:#}");
    assert_eq!(system(&status, "nice")["state"], "well", "{status:#}");

    consumer.kill();
    let (status, ended) = says(&bed, Role::Producer, |_, ended| ended.code == Some(3)).await;
    assert!(services(&status).contains(&("consumer".to_owned(), true)), "{status:#}");
    assert!(ended.stderr.contains("no consumer runs"), "{ended:?}");
    let checked = bed.ended(Role::Producer, &["check"]);
    assert!(checked.code == Some(3) && checked.stdout.contains("no consumer runs"), "{checked:?}");

    // One that takes its place, and one that ends in order: nobody is missed.
    let other = bed.consumer("other");
    says(&bed, Role::Producer, |status, _| services(status).iter().all(|(_, is_missed)| !is_missed)).await;
    terminate([other]);
    let (status, _) = says(&bed, Role::Producer, |status, _| services(status).len() < 3).await;
    assert_eq!(status["services"][0]["producer"], "works", "{status:#}");
    terminate([producer]);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_check_answer_while_postgresql_is_away() {
    let bed = ServerBed::on(Servers::own().await, small(72, 0)).await;
    let producer = bed.producer();
    says(&bed, Role::Producer, |status, _| system(status, "nice")["state"] == "well").await;
    bed.servers.kill(Server::Postgres).await;
    let (status, ended) = says(&bed, Role::Producer, |status, _| system(status, "catalog")["state"] == "away").await;
    assert_eq!((ended.code, &status["verdict"]), (Some(3), &"away".into()), "{status:#}");
    let catalog = system(&status, "catalog");
    assert!(catalog["since"].is_string() && catalog["remedy"].as_str().unwrap().contains("PostgreSQL"), "{catalog}");
    assert_eq!(system(&status, "nice")["state"], "well", "NICE is not to blame: {status:#}");
    let text = bed.ended(Role::Producer, &["status"]);
    assert!(text.stdout.contains("AWAY") && text.stdout.contains("what to do: start PostgreSQL"), "{text:?}");
    let widest = text.stdout.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(80), "{}", text.stdout);
    // Where no daemon runs, too: a consumer's machine keeps no state.
    let alone = bed.ended(Role::Consumer, &["status"]);
    assert!(alone.code == Some(3) && alone.stdout.contains("catalog"), "{alone:?}");
    let checked = bed.ended(Role::Producer, &["check"]);
    assert!(checked.code != Some(0) && checked.stdout.contains("what to do: start PostgreSQL"), "{checked:?}");
    assert!(!checked.stdout.contains("another producer"), "nobody has the tenant: {checked:?}");
    bed.servers.start_again(Server::Postgres).await;
    says(&bed, Role::Producer, |status, _| system(status, "catalog")["state"] == "well").await;
    terminate([producer]);
}
