//! The rate budget of NICE's API, as the client sees it before each request.

use std::time::Duration;

use async_trait::async_trait;

use crate::{ContactEvent, EventSource};

/// NICE's API families, each with a rate budget of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ApiFamily {
    /// Contacts, groups, teams and agents.
    Acd,
    /// Links to recordings.
    MediaPlayback,
}

impl ApiFamily {
    /// The name in metrics and budgets.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Acd => "acd",
            Self::MediaPlayback => "media_playback",
        }
    }
}

/// What a request is sent for. The first of them go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QuotaClass {
    /// A call that has just ended, and the poll that finds it.
    Live,
    /// Such a call, looked at again.
    Retry,
    /// The group's agents.
    Agents,
    /// The nightly comparison, and what it found missing.
    Reconciliation,
    /// An operator's replay of a date range.
    Backfill,
    /// An id that a webhook told, and that NICE has not yet known.
    Unconfirmed,
}

impl QuotaClass {
    /// All of them, in order. A saved budget knows a class by its place here: a new one goes to the end.
    pub const ALL: [Self; 6] =
        [Self::Live, Self::Retry, Self::Agents, Self::Reconciliation, Self::Backfill, Self::Unconfirmed];

    /// The class of the question whether NICE knows the contact of an event.
    pub fn of_look_up(event: &ContactEvent) -> Self {
        if event.is_unconfirmed() { Self::Unconfirmed } else { Self::of(event) }
    }

    /// The class of what is asked about a contact that NICE knows.
    pub fn of(event: &ContactEvent) -> Self {
        match event.source {
            EventSource::Backfill => Self::Backfill,
            EventSource::Reconciliation => Self::Reconciliation,
            _ if event.late => Self::Backfill,
            EventSource::Poll | EventSource::Webhook | EventSource::AgentSession if event.attempt > 0 => Self::Retry,
            EventSource::Poll | EventSource::Webhook | EventSource::AgentSession => Self::Live,
        }
    }

    /// Whether it can wait: it only gets what the reserve for the other classes leaves.
    pub fn is_bulk(self) -> bool {
        matches!(self, Self::Reconciliation | Self::Backfill)
    }

    /// The name in metrics and budgets.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Retry => "retry",
            Self::Agents => "agents",
            Self::Reconciliation => "reconciliation",
            Self::Backfill => "backfill",
            Self::Unconfirmed => "unconfirmed",
        }
    }
}

/// The tenant's rate budget.
#[async_trait]
pub trait Quota: Send + Sync + 'static {
    /// Returns when one more request of the family is within the limit and it is the class's turn; asked before every
    /// request, retries included. Token requests, discovery and the recordings themselves do not count.
    ///
    /// `account` is NICE's name of the tenant whose limit it is, where the token tells.
    async fn admit(
        &self,
        account: Option<&str>,
        family: ApiFamily,
        class: QuotaClass,
    ) -> Result<Box<dyn Permit>, QuotaError>;
}

/// The right to send one request. When it is dropped, the budget learns that the request is over or was never sent.
#[must_use = "a permit that is dropped gives its place back"]
pub trait Permit: std::fmt::Debug + Send {
    /// The request leaves now. False when the permit has been held for too long to be used.
    fn leave(&mut self) -> bool;

    /// NICE refused the request because of its rate (429): others use the same quota, or it is smaller than ours.
    fn refused(self: Box<Self>, retry_after: Option<Duration>);
}

/// The rate budget could not be asked, or has no room.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct QuotaError {
    /// What is wrong with the budget.
    pub what: String,
    /// When there may be room; none where the budget could not be asked.
    pub retry_after: Option<Duration>,
}

/// For callers that must not wait for a budget: a few requests, or a test.
#[derive(Debug, Clone, Copy)]
pub struct Unmetered;

#[async_trait]
impl Quota for Unmetered {
    async fn admit(&self, _: Option<&str>, _: ApiFamily, _: QuotaClass) -> Result<Box<dyn Permit>, QuotaError> {
        Ok(Box::new(Self))
    }
}

impl Permit for Unmetered {
    fn leave(&mut self) -> bool {
        true
    }

    fn refused(self: Box<Self>, _: Option<Duration>) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ContactId;

    #[test]
    fn a_class_is_what_an_event_comes_from_and_whether_it_comes_again() {
        let of = |source, attempt| {
            let event = ContactEvent::new("acme".parse().unwrap(), ContactId::from_number(7).unwrap(), source);
            QuotaClass::of(&ContactEvent { attempt, ..event })
        };
        for source in [EventSource::Poll, EventSource::Webhook, EventSource::AgentSession] {
            assert_eq!((of(source, 0), of(source, 1)), (QuotaClass::Live, QuotaClass::Retry));
        }
        for (source, class) in
            [(EventSource::Reconciliation, QuotaClass::Reconciliation), (EventSource::Backfill, QuotaClass::Backfill)]
        {
            assert_eq!((of(source, 0), of(source, 1)), (class, class), "bulk stays bulk");
        }
    }
}
