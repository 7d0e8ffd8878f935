//! What every catalog must do, whatever stands behind the door: one named check for each promise.
//!
//! An implementation writes a [`Subject`] and calls `catalog_checks!(TheSubject);` in its tests, with attributes
//! before the name where a server is needed: `catalog_checks!(#[ignore = "needs a database"] TheSubject);`.

#![allow(missing_docs, reason = "the name of a check is its promise")]
#![allow(async_fn_in_trait, reason = "a check runs on the thread that awaits it")]
#![allow(clippy::unwrap_used, reason = "these are tests, wherever they are compiled")]
#![allow(clippy::disallowed_methods, reason = "real servers are waited for in real time")]

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use model::{
    Agent, AgentId, ContactEvent, ContactId, Conversation, ConversationKey, ConversationState, DeadLetter, Direction,
    EventSource, Extension, Hop, Lane, Memberships, ObjectKey, StoredRecording, TenantId,
};
use runtime::task;
use serde_json::{Value, json};

use super::{
    Attempt, AttemptKind, Catalog, ConversationCounts, ConversationRow, DeadLetterFilter, GroupStanding, HeldReading,
    RecordingRow, reason_shape,
};

mod audit;
mod erasure;
mod lacking;
mod overview;
mod readiness;
mod replays;
mod services;
mod turns;

pub use audit::{acts_are_listed_newest_first_and_survive, old_acts_go};
pub use erasure::*;
pub use lacking::*;
pub use overview::{conversations_are_found_by_agent_and_time_page_by_page, days_are_counted_by_the_end_of_calls};
pub use readiness::{
    a_delay_that_early_looks_have_shortened_counts_once, a_longer_delay_that_several_learned_at_once_counts_once,
    the_learned_delay_is_one_for_all_consumers,
};
pub use replays::{
    a_run_is_changed_only_from_the_state_that_was_read, a_thousand_fates_come_in_the_order_of_the_question,
    an_operators_change_wins_over_progress_and_the_counts_are_kept,
    final_conversations_are_counted_by_their_start_half_open, how_far_a_run_has_come_is_kept_and_survives,
    runs_are_numbered_by_kind_and_the_same_run_again_is_one, the_fate_of_a_conversation_is_its_row_or_its_dead_letter,
    the_last_hop_is_the_newest,
};
pub use services::services_are_known_by_their_last_word_until_they_retire;
pub use turns::{
    a_write_under_way_does_not_outlive_its_turn, an_operator_writes_without_a_turn, the_memory_of_turns_survives,
    the_poll_is_held_back_for_every_process, what_a_turn_writes_is_refused_once_another_has_begun,
};

/// A catalog under test.
pub trait Subject: Sized {
    /// A catalog of its own, empty, in which any tenant may be used.
    async fn fresh() -> Self;

    /// The catalog.
    fn catalog(&self) -> Arc<dyn Catalog>;

    /// The process dies without a word, and another one opens the same catalog.
    async fn crash(self) -> Self;

    /// So much time passes by the catalog's own clock, where it has one, that no pending erasure is young any more.
    async fn settle(&self) {}
}

