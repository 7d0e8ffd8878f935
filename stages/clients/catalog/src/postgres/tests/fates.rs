//! The look-up of fates: two questions give the answer of one.

use crate::Fate;

use super::*;
use model::{ContactId, ConversationKey, ConversationState};

fn keys(ids: &[u64]) -> Vec<ConversationKey> {
    let key = |id: &u64| ConversationKey {
        tenant: "acme".parse().unwrap(),
        external_id: ContactId::from_number(*id).unwrap(),
    };
    ids.iter().map(key).collect()
}

/// Adds a row of each `step`th id.
async fn fill(subject: &Postgres, tenant: &str, first: u64, last: u64, step: u64, state: &str, missing: u32) {
    let insert = format!(
        "insert into conversations (tenant_id, integration_type, external_id, master_external_id, agent_external_id,
            started_at, ended_at, state, source, recordings_missing)
         select '{tenant}', 'nice-cxone', n::text, n::text, '7', now(), now(), '{state}', 'poll', {missing}
         from generate_series({first}::bigint, {last}, {step}) n"
    );
    subject.database.client().await.unwrap().batch_execute(&insert).await.unwrap();
}

#[tokio::test]
async fn ids_far_apart_and_close_together_of_any_length_are_found_in_a_crowd() {
    let subject = Postgres::fresh().await;
    fill(&subject, "acme", 10_000, 40_000, 1, "ready", 0).await;
    fill(&subject, "acme", 5, 9, 2, "no_recording", 0).await;
    fill(&subject, "acme", 9_000_001, 9_000_003, 1, "ready", 2).await;
    fill(&subject, "acme", 1_000_000_000_000, 1_000_000_000_009, 1, "metadata_saved", 0).await;
    fill(&subject, "other", 700, 800, 1, "ready", 0).await;
    let [ready, no_recording, saved] =
        [ConversationState::Ready, ConversationState::NoRecording, ConversationState::MetadataSaved].map(Fate::Row);
    // In a range of two ids lie ten thousands of rows.
    let asked = [
        40_000,
        5,
        1_000_000_000_004,
        10_000,
        9_000_002,
        6,
        39_999,
        750,
        9_999_999_999_999_999_999,
        40_001,
        40_000,
        25_000,
    ];
    let expected = [
        ready.clone(),
        no_recording,
        saved,
        ready.clone(),
        Fate::Incomplete(2),
        Fate::Unknown,
        ready.clone(),
        Fate::Unknown,
        Fate::Unknown,
        Fate::Unknown,
        ready.clone(),
        ready.clone(),
    ];
    assert_eq!(subject.catalog.fates(&keys(&asked)).await.unwrap(), expected);
    // More than one question is about, backwards, half of them known.
    let many: Vec<u64> = (30_000..52_000).rev().collect();
    let expected = many.iter().map(|id| if *id <= 40_000 { ready.clone() } else { Fate::Unknown });
    assert_eq!(subject.catalog.fates(&keys(&many)).await.unwrap(), expected.collect::<Vec<_>>());
}

#[tokio::test]
async fn a_tombstone_beats_the_row_that_is_still_there() {
    let subject = Postgres::fresh().await;
    fill(&subject, "acme", 101, 104, 1, "ready", 0).await;
    fill(&subject, "other", 101, 104, 1, "ready", 0).await;
    let [asked, erased] = [keys(&[101, 102, 103, 104, 105]), keys(&[103, 105])];
    for key in &erased {
        subject.catalog.begin_erasure(key, sample::at(0)).await.unwrap();
    }
    let ready = || Fate::Row(ConversationState::Ready);
    let expected = [ready(), ready(), Fate::Erased, ready(), Fate::Erased];
    assert_eq!(subject.catalog.fates(&asked).await.unwrap(), expected);
    // The same ids of another tenant were not erased.
    let others: Vec<_> =
        asked.iter().map(|key| ConversationKey { tenant: "other".parse().unwrap(), ..key.clone() }).collect();
    let both: Vec<_> = asked.iter().zip(&others).flat_map(|(one, other)| [one.clone(), other.clone()]).collect();
    let of_other = [ready(), ready(), ready(), ready(), Fate::Unknown];
    let expected: Vec<_> = expected.into_iter().zip(of_other).flat_map(|(one, other)| [one, other]).collect();
    assert_eq!(subject.catalog.fates(&both).await.unwrap(), expected);
}
