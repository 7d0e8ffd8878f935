//! What every recording store must do, whatever stands behind the door: one named check for each promise.
//!
//! An implementation writes a [`Subject`] and calls `recording_store_checks!(TheSubject);` in its tests, with
//! attributes before the name where a server is needed.

#![allow(missing_docs, reason = "the name of a check is its promise")]
#![allow(async_fn_in_trait, reason = "a check runs on the thread that awaits it")]
#![allow(clippy::unwrap_used, reason = "these are tests, wherever they are compiled")]
#![allow(clippy::disallowed_methods, reason = "real servers are waited for in real time")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use model::{Asks, ConversationKey, DoorError, Extension, ObjectKey, System};
use runtime::task;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{BodyError, CurrentObject, RecordingBody, RecordingStore, RecordingStoreError};

/// A size at which no store takes a body in one piece.
const LARGE: usize = 64 * 1024 * 1024;

/// The most that a store may hold of a body: some parts in flight.
const MOST_HELD: usize = 32 * 1024 * 1024;

/// As large as the pieces in which a network delivers.
const CHUNK: usize = 64 * 1024;

const WAV: &str = "audio/wav";

/// A recording store under test.
pub trait Subject: Sized {
    /// A store of its own, empty.
    async fn fresh() -> Self;

    /// The store.
    fn store(&self) -> Arc<dyn RecordingStore>;

    /// What lies under a key, read past the door.
    async fn bytes(&self, key: &ObjectKey) -> Option<Vec<u8>>;

    /// How many half-written objects take up room.
    async fn half_written(&self) -> usize;

    /// Leaves a half-written object as a process does that was killed.
    async fn leave_half_written(&self);
}

/// Makes one test of each check.
#[macro_export]
macro_rules! recording_store_checks {
    ($(#[$attribute:meta])* $subject:ident) => {
        $crate::conformance::recording_store_checks!(
            @each [$(#[$attribute])*] $subject:
            a_recording_is_stored_whole,
            an_empty_recording_is_an_object,
            a_key_written_again_is_replaced,
            a_large_recording_streams_in_bounded_memory,
            what_was_not_seen_is_not_replaced,
            a_slow_put_does_not_replace_what_came_meanwhile,
            an_object_is_read_as_it_lies_there,
            a_body_that_breaks_leaves_nothing,
            a_broken_body_leaves_the_object_that_stood,
            a_dropped_put_leaves_nothing,
            an_object_appears_only_when_it_is_whole,
            many_puts_of_one_key_leave_one_whole_object,
            many_recordings_are_stored_side_by_side,
            a_description_may_stand_beside,
            an_erased_conversation_leaves_nothing_and_its_neighbours_everything,
            an_upload_under_way_does_not_outlive_two_erasures,
            what_a_crash_left_is_swept,
            a_sweep_spares_what_is_being_written,
            the_store_answers,
        );
    };
    (@each $attributes:tt $subject:ident: $($check:ident,)*) => {
        $($crate::conformance::recording_store_checks!(@one $attributes $subject $check);)*
    };
    (@one [$($attributes:tt)*] $subject:ident $check:ident) => {
        $($attributes)*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $check() {
            $crate::conformance::$check::<$subject>().await;
        }
    };
}
pub use recording_store_checks;

/// A conversation and its start.
pub fn conversation(id: u64) -> (ConversationKey, Timestamp) {
    let key = ConversationKey { tenant: "acme".parse().unwrap(), external_id: id.to_string().parse().unwrap() };
    (key, "2026-04-01T16:34:25Z".parse().unwrap())
}

pub fn key(id: u64, position: u32) -> ObjectKey {
    let (key, started_at) = conversation(id);
    ObjectKey::new(&key, started_at, position, Extension::for_content_type(Some(WAV)))
}

/// Bytes that differ from place to place, so that a lost or doubled piece shows.
fn content(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|place| ((place / 251) ^ (place % 251) ^ seed) as u8).collect()
}

fn sha256_of(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

fn body(content: &[u8], chunk: usize) -> RecordingBody<'static> {
    let chunks: Vec<_> = content.chunks(chunk).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    stream::iter(chunks).boxed()
}

/// A body that ends in an error of its own.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the body broke")]
pub struct BrokenBody(pub Asks);

impl DoorError for BrokenBody {
    fn asks(&self) -> Asks {
        self.0
    }
}

/// A body that a check feeds as it goes.
pub fn fed_body() -> (mpsc::Sender<Result<Bytes, BodyError>>, RecordingBody<'static>) {
    let (feed, chunks) = mpsc::channel(1);
    (feed, ReceiverStream::new(chunks).boxed())
}

async fn assert_nothing<S: Subject>(subject: &S, key: &ObjectKey) {
    assert_eq!(subject.store().size(key).await.unwrap(), None);
    assert_eq!(subject.bytes(key).await, None);
}

pub async fn a_recording_is_stored_whole<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    assert!(!store.bucket().is_empty());
    assert_nothing(&subject, &key(1, 0)).await;
    for (position, (length, chunk)) in (0..).zip([(1, 1), (1000, 7), (CHUNK, CHUNK), (CHUNK * 5 + 3, CHUNK - 1)]) {
        let content = content(position as usize, length);
        let stored = store.put(&key(1, position), WAV, body(&content, chunk)).await.unwrap();
        assert_eq!((stored.size_bytes, stored.sha256), (length as u64, sha256_of(&content)));
        assert_eq!(store.size(&key(1, position)).await.unwrap(), Some(length as u64));
        assert!(subject.bytes(&key(1, position)).await.unwrap() == content);
    }
    assert_eq!(subject.half_written().await, 0);
}

pub async fn an_empty_recording_is_an_object<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    let bodies = [stream::empty().boxed(), stream::iter([Ok(Bytes::new()), Ok(Bytes::new())]).boxed()];
    for (position, body) in (0..).zip(bodies) {
        assert_eq!(store.put(&key(1, position), WAV, body).await.unwrap().size_bytes, 0);
        assert_eq!(store.size(&key(1, position)).await.unwrap(), Some(0));
        assert_eq!(subject.bytes(&key(1, position)).await, Some(Vec::new()));
    }
}