/// Makes one test of each check.
#[macro_export]
macro_rules! catalog_checks {
    ($(#[$attribute:meta])* $subject:ident) => {
        $crate::conformance::catalog_checks!(
            @each [$(#[$attribute])*] $subject:
            only_the_latest_attempt_completes,
            an_attempt_begins_only_where_the_row_asks_for_its_kind,
            attempts_at_the_same_time_are_told_apart,
            what_is_recorded_is_listed_page_by_page,
            agents_are_written_replaced_and_listed_by_id,
            the_reading_of_the_group_is_noted,
            how_the_group_stands_is_kept,
            tenants_do_not_see_each_other,
            metadata_is_saved_as_it_is_and_again,
            a_final_row_stays_as_it_is,
            completing_writes_everything_in_one_commit,
            completing_without_recording_leaves_no_analysis_entry,
            what_has_no_row_cannot_be_completed,
            a_part_that_comes_late_is_added_in_one_commit_and_replaces_nothing,
            a_call_without_a_recording_becomes_ready_when_one_comes,
            nothing_is_added_to_what_lacks_nothing,
            what_lacks_recordings_is_listed_by_start_half_open_and_page_by_page,
            the_fate_of_an_incomplete_call_says_what_is_missing,
            known_are_rows_and_dead_letters,
            dead_letters_are_numbered_and_listed_by_page,
            the_same_dead_letter_twice_is_one,
            a_dead_letter_is_removed_only_as_it_was_read,
            a_dead_letter_id_is_given_once,
            hops_are_listed_in_their_order,
            counts_equal_the_rows,
            the_analysis_queue_is_ordered_by_time,
            one_conversation_completed_by_many_is_completed_once,
            many_conversations_are_completed_side_by_side,
            odd_texts_are_kept,
            large_metadata_is_kept,
            the_catalog_answers,
            acts_are_listed_newest_first_and_survive,
            old_acts_go,
            days_are_counted_by_the_end_of_calls,
            conversations_are_found_by_agent_and_time_page_by_page,
            the_learned_delay_is_one_for_all_consumers,
            a_longer_delay_that_several_learned_at_once_counts_once,
            a_delay_that_early_looks_have_shortened_counts_once,
            an_erased_conversation_leaves_nothing_but_that_it_was_erased,
            nothing_is_written_of_an_erased_conversation,
            rows_go_only_while_their_erasure_is_pending,
            an_erasure_is_pending_until_it_is_finished_and_knows_the_start_of_the_call,
            without_a_retention_everything_is_kept,
            the_fate_of_a_conversation_is_its_row_or_its_dead_letter,
            a_thousand_fates_come_in_the_order_of_the_question,
            the_last_hop_is_the_newest,
            final_conversations_are_counted_by_their_start_half_open,
            runs_are_numbered_by_kind_and_the_same_run_again_is_one,
            how_far_a_run_has_come_is_kept_and_survives,
            an_operators_change_wins_over_progress_and_the_counts_are_kept,
            a_run_is_changed_only_from_the_state_that_was_read,
            the_memory_of_turns_survives,
            the_poll_is_held_back_for_every_process,
            what_a_turn_writes_is_refused_once_another_has_begun,
            a_write_under_way_does_not_outlive_its_turn,
            an_operator_writes_without_a_turn,
            services_are_known_by_their_last_word_until_they_retire,
            dead_letters_are_grouped_by_stage_and_shape_of_reason,
            dead_letters_of_a_group_and_of_a_time_are_listed_by_page,
        );
    };
    (@each $attributes:tt $subject:ident: $($check:ident,)*) => {
        $($crate::conformance::catalog_checks!(@one $attributes $subject $check);)*
    };
    (@one [$($attributes:tt)*] $subject:ident $check:ident) => {
        $($attributes)*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $check() {
            $crate::conformance::$check::<$subject>().await;
        }
    };
}
pub use catalog_checks;

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn acme() -> TenantId {
    tenant("acme")
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_775_000_000 + seconds).unwrap()
}

fn agent(id: u64, name: &str) -> Agent {
    Agent {
        external_id: AgentId::from_number(id).unwrap(),
        user_id: Some(format!("uuid-{id}")),
        user_name: format!("{name}@example.com"),
        first_name: name.to_owned(),
        last_name: "Lee".to_owned(),
        memberships: Memberships::since(Timestamp::UNIX_EPOCH),
    }
}

fn key(tenant: &TenantId, id: u64) -> ConversationKey {
    ConversationKey { tenant: tenant.clone(), external_id: ContactId::from_number(id).unwrap() }
}

/// Ended `id` seconds after the epoch of these checks.
fn conversation(tenant: &TenantId, id: u64) -> Conversation {
    let ended_at = at(i64::try_from(id).unwrap());
    Conversation {
        tenant: tenant.clone(),
        external_id: ContactId::from_number(id).unwrap(),
        source: EventSource::Webhook,
        lane: Lane::Live,
        master: ContactId::from_number(id + 1).unwrap(),
        agent: AgentId::from_number(7).unwrap(),
        started_at: ended_at - SignedDuration::from_secs(90),
        ended_at,
        direction: Some(Direction::Inbound),
        customer_number: Some("+49 30 1234".to_owned()),
        metadata: json!({ "contactId": id, "skill": { "name": "sales" }, "tags": [1, null, true] }),
    }
}

fn recordings(conversation: &Conversation, count: u32) -> Vec<StoredRecording> {
    let one = |position| StoredRecording {
        key: ObjectKey::new(
            &conversation.key(),
            conversation.started_at,
            position,
            Extension::for_content_type(Some("audio/wav")),
        ),
        bucket: "recordings".to_owned(),
        size_bytes: u64::from(position) * 5_000_000_000,
        sha256: format!("{position:064x}"),
        content_type: "audio/wav".to_owned(),
        source: (position > 0).then(|| format!("contact {position}")),
    };
    (0..count).map(one).collect()
}

fn letter(tenant: &TenantId, id: u64, reason: &str) -> DeadLetter {
    let event = ContactEvent::new(tenant.clone(), ContactId::from_number(id).unwrap(), EventSource::Webhook);
    let mut letter = DeadLetter::of_event(&event, "upload", reason, at(0));
    letter.message["later"] = json!("kept");
    letter
}

async fn row(catalog: &Arc<dyn Catalog>, key: &ConversationKey) -> ConversationRow {
    catalog.conversation(key).await.unwrap().expect("the row stands")
}

/// Compares all but the id of the row, which each catalog gives as it likes.
fn assert_row(row: &ConversationRow, expected: ConversationRow) {
    let expected = ConversationRow { id: row.id.clone(), ..expected };
    assert!(!row.id.is_empty());
    let (left, right) = (serde_json::to_value(row).unwrap(), serde_json::to_value(&expected).unwrap());
    assert_eq!(left, right);
    assert!(*row == expected);
}

/// Everything that hangs on the state of the row agrees with it.
async fn assert_ready(
    catalog: &Arc<dyn Catalog>,
    conversation: &Conversation,
    stored: &[StoredRecording],
    when: Timestamp,
) {
    let key = conversation.key();
    let expected = ConversationRow {
        state: ConversationState::Ready,
        recordings: stored.iter().map(RecordingRow::from).collect(),
        enqueued_at: Some(when),
        ..ConversationRow::metadata_saved(conversation)
    };
    assert_row(&row(catalog, &key).await, expected);
    assert_eq!(catalog.status(&key).await.unwrap().state(), Some(ConversationState::Ready));
    let queue = catalog.analysis_queue(0, 1000).await.unwrap();
    let entries: Vec<_> = queue.iter().filter(|entry| entry.key == key).collect();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].enqueued_at, when);
}

async fn save_ready(catalog: &Arc<dyn Catalog>, conversation: &Conversation, when: Timestamp) {
    catalog.save_metadata(conversation).await.unwrap();
    catalog.complete(&conversation.key(), &recordings(conversation, 1), 0, when, None).await.unwrap();
}

pub async fn agents_are_written_replaced_and_listed_by_id<S: Subject>() {
    let mut subject = S::fresh().await;
    let catalog = subject.catalog();
    assert!(catalog.agents(&acme()).await.unwrap().is_empty());
    assert!(catalog.agent(&acme(), AgentId::from_number(9).unwrap()).await.unwrap().is_none());
    catalog.save_agents(&acme(), &[]).await.unwrap();
    // The longest id of the grammar is above 2^63.
    let first = [agent(100, "Ann"), agent(9, "Bob"), agent(10, "Cid"), agent(9_999_999_999_999_999_999, "Dot")];
    catalog.save_agents(&acme(), &first).await.unwrap();
    let mut memberships = Memberships::since(at(1));
    memberships.leave(at(3));
    memberships.join(at(4));
    memberships.leave(at(5));
    let left = Agent { memberships, user_id: None, first_name: "Bobby".to_owned(), ..agent(9, "Bob") };
    catalog.save_agents(&acme(), std::slice::from_ref(&left)).await.unwrap();
    catalog.save_agents(&acme(), std::slice::from_ref(&left)).await.unwrap();
    drop(catalog);
    subject = subject.crash().await;
    let agents = subject.catalog().agents(&acme()).await.unwrap();
    assert!(agents == [left.clone(), agent(10, "Cid"), agent(100, "Ann"), first[3].clone()], "{agents:?}");
    let one = subject.catalog().agent(&acme(), left.external_id).await.unwrap();
    assert!(one == Some(left));
}

