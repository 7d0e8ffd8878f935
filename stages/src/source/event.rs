//! From what NICE lists to an event, the same for the poll, the replays and the completeness report.
//!
//! In: a listed call, or a row that cannot be read. Out: the event of a phone call of a group agent; of a row that
//! tells its id an event of that id alone; of any other row a dead letter. Nothing is kept: after a crash the list is
//! read again.

use flow::JournalError;
use model::{ContactEvent, DeadLetter, EventSource, Members, TenantId};
use nice::BadRow;

use super::{found::count, listing::ListedCall, roster::Roster};
use crate::Context;

/// The event of a listed call, if it is a phone call of one of these members.
pub(crate) fn event_of(
    call: &ListedCall,
    tenant: &TenantId,
    source: EventSource,
    roster: &Roster,
    members: Members,
) -> Option<ContactEvent> {
    let agent = call.agent_id.filter(|_| call.is_phone_call)?;
    let admitted = match (members, call.ended_at, call.started_at) {
        (Members::Now, ..) => roster.is_active(agent),
        // Where only NICE's own record knows the end, the consumer decides.
        (Members::Then, None, Some(started_at)) => roster.may_admit(agent, started_at),
        (Members::Then, ended_at, _) => roster.admits(agent, ended_at),
    };
    if !admitted {
        return None;
    }
    let mut event = ContactEvent::new(tenant.clone(), call.contact_id, source);
    event.master = Some(call.master_contact_id);
    event.agent = Some(agent);
    event.ended_at = call.ended_at;
    event.members_now = members == Members::Now;
    Some(event)
}

/// The event of a row that cannot be read and tells whose it is: the consumer asks NICE for that contact alone.
pub(crate) fn event_of_bad_row(row: &BadRow, tenant: &TenantId, source: EventSource) -> Option<ContactEvent> {
    Some(ContactEvent::new(tenant.clone(), row.contact_id?, source))
}

/// As [`event_of_bad_row`]. A row without an id can never be imported: a dead letter, once.
pub(super) async fn event_or_dead_letter(
    row: &BadRow,
    tenant: &TenantId,
    source: EventSource,
    context: &Context,
) -> Result<Option<ContactEvent>, JournalError> {
    let event = event_of_bad_row(row, tenant, source);
    if event.is_none() {
        set_aside(row.reason.as_bytes(), Some(tenant), &row.reason, context).await?;
    }
    Ok(event)
}

/// Puts on the shelf what can never be imported.
pub(super) async fn set_aside(
    body: &[u8],
    tenant: Option<&TenantId>,
    reason: &str,
    context: &Context,
) -> Result<(), JournalError> {
    let letter = DeadLetter::of_body(body, tenant, "source", reason, context.flow.clock.now());
    context.flow.shelve("source", letter).await?;
    count(context, "dead_letter");
    Ok(())
}
