//! What must lie on the servers when all calls are final: read from the servers themselves, never from the services.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use nice_sim::{Direction, TruthLeg};
use tokio_postgres::types::Json;

use super::bed::ServerBed;
use crate::harness::PATIENCE;

/// Objects that are read at a time.
const READERS: usize = 8;

/// What the oracle counted, of all tenants.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) ready: usize,
    pub(crate) no_recording: usize,
    /// Calls that ended as a dead letter.
    pub(crate) dead: usize,
    /// Dead letters of no call that NICE knows.
    pub(crate) strange: usize,
}

/// A row of `conversations`, with what belongs to it.
struct Row {
    id: i64,
    master: String,
    agent: String,
    started_at: Timestamp,
    ended_at: Timestamp,
    direction: Option<String>,
    customer_number: Option<String>,
    state: String,
    queued: i64,
    recordings: Vec<Recording>,
}

/// A row of `recordings`.
struct Recording {
    position: i32,
    bucket: String,
    key: String,
    size: i64,
    sha256: String,
    content_type: String,
}

/// Compares all that every simulated NICE knows with all that lies on the servers.
pub(crate) async fn verify(bed: &ServerBed) -> Verdict {
    let mut verdict = Verdict::default();
    let mut expected_objects = BTreeMap::new();
    let mut rows = conversations(bed).await;
    let mut letters = letters(bed).await;
    for tenant in &bed.tenants {
        for leg in tenant.sim.truth() {
            let key = (tenant.id.clone(), leg.contact_id.to_string());
            let mut found = rows.remove(&key).unwrap_or_default();
            if !leg.in_group {
                assert!(found.is_empty(), "a call of an agent outside the group was stored: {key:?}");
                continue;
            }
            assert!(found.len() <= 1, "{key:?} is doubled: {} rows", found.len());
            let reason = letters.remove(&key);
            match found.pop() {
                Some(row) if row.state != "metadata_saved" => {
                    check_row(&row, &leg);
                    check_keys(&row, &leg, &tenant.id, &bed.bucket);
                    assert_eq!(reason, None, "{key:?} is final and a dead letter too");
                    let count = if row.state == "ready" { &mut verdict.ready } else { &mut verdict.no_recording };
                    *count += 1;
                    expected_objects
                        .extend(row.recordings.into_iter().map(|recording| (recording.key.clone(), recording)));
                }
                row => {
                    let state = row.map(|row| row.state);
                    let reason =
                        reason.unwrap_or_else(|| panic!("{key:?} is lost: {state:?}, no letter\n{}", bed.tails()));
                    assert!(!reason.is_empty());
                    verdict.dead += 1;
                }
            }
        }
        let violations = tenant.sim.violations();
        assert!(violations.is_empty(), "{violations:?}");
    }
    assert!(rows.is_empty(), "rows of no call: {:?}", rows.keys());
    verdict.strange = letters.len();
    check_bucket(bed, &expected_objects).await;
    // The broker counts the messages of a quorum queue every few seconds only.
    let begun = Instant::now();
    while let Some((queue, _)) = bed.queues().await.into_iter().find(|(_, messages)| *messages > 0) {
        assert!(begun.elapsed() < PATIENCE, "messages are left in {queue}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    verdict
}

type Key = (String, String);

async fn conversations(bed: &ServerBed) -> BTreeMap<Key, Vec<Row>> {
    let sql = bed.sql().await;
    let mut recordings: BTreeMap<i64, Vec<Recording>> = BTreeMap::new();
    let query = "select conversation_id, position, bucket, object_key, size_bytes, sha256, content_type
                 from recordings order by conversation_id, position";
    for row in sql.query(query, &[]).await.unwrap() {
        recordings.entry(row.get(0)).or_default().push(Recording {
            position: row.get(1),
            bucket: row.get(2),
            key: row.get(3),
            size: row.get(4),
            sha256: row.get(5),
            content_type: row.get(6),
        });
    }
    let query = "select tenant_id, external_id, id, master_external_id, agent_external_id, started_at, ended_at,
                        direction, customer_number, state, metadata,
                        (select count(*) from analysis_queue q where q.conversation_id = c.id)
                 from conversations c where integration_type = 'nice-cxone'";
    let mut rows: BTreeMap<Key, Vec<Row>> = BTreeMap::new();
    for row in sql.query(query, &[]).await.unwrap() {
        let id = row.get("id");
        assert!(row.get::<_, Json<serde_json::Value>>("metadata").0.is_object(), "metadata of {id}");
        rows.entry((row.get(0), row.get(1))).or_default().push(Row {
            id,
            master: row.get("master_external_id"),
            agent: row.get("agent_external_id"),
            started_at: row.get("started_at"),
            ended_at: row.get("ended_at"),
            direction: row.get("direction"),
            customer_number: row.get("customer_number"),
            state: row.get("state"),
            queued: row.get(11),
            recordings: recordings.remove(&id).unwrap_or_default(),
        });
    }
    assert!(recordings.is_empty(), "recordings of no conversation");
    let all: i64 = sql.query_one("select count(*) from conversations", &[]).await.unwrap().get(0);
    assert_eq!(all as usize, rows.values().map(Vec::len).sum::<usize>(), "rows of another integration");
    rows
}

/// The reason of every dead letter.
async fn letters(bed: &ServerBed) -> BTreeMap<Key, String> {
    let query = "select coalesce(tenant_id, ''), coalesce(conversation_id, 'letter ' || id), reason from dead_letters";
    let rows = bed.sql().await.query(query, &[]).await.unwrap();
    rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect()
}

fn check_row(row: &Row, leg: &TruthLeg) {
    let id = leg.contact_id;
    assert_eq!(row.master, leg.master_contact_id.to_string(), "{id}");
    assert_eq!(row.agent, leg.agent_id.to_string(), "{id}");
    let direction = match leg.direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    };
    assert_eq!(row.direction.as_deref(), Some(direction), "{id}");
    assert_eq!(row.customer_number.as_deref(), Some(leg.customer_number.as_str()), "{id}");
    assert!(row.started_at.duration_since(leg.started_at).as_secs() == 0, "{id}: start");
    assert!(row.ended_at.duration_since(leg.ended_at).as_secs().abs() <= 1, "{id}: end");
    let stored: Vec<_> = row.recordings.iter().map(|stored| (stored.size as u64, stored.sha256.clone())).collect();
    let sent: Vec<_> = leg.recordings.iter().map(|sent| (sent.size, sent.sha256.clone())).collect();
    assert_eq!(stored, sent, "{id}: recordings");
    assert_eq!(row.state, if sent.is_empty() { "no_recording" } else { "ready" }, "{id}");
    assert_eq!(row.queued, i64::from(!sent.is_empty()), "{id}: entries in the analysis queue of row {}", row.id);
}

fn check_keys(row: &Row, leg: &TruthLeg, tenant: &str, bucket: &str) {
    let day = leg.started_at.to_zoned(TimeZone::UTC).strftime("%Y/%m/%d");
    for (position, recording) in row.recordings.iter().enumerate() {
        let folder = format!("{tenant}/{day}/{}/{position}.", leg.contact_id);
        let extension = recording.key.strip_prefix(&folder);
        assert!(
            extension.is_some_and(|extension| (1..=5).contains(&extension.len())),
            "{} not {folder}",
            recording.key
        );
        assert_eq!((recording.position as usize, recording.bucket.as_str()), (position, bucket));
    }
}

/// The bucket holds exactly the recordings, byte for byte, and no upload is open.
async fn check_bucket(bed: &ServerBed, expected: &BTreeMap<String, Recording>) {
    let store = bed.store();
    let keys: BTreeSet<_> = store.keys().await.into_iter().collect();
    let strange: Vec<_> = keys.iter().filter(|key| !expected.contains_key(*key)).collect();
    assert!(strange.is_empty(), "objects of no recording: {strange:?}");
    let objects = stream::iter(expected).map(|(key, recording)| {
        let store = &store;
        async move { (recording, store.object(key).await) }
    });
    let mut objects = objects.buffer_unordered(READERS);
    while let Some((recording, object)) = objects.next().await {
        let key = &recording.key;
        assert_eq!(object.size, recording.size as u64, "{key}");
        assert_eq!(object.sha256, recording.sha256, "{key}");
        assert_eq!(object.told_sha256.as_deref(), Some(recording.sha256.as_str()), "{key}");
        assert_eq!(object.content_type, recording.content_type, "{key}");
    }
    let uploads = open_uploads(bed).await;
    assert!(!uploads.contains("<Upload>"), "{uploads}");
}

/// What the store says of uploads that are neither completed nor aborted.
pub(crate) async fn open_uploads(bed: &ServerBed) -> String {
    let uploads = bed.servers.s3.request("GET", &format!("/{}?uploads", bed.bucket), Vec::new()).await;
    let uploads = String::from_utf8(uploads).unwrap();
    assert!(uploads.contains("ListMultipartUploadsResult"), "{uploads}");
    uploads
}
