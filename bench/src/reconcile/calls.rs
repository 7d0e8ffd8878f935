//! The calls of the benchmark: numbered, evenly spread over time, one in a thousand of the listed ones unknown here.

use std::fmt::Write;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use model::{ContactId, ConversationKey, TenantId};

/// The id of the first call.
pub(super) const FIRST_ID: u64 = 698_800_000_000;

/// Every so many listed calls, one is missing.
pub(super) const EVERY: u64 = 1_000;

/// The listed calls began within this time before the end of the window.
const SPREAD: SignedDuration = SignedDuration::from_hours(20 * 24);

/// Between the last call's start and the end of the window.
const QUIET: SignedDuration = SignedDuration::from_mins(10);

/// What a contact has besides its ids and times, as short as a listing needs it.
const SHORT: &str = r#""agentId":7,"mediaTypeId":4,"totalDurationSeconds":60}"#;

/// What a contact has besides its ids and times, with as many members as NICE sends.
const LONG: &str = r#""totalDurationSeconds":60,"agentId":7,"firstName":"Given","lastName":"Family","teamId":31,"teamName":"Team 31","skillId":4001,"skillName":"Skill 1","campaignId":301,"campaignName":"Service","mediaTypeId":4,"mediaTypeName":"Call","mediaSubTypeId":null,"mediaSubTypeName":null,"isOutbound":false,"fromAddress":"5555550100","toAddress":"5555550199","pointOfContactId":70,"pointOfContactName":"Main number","agentSeconds":50,"acwSeconds":5,"holdSeconds":0,"holdCount":0,"inQueueSeconds":5,"preQueueSeconds":0,"postQueueSeconds":0,"releaseSeconds":0,"conferenceSeconds":0,"routingTime":0,"callbackTime":0,"abandonSeconds":0,"abandoned":false,"isShortAbandon":false,"isLogged":true,"isRefused":false,"isTakeover":false,"endReason":"Contact Hung Up","transferIndicatorId":0,"transferIndicatorName":"None","primaryDispositionId":11,"secondaryDispositionId":null,"dispositionNotes":"noted after the call","isAnalyticsProcessed":false,"analyticsProcessedDate":null,"refuseTime":0,"refuseReason":"","serviceLevelFlag":1,"tags":[]}"#;

/// How many calls there are, and when.
#[derive(Debug, Clone, Args)]
pub(super) struct Calls {
    /// Ids that the store knows; the listed calls are the newest of them.
    #[arg(long, default_value_t = 10_000_000)]
    pub(super) known: u64,
    /// Calls that NICE lists.
    #[arg(long, default_value_t = 1_000_000)]
    pub(super) listed: u64,
    /// The end of the window.
    #[arg(long, default_value_t = Timestamp::now())]
    pub(super) to: Timestamp,
}

impl Calls {
    /// What says the same to a child.
    pub(super) fn arguments(&self) -> Vec<String> {
        let pairs =
            [("--known", self.known.to_string()), ("--listed", self.listed.to_string()), ("--to", self.to.to_string())];
        pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }

    /// The first moment of the window.
    pub(super) fn from(&self) -> Timestamp {
        self.to.checked_sub(SPREAD).unwrap_or(Timestamp::MIN)
    }

    /// The listed calls' ids, in their order.
    pub(super) fn listed(&self) -> impl Iterator<Item = u64> + use<> {
        FIRST_ID + self.known - self.listed..FIRST_ID + self.known
    }

    /// Whether the store is to know the id.
    pub(super) fn is_missing(&self, id: u64) -> bool {
        id >= FIRST_ID + self.known - self.listed && id % EVERY == EVERY / 2
    }

    /// The ids that the store knows.
    pub(super) fn stored(&self) -> impl Iterator<Item = u64> {
        (FIRST_ID..FIRST_ID + self.known).filter(|id| !self.is_missing(*id))
    }

    /// How many of the listed ones the store does not know.
    pub(super) fn missing(&self) -> u64 {
        self.listed().filter(|id| self.is_missing(*id)).count() as u64
    }

    /// Milliseconds from one call's start to the next one's.
    fn step(&self) -> i64 {
        let span = SPREAD.as_millis() - QUIET.as_millis();
        (i64::try_from(span).unwrap_or(i64::MAX) / i64::try_from(self.listed.max(1)).unwrap_or(i64::MAX)).max(1)
    }

    /// The first listed call that began at `time` or later, by its place in the list.
    pub(super) fn place(&self, time: Timestamp) -> usize {
        let since = time.as_millisecond() - self.from().as_millisecond();
        let step = self.step();
        let place = (since + step - 1).div_euclid(step).max(0);
        usize::try_from(place).unwrap_or(usize::MAX).min(self.listed as usize)
    }

    /// The end of every row.
    pub(super) fn tail(long: bool) -> &'static str {
        if long { LONG } else { SHORT }
    }

    /// The beginnings of all rows, each as long as the first.
    pub(super) fn heads(&self) -> anyhow::Result<(String, usize)> {
        let mut heads = String::new();
        let mut length = 0;
        for (place, id) in (0_i64..).zip(self.listed()) {
            let start = self.from().as_millisecond() + place * self.step();
            let (start, end) = (Timestamp::from_millisecond(start)?, Timestamp::from_millisecond(start + 60_000)?);
            write!(
                heads,
                r#"{{"contactId":{id},"masterContactId":{id},"contactStartDate":"{start:.3}","lastUpdateTime":"{end:.3}","#
            )?;
            length = if length == 0 { heads.len() } else { length };
        }
        Ok((heads, length))
    }
}

/// The one tenant.
pub(super) fn tenant() -> anyhow::Result<TenantId> {
    Ok("bench".parse()?)
}

/// The key of an id.
pub(super) fn key(tenant: &TenantId, id: u64) -> anyhow::Result<ConversationKey> {
    Ok(ConversationKey { tenant: tenant.clone(), external_id: ContactId::from_number(id)? })
}