pub async fn the_reading_of_the_group_is_noted<S: Subject>() {
    let subject = S::fresh().await;
    assert_eq!(subject.catalog().agents_read_at(&acme()).await.unwrap(), None);
    for seconds in [5, 9] {
        subject.catalog().note_agents_read(&acme(), at(seconds)).await.unwrap();
    }
    let subject = subject.crash().await;
    assert_eq!(subject.catalog().agents_read_at(&acme()).await.unwrap(), Some(at(9)));
    assert_eq!(subject.catalog().agents(&acme()).await.unwrap(), []);
}

pub async fn how_the_group_stands_is_kept<S: Subject>() {
    let mut subject = S::fresh().await;
    assert_eq!(subject.catalog().group_standing(&acme()).await.unwrap(), GroupStanding::default());
    let held = HeldReading { since: at(1), at: at(2), lost: 12, active: 20, hidden: 5 };
    let standing = GroupStanding { accepted_hidden: 3, held: Some(held) };
    subject.catalog().save_group_standing(&acme(), &standing).await.unwrap();
    subject = subject.crash().await;
    let catalog = subject.catalog();
    assert_eq!(catalog.group_standing(&acme()).await.unwrap(), standing);
    assert_eq!(catalog.group_standing(&tenant("other")).await.unwrap(), GroupStanding::default());
    assert_eq!(catalog.agents_read_at(&acme()).await.unwrap(), None, "what is held was not believed");
    catalog.note_agents_read(&acme(), at(9)).await.unwrap();
    assert_eq!(catalog.group_standing(&acme()).await.unwrap(), standing);
    let ended = GroupStanding { held: None, ..standing };
    catalog.save_group_standing(&acme(), &ended).await.unwrap();
    assert_eq!(catalog.group_standing(&acme()).await.unwrap(), ended);
    assert_eq!(catalog.agents_read_at(&acme()).await.unwrap(), Some(at(9)));
}

pub async fn tenants_do_not_see_each_other<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    let tenants = ["a", "A", "a-b", "a_b", "ab"].map(tenant);
    for (index, tenant) in (1_u64..).zip(&tenants) {
        catalog.save_agents(tenant, &[agent(7, tenant.as_str())]).await.unwrap();
        let mut conversation = conversation(tenant, 42);
        conversation.metadata = json!({ "of": tenant.as_str() });
        catalog.save_metadata(&conversation).await.unwrap();
        catalog.record_hop(&conversation.key(), hop(tenant.as_str(), 0)).await;
        catalog.add_dead_letter(letter(tenant, 100 + index, "no")).await.unwrap();
    }
    catalog.complete_without_recording(&key(&tenants[0], 42), None).await.unwrap();
    for (index, tenant) in (1_u64..).zip(&tenants) {
        let agents = catalog.agents(tenant).await.unwrap();
        assert!(agents == [agent(7, tenant.as_str())], "{agents:?}");
        let row = row(&catalog, &key(tenant, 42)).await;
        assert_eq!(row.metadata["of"], tenant.as_str());
        assert_eq!(row.state.is_final(), index == 1);
        let hops = catalog.hops(&key(tenant, 42)).await.unwrap();
        assert_eq!(hops, [hop(tenant.as_str(), 0)]);
        let keys: Vec<_> = (1..=5).map(|index| key(tenant, 100 + index)).collect();
        let known: Vec<_> = (1..=5).map(|other| other == index).collect();
        assert_eq!(catalog.known(&keys).await.unwrap(), known);
    }
}

pub async fn metadata_is_saved_as_it_is_and_again<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    let mut conversation = conversation(&acme(), 42);
    assert!(catalog.conversation(&conversation.key()).await.unwrap().is_none());
    assert_eq!(catalog.status(&conversation.key()).await.unwrap().state(), None);
    catalog.save_metadata(&conversation).await.unwrap();
    let first = row(&catalog, &conversation.key()).await;
    assert_row(&first, ConversationRow::metadata_saved(&conversation));
    conversation.direction = None;
    conversation.customer_number = None;
    conversation.metadata = json!({});
    catalog.save_metadata(&conversation).await.unwrap();
    catalog.save_metadata(&conversation).await.unwrap();
    let second = row(&catalog, &conversation.key()).await;
    assert_row(&second, ConversationRow::metadata_saved(&conversation));
    assert_eq!(first.id, second.id, "the id is stable");
    assert_eq!(
        catalog.counts().await.unwrap(),
        ConversationCounts { metadata_saved: 1, ..ConversationCounts::default() }
    );
    assert!(catalog.analysis_queue(0, 10).await.unwrap().is_empty());
}

pub async fn a_final_row_stays_as_it_is<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    let ready = conversation(&acme(), 1);
    let stored = recordings(&ready, 2);
    catalog.save_metadata(&ready).await.unwrap();
    catalog.complete(&ready.key(), &stored, 0, at(10), None).await.unwrap();
    let unrecorded = conversation(&acme(), 2);
    catalog.save_metadata(&unrecorded).await.unwrap();
    catalog.complete_without_recording(&unrecorded.key(), None).await.unwrap();
    let id = row(&catalog, &ready.key()).await.id;
    for late in [&ready, &unrecorded] {
        let changed = Conversation { metadata: json!("changed"), customer_number: None, ..late.clone() };
        catalog.save_metadata(&changed).await.unwrap();
        catalog.complete(&late.key(), &recordings(late, 1), 0, at(99), None).await.unwrap();
        catalog.complete_without_recording(&late.key(), None).await.unwrap();
    }
    assert_ready(&catalog, &ready, &stored, at(10)).await;
    assert_eq!(row(&catalog, &ready.key()).await.id, id);
    let expected =
        ConversationRow { state: ConversationState::NoRecording, ..ConversationRow::metadata_saved(&unrecorded) };
    assert_row(&row(&catalog, &unrecorded.key()).await, expected);
    let counts = ConversationCounts { ready: 1, no_recording: 1, ..ConversationCounts::default() };
    assert_eq!(catalog.counts().await.unwrap(), counts);
}

