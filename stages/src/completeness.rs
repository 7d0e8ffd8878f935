//! The completeness report: of every call that NICE lists in a range, what became of it.
//!
//! In: a range of ends of calls. Out: for each UTC day, how many calls of the group ended and how many of them are
//! ready, without a recording, set aside, on their way, excluded, not looked for yet, or missing; and each that is
//! neither ready nor without a recording, or lacks recordings that NICE names, by its id, with its reason. Nothing is
//! changed.
//!
//! `ended = ready + no_recording + dead + in_flight + excluded + not_looked_for_yet + missing`; the proof is that
//! `missing` is zero, and that NICE's list adds up.

use std::sync::Arc;
use std::time::Duration;

use flow::StageError;
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use model::{ContactEvent, ContactId, EventSource, Members, QuotaClass, TenantId};
use nice::NiceError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::source::{
    ListError,
    compare::{CallStatus, Compare},
    earliest_listed, event_of, event_of_bad_row,
    listing::{Listing, MOST_FAILURES, Slice},
    roster::Roster,
};
use crate::tenants::Tenants;
use crate::watermark::back;

/// The most exceptions that are named; the counts count all of them.
const MOST_EXCEPTIONS: usize = 10_000;

/// What is asked.
pub struct ReportRequest {
    /// The way to the tenant's NICE.
    pub tenants: Arc<Tenants>,
    /// Whose calls.
    pub tenant: TenantId,
    /// Whose calls are counted.
    pub roster: Roster,
    /// Says what became of each call.
    pub compare: Compare,
    /// The first moment at which a call may have ended.
    pub from: Timestamp,
    /// The moment after the last.
    pub to: Timestamp,
    /// A call may have begun so long before it ended.
    pub longest_call: Duration,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// NICE did not list its calls.
    #[error(transparent)]
    List(#[from] ListError),
    /// Catalog or queue did not answer, or the tenant's settings cannot be had.
    #[error(transparent)]
    Compare(#[from] StageError),
}

/// What became of a range's calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Completeness {
    /// Whose calls.
    pub tenant: TenantId,
    /// The first moment.
    pub from: Timestamp,
    /// The moment after the last.
    pub to: Timestamp,
    /// When it was asked.
    pub at: Timestamp,
    /// By the UTC day on which the call ended.
    pub days: Vec<Day>,
    /// All days together.
    pub total: CallCounts,
    /// Each call that is neither ready nor without a recording, or lacks recordings, by the time of its end.
    pub exceptions: Vec<Exception>,
    /// Exceptions that are counted and not named.
    pub exceptions_left_out: u64,
    /// Listed rows that cannot be read as calls.
    pub unreadable: u64,
    /// Slices of NICE's list that did not add up: calls may be missing from them.
    #[serde(default)]
    pub doubtful: u64,
    /// What did not add up in the first of them.
    #[serde(default)]
    pub doubt: Option<String>,
}

/// One day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Day {
    /// The day in UTC.
    pub day: Date,
    /// Its calls.
    #[serde(flatten)]
    pub counted: CallCounts,
}

/// How many calls, by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CallCounts {
    /// Calls of the group that ended.
    pub ended: u64,
    /// Ready for analysis.
    pub ready: u64,
    /// Of the ready ones: those that lack recordings which NICE names and did not give.
    #[serde(default)]
    pub incomplete: u64,
    /// NICE did not record them.
    pub no_recording: u64,
    /// Set aside with a reason.
    pub dead: u64,
    /// On their way.
    pub in_flight: u64,
    /// Not to be imported, for a reason.
    pub excluded: u64,
    /// Ended since the poll looked last.
    #[serde(default)]
    pub not_looked_for_yet: u64,
    /// Neither in the catalog nor on their way.
    pub missing: u64,
}

impl CallCounts {
    fn count(&mut self, status: &CallStatus) {
        self.ended += 1;
        self.incomplete += u64::from(matches!(status, CallStatus::Incomplete(_)));
        *match status {
            CallStatus::Ready | CallStatus::Incomplete(_) => &mut self.ready,
            CallStatus::NoRecording => &mut self.no_recording,
            CallStatus::Dead(_) => &mut self.dead,
            CallStatus::InFlight { .. } => &mut self.in_flight,
            CallStatus::Excluded(_) => &mut self.excluded,
            CallStatus::NotLookedFor => &mut self.not_looked_for_yet,
            CallStatus::Missing { .. } => &mut self.missing,
        } += 1;
    }
}

