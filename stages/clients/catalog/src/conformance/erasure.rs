//! What every catalog must do about erasure.

use model::Retention;

use super::*;
use crate::{ConversationStatus, ErasedRows};

/// Erases as the stages do, without the recordings.
async fn erase(catalog: &Arc<dyn Catalog>, key: &ConversationKey) -> ErasedRows {
    catalog.begin_erasure(key, at(9_000)).await.unwrap();
    catalog.erase_rows(key).await.unwrap()
}

async fn assert_gone(catalog: &Arc<dyn Catalog>, key: &ConversationKey) {
    assert_eq!(catalog.status(key).await.unwrap(), ConversationStatus::Erased);
    assert_eq!(catalog.status(key).await.unwrap().state(), None);
    assert!(catalog.conversation(key).await.unwrap().is_none());
    assert_eq!(catalog.hops(key).await.unwrap(), []);
    let queue = catalog.analysis_queue(0, 1000).await.unwrap();
    assert!(queue.iter().all(|entry| entry.key != *key));
    let letters = catalog.dead_letters(0, 1000).await.unwrap();
    assert!(letters.iter().all(|letter| letter.key().as_ref() != Some(key)));
    assert_eq!(catalog.known(std::slice::from_ref(key)).await.unwrap(), [true], "no replay is needed");
}

pub async fn an_erased_conversation_leaves_nothing_but_that_it_was_erased<S: Subject>() {
    let mut subject = S::fresh().await;
    let catalog = subject.catalog();
    let (kept, gone) = (conversation(&acme(), 1), conversation(&acme(), 2));
    for conversation in [&kept, &gone] {
        assert_eq!(catalog.status(&conversation.key()).await.unwrap(), ConversationStatus::Unknown);
        catalog.save_metadata(conversation).await.unwrap();
        let saved = ConversationStatus::Saved(ConversationState::MetadataSaved);
        assert_eq!(catalog.status(&conversation.key()).await.unwrap(), saved);
        save_ready(&catalog, conversation, at(100)).await;
        catalog.record_hop(&conversation.key(), hop("upload", 0)).await;
        catalog.record_hop(&conversation.key(), hop("upload", 1)).await;
        assert_eq!(catalog.hops(&conversation.key()).await.unwrap().len(), 2);
    }
    assert!(catalog.add_dead_letter(letter(&acme(), 1, "kept")).await.unwrap());
    assert!(catalog.add_dead_letter(letter(&acme(), 2, "gone")).await.unwrap());
    assert_eq!(erase(&catalog, &gone.key()).await, ErasedRows { conversation: true, dead_letters: 1, hops: 2 });
    assert_gone(&catalog, &gone.key()).await;
    assert_ready(&catalog, &kept, &recordings(&kept, 1), at(100)).await;
    assert_eq!(catalog.hops(&kept.key()).await.unwrap().len(), 2);
    assert_eq!(
        catalog.counts().await.unwrap(),
        ConversationCounts { ready: 1, dead_letters: 1, ..ConversationCounts::default() }
    );
    let other = key(&tenant("other"), 2);
    assert_eq!(catalog.status(&other).await.unwrap(), ConversationStatus::Unknown, "another tenant's");
    drop(catalog);
    subject = subject.crash().await;
    assert_gone(&subject.catalog(), &gone.key()).await;
    assert_eq!(erase(&subject.catalog(), &gone.key()).await, ErasedRows::default(), "repeating it is harmless");
    assert_eq!(
        subject.catalog().counts().await.unwrap(),
        ConversationCounts { ready: 1, dead_letters: 1, ..ConversationCounts::default() }
    );
}

pub async fn nothing_is_written_of_an_erased_conversation<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    let (never_seen, under_way) = (conversation(&acme(), 1), conversation(&acme(), 2));
    catalog.save_metadata(&under_way).await.unwrap();
    assert_eq!(erase(&catalog, &never_seen.key()).await, ErasedRows::default(), "it might be imported later");
    catalog.begin_erasure(&under_way.key(), at(9_000)).await.unwrap();
    // The row stands still; whoever works on it does not come to an end.
    assert!(catalog.complete(&under_way.key(), &recordings(&under_way, 1), 0, at(1), None).await.is_err());
    assert!(catalog.complete_without_recording(&under_way.key(), None).await.is_err());
    assert!(catalog.analysis_queue(0, 10).await.unwrap().is_empty());
    catalog.erase_rows(&under_way.key()).await.unwrap();
    for conversation in [&never_seen, &under_way] {
        assert!(catalog.save_metadata(conversation).await.is_err());
        assert!(catalog.complete(&conversation.key(), &recordings(conversation, 1), 0, at(1), None).await.is_err());
        let letter = letter(&conversation.tenant, conversation.external_id.get(), "why");
        assert!(!catalog.add_dead_letter(letter).await.unwrap());
        catalog.record_hop(&conversation.key(), hop("dequeue", 0)).await;
        assert_gone(&catalog, &conversation.key()).await;
    }
    assert_eq!(catalog.counts().await.unwrap(), ConversationCounts::default());
    // Its neighbours in the same moment are written.
    let saves = (1..=40).map(|id| {
        let (catalog, conversation) = (catalog.clone(), conversation(&acme(), id));
        task::spawn("save", async move { catalog.save_metadata(&conversation).await.is_ok() })
    });
    let saved = join_all(saves.collect::<Vec<_>>()).await;
    let saved: Vec<bool> = saved.into_iter().map(|saved| saved.unwrap()).collect();
    assert_eq!(saved, (1..=40).map(|id| id > 2).collect::<Vec<_>>());
}