pub async fn completing_writes_everything_in_one_commit<S: Subject>() {
    let mut subject = S::fresh().await;
    let ready = conversation(&acme(), 42);
    let stored = recordings(&ready, 3);
    subject.catalog().save_metadata(&ready).await.unwrap();
    subject.catalog().complete(&ready.key(), &stored, 0, at(10), None).await.unwrap();
    subject = subject.crash().await;
    assert_ready(&subject.catalog(), &ready, &stored, at(10)).await;
    assert_eq!(
        subject.catalog().counts().await.unwrap(),
        ConversationCounts { ready: 1, ..ConversationCounts::default() }
    );
    // The redelivery after the crash changes nothing.
    subject.catalog().complete(&ready.key(), &stored, 0, at(20), None).await.unwrap();
    assert_ready(&subject.catalog(), &ready, &stored, at(10)).await;
}

pub async fn completing_without_recording_leaves_no_analysis_entry<S: Subject>() {
    let mut subject = S::fresh().await;
    let unrecorded = conversation(&acme(), 42);
    subject.catalog().save_metadata(&unrecorded).await.unwrap();
    subject.catalog().complete_without_recording(&unrecorded.key(), None).await.unwrap();
    subject = subject.crash().await;
    let catalog = subject.catalog();
    let expected =
        ConversationRow { state: ConversationState::NoRecording, ..ConversationRow::metadata_saved(&unrecorded) };
    assert_row(&row(&catalog, &unrecorded.key()).await, expected);
    assert!(catalog.analysis_queue(0, 10).await.unwrap().is_empty());
    assert_eq!(
        catalog.counts().await.unwrap(),
        ConversationCounts { no_recording: 1, ..ConversationCounts::default() }
    );
}

pub async fn what_has_no_row_cannot_be_completed<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    let unknown = conversation(&acme(), 42);
    assert!(catalog.complete(&unknown.key(), &recordings(&unknown, 1), 0, at(1), None).await.is_err());
    assert!(catalog.complete_without_recording(&unknown.key(), None).await.is_err());
    assert!(catalog.conversation(&unknown.key()).await.unwrap().is_none());
    assert!(catalog.analysis_queue(0, 10).await.unwrap().is_empty());
    assert_eq!(catalog.counts().await.unwrap(), ConversationCounts::default());
}

pub async fn known_are_rows_and_dead_letters<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    assert!(catalog.known(&[]).await.unwrap().is_empty());
    catalog.save_metadata(&conversation(&acme(), 1)).await.unwrap();
    save_ready(&catalog, &conversation(&acme(), 2), at(0)).await;
    catalog.add_dead_letter(letter(&acme(), 3, "no")).await.unwrap();
    let other_tenant = key(&tenant("other"), 1);
    let keys: Vec<_> = [4, 3, 2, 1, 5, 1].map(|id| key(&acme(), id)).into_iter().chain([other_tenant]).collect();
    assert_eq!(catalog.known(&keys).await.unwrap(), [false, true, true, true, false, true, false]);
    let many: Vec<_> = (1..=5_000).map(|id| key(&acme(), id)).collect();
    let known = catalog.known(&many).await.unwrap();
    assert_eq!((known.len(), known.iter().filter(|known| **known).count()), (5_000, 3));
    let shelved = catalog.dead_letters(0, 1).await.unwrap().remove(0);
    assert!(catalog.remove_dead_letter(&shelved).await.unwrap());
    assert_eq!(catalog.known(&[key(&acme(), 3)]).await.unwrap(), [false], "a dropped letter may be replayed");
}

pub async fn dead_letters_are_grouped_by_stage_and_shape_of_reason<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    for id in 1..=3 {
        catalog.add_dead_letter(letter(&acme(), id, &format!("gave up after {} attempts", 9 + id))).await.unwrap();
    }
    catalog.add_dead_letter(letter(&acme(), 4, "no link")).await.unwrap();
    let groups = catalog.dead_letter_groups(10).await.unwrap();
    let said: Vec<_> = groups.iter().map(|group| (group.reason.as_str(), group.count)).collect();
    assert_eq!(said, [("gave up after N attempts", 3), ("no link", 1)]);
    let ats: Vec<_> = catalog.dead_letters(0, 3).await.unwrap().iter().map(|letter| letter.at).collect();
    assert_eq!((Some(&groups[0].first_at), Some(&groups[0].last_at)), (ats.iter().min(), ats.iter().max()));
    assert_eq!(catalog.dead_letter_groups(1).await.unwrap(), groups[..1]);
    assert_eq!(groups[0].days.iter().map(|counted| counted.count).sum::<u64>(), 3);
    assert_eq!(groups[0].days[0].day, groups[0].last_at.to_zoned(TimeZone::UTC).date());
    assert_eq!(groups[0].replay_at, None);
}

