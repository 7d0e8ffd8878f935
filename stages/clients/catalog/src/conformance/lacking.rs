//! Calls that lack recordings, and what comes to them late.

use std::sync::Arc;

use model::{Conversation, ConversationState, StoredRecording};

use super::{Subject, acme, assert_ready, assert_row, at, conversation, key, recordings, row, save_ready, tenant};
use crate::{Catalog, ConversationCounts, ConversationRow, Fate, Lacking, RecordingRow};

/// Of three recordings that NICE names, those at these positions.
fn parts(conversation: &Conversation, positions: &[usize]) -> Vec<StoredRecording> {
    let all = recordings(conversation, 3);
    positions.iter().map(|position| all[*position].clone()).collect()
}

async fn save_partly(catalog: &Arc<dyn Catalog>, conversation: &Conversation, positions: &[usize], missing: u32) {
    catalog.save_metadata(conversation).await.unwrap();
    let stored = parts(conversation, positions);
    catalog.complete(&conversation.key(), &stored, missing, at(10), None).await.unwrap();
}

pub async fn a_part_that_comes_late_is_added_in_one_commit_and_replaces_nothing<S: Subject>() {
    let mut subject = S::fresh().await;
    let call = conversation(&acme(), 42);
    save_partly(&subject.catalog(), &call, &[0, 2], 1).await;
    let partly = row(&subject.catalog(), &call.key()).await;
    let positions: Vec<_> = partly.recordings.iter().map(|recording| recording.position).collect();
    assert_eq!((partly.state, partly.recordings_missing), (ConversationState::Ready, 1));
    assert_eq!(positions, [0, 2], "the missing one leaves its position free");
    assert!(partly.lacks_recordings());

    // What is sent for a position that is taken is not written.
    let mut late = parts(&call, &[0, 1]);
    late[0].sha256 = "f".repeat(64);
    subject.catalog().add_recordings(&call.key(), &late, 0, at(20), None).await.unwrap();
    subject = subject.crash().await;
    let catalog = subject.catalog();
    // Nobody had taken the entry: it waits where it was.
    assert_ready(&catalog, &call, &parts(&call, &[0, 1, 2]), at(10)).await;
    // The redelivery after the crash changes nothing.
    catalog.add_recordings(&call.key(), &late, 0, at(30), None).await.unwrap();
    assert_ready(&catalog, &call, &parts(&call, &[0, 1, 2]), at(10)).await;
    assert_eq!(catalog.counts().await.unwrap(), ConversationCounts { ready: 1, ..ConversationCounts::default() });
}

pub async fn a_call_without_a_recording_becomes_ready_when_one_comes<S: Subject>() {
    let mut subject = S::fresh().await;
    let call = conversation(&acme(), 42);
    subject.catalog().save_metadata(&call).await.unwrap();
    subject.catalog().complete_without_recording(&call.key(), None).await.unwrap();
    assert!(row(&subject.catalog(), &call.key()).await.lacks_recordings());
    subject.catalog().add_recordings(&call.key(), &[], 0, at(15), None).await.unwrap();
    assert_eq!(subject.catalog().status(&call.key()).await.unwrap().state(), Some(ConversationState::NoRecording));

    // One of two has come.
    subject.catalog().add_recordings(&call.key(), &parts(&call, &[1]), 1, at(20), None).await.unwrap();
    subject = subject.crash().await;
    let catalog = subject.catalog();
    let expected = ConversationRow {
        state: ConversationState::Ready,
        recordings: parts(&call, &[1]).iter().map(RecordingRow::from).collect(),
        recordings_missing: 1,
        enqueued_at: Some(at(20)),
        ..ConversationRow::metadata_saved(&call)
    };
    assert_row(&row(&catalog, &call.key()).await, expected);
    let queue = catalog.analysis_queue(0, 10).await.unwrap();
    assert_eq!((queue.len(), queue[0].enqueued_at), (1, at(20)));
    assert_eq!(catalog.counts().await.unwrap(), ConversationCounts { ready: 1, ..ConversationCounts::default() });
}