/// A call that is neither ready nor without a recording, or that lacks recordings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Exception {
    /// NICE's contact id of the leg.
    pub conversation_id: ContactId,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// `recordings_missing`, `dead`, `in_flight`, `excluded`, `not_looked_for_yet` or `missing`.
    pub what: String,
    /// Why; without personal data.
    pub reason: String,
}

/// Lists the range and asks what became of each call.
pub async fn report(request: ReportRequest) -> Result<Completeness, ReportError> {
    let ReportRequest { tenants, tenant, roster, compare, from, to, longest_call } = request;
    let at = compare.clock.now();
    let begin = back(from, longest_call).max(earliest_listed(at));
    let mut listing = Listing::new(tenants, tenant.clone(), QuotaClass::Reconciliation, begin, to.min(at).max(begin))
        .with_earlier(begin, from, compare.clock.clone());
    let mut report = Completeness {
        tenant,
        from,
        to,
        at,
        days: Vec::new(),
        total: CallCounts::default(),
        exceptions: Vec::new(),
        exceptions_left_out: 0,
        unreadable: 0,
        doubtful: 0,
        doubt: None,
    };
    while let Some(slice) = next_slice(&mut listing).await? {
        let events = report.events(&slice, &roster);
        for (event, status) in events.iter().zip(compare.compare(&events).await?) {
            report.note(event, status);
        }
        listing.passed(&slice);
    }
    report.exceptions.sort_by_key(|exception| (exception.ended_at, exception.conversation_id));
    Ok(report)
}

/// A person waits: what cannot be had is asked for again at once. The listing passes over it in the end.
async fn next_slice(listing: &mut Listing) -> Result<Option<Slice>, ListError> {
    for _ in 0..MOST_FAILURES {
        match listing.next().await {
            Err(ListError::Nice(NiceError::TooMuch { .. })) => {}
            answer => return answer,
        }
    }
    listing.next().await
}

impl Completeness {
    /// The calls of the group in a slice that ended in the range, and its rows that cannot be read.
    fn events(&mut self, slice: &Slice, roster: &Roster) -> Vec<ContactEvent> {
        self.unreadable += slice.bad.len() as u64;
        self.doubtful += u64::from(slice.doubt.is_some());
        self.doubt = self.doubt.take().or(slice.doubt.map(|doubt| doubt.to_string()));
        let source = EventSource::Reconciliation;
        let unread = slice.bad.iter().filter_map(|row| event_of_bad_row(row, &self.tenant, source));
        let listed = slice.calls.iter();
        listed
            .filter(|call| call.ended_at.is_none_or(|ended_at| ended_at >= self.from && ended_at < self.to))
            .filter_map(|call| event_of(call, &self.tenant, source, roster, Members::Then))
            .chain(unread)
            .collect()
    }

    /// Counts a call, and names it if it is an exception.
    fn note(&mut self, event: &ContactEvent, status: CallStatus) {
        if event.agent.is_none() && status.needs_a_message() {
            return; // whose call it is nobody knows: it is unreadable, and counted as that
        }
        self.day(event.ended_at.unwrap_or(self.from)).count(&status);
        self.total.count(&status);
        let Some((what, reason)) = exception(status) else { return };
        if self.exceptions.len() == MOST_EXCEPTIONS {
            self.exceptions_left_out += 1;
            return;
        }
        let (conversation_id, ended_at) = (event.conversation, event.ended_at);
        self.exceptions.push(Exception { conversation_id, ended_at, what: what.to_owned(), reason });
    }

    /// The counts of the day of a time.
    fn day(&mut self, time: Timestamp) -> &mut CallCounts {
        let day = time.to_zoned(TimeZone::UTC).date();
        let at = self.days.binary_search_by_key(&day, |day| day.day).unwrap_or_else(|at| {
            self.days.insert(at, Day { day, counted: CallCounts::default() });
            at
        });
        &mut self.days[at].counted
    }
}

fn exception(status: CallStatus) -> Option<(&'static str, String)> {
    match status {
        CallStatus::Ready | CallStatus::NoRecording => None,
        CallStatus::Incomplete(missing) => Some((
            "recordings_missing",
            format!("ready, and NICE names {missing} more recordings; `recheck` asks for them"),
        )),
        CallStatus::Dead(reason) => Some(("dead", reason)),
        CallStatus::InFlight { last, .. } => Some(("in_flight", last)),
        CallStatus::Excluded(reason) => Some(("excluded", reason)),
        CallStatus::NotLookedFor => Some(("not_looked_for_yet", "the poll has not come to it".to_owned())),
        CallStatus::Missing { last, .. } => Some(("missing", last)),
    }
}