pub async fn a_key_written_again_is_replaced<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    for (seed, length) in [(1, 5000), (2, 100_000), (3, 0), (4, 10)] {
        let content = content(seed, length);
        store.put(&key(1, 0), WAV, body(&content, 999)).await.unwrap();
        assert_eq!(store.size(&key(1, 0)).await.unwrap(), Some(length as u64));
        assert!(subject.bytes(&key(1, 0)).await.unwrap() == content);
    }
    assert_eq!(subject.half_written().await, 0);
}

pub async fn a_large_recording_streams_in_bounded_memory<S: Subject>() {
    /// A piece that counts itself as long as anybody holds it.
    struct Counted(Vec<u8>, Arc<AtomicUsize>);

    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.1.fetch_sub(self.0.len(), Ordering::SeqCst);
        }
    }

    let subject = S::fresh().await;
    let (held, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let piece = content(5, CHUNK);
    let pieces = stream::iter(0..LARGE / CHUNK).map({
        let (held, most, piece) = (held.clone(), most.clone(), piece.clone());
        move |number| {
            let mut piece = piece.clone();
            piece[..8].copy_from_slice(&number.to_be_bytes());
            let now = held.fetch_add(CHUNK, Ordering::SeqCst) + CHUNK;
            most.fetch_max(now, Ordering::SeqCst);
            Ok(Bytes::from_owner(Counted(piece, held.clone())))
        }
    });
    let stored = subject.store().put(&key(1, 0), WAV, pieces.boxed()).await.unwrap();
    assert_eq!(stored.size_bytes, LARGE as u64);
    assert!(most.load(Ordering::SeqCst) <= MOST_HELD, "{} bytes were held", most.load(Ordering::SeqCst));
    assert_eq!(held.load(Ordering::SeqCst), 0);
    let stored = subject.bytes(&key(1, 0)).await.unwrap();
    assert_eq!(stored.len(), LARGE);
    for (number, stored) in stored.chunks(CHUNK).enumerate() {
        assert!(stored[..8] == number.to_be_bytes() && stored[8..] == piece[8..], "piece {number}");
    }
    assert_eq!(subject.half_written().await, 0);
}

