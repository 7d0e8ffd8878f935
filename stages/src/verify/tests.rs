//! Whatever becomes of an object is found, and nothing else.

use bytes::Bytes;
use catalog::EmbeddedCatalog;
use futures::stream;
use model::{AgentId, Conversation, Extension, ObjectKey, StoredRecording};
use recordings::{FilesystemStore, PutOutput};
use state::testing::TestState;
use tempfile::TempDir;

use super::*;

struct Rig {
    verifier: Verifier,
    dir: TempDir,
    _state: TestState,
}

const SOUND: &[u8] = b"the sound of a call";

impl Rig {
    async fn new() -> Self {
        let (state, dir) = (TestState::new(), tempfile::tempdir().unwrap());
        let verifier = Verifier {
            catalog: Arc::new(EmbeddedCatalog::open(state.state.store()).unwrap()),
            recordings: Arc::new(FilesystemStore::open(&dir.path().join("recordings")).await.unwrap()),
            tenant: None,
            clock: Clock::fixed(at(10_000)),
            metrics: Metrics::new(),
        };
        Self { verifier, dir, _state: state }
    }

    /// A conversation that is ready, with two recordings; the second one's row names this bucket.
    async fn bring_in(&self, id: u64, second_bucket: Option<&str>) -> Conversation {
        let conversation = conversation(id);
        let catalog = &self.verifier.catalog;
        catalog.save_metadata(&conversation).await.unwrap();
        let mut stored = Vec::new();
        for position in 0..2 {
            let key = object(&conversation, position);
            let body = stream::iter([Ok(Bytes::from_static(SOUND))]).boxed();
            let PutOutput { size_bytes, sha256 } = self.verifier.recordings.put(&key, "audio/wav", body).await.unwrap();
            let here = self.verifier.recordings.bucket();
            let bucket = second_bucket.filter(|_| position == 1).unwrap_or(here).to_owned();
            let content_type = "audio/wav".to_owned();
            stored.push(StoredRecording { key, bucket, size_bytes, sha256, content_type, source: None });
        }
        catalog.complete(&conversation.key(), &stored, 0, conversation.ended_at, None).await.unwrap();
        conversation
    }

    fn path(&self, conversation: &Conversation, position: u32) -> std::path::PathBuf {
        self.dir.path().join("recordings").join(object(conversation, position).to_string())
    }

    fn counted(&self, result: &str) -> u64 {
        self.verifier.metrics.recordings_verified.with_label_values(&[result]).get()
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_775_000_000 + seconds).unwrap()
}

fn object(conversation: &Conversation, position: u32) -> ObjectKey {
    let extension = Extension::for_content_type(Some("audio/wav"));
    ObjectKey::new(&conversation.key(), conversation.started_at, position, extension)
}

fn conversation(id: u64) -> Conversation {
    let ended_at = at(i64::try_from(id).unwrap());
    let mut event = flow::testing::event(id);
    event.ended_at = Some(ended_at);
    Conversation {
        tenant: event.tenant.clone(),
        external_id: event.conversation,
        source: event.source,
        lane: model::Lane::of(&event),
        master: event.conversation,
        agent: AgentId::from_number(7).unwrap(),
        started_at: ended_at - SignedDuration::from_mins(1),
        ended_at,
        direction: None,
        customer_number: None,
        metadata: serde_json::json!({}),
    }
}

#[tokio::test]
async fn what_is_as_its_row_says_is_no_difference() {
    let rig = Rig::new().await;
    let whole = rig.bring_in(1, None).await;
    let verified = rig.verifier.verify(&whole.key()).await.unwrap();
    assert_eq!(verified, Verified { recordings: 2, bytes: 2 * SOUND.len() as u64, ..Verified::default() });
    assert_eq!((rig.counted("same"), rig.counted("sha256")), (2, 0));
    let unknown = conversation(99);
    assert_eq!(rig.verifier.verify(&unknown.key()).await.unwrap(), Verified::default());
}

#[tokio::test]
async fn an_object_that_is_gone_cut_or_changed_is_named() {
    let rig = Rig::new().await;
    let call = rig.bring_in(1, None).await;
    let mut changed = SOUND.to_vec();
    changed[3] ^= 1;
    for (content, problem) in [
        (None, MismatchKind::Missing),
        (Some(SOUND[..7].to_vec()), MismatchKind::Length),
        (Some(changed), MismatchKind::Sha256),
    ] {
        let path = rig.path(&call, 1);
        match &content {
            None => std::fs::remove_file(&path).unwrap(),
            Some(content) => std::fs::write(&path, content).unwrap(),
        }
        let verified = rig.verifier.verify(&call.key()).await.unwrap();
        let [difference] = &verified.differences[..] else { panic!("{verified:?}") };
        assert_eq!((difference.position, difference.problem), (1, problem));
        assert_eq!(difference.object_key, object(&call, 1).to_string());
        assert_eq!(difference.found_size_bytes, content.as_ref().map(|content| content.len() as u64));
        assert_eq!(difference.found_sha256, content.map(|content| hex::encode(Sha256::digest(content))));
        assert_eq!((verified.recordings, rig.counted(problem.as_str())), (2, 1));
    }
}

#[tokio::test]
async fn a_recording_of_another_store_is_not_looked_at() {
    let rig = Rig::new().await;
    let call = rig.bring_in(1, Some("another-bucket")).await;
    let verified = rig.verifier.verify(&call.key()).await.unwrap();
    assert_eq!((verified.recordings, verified.elsewhere, verified.differences.len()), (1, 1, 0));
}

#[tokio::test]
async fn the_schedule_reads_some_of_the_latest_time() {
    let rig = Rig::new().await;
    let call = rig.bring_in(9_990, None).await;
    std::fs::remove_file(rig.path(&call, 0)).unwrap();
    let tenant = call.key().tenant;
    let verifier = Verifier { tenant: Some(tenant), ..rig.verifier.clone() };
    let schedule = Schedule { every: Duration::from_millis(20), sample: 10 };
    // Nothing ended within the last 20 ms.
    let running = tokio::time::timeout(Duration::from_millis(300), verifier.clone().run(schedule)).await;
    assert!(running.is_err() && rig.counted("missing") == 0);
    let found = verifier.verify_any(&call.key().tenant, Duration::from_secs(5)).await.unwrap();
    assert_eq!(found.recordings, 0);
    while rig.counted("missing") == 0 {
        verifier.verify_any(&call.key().tenant, Duration::from_secs(60)).await.unwrap();
    }
}
