//! What a listing gives: a slice of its range, and the calls in it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use model::{AgentId, ContactId};
use nice::{BadRow, CompletedFilter, Contact, ContactPage, ExtractedLeg};

use crate::source::pages::ListDoubt;

/// What a listing says of a call. Small, since there are many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedCall {
    /// The leg.
    pub contact_id: ContactId,
    /// The call it belongs to.
    pub master_contact_id: ContactId,
    /// The agent; none for a call that nobody took.
    pub agent_id: Option<AgentId>,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// It is a phone call.
    pub is_phone_call: bool,
}

impl From<&Contact> for ListedCall {
    fn from(contact: &Contact) -> Self {
        Self {
            contact_id: contact.contact_id,
            master_contact_id: contact.master_contact_id,
            agent_id: contact.agent_id,
            started_at: contact.started_at,
            ended_at: contact.ended_at(),
            is_phone_call: contact.is_phone_call(),
        }
    }
}

impl From<&ExtractedLeg> for ListedCall {
    fn from(leg: &ExtractedLeg) -> Self {
        Self {
            contact_id: leg.contact_id,
            master_contact_id: leg.master_contact_id,
            agent_id: leg.agent_id,
            started_at: leg.started_at,
            ended_at: None,
            is_phone_call: true,
        }
    }
}

/// A span of time, by the start of calls.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

impl Span {
    pub(super) fn length(self) -> SignedDuration {
        self.to.duration_since(self.from)
    }

    pub(super) fn filter(self) -> CompletedFilter {
        CompletedFilter::Started { from: self.from, to: self.to }
    }
}

/// A piece of the range, with all calls that began in it.
#[derive(Debug)]
pub struct Slice {
    /// Its first moment.
    pub from: Timestamp,
    /// The moment after its last.
    pub to: Timestamp,
    /// The calls, each once.
    pub calls: Vec<ListedCall>,
    /// Rows that cannot be read as calls.
    pub bad: Vec<BadRow>,
    /// Requests that it took.
    pub requests: u64,
    /// What speaks against it that these are all.
    pub doubt: Option<ListDoubt>,
    /// The latest time that NICE's clock showed.
    pub told_at: Option<Timestamp>,
}

impl Slice {
    /// A slice of calls that stand in no page of NICE's list.
    pub(super) fn new(span: Span, mut calls: Vec<ListedCall>, bad: Vec<BadRow>) -> Self {
        calls.sort_unstable_by_key(|call| (call.started_at, call.contact_id));
        Self { from: span.from, to: span.to, calls, bad, requests: 0, doubt: None, told_at: None }
    }

    /// Each call of these pages once. One that began at the very end belongs to the next slice, if there is one before
    /// `end`.
    pub(super) fn of_pages(span: Span, end: Timestamp, pages: Vec<ContactPage>) -> Self {
        let told_at = pages.iter().filter_map(|page| page.last_poll_time).max();
        let mut calls = BTreeMap::new();
        // By its reason: where pages overlap a row comes twice.
        let mut bad = BTreeMap::new();
        for row in pages.into_iter().flat_map(|page| page.contacts) {
            match row {
                Ok(call) if span.to < end && call.started_at.is_some_and(|start| start >= span.to) => {}
                Ok(call) => drop(calls.insert(call.contact_id, ListedCall::from(&call))),
                Err(row) => drop(bad.insert((row.contact_id, row.reason.clone()), row)),
            }
        }
        Self { told_at, ..Self::new(span, calls.into_values().collect(), bad.into_values().collect()) }
    }

    /// A slice whose calls cannot be had.
    pub(super) fn unread(span: Span) -> Self {
        Self { doubt: Some(ListDoubt::NotRead), ..Self::new(span, Vec::new(), Vec::new()) }
    }
}