/// A length that goes in one piece, and one that goes in parts.
const LENGTHS: [usize; 2] = [1_000, 6 * 1024 * 1024];

pub async fn what_was_not_seen_is_not_replaced<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    for (position, length) in (0..).zip(LENGTHS) {
        let key = key(1, position);
        let put = async |seed: usize, found: &CurrentObject| {
            store.put_if_unchanged(&key, WAV, Some(found), body(&content(seed, length + seed), CHUNK)).await
        };
        assert_eq!(store.find(&key).await.unwrap(), CurrentObject::Nothing);
        let gone = CurrentObject::Object("0123456789abcdef0123456789abcdef".to_owned());
        put(9, &gone).await.unwrap_err();
        assert_nothing(&subject, &key).await;
        put(1, &CurrentObject::Nothing).await.unwrap();
        let first = store.find(&key).await.unwrap();
        assert_ne!(first, CurrentObject::Nothing);
        assert_eq!(store.find(&key).await.unwrap(), first, "it is named the same each time");
        let error = put(2, &CurrentObject::Nothing).await.unwrap_err();
        assert!(error.to_string().contains("another recording was stored there meanwhile"), "{error}");
        assert!(matches!(error, RecordingStoreError::Overtaken(_)), "the store is well: {error:?}");
        assert!(subject.bytes(&key).await.unwrap() == content(1, length + 1));
        put(3, &first).await.unwrap();
        assert!(subject.bytes(&key).await.unwrap() == content(3, length + 3));
        put(4, &first).await.unwrap_err();
        assert!(subject.bytes(&key).await.unwrap() == content(3, length + 3));
    }
    assert_eq!(subject.half_written().await, 0);
}

pub async fn a_slow_put_does_not_replace_what_came_meanwhile<S: Subject>() {
    let subject = S::fresh().await;
    for (position, length) in (0..).zip(LENGTHS) {
        let key = key(1, position);
        let found = subject.store().find(&key).await.unwrap();
        let (feed, slow) = fed_body();
        let putting = task::spawn("put", {
            let (store, key, found) = (subject.store(), key.clone(), found.clone());
            async move { store.put_if_unchanged(&key, WAV, Some(&found), slow).await }
        });
        let first = content(1, length);
        let (begin, end) = first.split_at(length / 2);
        feed.send(Ok(Bytes::copy_from_slice(begin))).await.unwrap();
        let second = content(2, length + 1);
        subject.store().put_if_unchanged(&key, WAV, Some(&found), body(&second, CHUNK)).await.unwrap();
        feed.send(Ok(Bytes::copy_from_slice(end))).await.ok();
        drop(feed);
        let error = putting.await.unwrap().unwrap_err();
        assert!(matches!(&error, RecordingStoreError::Overtaken(_)), "{error:?}");
        assert!(subject.bytes(&key).await.unwrap() == second, "{length}");
    }
    assert_eq!(subject.half_written().await, 0);
}

pub async fn an_object_is_read_as_it_lies_there<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    assert!(store.read(&key(1, 0).to_string()).await.unwrap().is_none());
    for length in [0, 10, LENGTHS[1]] {
        store.put(&key(1, 0), WAV, body(&content(1, length), CHUNK)).await.unwrap();
        let pieces = store.read(&key(1, 0).to_string()).await.unwrap().expect("it is there");
        let pieces: Vec<Bytes> = pieces.map(Result::unwrap).collect().await;
        assert!(pieces.concat() == content(1, length), "{length}");
        assert!(pieces.iter().all(|piece| piece.len() <= 1024 * 1024), "in small pieces");
    }
}

