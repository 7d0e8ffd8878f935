//! Messages that nobody can work on end as dead letters with their reason, and disturb nobody.

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::{Value, json};

use super::bed::{Role, ServerBed, terminate};
use super::calls::{place, small};
use super::oracle;
use crate::harness::{Ended, PATIENCE};

/// Publishes straight to queues of the bed, past the producer, and returns once the broker has the messages.
pub(super) async fn publish(bed: &ServerBed, queue: &str, bodies: &[Vec<u8>]) {
    let url = bed.servers.rabbitmq().url();
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let queue = format!("{}.{queue}", bed.prefix);
    for body in bodies {
        let properties = BasicProperties::default().with_delivery_mode(2);
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let confirm = channel.basic_publish("".into(), queue.as_str().into(), options, body, properties).await.unwrap();
        let confirm = confirm.await.unwrap();
        assert!(confirm.is_ack() && confirm.take_message().is_none(), "not taken by {queue}");
    }
    connection.close(200, "done".into()).await.unwrap();
}

/// A message about a conversation, as a producer writes it.
pub(super) fn message(tenant: &str, conversation: impl Into<Value>) -> Value {
    json!({ "schema": 1, "integrationType": "nice-cxone", "tenantId": tenant, "conversationId": conversation.into() })
}

/// The dead letters, once there are so many.
async fn letters(bed: &ServerBed, count: usize) -> Vec<Value> {
    let begun = std::time::Instant::now();
    loop {
        let letters = bed.json(&["dead-letters", "list", "--json"]).as_array().unwrap().clone();
        if letters.len() == count {
            return letters;
        }
        assert!(begun.elapsed() < PATIENCE, "{} of {count}: {letters:#?}\n{}", letters.len(), bed.tails());
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

fn text_of(letter: &Value) -> &str {
    letter["reason"].as_str().unwrap()
}

/// Every kind of body that cannot be worked on, with a part of the reason that must be given.
fn poison() -> Vec<(Vec<u8>, &'static str)> {
    let mut later = message("acme", "698800000001");
    later["schema"] = 2.into();
    let mut other = message("acme", "698800000001");
    other["integrationType"] = "genesys".into();
    let mut nobodys = message("acme", "698800000001");
    nobodys.as_object_mut().unwrap().remove("tenantId");
    let mut bodies = vec![
        (b"".to_vec(), "too early"),
        (br#"{"schema":1,"#.to_vec(), "too early"),
        (b"poison".to_vec(), "not JSON"),
        (b"\x00\xff\xfe{}".to_vec(), "not JSON"),
        (b"[]".to_vec(), "malformed"),
        (br#"{"schema":"one"}"#.to_vec(), "wrong type"),
        (vec![b' '; 100 << 10], "bytes"),
        (later.to_string().into_bytes(), "schema 2"),
        (other.to_string().into_bytes(), "integration type"),
        (nobodys.to_string().into_bytes(), "tenantId"),
    ];
    for id in ["../../x", "12345678901234567890", "-5", "+5", "5 ", "0", "", "5\u{0}", "%2e%2e", "5/../6"] {
        bodies.push((message("acme", id).to_string().into_bytes(), "grammar"));
    }
    for tenant in ["../../x", "", "a\u{0}b", "a b"] {
        bodies.push((message(tenant, "698800000001").to_string().into_bytes(), "grammar"));
    }
    bodies
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_ends_in_dead_letters_with_its_reason_and_disturbs_nobody() {
    let mut bed = ServerBed::new(small(1301, 0)).await;
    bed.set("CONSUMER__CONCURRENCY", "4");
    let producer = bed.producer();
    let mut consumer = bed.consumer("consumer");
    consumer.ready().await;
    let poison = poison();
    let bodies: Vec<_> = poison.iter().map(|(body, _)| body.clone()).collect();
    place(bed.sim(), 0..20);
    publish(&bed, "live", &bodies).await;
    // The one that the broker gave up, as it comes to lie there.
    let given_up = message("acme", "1");
    publish(&bed, "dead", &[given_up.to_string().into_bytes()]).await;
    bed.quiet().await;

    let letters = letters(&bed, bodies.len() + 1).await;
    for (body, reason) in &poison {
        let wanted = letters.iter().find(|letter| text_of(letter).contains(reason));
        assert!(wanted.is_some(), "{:?}: no letter says {reason}: {letters:#?}", String::from_utf8_lossy(body));
    }
    let of_one = letters.iter().find(|letter| letter["conversation_id"] == "1").expect("what was given up is shown");
    assert!(!text_of(of_one).is_empty());
    for letter in &letters {
        let shown = bed.ended(Role::Both, &["dead-letters", "show", &letter["id"].to_string()]);
        assert_eq!(shown.code, Some(0), "{shown:?}");
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words(&shown.stdout).contains(&words(text_of(letter))), "{shown:?}");
    }
    let dropped = bed.ended(Role::Both, &["dead-letters", "drop", &letters[0]["id"].to_string()]);
    assert_eq!(dropped.code, Some(0), "{dropped:?}");

    assert_eq!(consumer.get("/livez").await.map(|answer| answer.0), Some(200));
    terminate([consumer, producer]);
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.strange), (0, bodies.len()), "{}", bed.tails());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_of_an_unknown_tenant_is_replayed_once_the_tenant_is_known() {
    let mut bed = ServerBed::new(small(1302, 0)).await;
    let producer = bed.producer();
    let mut consumer = bed.consumer("consumer");
    consumer.ready().await;
    let beta = nice_sim::Sim::start(small(1303, 0)).await.unwrap();
    let agent = beta.group(1001)[0];
    let call = beta.add_call(nice_sim::CallSpec::new(agent)).contact_ids[0];
    publish(&bed, "live", &[message("beta", call.to_string()).to_string().into_bytes()]).await;
    place(bed.sim(), 0..5);
    let letter = letters(&bed, 1).await.remove(0);
    assert_eq!(letter["tenant_id"], "beta", "{letter}");
    assert!(text_of(&letter).contains("settings"), "{letter}");

    bed.adopt("beta", beta);
    let mut sync = bed.command(Role::Producer, &["agents", "sync"]);
    sync.env("NICE_KNOVVU_TENANT__ID", "beta").env("NICE_KNOVVU_STATE__DIR", bed.path("beta"));
    let synced = Ended::of(sync);
    assert_eq!(synced.code, Some(0), "{synced:?}");
    // A consumer may take the tenant for unknown for a few seconds more.
    let begun = std::time::Instant::now();
    while bed.psql("select state from conversations where tenant_id = 'beta'").await != "ready\n" {
        let replayed = bed.ended(Role::Both, &["dead-letters", "replay", "--all"]);
        assert_eq!(replayed.code, Some(0), "{replayed:?}");
        assert!(begun.elapsed() < PATIENCE, "{replayed:?}\n{}", bed.tails());
    }
    bed.quiet().await;
    terminate([consumer, producer]);
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.strange), (0, 0), "{}", bed.tails());
}