pub async fn rows_go_only_while_their_erasure_is_pending<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    let conversation = conversation(&acme(), 1);
    save_ready(&catalog, &conversation, at(100)).await;
    assert!(catalog.erase_rows(&conversation.key()).await.is_err());
    assert_ready(&catalog, &conversation, &recordings(&conversation, 1), at(100)).await;
}

pub async fn an_erasure_is_pending_until_it_is_finished_and_knows_the_start_of_the_call<S: Subject>() {
    let mut subject = S::fresh().await;
    let catalog = subject.catalog();
    let known = conversation(&acme(), 1);
    save_ready(&catalog, &known, at(100)).await;
    let begun = catalog.begin_erasure(&known.key(), at(9_000)).await.unwrap();
    assert_eq!((&begun.key, begun.started_at), (&known.key(), Some(known.started_at)));
    for id in 2..=5 {
        let unknown = catalog.begin_erasure(&key(&acme(), id), at(9_000)).await.unwrap();
        assert_eq!(unknown.started_at, None);
    }
    drop(catalog);
    subject = subject.crash().await;
    let catalog = subject.catalog();
    catalog.erase_rows(&known.key()).await.unwrap();
    // The row is gone, and where its recordings lie is still known.
    let again = catalog.begin_erasure(&known.key(), at(9_100)).await.unwrap();
    assert_eq!((again.started_at, again.tombstone), (Some(known.started_at), begun.tombstone));
    let mut pending = Vec::new();
    loop {
        let page = catalog.pending_erasures(pending.last().map(|(_, tombstone)| *tombstone), 2).await.unwrap();
        assert!(page.len() <= 2);
        if page.is_empty() {
            break;
        }
        pending.extend(page.into_iter().map(|erasure| (erasure.key.external_id.get(), erasure.tombstone)));
    }
    assert_eq!(pending.iter().map(|(id, _)| *id).collect::<BTreeSet<_>>(), (1..=5).collect());
    assert_eq!(pending.len(), 5);
    assert!(!catalog.finish_erasure(&again, at(9_200)).await.unwrap(), "what was under way may still appear");
    subject.settle().await;
    let later = at(9_100 + 6 * 3600);
    assert!(!catalog.finish_erasure(&begun, later).await.unwrap(), "it was asked for anew since");
    let all = catalog.pending_erasures(None, 10).await.unwrap();
    let again = all.into_iter().find(|erasure| erasure.tombstone == again.tombstone).unwrap();
    assert!(catalog.finish_erasure(&again, later).await.unwrap());
    assert!(!catalog.finish_erasure(&again, later).await.unwrap());
    assert_eq!(catalog.pending_erasures(None, 10).await.unwrap().len(), 4);
    drop(catalog);
    subject = subject.crash().await;
    assert_gone(&subject.catalog(), &known.key()).await;
    assert!(subject.catalog().erase_rows(&known.key()).await.is_err(), "nothing is pending");
    // Whoever asks for it again begins anew.
    let anew = subject.catalog().begin_erasure(&known.key(), at(9_200)).await.unwrap();
    assert_eq!((anew.tombstone, anew.started_at), (begun.tombstone, None));
}

pub async fn without_a_retention_everything_is_kept<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    let conversation = conversation(&acme(), 1);
    save_ready(&catalog, &conversation, at(100)).await;
    let (forever, now) = (Retention::default(), at(3_000_000_000));
    assert_eq!(catalog.expired(&acme(), forever, now, None, 10).await.unwrap(), []);
    assert_eq!(catalog.expire_rows(&acme(), forever, now, &[conversation.key().external_id]).await.unwrap(), 0);
    assert_ready(&catalog, &conversation, &recordings(&conversation, 1), at(100)).await;
}