pub async fn a_body_that_breaks_leaves_nothing<S: Subject>() {
    let subject = S::fresh().await;
    let errors = [
        BrokenBody(Asks::Again { system: System::MediaHost, retry_after: None }),
        BrokenBody(Asks::Never),
        BrokenBody(Asks::Wait { what: "late" }),
    ];
    for length in [0, 10, 12 * 1024 * 1024] {
        for error in &errors {
            let pieces = body(&content(1, length), CHUNK).chain(stream::iter([Err(BodyError::from(*error))]));
            let answer = subject.store().put(&key(1, 0), WAV, pieces.boxed()).await.unwrap_err();
            assert_eq!((answer.asks(), answer.to_string()), (error.asks(), error.to_string()), "passed on as it is");
            assert_nothing(&subject, &key(1, 0)).await;
        }
    }
    assert_eq!(subject.half_written().await, 0);
}

pub async fn a_broken_body_leaves_the_object_that_stood<S: Subject>() {
    let subject = S::fresh().await;
    let whole = content(1, 5000);
    subject.store().put(&key(1, 0), WAV, body(&whole, 100)).await.unwrap();
    let broken = body(&content(2, 9000), 100).chain(stream::iter([Err(BodyError::from(BrokenBody(Asks::Never)))]));
    subject.store().put(&key(1, 0), WAV, broken.boxed()).await.unwrap_err();
    assert!(subject.bytes(&key(1, 0)).await.unwrap() == whole);
}

pub async fn a_dropped_put_leaves_nothing<S: Subject>() {
    let subject = S::fresh().await;
    for pieces in [0, 1, 200] {
        let store = subject.store();
        let (feed, body) = fed_body();
        let putting = task::spawn("put", async move { store.put(&key(1, 0), WAV, body).await });
        for _ in 0..pieces {
            feed.send(Ok(Bytes::from(vec![7; CHUNK]))).await.unwrap();
        }
        drop(putting);
        feed.closed().await;
        assert_nothing(&subject, &key(1, 0)).await;
    }
    subject.store().sweep().await.unwrap();
    assert_eq!(subject.half_written().await, 0);
    assert_nothing(&subject, &key(1, 0)).await;
}

pub async fn an_object_appears_only_when_it_is_whole<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    let (feed, body) = fed_body();
    let putting = task::spawn("put", async move { store.put(&key(1, 0), WAV, body).await.unwrap() });
    for _ in 0..200 {
        feed.send(Ok(Bytes::from(vec![7; CHUNK]))).await.unwrap();
    }
    assert_nothing(&subject, &key(1, 0)).await;
    drop(feed);
    assert_eq!(putting.await.unwrap().size_bytes, 200 * CHUNK as u64);
    assert_eq!(subject.store().size(&key(1, 0)).await.unwrap(), Some(200 * CHUNK as u64));
}

pub async fn many_puts_of_one_key_leave_one_whole_object<S: Subject>() {
    let subject = S::fresh().await;
    let puts = (1..=12).map(|seed| {
        let store = subject.store();
        task::spawn("put", async move {
            let content = content(seed, 10_000 * seed);
            store.put(&key(1, 0), WAV, body(&content, 4096)).await.unwrap()
        })
    });
    for (seed, put) in (1..).zip(join_all(puts.collect::<Vec<_>>()).await) {
        assert_eq!(put.unwrap().size_bytes, 10_000 * seed);
    }
    let stored = subject.bytes(&key(1, 0)).await.unwrap();
    assert!(stored == content(stored.len() / 10_000, stored.len()), "one of them, whole");
    assert_eq!(subject.half_written().await, 0);
}

pub async fn many_recordings_are_stored_side_by_side<S: Subject>() {
    let subject = S::fresh().await;
    let puts = (0..40).map(|number: usize| {
        let store = subject.store();
        task::spawn("put", async move {
            let content = content(number, 5_000 + number);
            let key = key(1 + number as u64 / 2, number as u32 % 2);
            store.put(&key, WAV, body(&content, 512)).await.unwrap();
        })
    });
    for put in join_all(puts.collect::<Vec<_>>()).await {
        put.unwrap();
    }
    for number in 0..40_usize {
        let stored = subject.bytes(&key(1 + number as u64 / 2, number as u32 % 2)).await.unwrap();
        assert!(stored == content(number, 5_000 + number));
    }
}

