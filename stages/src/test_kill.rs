//! What the embedded doors promise holds when the process is killed: a child of the test dies by SIGKILL in the
//! midst of its work, and the parent opens what it left.
//!
//! The child is this very test binary, told by a variable of the environment which directory is its own. It
//! writes a line for each thing that the doors have promised to keep.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use catalog::{Catalog, EmbeddedCatalog, roles::*};
use futures::{StreamExt, stream};
use model::{
    AgentId, ContactEvent, ContactId, Conversation, ConversationKey, ConversationState, DeadLetter, EventSource, Lane,
};
use queue::{EmbeddedQueue, Queue};
use runtime::Clock;
use state::testing;

/// Names the directory of the child.
const DIR: &str = "NICE_KNOVVU_TEST_KILL_DIR";

/// Conversations at work at a time, so that commits are shared and interleave.
const CONCURRENCY: usize = 16;

fn event(id: u64) -> ContactEvent {
    ContactEvent::new("acme".parse().unwrap(), ContactId::from_number(id).unwrap(), EventSource::Poll)
}

fn key(id: u64) -> ConversationKey {
    event(id).key()
}

fn conversation(id: u64) -> Conversation {
    let ended_at = "2026-04-01T12:00:00Z".parse().unwrap();
    Conversation {
        tenant: key(id).tenant,
        external_id: key(id).external_id,
        source: EventSource::Poll,
        lane: Lane::Live,
        master: ContactId::from_number(id).unwrap(),
        agent: AgentId::from_number(7).unwrap(),
        started_at: ended_at,
        ended_at,
        direction: None,
        customer_number: None,
        // Some above the size that sled moves into a file of its own.
        metadata: serde_json::json!({ "notes": "x".repeat(if id.is_multiple_of(10) { 150_000 } else { 300 }) }),
    }
}

/// The child: publishes, completes and sets aside until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_until_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let state = testing::open(Path::new(&dir));
    let queue = EmbeddedQueue::open(state.store(), Clock::system()).unwrap();
    let catalog = EmbeddedCatalog::open(state.store()).unwrap();
    let first = catalog.counts().await.unwrap().ready * 1000 + 1;
    stream::iter(first..)
        .for_each_concurrent(CONCURRENCY, |id| {
            let (queue, catalog) = (&queue, &catalog);
            async move {
                queue.publish(Lane::Live, Bytes::from(event(id).encode())).await.unwrap();
                promised(&format!("published {id}"));
                catalog.save_metadata(&conversation(id)).await.unwrap();
                catalog.complete(&key(id), &[], 0, jiff::Timestamp::now(), None).await.unwrap();
                promised(&format!("completed {id}"));
                let letter = DeadLetter::of_event(&event(id), "upload", "no", jiff::Timestamp::now());
                catalog.add_dead_letter(letter).await.unwrap();
                promised(&format!("shelved {id}"));
            }
        })
        .await;
}

fn promised(what: &str) {
    // One write for each line, so that the parent never reads half of one as a whole.
    std::io::stderr().write_all(format!("promised {what}\n").as_bytes()).unwrap();
}

/// Lets a child work until it has made so many promises, and kills it. Returns them.
fn kill_after(dir: &Path, promises: usize) -> BTreeSet<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "test_kill::work_until_killed", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let read = |line: Result<String, _>| -> Option<String> {
        Some(Result::<_, std::io::Error>::ok(line)?.strip_prefix("promised ")?.to_owned())
    };
    let mut kept: BTreeSet<_> = lines.by_ref().filter_map(read).take(promises).collect();
    child.kill().unwrap();
    // What it said until it died counts as well.
    kept.extend(lines.filter_map(read));
    child.wait().unwrap();
    assert!(kept.len() >= promises, "the child died by itself after {kept:?}");
    kept
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_promised_before_a_kill_is_there_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut kept = BTreeSet::new();
    for promises in [1, 40, 400, 150] {
        let path: PathBuf = dir.path().to_owned();
        kept.extend(tokio::task::spawn_blocking(move || kill_after(&path, promises)).await.unwrap());
        assert_kept(dir.path(), &kept).await;
    }
}

async fn assert_kept(dir: &Path, kept: &BTreeSet<String>) {
    let state = testing::open(dir);
    let queue = EmbeddedQueue::open(state.store(), Clock::system()).unwrap();
    let catalog: Arc<dyn Catalog> = Arc::new(EmbeddedCatalog::open(state.store()).unwrap());
    let live = usize::try_from(queue.backlog().await.unwrap().live).unwrap();
    // All are held at once: what is dropped comes again.
    let held: Vec<_> = queue.deliveries(live).take(live).map(Result::unwrap).collect().await;
    let events = held.iter().map(|delivery| ContactEvent::decode(&delivery.body).unwrap());
    let queued: BTreeSet<_> = events.map(|event| event.conversation.get()).collect();
    drop(held);
    let letters = catalog.dead_letters(0, usize::MAX).await.unwrap();
    let shelved: BTreeSet<_> = letters.iter().filter_map(|letter| letter.conversation_id.clone()).collect();
    let analysis = catalog.analysis_queue(0, usize::MAX).await.unwrap();
    let awaiting: BTreeSet<_> = analysis.iter().map(|entry| entry.key.external_id.get()).collect();
    for promise in kept {
        let (what, id) = promise.split_once(' ').unwrap();
        let number: u64 = id.parse().unwrap();
        match what {
            "published" => assert!(queued.contains(&number), "{promise}"),
            "shelved" => assert!(shelved.contains(id), "{promise}"),
            _ => {
                let row = catalog.conversation(&key(number)).await.unwrap().unwrap();
                assert!(row.state == ConversationState::Ready && row.metadata == conversation(number).metadata);
                assert!(awaiting.contains(&number), "{promise}");
            }
        }
    }
    // Whatever else is there hangs together: a row is ready if and only if its entry stands.
    let counts = catalog.counts().await.unwrap();
    assert_eq!((counts.ready as usize, counts.dead_letters as usize), (analysis.len(), letters.len()));
    assert_eq!((awaiting.len(), shelved.len()), (analysis.len(), letters.len()), "each once");
    for id in &awaiting {
        assert_eq!(catalog.status(&key(*id)).await.unwrap().state(), Some(ConversationState::Ready));
    }
}