pub async fn dead_letters_of_a_group_and_of_a_time_are_listed_by_page<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    for id in 1..=9 {
        let reason = if id % 3 == 0 { "no link".to_owned() } else { format!("gave up after {id} attempts") };
        let set_aside = DeadLetter { at: at(86_400 * i64::try_from(id).unwrap()), ..letter(&acme(), id, &reason) };
        catalog.add_dead_letter(set_aside).await.unwrap();
    }
    let all = catalog.dead_letters(0, 9).await.unwrap();
    let shape = reason_shape(&all[0].reason);
    let of_group = DeadLetterFilter { stage: Some(all[0].stage.clone()), shape: Some(shape), ..Default::default() };
    let first = catalog.dead_letters_of(&of_group, 0, 4).await.unwrap();
    let rest = catalog.dead_letters_of(&of_group, first[3].id, 4).await.unwrap();
    let expected: Vec<_> = all.iter().filter(|letter| letter.reason != "no link").cloned().collect();
    assert_eq!([first, rest].concat(), expected);
    let elsewhere = DeadLetterFilter { stage: Some("nowhere".to_owned()), ..Default::default() };
    assert!(catalog.dead_letters_of(&elsewhere, 0, 9).await.unwrap().is_empty());
    let of_time = DeadLetterFilter { from: Some(all[2].at), to: Some(all[5].at), ..Default::default() };
    assert_eq!(catalog.dead_letters_of(&of_time, 0, 9).await.unwrap(), all[2..5]);
    assert_eq!(catalog.dead_letters_of(&DeadLetterFilter::default(), 0, 9).await.unwrap(), all);
    // What no store holds is found in none.
    let with_nul = |text: &Option<String>| text.as_ref().map(|text| format!("{text}\0"));
    let odd_stage = DeadLetterFilter { stage: with_nul(&of_group.stage), ..Default::default() };
    let odd_shape = DeadLetterFilter { shape: with_nul(&of_group.shape), ..Default::default() };
    for odd in [odd_stage, odd_shape] {
        assert!(catalog.dead_letters_of(&odd, 0, 9).await.unwrap().is_empty(), "{odd:?}");
    }
    let of_all_time = DeadLetterFilter { from: Some(Timestamp::MIN), to: Some(Timestamp::MAX), ..Default::default() };
    assert_eq!(catalog.dead_letters_of(&of_all_time, 0, 9).await.unwrap(), all);
    let before_all = DeadLetterFilter { to: Some(Timestamp::MIN), ..Default::default() };
    assert!(catalog.dead_letters_of(&before_all, 0, 9).await.unwrap().is_empty());
    assert_eq!(catalog.count_dead_letters(Timestamp::MIN).await.unwrap(), 0);
    let days = &catalog.dead_letter_groups(1).await.unwrap()[0].days;
    assert!(days.len() == 6 && days.is_sorted_by(|one, next| one.day > next.day), "{days:?}");
}

pub async fn dead_letters_are_numbered_and_listed_by_page<S: Subject>() {
    let mut subject = S::fresh().await;
    let catalog = subject.catalog();
    assert!(catalog.dead_letters(0, 10).await.unwrap().is_empty());
    assert!(catalog.dead_letter(1).await.unwrap().is_none());
    for id in 1..=23 {
        catalog.add_dead_letter(letter(&acme(), id, &format!("reason {id}"))).await.unwrap();
    }
    drop(catalog);
    subject = subject.crash().await;
    let catalog = subject.catalog();
    let (mut listed, mut after) = (Vec::new(), 0);
    loop {
        let page = catalog.dead_letters(after, 5).await.unwrap();
        assert!(page.len() <= 5);
        let Some(last) = page.last() else { break };
        after = last.id;
        listed.extend(page);
    }
    assert!(listed.windows(2).all(|pair| pair[0].id < pair[1].id), "ids ascend");
    assert_eq!(listed.len(), 23);
    for (id, listed) in (1..).zip(listed) {
        assert!(listed.id > 0);
        let expected = DeadLetter { id: listed.id, ..letter(&acme(), id, &format!("reason {id}")) };
        assert_eq!(listed, expected);
        assert_eq!(catalog.dead_letter(listed.id).await.unwrap(), Some(expected));
    }
    let of = async |tenant: &str, id| catalog.dead_letter_of(&key(&self::tenant(tenant), id)).await.unwrap();
    assert_eq!(of("acme", 7).await.unwrap().reason, "reason 7");
    assert_eq!((of("acme", 24).await, of("other", 7).await), (None, None));
    assert!(catalog.dead_letters(u64::MAX, 5).await.unwrap().is_empty());
    assert_eq!(catalog.counts().await.unwrap().dead_letters, 23);
}

pub async fn the_same_dead_letter_twice_is_one<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    catalog.add_dead_letter(letter(&acme(), 1, "first")).await.unwrap();
    catalog.add_dead_letter(letter(&acme(), 2, "other")).await.unwrap();
    let mut again = letter(&acme(), 1, "second");
    again.stage = "persist".to_owned();
    catalog.add_dead_letter(again.clone()).await.unwrap();
    let listed = catalog.dead_letters(0, 10).await.unwrap();
    assert_eq!(listed.len(), 2);
    let standing = listed.iter().find(|letter| letter.conversation_id.as_deref() == Some("1")).unwrap();
    assert_eq!(standing, &DeadLetter { id: standing.id, ..again }, "the later reason stands");
    // Without a conversation, the body is what makes it the same.
    for _ in 0..2 {
        for (stage, body) in [("dequeue", &b"\xff\0{"[..]), ("dequeue", b"{}"), ("source", b"{}")] {
            catalog.add_dead_letter(DeadLetter::of_body(body, None, stage, "malformed", at(1))).await.unwrap();
        }
    }
    assert_eq!(catalog.dead_letters(0, 10).await.unwrap().len(), 5);
    assert_eq!(catalog.counts().await.unwrap().dead_letters, 5);
}

pub async fn a_dead_letter_is_removed_only_as_it_was_read<S: Subject>() {
    let mut subject = S::fresh().await;
    let catalog = subject.catalog();
    catalog.add_dead_letter(letter(&acme(), 1, "first")).await.unwrap();
    let read = catalog.dead_letters(0, 1).await.unwrap().remove(0);
    catalog.add_dead_letter(letter(&acme(), 1, "written anew")).await.unwrap();
    assert!(!catalog.remove_dead_letter(&read).await.unwrap());
    let read = catalog.dead_letters(0, 1).await.unwrap().remove(0);
    assert_eq!(read.reason, "written anew");
    let removals = (0..8).map(|_| {
        let (catalog, read) = (catalog.clone(), read.clone());
        task::spawn("removal", async move { catalog.remove_dead_letter(&read).await.unwrap() })
    });
    let removed = join_all(removals.collect::<Vec<_>>()).await;
    assert_eq!(removed.into_iter().filter(|removed| *removed.as_ref().unwrap()).count(), 1, "by one of many");
    drop(catalog);
    subject = subject.crash().await;
    let catalog = subject.catalog();
    assert!(catalog.dead_letter(read.id).await.unwrap().is_none());
    assert_eq!(catalog.counts().await.unwrap(), ConversationCounts::default());
    catalog.add_dead_letter(letter(&acme(), 1, "back")).await.unwrap();
    assert_eq!(catalog.counts().await.unwrap().dead_letters, 1);
}

