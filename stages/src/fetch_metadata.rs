//! Stage 6, fetch metadata: an event → the conversation as NICE knows it.
//!
//! # Contract
//! A contact that NICE does not know, or that is still going on, is awaited until the deadline, and is a dead letter
//! then; one that goes back by itself where NICE had named the contact before, or the group was not read. One that only
//! a webhook named, and that NICE has not known at some looks within an hour, is dropped with a counted reason: the
//! poll would find a real one. What is no phone call of an agent who was in the group at its end, or ended before what
//! the tenant keeps, is dropped with a counted reason and leaves no row.
//!
//! A recheck is of a conversation whose row is final: it is what that row says, and NICE's record is not asked for
//! again.
//!
//! # No verdict on half a record
//! Seconds after a call NICE may show a record without its agent, which is there a moment later. That a call was never
//! answered, is no phone call, or is nobody's of the group is said of a final record only: one that is warehoused, or
//! that ended long ago. Another one is awaited. One that names its agent, its start and its duration is whole, and is
//! what it is after some minutes.

use std::sync::Arc;

use catalog::{Agents, Conversations, SETTLED};
use flow::{Outcome, RetryPolicy, Stage, StageError};
use jiff::{SignedDuration, Timestamp};
use model::{Agent, ContactEvent, Conversation, Direction, Lane, QuotaClass, System};
use nice::{Contact, NiceError};
use runtime::{Clock, crash};

use crate::items::FetchedConversation;
use crate::recheck::NOTHING_NEW;
use crate::tenants::Tenant;
use crate::watermark::is_beyond;

/// When a record counts as final that is not warehoused: this long after the end its agent does not change any more.
/// That happens within about a minute, and after-call work is done by then.
const FINAL_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// The same for a record that is whole: it is known who took the call.
const WHOLE_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// A group that was not read for this time is held or cannot be read, and that may last for a day.
const STANDS_STILL: SignedDuration = SignedDuration::from_hours(1);

/// Why a call waits of whom the group's last reading says nothing.
const NOT_READ: &str = "the group was not read since the call ended";

/// Asks NICE for a contact.
pub struct FetchMetadata {
    /// The group's agents.
    pub agents: Arc<dyn Agents>,
    /// The rows of calls that are looked at again.
    pub conversations: Arc<dyn Conversations>,
    /// The deadline.
    pub retry: RetryPolicy,
    /// The time.
    pub clock: Clock,
}

impl Stage<Arc<Tenant>> for FetchMetadata {
    const NAME: &'static str = "fetch_metadata";
    type Out = FetchedConversation;

    async fn process(
        &self,
        event: &ContactEvent,
        tenant: Arc<Tenant>,
    ) -> Result<Outcome<FetchedConversation>, StageError> {
        if event.recheck {
            return self.as_its_row_says(event, tenant).await;
        }
        let given_up = self.retry.recording_given_up(event);
        let nice = tenant.responsive()?.for_class(QuotaClass::of_look_up(event));
        let contact = match nice.contact(event.conversation).await {
            Err(NiceError::NotReady { .. }) if given_up => return Err(unknown_at_the_deadline(event)),
            // Decided by this very answer: what NICE knows by now is a call, however late it was looked for.
            Err(NiceError::NotReady { .. }) if self.retry.unconfirmed_given_up(event, self.clock.now()) => {
                return Ok(Outcome::Done("unconfirmed"));
            }
            Err(NiceError::NotReady { what }) => return Err(StageError::Unknown { reason: what }),
            answer => answer?,
        };
        crash::point("metadata_fetched");
        if contact.is_active == Some(true) {
            return Err(incomplete("the contact is still going on", given_up));
        }
        let now = self.clock.now();
        let is_final = given_up || is_final(&contact, now);
        if !contact.is_phone_call() {
            return dropped("not_a_phone_call", is_final || is_whole(&contact, now));
        }
        let Some(agent) = contact.agent_id.or(event.agent) else {
            return dropped("never_answered", is_final);
        };
        let (Some(started_at), Some(ended_at)) = (contact.started_at, contact.ended_at().or(event.ended_at)) else {
            return Err(incomplete("the contact has no start or duration yet", given_up));
        };
        if !tenant.retention.reaches(ended_at, now) {
            return Ok(Outcome::Done("beyond_retention"));
        }
        let known = self.agents.agent(&event.tenant, agent).await?;
        if !known.is_some_and(|agent| is_of_group(&agent, event, ended_at)) {
            // An agent may have joined since the group was read: only a later reading tells. One that a clock wrote
            // which ran ahead tells nothing.
            let read_at = self.agents.agents_read_at(&event.tenant).await?;
            return match read_at.is_some_and(|read_at| read_at >= ended_at && read_at <= now) {
                true => dropped("not_in_group", is_final || is_whole(&contact, now)),
                // One look is counted, for the deadline.
                false if stands_still(read_at, now) && event.not_ready > 0 && !given_up => Err(self.awaits_the_group()),
                false => Err(unread(given_up)),
            };
        }
        let (direction, customer_number) = direction(&contact);
        let conversation = Conversation {
            tenant: event.tenant.clone(),
            external_id: event.conversation,
            source: event.source,
            lane: Lane::of(event),
            master: contact.master_contact_id,
            agent,
            started_at,
            ended_at,
            direction,
            customer_number,
            metadata: contact.raw,
        };
        Ok(Outcome::Next(FetchedConversation { tenant, conversation }))
    }
}