pub async fn a_description_may_stand_beside<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    store.describe(key(1, 0).folder(), b"{\"state\":\"no_recording\"}").await.unwrap();
    let content = content(1, 100);
    store.put(&key(1, 0), WAV, body(&content, 10)).await.unwrap();
    store.describe(key(1, 0).folder(), b"{}").await.unwrap();
    assert!(subject.bytes(&key(1, 0)).await.unwrap() == content, "the recording is not touched");
    assert_eq!(store.size(&key(1, 1)).await.unwrap(), None);
    assert_eq!(subject.half_written().await, 0);
}

pub async fn an_erased_conversation_leaves_nothing_and_its_neighbours_everything<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    let whole = content(1, 100);
    // The second id begins with the first.
    for (id, position) in [(1, 0), (1, 0), (1, 1), (11, 0), (2, 0)] {
        store.put(&key(id, position), WAV, body(&whole, 10)).await.unwrap();
    }
    store.describe(key(1, 0).folder(), b"{}").await.unwrap();
    let (conversation, started_at) = conversation(1);
    assert!(store.erase(&conversation, started_at).await.unwrap() >= 2);
    for position in 0..2 {
        assert_nothing(&subject, &key(1, position)).await;
    }
    for id in [11, 2] {
        assert!(subject.bytes(&key(id, 0)).await.unwrap() == whole, "{id} is another one");
    }
    assert_eq!(store.erase(&conversation, started_at).await.unwrap(), 0, "repeating it is harmless");
    store.put(&key(1, 0), WAV, body(&whole, 10)).await.unwrap();
    assert!(subject.bytes(&key(1, 0)).await.unwrap() == whole, "the place may be used again");
}

pub async fn an_upload_under_way_does_not_outlive_two_erasures<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    let (feed, body) = fed_body();
    let putting = task::spawn("put", async move { store.put(&key(1, 0), WAV, body).await });
    for _ in 0..200 {
        feed.send(Ok(Bytes::from(vec![7; CHUNK]))).await.unwrap();
    }
    let (conversation, started_at) = conversation(1);
    subject.store().erase(&conversation, started_at).await.unwrap();
    drop(feed);
    // It fails, or has left an object: either way it is over.
    drop(putting.await.unwrap());
    subject.store().erase(&conversation, started_at).await.unwrap();
    assert_nothing(&subject, &key(1, 0)).await;
    assert_eq!(subject.half_written().await, 0);
}

pub async fn what_a_crash_left_is_swept<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    assert_eq!(store.sweep().await.unwrap(), 0);
    store.put(&key(1, 0), WAV, body(&content(1, 100), 10)).await.unwrap();
    subject.leave_half_written().await;
    subject.leave_half_written().await;
    assert_eq!(subject.half_written().await, 2);
    assert_eq!(store.sweep().await.unwrap(), 2);
    assert_eq!(subject.half_written().await, 0);
    assert_eq!(store.sweep().await.unwrap(), 0);
    assert_eq!(store.size(&key(1, 0)).await.unwrap(), Some(100), "what is whole stays");
}

pub async fn a_sweep_spares_what_is_being_written<S: Subject>() {
    let subject = S::fresh().await;
    let store = subject.store();
    let (feed, body) = fed_body();
    let putting = task::spawn("put", async move { store.put(&key(1, 0), WAV, body).await });
    for _ in 0..200 {
        feed.send(Ok(Bytes::from(vec![7; CHUNK]))).await.unwrap();
    }
    assert_eq!(subject.store().sweep().await.unwrap(), 0);
    drop(feed);
    assert_eq!(putting.await.unwrap().unwrap().size_bytes, 200 * CHUNK as u64);
    assert_eq!(subject.store().size(&key(1, 0)).await.unwrap(), Some(200 * CHUNK as u64));
}

pub async fn the_store_answers<S: Subject>() {
    let subject = S::fresh().await;
    subject.store().check().await.unwrap();
    assert_eq!(subject.half_written().await, 0);
}
