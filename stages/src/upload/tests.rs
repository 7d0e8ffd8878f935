//! What a delivery stores and describes beside others of the same call.

use recordings::FilesystemStore;

use super::*;
use crate::download_recording::tests::{HOUR, Rig, TestCall, conversation, rig};
use crate::persist::Persist;

struct Desk {
    persist: Persist,
    upload: Upload,
    rig: Rig,
    dir: tempfile::TempDir,
}

impl Desk {
    async fn new() -> Self {
        let (rig, dir) = (rig().await, tempfile::tempdir().unwrap());
        let store = Arc::new(FilesystemStore::open(dir.path()).await.unwrap());
        let context = &rig.flow.context;
        let (catalog, clock) = (context.catalog.clone(), context.flow.clock.clone());
        let persist = Persist { catalog: context.catalog.clone() };
        let upload = Upload { store, catalog, clock, metrics: context.metrics.clone() };
        Self { persist, upload, rig, dir }
    }

    /// A call whose metadata is saved, long ago.
    async fn call(&self) -> TestCall {
        let call = conversation(HOUR * 49, 5);
        self.upload.catalog.save_metadata(&call).await.unwrap();
        call
    }

    /// What is opened of the call.
    async fn opened(&self, call: &TestCall) -> RecordedConversation {
        match self.rig.open(call).await.unwrap() {
            Outcome::Next(opened) => opened,
            Outcome::Done(word) => panic!("{word}"),
        }
    }

    /// The word with which it ends, or `ok`.
    async fn upload(&self, call: &TestCall, opened: RecordedConversation) -> &'static str {
        self.try_upload(call, opened).await.unwrap()
    }

    async fn try_upload(&self, call: &TestCall, opened: RecordedConversation) -> Result<&'static str, StageError> {
        let attempted = match self.persist.process(&call.event, opened).await? {
            Outcome::Next(attempted) => attempted,
            Outcome::Done(word) => return Ok(word),
        };
        match self.upload.process(&call.event, attempted).await? {
            Outcome::Next(()) => Ok("ok"),
            Outcome::Done(word) => Ok(word),
        }
    }

    /// Every file of the call, by its name.
    fn files(&self, call: &Conversation) -> Vec<(String, String)> {
        let folder = self.dir.path().join(ObjectKey::folder_of(&call.key(), call.started_at));
        let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
        let mut files: Vec<_> = entries
            .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read_to_string(entry.path()).unwrap()))
            .collect();
        files.sort();
        files
    }

    async fn row(&self, call: &Conversation) -> ConversationRow {
        self.upload.catalog.conversation(&call.key()).await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn a_delivery_replaces_nothing_of_a_call_that_is_ready_in_part() {
    let desk = Desk::new().await;
    let call = desk.call().await;
    desk.rig.names(&[(0, Some("first")), (60, None)]);
    assert_eq!(desk.upload(&call, desk.opened(&call).await).await, "ok");
    let (files, row) = (desk.files(&call), desk.row(&call).await);
    assert_eq!(row.recordings_missing, 1);
    // It comes once more, and NICE gives other bytes; or nothing, to one that looked before.
    desk.rig.names(&[(0, Some("other")), (60, None)]);
    assert_eq!(desk.upload(&call, desk.opened(&call).await).await, "already_final");
    let stale = RecordedConversation { conversation: call.conversation.clone(), media: Vec::new(), missing: 0 };
    assert_eq!(desk.upload(&call, stale).await, "already_final");
    assert_eq!(desk.files(&call), files);
    assert!(desk.row(&call).await == row);
}

#[tokio::test]
async fn a_recheck_that_finds_its_work_done_ends() {
    let desk = Desk::new().await;
    let mut call = desk.call().await;
    desk.rig.names(&[(0, Some("first")), (60, None), (90, None)]);
    assert_eq!(desk.upload(&call, desk.opened(&call).await).await, "ok");
    call.event.recheck = true;
    desk.rig.names(&[(0, Some("first")), (60, Some("second")), (90, None)]);
    let (one, two) = (desk.opened(&call).await, desk.opened(&call).await);
    desk.rig.names(&[(0, Some("first")), (60, Some("second")), (90, Some("third"))]);
    let more = desk.opened(&call).await;
    assert_eq!(desk.upload(&call, one).await, "ok");
    let files = desk.files(&call);
    assert_eq!(desk.upload(&call, two).await, NOTHING_NEW, "another one stored it");
    // One that would store this one again, and another: it looks once more.
    let error = desk.try_upload(&call, more).await.unwrap_err();
    assert!(matches!(error, StageError::Busy { .. }), "{error:?}");
    assert_eq!(desk.files(&call), files);
    let row = desk.row(&call).await;
    assert_eq!((row.recordings.len(), row.recordings_missing), (2, 1));
    assert_eq!(desk.upload(&call, desk.opened(&call).await).await, "ok");
    assert_eq!(desk.row(&call).await.recordings.len(), 3);
}