impl FetchMetadata {
    /// The start, too, is that of the row: it names the folder in which the other recordings lie.
    async fn as_its_row_says(
        &self,
        event: &ContactEvent,
        tenant: Arc<Tenant>,
    ) -> Result<Outcome<FetchedConversation>, StageError> {
        // Erased since.
        let Some(row) = self.conversations.conversation(&event.key()).await? else {
            return Ok(Outcome::Done(NOTHING_NEW));
        };
        // What is stored while the rest of the call is erased would stay for ever.
        let soon = self.clock.now().checked_add(SETTLED).unwrap_or(Timestamp::MAX);
        if !tenant.retention.reaches(row.ended_at, soon) {
            return Ok(Outcome::Done("beyond_retention"));
        }
        let conversation = Conversation {
            tenant: event.tenant.clone(),
            external_id: event.conversation,
            source: event.source,
            lane: Lane::of(event),
            master: row.master_external_id,
            agent: row.agent_external_id,
            started_at: row.started_at,
            ended_at: row.ended_at,
            direction: row.direction,
            customer_number: row.customer_number,
            metadata: row.metadata,
        };
        Ok(Outcome::Next(FetchedConversation { tenant, conversation }))
    }

    /// Most such calls are nobody's of the group: they do not ask NICE again at every step.
    fn awaits_the_group(&self) -> StageError {
        let last_step = self.retry.not_ready_delays.last().copied();
        StageError::Early { reason: NOT_READ, retry_after: last_step.unwrap_or(self.retry.error_delay_max) }
    }
}

/// Whether the group is not read at present, or the time of its last reading is unknown because another clock wrote it.
fn stands_still(read_at: Option<Timestamp>, now: Timestamp) -> bool {
    read_at.is_none_or(|read_at| now.duration_since(read_at) >= STANDS_STILL || is_beyond(read_at, now))
}

/// Whether NICE's record names who took the call, from when to when, and that was some minutes ago.
fn is_whole(contact: &Contact, now: Timestamp) -> bool {
    let has_lasted = contact.total_duration.is_some_and(|duration| !duration.is_zero());
    let ended_at = contact.ended_at().filter(|_| contact.agent_id.is_some() && has_lasted);
    ended_at.is_some_and(|ended_at| now.duration_since(ended_at) >= WHOLE_AFTER)
}

/// Whether NICE's record does not change any more, as far as a verdict needs. Half a record has no duration, or none
/// yet.
fn is_final(contact: &Contact, now: Timestamp) -> bool {
    let ended_at = contact.ended_at().filter(|_| contact.total_duration.is_some_and(|duration| !duration.is_zero()));
    let changed_at = [ended_at, contact.last_update_time].into_iter().flatten().max();
    contact.warehoused_at.is_some() || changed_at.is_some_and(|time| now.duration_since(time) >= FINAL_AFTER)
}

/// A verdict by which the call leaves no row; on half a record there is none.
fn dropped(verdict: &'static str, is_final: bool) -> Result<Outcome<FetchedConversation>, StageError> {
    match is_final {
        true => Ok(Outcome::Done(verdict)),
        false => Err(StageError::NotReady { reason: "NICE's record of the contact is not final yet" }),
    }
}

/// Whether the call is the group's: by its end, or, where a backfill asked for that, by who was a member when it was
/// put on the queue.
fn is_of_group(agent: &Agent, event: &ContactEvent, ended_at: Timestamp) -> bool {
    // A dead letter that is replayed counts as new, and its agent as when the backfill found it.
    let found_at = event.first_queued_at.or(event.queued_at);
    let was_a_member_since_then =
        || found_at.map_or(agent.is_active(), |at| agent.memberships.meets(at, Timestamp::MAX));
    agent.was_member_at(Some(ended_at)) || (event.members_now && was_a_member_since_then())
}

/// What NICE knows of the contact does not suffice: awaited, until it is given up.
fn incomplete(reason: &'static str, given_up: bool) -> StageError {
    match given_up {
        false => StageError::NotReady { reason },
        true => StageError::permanent(format!("at the deadline {reason}")),
    }
}

/// NICE has named the contact before, unless a webhook alone has: then that it does not know it says nothing of the
/// call.
fn unknown_at_the_deadline(event: &ContactEvent) -> StageError {
    let reason = "NICE did not know the contact until the deadline";
    match event.is_unconfirmed() {
        true => StageError::permanent(reason),
        false => StageError::SetAside { system: System::Nice, reason: reason.to_owned() },
    }
}

/// The group was not read since the call ended: no fault of the call's.
fn unread(given_up: bool) -> StageError {
    match given_up {
        false => StageError::NotReady { reason: NOT_READ },
        true => StageError::SetAside { system: System::Nice, reason: format!("at the deadline {NOT_READ}") },
    }
}

/// Who called whom, and the number at the customer's end, unchanged.
fn direction(contact: &Contact) -> (Option<Direction>, Option<String>) {
    let number = |text: &Option<String>| text.clone().map(|text| text.replace('\0', ""));
    match contact.is_outbound {
        Some(true) => (Some(Direction::Outbound), number(&contact.to_address)),
        Some(false) => (Some(Direction::Inbound), number(&contact.from_address)),
        None => (None, None),
    }
}

#[cfg(test)]
mod tests;