pub async fn nothing_is_added_to_what_lacks_nothing<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    let (whole, under_way, unknown) = (conversation(&acme(), 1), conversation(&acme(), 2), conversation(&acme(), 3));
    save_ready(&catalog, &whole, at(10)).await;
    catalog.save_metadata(&under_way).await.unwrap();
    catalog.add_recordings(&whole.key(), &parts(&whole, &[1]), 0, at(20), None).await.unwrap();
    catalog.add_recordings(&under_way.key(), &parts(&under_way, &[0]), 0, at(20), None).await.unwrap();
    assert_ready(&catalog, &whole, &recordings(&whole, 1), at(10)).await;
    assert_row(&row(&catalog, &under_way.key()).await, ConversationRow::metadata_saved(&under_way));
    assert!(catalog.add_recordings(&unknown.key(), &parts(&unknown, &[0]), 0, at(20), None).await.is_err());
    // Of one that was erased nothing comes back.
    let gone = conversation(&acme(), 4);
    save_partly(&catalog, &gone, &[0], 1).await;
    catalog.begin_erasure(&gone.key(), at(30)).await.unwrap();
    assert!(catalog.add_recordings(&gone.key(), &parts(&gone, &[1]), 0, at(40), None).await.is_err());
}

pub async fn what_lacks_recordings_is_listed_by_start_half_open_and_page_by_page<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    let calls: Vec<_> = (1..=9).map(|id| conversation(&acme(), id)).collect();
    for (number, call) in calls.iter().enumerate() {
        match number % 3 {
            0 => save_partly(&catalog, call, &[0], 2).await,
            1 => {
                catalog.save_metadata(call).await.unwrap();
                catalog.complete_without_recording(&call.key(), None).await.unwrap();
            }
            _ => save_ready(&catalog, call, at(10)).await,
        }
    }
    catalog.save_metadata(&conversation(&acme(), 10)).await.unwrap();
    save_partly(&catalog, &conversation(&tenant("other"), 11), &[0], 1).await;
    let list = async |from, to, limit| {
        let (mut found, mut after) = (Vec::<Lacking>::new(), None);
        loop {
            let page = catalog.lacking(&acme(), from, to, after.as_ref(), limit).await.unwrap();
            assert!(page.len() <= limit);
            let Some(last) = page.last().cloned() else { return found };
            after = Some(last);
            found.extend(page);
        }
    };
    let (from, to) = (calls[0].started_at, calls[8].started_at);
    let lacking = |call: &Conversation| Lacking {
        tenant: acme(),
        external_id: call.external_id,
        master: call.master,
        agent: call.agent,
        ended_at: call.ended_at,
    };
    let mut expected: Vec<_> = [0, 1, 3, 4, 6, 7].map(|number| lacking(&calls[number])).into();
    for limit in [1, 4, 100] {
        let mut found = list(from, to, limit).await;
        found.sort_by_key(|call| call.external_id);
        assert_eq!(found, expected, "pages of {limit}");
    }
    let one = list(calls[3].started_at, calls[4].started_at, 10).await;
    assert_eq!(one.iter().map(Lacking::key).collect::<Vec<_>>(), [key(&acme(), 4)], "half open");
    // What has come is not listed any more.
    catalog.add_recordings(&calls[0].key(), &parts(&calls[0], &[1, 2]), 0, at(20), None).await.unwrap();
    expected.remove(0);
    let mut found = list(from, to, 2).await;
    found.sort_by_key(|call| call.external_id);
    assert_eq!(found, expected);
}

pub async fn the_fate_of_an_incomplete_call_says_what_is_missing<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    let call = conversation(&acme(), 1);
    save_partly(&catalog, &call, &[1], 2).await;
    assert_eq!(catalog.fates(&[call.key()]).await.unwrap(), [Fate::Incomplete(2)]);
    catalog.add_recordings(&call.key(), &parts(&call, &[0, 2]), 0, at(20), None).await.unwrap();
    assert_eq!(catalog.fates(&[call.key()]).await.unwrap(), [Fate::Row(ConversationState::Ready)]);
}
