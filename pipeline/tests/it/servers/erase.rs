//! An erased conversation is gone from PostgreSQL, RabbitMQ and S3, in every version, and nothing brings it back.

use std::time::{Duration, Instant};

use jiff::SignedDuration;
use nice_sim::CallSpec;
use serde_json::Value;

use super::bed::{Role, ServerBed, terminate};
use super::calls::{recorded, small};
use crate::harness::{Ended, PATIENCE, post_event};
use crate::watch::dropped;

const VERSIONED: &str = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                         <Status>Enabled</Status></VersioningConfiguration>";

impl ServerBed {
    fn erase(&self, role: Role, id: &str) -> Ended {
        self.ended(role, &["erase", id])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_conversation_stays_away_on_servers() {
    let mut bed = ServerBed::new(small(1801, 0)).await;
    bed.servers.s3.request("PUT", &format!("/{}?versioning", bed.bucket), VERSIONED.into()).await;
    let receiver = bed.with_webhook();
    let (producer, consumer) = (bed.producer(), bed.consumer("consumer"));
    let ids: Vec<String> =
        (0..2).map(|number| bed.sim().add_call(recorded(bed.sim(), number)).contact_ids[0].to_string()).collect();
    bed.quiet().await;
    let (gone, kept) = (&ids[0], &ids[1]);
    // Deleted once as one deletes: hidden, and still there.
    let key = bed.store().keys().await.into_iter().find(|key| key.contains(&format!("/{gone}/"))).unwrap();
    bed.servers.s3.request("DELETE", &format!("/{}/{key}", bed.bucket), Vec::new()).await;
    assert!(bed.versions().await.contains("DeleteMarker"));

    // The producer's daemon has no recording store; the command does it beside it, with a consumer's rights.
    let refused = bed.erase(Role::Producer, gone);
    assert!(refused.code != Some(0) && !bed.rows(gone).await.is_empty(), "{refused:?}");
    let erased = bed.erase(Role::Both, gone);
    assert_eq!((erased.code, erased.stderr.contains(gone.as_str())), (Some(0), false), "{erased:?}");
    assert!(erased.stdout.contains("is erased") && erased.stdout.contains("broker"), "{erased:?}");
    let versions = bed.versions().await;
    assert!(!versions.contains(&format!("/{gone}/")) && versions.contains(&format!("/{kept}/")), "{versions}");
    assert_eq!(bed.rows(gone).await, "");
    assert_eq!(bed.psql("select count(*) from erasures where done_at is null").await.trim(), "1");
    assert_eq!((bed.state_of(gone), bed.state_of(kept)), ("erased".into(), "ready".into()));

    // The producer forgets what it has processed, and finds every call again.
    terminate([producer]);
    std::fs::remove_dir_all(bed.path("producer/sled")).unwrap();
    let mut producer = bed.producer();
    producer.ready().await;
    assert_eq!(post_event(receiver, format!(r#"{{"contactId":"{gone}"}}"#)).await, Some(202));
    dropped(&mut producer, ids.len() as u64).await;
    for id in ids.iter().filter(|id| *id != kept) {
        assert_eq!(bed.state_of(id), "erased");
        assert_eq!(bed.rows(id).await, "");
    }
    let versions = bed.versions().await;
    assert!(ids.iter().all(|id| versions.contains(&format!("/{id}/")) == (id == kept)), "{versions}");
    let queued = "select count(*) from analysis_queue q where not exists (select from conversations c where c.id = \
                  q.conversation_id)";
    assert_eq!(bed.psql(queued).await.trim(), "0");
    terminate([producer, consumer]);

    // Another key would bring it back, and is refused.
    for service in ["producer", "consumer"] {
        let mut command = bed.command(Role::Both, &[service]);
        command.env("NICE_KNOVVU_CATALOG__SEAL_KEY", "00".repeat(32));
        let refused = Ended::of(command);
        assert!(refused.code == Some(1) && refused.stderr.contains("[catalog] erasure_key"), "{refused:?}");
    }
    let mut command = bed.command(Role::Both, &["trace", gone, "--json"]);
    command.env("NICE_KNOVVU_CATALOG__SEAL_KEY", "00".repeat(32));
    command.env("NICE_KNOVVU_CATALOG__ERASURE_KEY", super::bed::SEAL_KEY);
    let traced = Ended::of(command);
    assert!(traced.code == Some(0) && traced.stdout.contains("erased"), "{traced:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_says_which_server_cannot_be_reached_and_is_finished_by_the_next() {
    let mut bed = ServerBed::new(small(1802, 0)).await;
    let (producer, consumer) = (bed.producer(), bed.consumer("consumer"));
    let id = bed.sim().add_call(recorded(bed.sim(), 0)).contact_ids[0].to_string();
    bed.quiet().await;
    terminate([producer, consumer]);
    let endpoint = format!("http://{}", bed.proxies.s3.address());
    bed.set("RECORDINGS__ENDPOINT", "http://127.0.0.1:1");
    let ended = bed.erase(Role::Both, &id);
    assert!(ended.code == Some(3) && ended.stderr.contains("recording store"), "{ended:?}");
    assert!(!bed.rows(&id).await.is_empty(), "the row says where the recordings lie");
    assert_eq!(bed.state_of(&id), "erased", "it cannot come back from here on");
    bed.set("RECORDINGS__ENDPOINT", endpoint);
    // A bucket that the settings do not name any more: to delete the row would leave its objects for ever.
    let bucket = bed.bucket.clone();
    bed.set("RECORDINGS__BUCKET", "moved");
    let ended = bed.erase(Role::Both, &id);
    assert!(ended.code == Some(1) && ended.stderr.contains(&format!("recordings lie in {bucket}")), "{ended:?}");
    assert!(!bed.rows(&id).await.is_empty() && bed.versions().await.contains(&format!("/{id}/")));
    bed.set("RECORDINGS__BUCKET", bucket);
    assert_eq!(bed.erase(Role::Both, &id).code, Some(0));
    assert_eq!(bed.rows(&id).await, "");
    assert!(!bed.versions().await.contains(&format!("/{id}/")));

    // Of one without a row nobody knows where its recordings would lie: that is said, and no success claimed.
    let slip = bed.erase(Role::Both, "4711");
    assert!(slip.code == Some(2) && slip.stderr.contains("--yes-unknown"), "{slip:?}");
    let strange = bed.ended(Role::Both, &["erase", "4711", "--yes-unknown"]);
    assert!(strange.code == Some(0) && strange.stdout.contains("recordings were not looked for"), "{strange:?}");
    let strange = bed.ended(Role::Both, &["erase", "4711", "--json"]);
    let report: Value = serde_json::from_str(&strange.stdout).unwrap();
    assert_eq!((&report["recordings_looked_for"], &report["objects"]), (&Value::Bool(false), &Value::from(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_retention_is_set_shown_and_kept_to() {
    let mut bed = ServerBed::new(small(1803, 0)).await;
    let receiver = bed.with_webhook();
    bed.set_nice("acme", &[("retention", "30d")]);
    let shown = bed.ended(Role::Owner, &["settings", "show"]);
    assert!(shown.stdout.lines().any(|line| line.starts_with("retention") && line.contains("30d")), "{shown:?}");
    let refused = bed.fed(
        Role::Owner,
        &["settings", "set"],
        "[nice]\nauth_flow = \"access_key\"\naccess_key_id = \"x\"\naccess_key_secret = \"x\"\ngroup = \"g\"\nretention = \"23h\"",
    );
    assert!(refused.code == Some(2) && refused.stderr.contains("retention"), "{refused:?}");
    let (mut producer, consumer) = (bed.producer(), bed.consumer("consumer"));
    let ids: Vec<String> =
        (0..2).map(|number| bed.sim().add_call(recorded(bed.sim(), number)).contact_ids[0].to_string()).collect();
    bed.quiet().await;

    // One that ended long ago turns up: it is not brought in to be erased again.
    let over = CallSpec { hang_up_in: SignedDuration::from_hours(-31 * 24), ..recorded(bed.sim(), 0) };
    let old = bed.sim().add_call(over).contact_ids[0].to_string();
    producer.ready().await;
    assert_eq!(post_event(receiver, format!(r#"{{"contactId":"{old}"}}"#)).await, Some(202));
    consumer.says("reason=\"beyond_retention\"").await;
    assert!(!bed.rows(&old).await.contains("conversations"));
    assert!(!bed.versions().await.contains(&format!("/{old}/")));
    terminate([producer, consumer]);
    bed.psql(&format!(
        "update conversations set ended_at = now() - interval '31 days' where external_id = '{}'",
        ids[0]
    ))
    .await;
    let mut consumer = bed.consumer("consumer");
    consumer.ready().await;
    let begun = Instant::now();
    while !bed.rows(&ids[0]).await.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "it is kept\n{}", bed.tails());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let versions = bed.versions().await;
    assert!(!versions.contains(&format!("/{}/", ids[0])) && versions.contains(&format!("/{}/", ids[1])), "{versions}");
    assert_eq!(bed.state_of(&ids[1]), "ready");
    terminate([consumer]);
}
