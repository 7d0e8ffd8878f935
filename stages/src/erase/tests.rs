//! What an erasure removes, when it ends, and what retention takes.

use async_trait::async_trait;
use bytes::Bytes;
use catalog::{ConversationStatus, EmbeddedCatalog};
use futures::{stream, stream::StreamExt};
use jiff::Timestamp;
use model::{AgentId, ContactEvent, Conversation, DeadLetter, Extension, Lane, StoredRecording};
use queue::EmbeddedQueue;
use recordings::{CurrentObject, FilesystemStore, PutOutput, RecordingBody, RecordingStoreError};
use state::testing::TestState;
use tempfile::TempDir;

use super::*;
use crate::tenants::{SettingsError, SettingsSource, TenantSettings};

/// Keeps the conversations of `acme` for so long.
struct Kept(Retention);

#[async_trait]
impl SettingsSource for Kept {
    async fn nice_settings(&self, _tenant: &TenantId) -> Result<Option<TenantSettings>, SettingsError> {
        Ok(None)
    }

    async fn retentions(&self) -> Result<Vec<(TenantId, Retention)>, SettingsError> {
        Ok(vec![("acme".parse().unwrap(), self.0)])
    }
}

struct Rig {
    eraser: Eraser,
    state: TestState,
    dir: TempDir,
}

impl Rig {
    async fn new(retention: Retention) -> Self {
        let (state, dir) = (TestState::new(), tempfile::tempdir().unwrap());
        let (clock, metrics) = (Clock::fixed(at("2026-04-02T12:00:00Z")), Metrics::new());
        let quota: crate::tenants::QuotaOf = Arc::new(|_| unreachable!("nobody asks NICE"));
        let eraser = Eraser {
            catalog: Arc::new(EmbeddedCatalog::open(state.state.store()).unwrap()),
            recordings: Arc::new(FilesystemStore::open(dir.path()).await.unwrap()),
            queue: Arc::new(EmbeddedQueue::open(state.state.store(), clock.clone()).unwrap()),
            tenants: Arc::new(Tenants::new(Arc::new(Kept(retention)), quota, metrics.clone())),
            clock,
            metrics,
        };
        Self { eraser, state, dir }
    }

    /// A conversation that is ready, with one recording.
    async fn bring_in(&self, conversation: &Conversation) {
        self.eraser.catalog.save_metadata(conversation).await.unwrap();
        let recording = self.store(conversation).await;
        self.eraser.catalog.complete(&conversation.key(), &[recording], 0, conversation.ended_at, None).await.unwrap();
    }

    async fn store(&self, conversation: &Conversation) -> StoredRecording {
        let key = object(conversation);
        let body = stream::iter([Ok(Bytes::from_static(b"sound"))]).boxed();
        let PutOutput { size_bytes, sha256 } = self.eraser.recordings.put(&key, "audio/wav", body).await.unwrap();
        let (bucket, content_type) = (self.eraser.recordings.bucket().to_owned(), "audio/wav".to_owned());
        StoredRecording { key, bucket, size_bytes, sha256, content_type, source: None }
    }

    fn is_stored(&self, conversation: &Conversation) -> bool {
        self.dir.path().join(object(conversation).to_string()).exists()
    }

