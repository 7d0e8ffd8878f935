//! Stage 6, fetch metadata: an event → the conversation as NICE knows it.
//!
//! # Contract
//! A contact that NICE does not know, or that is still going on, is awaited until the deadline, and is a dead letter
//! then. One that only a webhook named, and that NICE has not known at some looks within an hour, is dropped with a
//! counted reason: the poll would find a real one. What is no phone call of a group agent, or ended before what the tenant keeps, is dropped with a counted reason
//! and leaves no row.

use std::sync::Arc;

use crate::clients::catalog::Catalog;
use crate::clients::nice::{Contact, NiceError, QuotaClass};
use crate::clients::tenants::Tenants;
use crate::flow::{Clock, Outcome, RetryPolicy, Stage, StageError, crash};
use crate::model::{ContactEvent, Conversation, Direction};

/// Asks NICE for a contact.
pub struct FetchMetadata {
    /// The doors to NICE.
    pub tenants: Arc<Tenants>,
    /// Knows the group's agents.
    pub catalog: Arc<dyn Catalog>,
    /// The deadline.
    pub retry: RetryPolicy,
    /// The time.
    pub clock: Clock,
}

impl Stage<ContactEvent> for FetchMetadata {
    const NAME: &'static str = "fetch_metadata";
    type Out = Conversation;

    async fn process(&self, event: ContactEvent) -> Result<Outcome<Conversation>, StageError> {
        let given_up = self.retry.recording_given_up(&event, self.clock.now());
        let tenant = self.tenants.get(&event.tenant).await?;
        let contact = match tenant.nice.for_class(QuotaClass::of_look_up(&event)).contact(event.conversation).await {
            Err(NiceError::NotReady { .. }) if given_up => {
                return Err(StageError::permanent("NICE did not know the contact until the deadline"));
            }
            // Decided by this very answer: what NICE knows by now is a call, however late it was looked for.
            Err(NiceError::NotReady { .. }) if self.retry.unconfirmed_given_up(&event, self.clock.now()) => {
                return Ok(Outcome::Done("unconfirmed"));
            }
            Err(NiceError::NotReady { what }) => return Err(StageError::Unknown { reason: what }),
            answer => answer?,
        };
        crash::point("metadata_fetched");
        if contact.is_active == Some(true) {
            return Err(incomplete("the contact is still going on", given_up));
        }
        if !contact.is_phone_call() {
            return Ok(Outcome::Done("not_a_phone_call"));
        }
        let Some(agent) = contact.agent_id.or(event.agent) else {
            return Ok(Outcome::Done("never_answered"));
        };
        let (Some(started_at), Some(ended_at)) = (contact.started_at, contact.ended_at().or(event.ended_at)) else {
            return Err(incomplete("the contact has no start or duration yet", given_up));
        };
        if !tenant.retention.reaches(ended_at, self.clock.now()) {
            return Ok(Outcome::Done("beyond_retention"));
        }
        let known = self.catalog.agent(&event.tenant, agent).await?;
        if !known.is_some_and(|agent| agent.was_member_at(Some(ended_at))) {
            // An agent may have joined since the group was read: only a later reading tells.
            let read_at = self.catalog.agents_read_at(&event.tenant).await?;
            return match read_at.is_some_and(|read_at| read_at >= ended_at) {
                true => Ok(Outcome::Done("not_in_group")),
                false => Err(incomplete("the group was not read since the call ended", given_up)),
            };
        }
        let (direction, customer_number) = direction(&contact);
        Ok(Outcome::Next(Conversation {
            master: contact.master_contact_id,
            agent,
            started_at,
            ended_at,
            direction,
            customer_number,
            metadata: contact.raw,
            // NICE's word on the end counts from here on: an event may be wrong.
            event: ContactEvent { ended_at: Some(ended_at), ..event },
        }))
    }
}

/// What NICE knows of the contact does not suffice: awaited, until it is given up.
fn incomplete(reason: &'static str, given_up: bool) -> StageError {
    match given_up {
        false => StageError::NotReady { reason },
        true => StageError::permanent(format!("at the deadline {reason}")),
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