pub async fn a_dead_letter_id_is_given_once<S: Subject>() {
    let mut subject = S::fresh().await;
    let mut ids = BTreeSet::new();
    for round in 1..=3 {
        let catalog = subject.catalog();
        catalog.add_dead_letter(letter(&acme(), round, "no")).await.unwrap();
        let shelved = catalog.dead_letters(0, 1).await.unwrap().remove(0);
        assert!(ids.last().is_none_or(|last| *last < shelved.id), "an operator may still hold the old id");
        ids.insert(shelved.id);
        assert!(catalog.remove_dead_letter(&shelved).await.unwrap());
        drop(catalog);
        subject = subject.crash().await;
    }
}

fn hop(stage: &str, attempt: u32) -> Hop {
    Hop {
        at: at(i64::from(attempt)),
        stage: stage.to_owned(),
        outcome: "retry".to_owned(),
        attempt,
        took_millis: 5,
        detail: attempt.is_multiple_of(2).then(|| "why".to_owned()),
    }
}

pub async fn hops_are_listed_in_their_order<S: Subject>() {
    let mut subject = S::fresh().await;
    let traced = key(&acme(), 42);
    assert!(subject.catalog().hops(&traced).await.unwrap().is_empty());
    for attempt in 0..30 {
        subject.catalog().record_hop(&traced, hop("upload", attempt)).await;
        subject.catalog().record_hop(&key(&acme(), 43), hop("persist", attempt)).await;
    }
    let expected: Vec<_> = (0..30).map(|attempt| hop("upload", attempt)).collect();
    assert_eq!(subject.catalog().hops(&traced).await.unwrap(), expected);
    subject.catalog().flush().await;
    subject.catalog().check().await.unwrap();
    subject = subject.crash().await;
    subject.catalog().record_hop(&traced, hop("upload", 30)).await;
    let hops = subject.catalog().hops(&traced).await.unwrap();
    assert_eq!((hops.len(), hops.last()), (31, Some(&hop("upload", 30))));
}

pub async fn counts_equal_the_rows<S: Subject>() {
    let mut subject = S::fresh().await;
    let tenants = [acme(), tenant("other")];
    let mut walk = 1_u64;
    for step in 0..200 {
        let catalog = subject.catalog();
        // A fixed walk over few conversations, so that every call also hits rows in every state.
        walk = walk.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let conversation = conversation(&tenants[(walk >> 60) as usize % 2], 1 + (walk >> 40) % 12);
        match (walk >> 50) % 7 {
            0..=2 => drop(catalog.save_metadata(&conversation).await.unwrap()),
            3 => {
                let stored = recordings(&conversation, 1);
                catalog.complete(&conversation.key(), &stored, 0, at(1), None).await.ok();
            }
            4 => drop(catalog.complete_without_recording(&conversation.key(), None).await.ok()),
            5 => {
                let id = conversation.external_id.get();
                catalog.add_dead_letter(letter(&conversation.tenant, id, "no")).await.unwrap();
            }
            _ => {
                // All but one, so that some remain in the end.
                if let [first, _, ..] = &catalog.dead_letters(0, 2).await.unwrap()[..] {
                    assert!(catalog.remove_dead_letter(first).await.unwrap());
                }
            }
        }
        drop(catalog);
        if step == 100 {
            subject = subject.crash().await;
        }
    }
    let catalog = subject.catalog();
    let mut expected = ConversationCounts::default();
    for tenant in &tenants {
        for id in 1..=12 {
            match catalog.status(&key(tenant, id)).await.unwrap().state() {
                Some(ConversationState::MetadataSaved) => expected.metadata_saved += 1,
                Some(ConversationState::Ready) => expected.ready += 1,
                Some(ConversationState::NoRecording) => expected.no_recording += 1,
                None => {}
            }
        }
    }
    expected.dead_letters = catalog.dead_letters(0, 1000).await.unwrap().len() as u64;
    assert_eq!(catalog.counts().await.unwrap(), expected);
    assert!(expected.ready > 0 && expected.no_recording > 0 && expected.dead_letters > 0, "{expected:?}");
    assert_eq!(catalog.analysis_queue(0, 1000).await.unwrap().len() as u64, expected.ready);
}

pub async fn the_analysis_queue_is_ordered_by_time<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    for id in [5_u64, 1, 4, 2, 3] {
        let tenant = if id % 2 == 0 { acme() } else { tenant("other") };
        save_ready(&catalog, &conversation(&tenant, id), at(i64::try_from(id).unwrap())).await;
    }
    let ids = |entries: Vec<super::AnalysisEntry>| -> Vec<u64> {
        entries.iter().map(|entry| entry.key.external_id.get()).collect()
    };
    assert_eq!(ids(catalog.analysis_queue(0, 10).await.unwrap()), [1, 2, 3, 4, 5]);
    assert_eq!(ids(catalog.analysis_queue(1, 2).await.unwrap()), [2, 3]);
    assert!(catalog.analysis_queue(5, 10).await.unwrap().is_empty());
    assert!(catalog.analysis_queue(0, 0).await.unwrap().is_empty());
}

pub async fn one_conversation_completed_by_many_is_completed_once<S: Subject>() {
    let mut subject = S::fresh().await;
    let contested = conversation(&acme(), 42);
    let workers = (1..=32).map(|worker| {
        let (catalog, contested) = (subject.catalog(), contested.clone());
        task::spawn("worker", async move {
            // Of those that ask at once, all but the last are overtaken.
            catalog.save_metadata(&contested).await.ok();
            catalog
                .complete(&contested.key(), &recordings(&contested, worker), 0, at(worker.into()), None)
                .await
                .unwrap();
        })
    });
    for worker in join_all(workers.collect::<Vec<_>>()).await {
        worker.unwrap();
    }
    subject = subject.crash().await;
    let catalog = subject.catalog();
    let winner = row(&catalog, &contested.key()).await;
    let count = u32::try_from(winner.recordings.len()).unwrap();
    assert!(count >= 1);
    assert_ready(&catalog, &contested, &recordings(&contested, count), at(count.into())).await;
    assert_eq!(catalog.analysis_queue(0, 100).await.unwrap().len(), 1);
    assert_eq!(catalog.counts().await.unwrap(), ConversationCounts { ready: 1, ..ConversationCounts::default() });
}