    fn erased(&self, reason: &str) -> u64 {
        self.eraser.metrics.conversations_erased.with_label_values(&[reason]).get()
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn object(conversation: &Conversation) -> ObjectKey {
    let extension = Extension::for_content_type(Some("audio/wav"));
    ObjectKey::new(&conversation.key(), conversation.started_at, 0, extension)
}

/// One that ended at this time, a minute after it began.
fn conversation(id: u64, ended_at: &str) -> Conversation {
    let ended_at = at(ended_at);
    let mut event = flow::testing::event(id);
    event.ended_at = Some(ended_at);
    Conversation {
        tenant: event.tenant.clone(),
        external_id: event.conversation,
        source: event.source,
        lane: Lane::of(&event),
        master: event.conversation,
        agent: AgentId::from_number(7).unwrap(),
        started_at: ended_at - SignedDuration::from_mins(1),
        ended_at,
        direction: None,
        customer_number: None,
        metadata: serde_json::json!({}),
    }
}

/// The event that it began as.
fn event_of(conversation: &Conversation) -> ContactEvent {
    ContactEvent::new(conversation.tenant.clone(), conversation.external_id, conversation.source)
}

const YESTERDAY: &str = "2026-04-01T16:34:25Z";

#[tokio::test]
async fn everything_of_the_conversation_goes_and_its_neighbours_stay() {
    let rig = Rig::new(Retention::default()).await;
    let (gone, kept) = (conversation(1, YESTERDAY), conversation(11, YESTERDAY));
    for conversation in [&gone, &kept] {
        rig.bring_in(conversation).await;
        let letter = DeadLetter::of_event(&event_of(conversation), "upload", "why", conversation.ended_at);
        rig.eraser.catalog.add_dead_letter(letter).await.unwrap();
        rig.eraser.queue.publish(Lane::Live, event_of(conversation).encode().into()).await.unwrap();
        let delay = Duration::from_secs(60);
        rig.eraser.queue.publish_delayed(Lane::Backfill, event_of(conversation).encode().into(), delay).await.unwrap();
    }
    let report = rig.eraser.erase(&gone.key()).await.unwrap();
    assert_eq!((report.objects, report.messages, report.rows.conversation), (Some(1), Some(2), true));
    assert!(!rig.is_stored(&gone) && rig.is_stored(&kept));
    let backlog = rig.eraser.queue.backlog().await.unwrap();
    assert_eq!((backlog.live, backlog.delayed), (1, 1));
    assert_eq!(rig.eraser.catalog.counts().await.unwrap().dead_letters, 1);
    let again = rig.eraser.erase(&gone.key()).await.unwrap();
    assert_eq!(again, ErasureReport { rows: ErasedRows::default(), objects: Some(0), messages: Some(0), ..report });
    assert!(rig.is_stored(&kept));
}

#[tokio::test]
async fn what_appears_after_the_erasure_is_removed_until_nothing_can_appear_any_more() {
    let rig = Rig::new(Retention::default()).await;
    let conversation = conversation(1, YESTERDAY);
    rig.bring_in(&conversation).await;
    rig.eraser.erase(&conversation.key()).await.unwrap();
    for _ in 0..5 {
        // An upload that was under way comes to its end.
        rig.store(&conversation).await;
        rig.eraser.look_again().await;
        assert!(!rig.is_stored(&conversation));
        assert_eq!((rig.eraser.metrics.erasures_pending.get(), rig.erased("operator")), (1, 0));
        rig.eraser.clock.advance(SignedDuration::from_hours(1));
    }
    rig.eraser.clock.advance(SignedDuration::from_hours(1));
    rig.eraser.look_again().await;
    assert_eq!((rig.eraser.metrics.erasures_pending.get(), rig.erased("operator")), (0, 1));
    assert_eq!(rig.eraser.catalog.pending_erasures(None, 10).await.unwrap(), []);
    assert_eq!(rig.eraser.catalog.status(&conversation.key()).await.unwrap(), ConversationStatus::Erased);
    rig.eraser.look_again().await;
    assert_eq!(rig.erased("operator"), 1);
}

#[tokio::test]
async fn an_erasure_that_broke_off_is_finished_by_the_next_look() {
    let rig = Rig::new(Retention::default()).await;
    let conversation = conversation(1, YESTERDAY);
    rig.bring_in(&conversation).await;
    rig.eraser.catalog.begin_erasure(&conversation.key(), rig.eraser.clock.now()).await.unwrap();
    // Here the process ends, and another one opens what it has left.
    let state = rig.state.crashed();
    let catalog = Arc::new(EmbeddedCatalog::open(state.state.store()).unwrap());
    let queue = Arc::new(EmbeddedQueue::open(state.state.store(), rig.eraser.clock.clone()).unwrap());
    let eraser = Eraser { catalog, queue, ..rig.eraser.clone() };
    assert_eq!(eraser.catalog.status(&conversation.key()).await.unwrap(), ConversationStatus::Erased);
    eraser.look_again().await;
    assert!(!rig.is_stored(&conversation));
    assert!(eraser.catalog.conversation(&conversation.key()).await.unwrap().is_none());
}

#[tokio::test]
async fn what_is_beyond_the_retention_goes_and_leaves_no_tombstone() {
    let rig = Rig::new(Retention::new(Duration::from_secs(86_400)).unwrap()).await;
    // More than one batch.
    let old: Vec<_> = (1..=250).map(|id| conversation(id, "2026-04-01T11:59:59Z")).collect();
    let young = conversation(1000, "2026-04-01T12:00:01Z");
    let unfinished = conversation(1001, "2026-04-01T11:00:00Z");
    for conversation in old.iter().chain([&young]) {
        rig.bring_in(conversation).await;
    }
    rig.eraser.catalog.save_metadata(&unfinished).await.unwrap();
    rig.store(&unfinished).await;
    rig.eraser.expire().await;
    assert_eq!(rig.erased("retention"), 250);
    for conversation in &old {
        assert!(!rig.is_stored(conversation));
        assert_eq!(rig.eraser.catalog.status(&conversation.key()).await.unwrap(), ConversationStatus::Unknown);
    }
    assert!(rig.is_stored(&young) && rig.is_stored(&unfinished));
    let now = rig.eraser.clock.now().as_second() as f64;
    assert_eq!(rig.eraser.metrics.retention_last_sweep.get(), now);
    rig.eraser.clock.advance(SignedDuration::from_hours(7));
    rig.eraser.expire().await;
    assert!(!rig.is_stored(&young) && !rig.is_stored(&unfinished));
    assert_eq!(rig.eraser.catalog.counts().await.unwrap(), Default::default());
}

#[tokio::test]
async fn recordings_that_withstand_keep_their_row_and_no_others() {
    let rig = Rig::new(Retention::new(Duration::from_secs(86_400)).unwrap()).await;
    let old: Vec<_> = (1..=3).map(|id| conversation(id, "2026-04-01T11:59:59Z")).collect();
    for conversation in &old {
        rig.bring_in(conversation).await;
    }
    // A file stands where the folder should be: it can be neither listed nor removed as one.
    let folder = rig.dir.path().join(object(&old[1]).folder());
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::write(&folder, b"").unwrap();
    rig.eraser.expire().await;
    let standing = async |conversation: &Conversation| rig.eraser.catalog.status(&conversation.key()).await.unwrap();
    assert_eq!(standing(&old[0]).await, ConversationStatus::Unknown);
    assert!(
        matches!(standing(&old[1]).await, ConversationStatus::Saved(_)),
        "whoever looks for it finds where it lies"
    );
    assert_eq!(standing(&old[2]).await, ConversationStatus::Unknown);
    assert_eq!(rig.eraser.metrics.retention_last_sweep.get(), 0.0, "the alarm sees it");
    assert!(rig.eraser.erase(&old[1].key()).await.is_err());
    std::fs::remove_file(&folder).unwrap();
    rig.eraser.expire().await;
    assert_eq!(standing(&old[1]).await, ConversationStatus::Erased, "the operator's wish goes on");
    assert!(rig.eraser.catalog.conversation(&old[1].key()).await.unwrap().is_none());
    assert!(rig.eraser.metrics.retention_last_sweep.get() > 0.0);
}

/// Conversations whose recordings lie in another store.
async fn bring_in_elsewhere(rig: &Rig, other: &FilesystemStore, conversation: &Conversation) {
    rig.eraser.catalog.save_metadata(conversation).await.unwrap();
    let body = stream::iter([Ok(Bytes::from_static(b"sound"))]).boxed();
    other.put(&object(conversation), "audio/wav", body).await.unwrap();
    let recording = StoredRecording {
        key: object(conversation),
        bucket: other.bucket().to_owned(),
        size_bytes: 5,
        sha256: "0".repeat(64),
        content_type: "audio/wav".to_owned(),
        source: None,
    };
    rig.eraser.catalog.complete(&conversation.key(), &[recording], 0, conversation.ended_at, None).await.unwrap();
}

#[tokio::test]
async fn recordings_in_another_store_keep_their_row_until_they_are_erased_there() {
    let rig = Rig::new(Retention::default()).await;
    let dir = tempfile::tempdir().unwrap();
    let other = FilesystemStore::open(dir.path()).await.unwrap();
    let conversation = conversation(1, YESTERDAY);
    bring_in_elsewhere(&rig, &other, &conversation).await;
    let refused = rig.eraser.erase(&conversation.key()).await.unwrap_err();
    let StageError::Permanent { reason } = &refused else { panic!("{refused:?}") };
    assert!(reason.contains(other.bucket()) && reason.contains("[recordings]") && reason.contains("run `erase`"));
    rig.eraser.look_again().await;
    assert!(rig.eraser.catalog.conversation(&conversation.key()).await.unwrap().is_some(), "it tells where they lie");
    assert_eq!(rig.eraser.metrics.erasures_pending.get(), 1);
    let there = Eraser { recordings: Arc::new(other), ..rig.eraser.clone() };
    assert_eq!(there.erase(&conversation.key()).await.unwrap().objects, Some(1));
    assert!(!dir.path().join(object(&conversation).to_string()).exists());
    assert!(rig.eraser.catalog.conversation(&conversation.key()).await.unwrap().is_none());
}

#[tokio::test]
async fn retention_leaves_out_what_lies_in_another_store_and_does_not_stop_there() {
    let rig = Rig::new(Retention::new(Duration::from_secs(86_400)).unwrap()).await;
    let dir = tempfile::tempdir().unwrap();
    let other = FilesystemStore::open(dir.path()).await.unwrap();
    // More than one batch, and before the others.
    let elsewhere: Vec<_> = (1..=BATCH as u64 + 1).map(|id| conversation(id, "2026-04-01T11:59:59Z")).collect();
    for conversation in &elsewhere {
        bring_in_elsewhere(&rig, &other, conversation).await;
    }
    let here = conversation(1000, "2026-04-01T11:59:59Z");
    rig.bring_in(&here).await;
    rig.eraser.expire().await;
    assert!(!rig.is_stored(&here));
    assert_eq!(rig.erased("retention"), 1);
    for conversation in &elsewhere {
        assert!(rig.eraser.catalog.conversation(&conversation.key()).await.unwrap().is_some());
        assert!(dir.path().join(object(conversation).to_string()).exists());
    }
    assert_eq!(rig.eraser.metrics.retention_last_sweep.get(), 0.0, "the alarm sees it");
    Eraser { recordings: Arc::new(other), ..rig.eraser.clone() }.expire().await;
    assert_eq!(rig.eraser.catalog.counts().await.unwrap(), Default::default());
    assert!(rig.eraser.metrics.retention_last_sweep.get() > 0.0);
}

#[tokio::test]
async fn recordings_are_erased_where_their_rows_say_that_they_lie() {
    let rig = Rig::new(Retention::default()).await;
    let stored = conversation(1, YESTERDAY);
    let recording = rig.store(&stored).await;
    // The row has a start by which they would lie under another day.
    let corrected = Conversation { started_at: at("2026-03-30T10:00:00Z"), ..stored.clone() };
    rig.eraser.catalog.save_metadata(&corrected).await.unwrap();
    rig.eraser.catalog.complete(&corrected.key(), &[recording], 0, corrected.ended_at, None).await.unwrap();
    assert_eq!(rig.eraser.erase(&corrected.key()).await.unwrap().objects, Some(1));
    assert!(!rig.is_stored(&stored));
}

#[tokio::test]
async fn a_folder_that_was_moved_is_still_where_its_recordings_lie() {
    let mut rig = Rig::new(Retention::default()).await;
    let conversation = conversation(1, YESTERDAY);
    rig.bring_in(&conversation).await;
    let root = tempfile::tempdir().unwrap();
    let moved = root.path().join("moved");
    std::fs::rename(rig.dir.path(), &moved).unwrap();
    rig.eraser.recordings = Arc::new(FilesystemStore::open(&moved).await.unwrap());
    assert_eq!(rig.eraser.erase(&conversation.key()).await.unwrap().objects, Some(1));
    assert!(!moved.join(object(&conversation).to_string()).exists());
}

/// A store too large to be searched, and one that does not come to an end with deleting.
struct Large;

#[async_trait]
impl RecordingStore for Large {
    fn bucket(&self) -> &str {
        "large"
    }

    async fn put_if_unchanged(
        &self,
        _key: &ObjectKey,
        _content_type: &str,
        _found: Option<&CurrentObject>,
        _body: RecordingBody<'_>,
    ) -> Result<PutOutput, RecordingStoreError> {
        unreachable!("nothing is stored")
    }

    async fn find(&self, _key: &ObjectKey) -> Result<CurrentObject, RecordingStoreError> {
        unreachable!("nothing is stored")
    }

    async fn read(&self, _key: &str) -> Result<Option<RecordingBody<'static>>, RecordingStoreError> {
        unreachable!("nothing is stored")
    }

    async fn describe(&self, _folder: &str, _description: &[u8]) -> Result<(), RecordingStoreError> {
        unreachable!("nothing is stored")
    }

    async fn size(&self, _key: &ObjectKey) -> Result<Option<u64>, RecordingStoreError> {
        unreachable!("nothing is stored")
    }

    async fn erase(&self, _conversation: &ConversationKey, _started_at: Timestamp) -> Result<u64, RecordingStoreError> {
        std::future::pending().await
    }

    async fn sweep(&self) -> Result<u64, RecordingStoreError> {
        Ok(0)
    }

    async fn check(&self) -> Result<(), RecordingStoreError> {
        Ok(())
    }
}

#[tokio::test]
async fn recordings_without_a_row_are_found_or_it_is_said_that_none_were_looked_for() {
    let rig = Rig::new(Retention::default()).await;
    let (rowless, neighbour) = (conversation(1, YESTERDAY), conversation(11, YESTERDAY));
    rig.store(&rowless).await;
    rig.store(&neighbour).await;
    let large = Eraser { recordings: Arc::new(Large), ..rig.eraser.clone() };
    assert_eq!(large.erase(&rowless.key()).await.unwrap().objects, None);
    assert_eq!(rig.eraser.erase(&rowless.key()).await.unwrap().objects, Some(1));
    assert!(!rig.is_stored(&rowless) && rig.is_stored(&neighbour));
    assert_eq!(rig.eraser.erase(&rowless.key()).await.unwrap().objects, Some(0));
}

#[tokio::test(start_paused = true)]
async fn pending_erasures_do_not_wait_for_a_sweep_that_takes_long() {
    let mut rig = Rig::new(Retention::new(Duration::from_secs(86_400)).unwrap()).await;
    let (old, erased) = (conversation(1, "2026-03-01T12:00:00Z"), conversation(2, YESTERDAY));
    rig.eraser.catalog.save_metadata(&old).await.unwrap();
    let letter = DeadLetter::of_event(&event_of(&erased), "upload", "why", erased.ended_at);
    rig.eraser.catalog.add_dead_letter(letter).await.unwrap();
    rig.eraser.recordings = Arc::new(Large);
    let looks = async {
        // The first look is over, and the sweep under way.
        tokio::time::sleep(LOOK / 2).await;
        rig.eraser.catalog.begin_erasure(&erased.key(), rig.eraser.clock.now()).await.unwrap();
        for _ in 0..100 {
            if rig.eraser.catalog.counts().await.unwrap().dead_letters == 0 {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
        panic!("it is not looked at again");
    };
    tokio::select! {
        () = rig.eraser.clone().run() => unreachable!("it runs until it is dropped"),
        () = looks => {}
    }
}

#[tokio::test]
async fn retention_takes_nothing_while_the_clocks_disagree() {
    use catalog::PostgresCatalog;
    use database::testing::TestDatabase;

    let mut rig = Rig::new(Retention::default()).await;
    let database = TestDatabase::on(test_servers::postgres().await).await;
    database
        .sql(
            "insert into tenants (tenant_id, slug) values ('acme', 'acme');
             insert into nice_settings (tenant_id, issuer, auth_flow, access_key_id, access_key_secret, group_kind,
                 \"group\", api_version, media_hosts, recording_scope, retention)
             values ('acme', 'https://x', 'access_key', 'x', 'v1.x', 'team', 'x', 'v33.0', array['x'], 'leg', '1 day')",
        )
        .await;
    rig.eraser.catalog = Arc::new(PostgresCatalog::new(database.member("test_consumer"), None));
    let conversation = conversation(1, "2020-01-01T00:00:00Z");
    rig.bring_in(&conversation).await;
    let real = Clock::system();
    let off = |by| Eraser { clock: Clock::fixed(real.now() + by), ..rig.eraser.clone() };
    for by in [SignedDuration::from_mins(62), SignedDuration::from_mins(-62)] {
        off(by).expire().await;
        assert!(rig.is_stored(&conversation));
        assert_eq!(rig.eraser.metrics.retention_last_sweep.get(), 0.0, "the alarm sees it");
    }
    off(SignedDuration::from_mins(-30)).expire().await;
    assert!(!rig.is_stored(&conversation));
    assert!(rig.eraser.metrics.retention_last_sweep.get() > 0.0);
}
