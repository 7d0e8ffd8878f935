//! The store passes the door's suite, and keeps what a killed machine leaves.

use std::sync::atomic::{AtomicBool, Ordering};

use recordings::{
    RecordingStoreError,
    conformance::{Subject, fed_body, key},
    recording_store_checks,
};

use super::*;
use crate::standins::{Condition, LinkOptions, Weather};

const WAV: &str = "audio/wav";

struct Shared {
    store: MemoryStore,
    weather: Weather,
}

fn link(weather: &Weather, seed: u64, killed: &Arc<AtomicBool>) -> Link {
    let killed = killed.clone();
    Link::new(weather.clone(), 1, seed, LinkOptions::default(), move || killed.load(Ordering::SeqCst))
}

fn body(text: &'static str) -> RecordingBody<'static> {
    stream::iter([Ok(Bytes::from_static(text.as_bytes()))]).boxed()
}

impl Subject for Shared {
    async fn fresh() -> Self {
        Self { store: MemoryStore::new("recordings"), weather: Weather::clear() }
    }

    fn store(&self) -> Arc<dyn RecordingStore> {
        Arc::new(self.store.through(link(&self.weather, 1, &Arc::default())))
    }

    async fn bytes(&self, key: &ObjectKey) -> Option<Vec<u8>> {
        self.store.bytes(&key.to_string()).map(|bytes| bytes.to_vec())
    }

    async fn half_written(&self) -> usize {
        self.store.half_written()
    }

    async fn leave_half_written(&self) {
        self.store.begin(key(9, 0).to_string()).abandon();
    }
}

recording_store_checks!(Shared);

#[tokio::test(start_paused = true)]
async fn what_a_killed_machine_was_writing_is_left_until_it_is_swept() {
    let Shared { store, weather } = Shared::fresh().await;
    let killed = Arc::new(AtomicBool::new(false));
    let linked = store.through(link(&weather, 1, &killed));
    let (feed, slow) = fed_body();
    let putting = tokio::spawn(async move { linked.put(&key(1, 0), WAV, slow).await });
    feed.send(Ok(Bytes::from_static(b"half"))).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    killed.store(true, Ordering::SeqCst);
    putting.abort();
    feed.closed().await;
    tokio::task::yield_now().await;
    assert_eq!((store.objects().len(), store.half_written()), (0, 1));
    let other = store.through(link(&weather, 2, &Arc::default()));
    assert_eq!(other.sweep().await.unwrap(), 1);
    assert_eq!(store.half_written(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_leaves_the_object_or_nothing() {
    let Shared { store, weather } = Shared::fresh().await;
    let spell = weather.begin(Condition::Refuses(1.0));
    let linked = store.through(link(&weather, 3, &Arc::default()));
    for position in 0..40 {
        linked.put(&key(1, position), WAV, body("whole")).await.unwrap_err();
        linked.describe(key(u64::from(position) + 2, 0).folder(), b"{}").await.unwrap_err();
    }
    assert!((5..35).contains(&store.descriptions().len()), "{}", store.descriptions().len());
    drop(spell);
    // What was not even begun is never whole.
    assert_eq!((store.objects().len(), store.half_written()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_takes_nothing_and_gives_what_it_has() {
    let Shared { store, weather } = Shared::fresh().await;
    let linked = store.through(link(&weather, 4, &Arc::default()));
    linked.put(&key(1, 0), WAV, body("whole")).await.unwrap();
    linked.describe(key(1, 0).folder(), b"{}").await.unwrap();
    let _full = weather.begin(Condition::Full);
    let error = linked.put(&key(1, 0), WAV, body("other")).await.unwrap_err();
    assert!(matches!(error, RecordingStoreError::Unavailable { .. }), "{error:?}");
    assert!(linked.check().await.is_err());
    linked.answers().await.unwrap();
    assert_eq!(linked.size(&key(1, 0)).await.unwrap(), Some(5));
    let [object] = &store.objects()[..] else { panic!("one object") };
    assert_eq!(object.sha256, hex(&Sha256::digest(b"whole")));
    assert_eq!((object.size, object.description.as_deref()), (5, Some(&b"{}"[..])));
    assert_eq!(store.written(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_nobody_waits_for_may_end_by_itself_and_replaces_nothing_new() {
    let Shared { store, weather } = Shared::fresh().await;
    let linked = Arc::new(store.through(link(&weather, 5, &Arc::default())));
    let putting: Vec<_> = (0..40)
        .map(|position| {
            let linked = linked.clone();
            tokio::spawn(async move {
                let (feed, slow) = fed_body();
                let found = CurrentObject::Nothing;
                let key = key(1, position);
                let put = linked.put_if_unchanged(&key, WAV, Some(&found), slow);
                let feeding = async {
                    feed.send(Ok(Bytes::from_static(b"late"))).await.unwrap();
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    drop(feed);
                };
                futures::join!(put, feeding).0.unwrap_err()
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let spell = weather.begin(Condition::Silent);
    for put in putting {
        put.await.unwrap();
    }
    drop(spell);
    let in_time = store.written();
    // Others store what is not there yet, in every other place.
    for position in (0..40).step_by(2) {
        let found = linked.find(&key(1, position)).await.unwrap();
        if found == CurrentObject::Nothing {
            linked.put_if_unchanged(&key(1, position), WAV, Some(&found), body("meanwhile")).await.unwrap();
        }
    }
    let before = store.written();
    tokio::time::sleep(LATEST).await;
    assert!(in_time > 0 && store.written() > before, "some end late");
    let meanwhile = store.objects().into_iter().filter(|object| object.size == "meanwhile".len() as u64).count();
    assert_eq!(meanwhile as u64, before - in_time, "none of them was replaced");
    assert_eq!(store.half_written(), 0);
}