pub async fn many_conversations_are_completed_side_by_side<S: Subject>() {
    let mut subject = S::fresh().await;
    let workers = (1..=200).map(|id| {
        let catalog = subject.catalog();
        task::spawn("worker", async move { save_ready(&catalog, &conversation(&acme(), id), at(id as i64)).await })
    });
    for worker in join_all(workers.collect::<Vec<_>>()).await {
        worker.unwrap();
    }
    subject = subject.crash().await;
    let catalog = subject.catalog();
    assert_eq!(catalog.counts().await.unwrap(), ConversationCounts { ready: 200, ..ConversationCounts::default() });
    for id in 1..=200 {
        let conversation = conversation(&acme(), id);
        assert_ready(&catalog, &conversation, &recordings(&conversation, 1), at(id as i64)).await;
    }
}

/// A text as every catalog keeps it: PostgreSQL has no NUL, so a catalog may leave it out.
fn without_nul(value: &impl serde::Serialize) -> Value {
    let text = serde_json::to_string(value).unwrap().replace("\\u0000", "");
    serde_json::from_str(&text).unwrap()
}

pub async fn odd_texts_are_kept<S: Subject>() {
    let mut subject = S::fresh().await;
    let odd = "NUL\0 quote' \"double\" back\\slash \\u0041 %s {} ; DROP TABLE -- \r\n\t\u{1}\u{7f}\u{85}\u{2028} \
               e\u{301} ß İ 👩‍👩‍👧 \u{202e}rtl \u{feff}bom \u{fffd}\u{ffff}\u{10ffff}";
    let mut odd_agent = agent(7, odd);
    odd_agent.last_name = String::new();
    subject.catalog().save_agents(&acme(), &[odd_agent.clone()]).await.unwrap();
    let mut odd_call = conversation(&acme(), 42);
    odd_call.customer_number = Some(odd.to_owned());
    odd_call.metadata = json!({ odd: [odd, { "nested": odd }, 1e300, -0.5, 9_007_199_254_740_993_u64], "": null });
    subject.catalog().save_metadata(&odd_call).await.unwrap();
    let mut odd_letter = letter(&acme(), 43, odd);
    odd_letter.message[odd] = json!(odd);
    subject.catalog().add_dead_letter(odd_letter.clone()).await.unwrap();
    let odd_hop = Hop { detail: Some(odd.to_owned()), ..hop("upload", 0) };
    subject.catalog().record_hop(&odd_call.key(), odd_hop.clone()).await;
    subject.catalog().flush().await;
    subject.catalog().check().await.unwrap();
    subject = subject.crash().await;
    let catalog = subject.catalog();
    let agents = catalog.agents(&acme()).await.unwrap();
    assert_eq!(without_nul(&agents), without_nul(&[odd_agent]));
    let row = row(&catalog, &odd_call.key()).await;
    assert_eq!(without_nul(&row.metadata), without_nul(&odd_call.metadata));
    assert_eq!(without_nul(&row.customer_number), without_nul(&odd_call.customer_number));
    let shelved = catalog.dead_letters(0, 1).await.unwrap().remove(0);
    odd_letter.id = shelved.id;
    assert_eq!(without_nul(&shelved), without_nul(&odd_letter));
    assert_eq!(without_nul(&catalog.hops(&odd_call.key()).await.unwrap()), without_nul(&[odd_hop]));
    assert!(catalog.remove_dead_letter(&shelved).await.unwrap(), "it is as it was read");
}

pub async fn large_metadata_is_kept<S: Subject>() {
    let mut subject = S::fresh().await;
    for id in 1..=4 {
        let mut large = conversation(&acme(), id);
        large.metadata = json!({ "notes": format!("{id}-ü").repeat(256 * 1024 / 4) });
        save_ready(&subject.catalog(), &large, at(1)).await;
    }
    subject = subject.crash().await;
    for id in 1..=4 {
        let row = row(&subject.catalog(), &key(&acme(), id)).await;
        assert!(row.metadata["notes"] == format!("{id}-ü").repeat(256 * 1024 / 4));
        assert_eq!(row.state, ConversationState::Ready);
    }
}

pub async fn the_catalog_answers<S: Subject>() {
    S::fresh().await.catalog().check().await.unwrap();
}

pub async fn only_the_latest_attempt_completes<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    let call = conversation(&tenant("a"), 1);
    let key = call.key();
    assert!(catalog.begin_attempt(&key, AttemptKind::Complete).await.is_err(), "there is no row");
    catalog.save_metadata(&call).await.unwrap();
    let first = catalog.begin_attempt(&key, AttemptKind::Complete).await.unwrap().unwrap();
    assert!(catalog.is_current(&key, first).await.unwrap());
    let second = catalog.begin_attempt(&key, AttemptKind::Complete).await.unwrap().unwrap();
    assert_ne!(first, second);
    assert!(!catalog.is_current(&key, first).await.unwrap() && catalog.is_current(&key, second).await.unwrap());
    // Who reads it of NICE again begins once more.
    let third = catalog.save_metadata(&call).await.unwrap().unwrap();
    assert!(!catalog.is_current(&key, second).await.unwrap() && !third.is_first());
    let complete =
        async |attempt: Attempt| catalog.complete(&key, &recordings(&call, 1), 0, at(5), Some(attempt)).await;
    complete(first).await.unwrap_err();
    complete(second).await.unwrap_err();
    assert_eq!(catalog.status(&key).await.unwrap().state(), Some(ConversationState::MetadataSaved));
    complete(third).await.unwrap();
    assert_eq!(catalog.status(&key).await.unwrap().state(), Some(ConversationState::Ready));
    complete(third).await.unwrap();
    complete(second).await.unwrap_err();
    assert_eq!(catalog.save_metadata(&call).await.unwrap(), None, "it is final");
    assert_eq!(catalog.begin_attempt(&key, AttemptKind::Complete).await.unwrap(), None, "it is final");
    assert!(!catalog.is_current(&key, third).await.unwrap());
    drop(catalog);
    let subject = subject.crash().await;
    assert_eq!(subject.catalog().begin_attempt(&key, AttemptKind::Complete).await.unwrap(), None);
}

pub async fn an_attempt_begins_only_where_the_row_asks_for_its_kind<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    let begin = async |call: &Conversation, kind| catalog.begin_attempt(&call.key(), kind).await.unwrap();
    let calls = [1, 2, 3].map(|id| conversation(&acme(), id));
    for call in &calls {
        catalog.save_metadata(call).await.unwrap();
        assert_eq!(begin(call, AttemptKind::Add).await, None, "it is not final");
    }
    let [partly, unrecorded, whole] = &calls;
    // A delivery whose answer was lost finds its own work, and does not store it again.
    let first = begin(partly, AttemptKind::Complete).await;
    let part = recordings(partly, 1);
    let complete = async || catalog.complete(&partly.key(), &part, 1, at(10), first).await;
    complete().await.unwrap();
    complete().await.unwrap();
    assert_eq!(begin(partly, AttemptKind::Complete).await, None, "it is final");
    assert!(!catalog.is_current(&partly.key(), first.unwrap()).await.unwrap());
    // One that finds other bytes is told so.
    let mut others = part.clone();
    others[0].sha256 = "f".repeat(64);
    assert!(catalog.complete(&partly.key(), &others, 1, at(10), first).await.unwrap_err().is_overtaken());
    assert!(catalog.complete_without_recording(&partly.key(), first).await.unwrap_err().is_overtaken());

    // Of two that add at once the later one does.
    let two = recordings(partly, 2);
    let earlier = begin(partly, AttemptKind::Add).await;
    let later = begin(partly, AttemptKind::Add).await;
    assert!(!catalog.is_current(&partly.key(), earlier.unwrap()).await.unwrap());
    assert!(catalog.is_current(&partly.key(), later.unwrap()).await.unwrap());
    let add = async |attempt| catalog.add_recordings(&partly.key(), &two[1..], 0, at(20), attempt).await;
    assert!(add(earlier).await.unwrap_err().is_overtaken());
    add(later).await.unwrap();
    add(later).await.unwrap();
    others[0].key = two[1].key.clone();
    let other = catalog.add_recordings(&partly.key(), &others, 0, at(20), later).await;
    assert!(other.unwrap_err().is_overtaken(), "its bytes are not those of the row");
    assert_eq!(begin(partly, AttemptKind::Add).await, None, "it lacks nothing");

    // Without a recording: by the latest attempt, and not over recordings.
    let stale = begin(unrecorded, AttemptKind::Complete).await;
    let latest = begin(unrecorded, AttemptKind::Complete).await;
    assert!(catalog.complete_without_recording(&unrecorded.key(), stale).await.unwrap_err().is_overtaken());
    catalog.complete_without_recording(&unrecorded.key(), latest).await.unwrap();
    catalog.complete_without_recording(&unrecorded.key(), latest).await.unwrap();
    assert_eq!(begin(unrecorded, AttemptKind::Complete).await, None);
    assert!(begin(unrecorded, AttemptKind::Add).await.is_some());

    let attempt = begin(whole, AttemptKind::Complete).await;
    catalog.complete(&whole.key(), &recordings(whole, 1), 0, at(5), attempt).await.unwrap();
    assert_eq!(begin(whole, AttemptKind::Add).await, None);
}

pub async fn attempts_at_the_same_time_are_told_apart<S: Subject>() {
    let subject = S::fresh().await;
    let calls = [conversation(&tenant("a"), 1), conversation(&tenant("a"), 2)];
    for call in &calls {
        subject.catalog().save_metadata(call).await.unwrap();
    }
    let workers = (0..20_usize).map(|number| {
        let (catalog, call) = (subject.catalog(), calls[number % 2].clone());
        task::spawn("worker", async move {
            // One that shares a statement with a later one of the same call is told so.
            let attempt = catalog.begin_attempt(&call.key(), AttemptKind::Complete).await.ok().flatten()?;
            let stored = recordings(&call, number as u32 + 1);
            catalog.complete(&call.key(), &stored, 0, at(1), Some(attempt)).await.ok().map(|()| (number, stored))
        })
    });
    let ended = join_all(workers.collect::<Vec<_>>()).await;
    let completed: Vec<_> = ended.into_iter().filter_map(|end| end.unwrap()).collect();
    for (number, call) in calls.iter().enumerate() {
        let row = subject.catalog().conversation(&call.key()).await.unwrap().unwrap();
        let of_call: Vec<_> = completed.iter().filter(|(worker, _)| worker % 2 == number).collect();
        let [(_, stored)] = &of_call[..] else { panic!("one completes a call, and {} did", of_call.len()) };
        assert_eq!(row.recordings, stored.iter().map(RecordingRow::from).collect::<Vec<_>>());
    }
}

pub async fn what_is_recorded_is_listed_page_by_page<S: Subject>() {
    let subject = S::fresh().await;
    let catalog = subject.catalog();
    for id in 1..=7 {
        let call = conversation(&acme(), id);
        catalog.save_metadata(&call).await.unwrap();
        if id != 4 {
            catalog.complete(&call.key(), &recordings(&call, 1), 0, at(99), None).await.unwrap();
        }
    }
    let elsewhere = conversation(&tenant("other"), 3);
    catalog.save_metadata(&elsewhere).await.unwrap();
    catalog.complete(&elsewhere.key(), &recordings(&elsewhere, 1), 0, at(99), None).await.unwrap();
    // Each ends as many seconds after a moment as its id says.
    let (mut after, mut ids) = (None, Vec::new());
    loop {
        let page = catalog.recorded(&acme(), at(2), at(7), after, 2).await.unwrap();
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        after = Some(*last);
        ids.extend(page.iter().map(|recorded| (recorded.external_id.get(), recorded.ended_at)));
    }
    assert_eq!(ids, [2, 3, 5, 6].map(|id| (id, at(i64::try_from(id).unwrap()))));
}
