//! The completeness report: of every call that NICE lists in a range, what became of it.
//!
//! In: a range of ends of calls. Out: for each UTC day, how many calls of the group ended and how many of them are
//! ready, without a recording, set aside, on their way, excluded, not looked for yet, or missing; and each that is neither ready nor without
//! a recording, or lacks recordings that NICE names, by its id, with its reason. Nothing is changed.
//!
//! `ended = ready + no_recording + dead + in_flight + excluded + not_looked_for_yet + missing`; the proof is that `missing`
//! is zero, and that NICE's list adds up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use model::{ContactId, EventSource, Members, QuotaClass, TenantId};
use nice::NiceError;
use serde::{Deserialize, Serialize};

use crate::source::{
    ListError,
    compare::{Compare, CompareError, Verdict},
    earliest_listed, event_of, event_of_bad_row,
    listing::{Listing, MOST_FAILURES},
    roster::Roster,
};
use crate::tenants::Tenants;

/// The most exceptions that are named; the counts count all of them.
const MOST_EXCEPTIONS: usize = 10_000;

/// What is asked.
pub struct Question {
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
    /// Catalog or queue did not answer.
    #[error(transparent)]
    Compare(#[from] CompareError),
}

/// What became of a range's calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    pub total: Counted,
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Day {
    /// The day in UTC.
    pub day: Date,
    /// Its calls.
    #[serde(flatten)]
    pub counted: Counted,
}

/// How many calls, by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
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

impl Counted {
    fn count(&mut self, verdict: &Verdict) {
        self.ended += 1;
        self.incomplete += u64::from(matches!(verdict, Verdict::Incomplete(_)));
        *match verdict {
            Verdict::Ready | Verdict::Incomplete(_) => &mut self.ready,
            Verdict::NoRecording => &mut self.no_recording,
            Verdict::Dead(_) => &mut self.dead,
            Verdict::InFlight { .. } => &mut self.in_flight,
            Verdict::Excluded(_) => &mut self.excluded,
            Verdict::NotLookedFor => &mut self.not_looked_for_yet,
            Verdict::Missing { .. } => &mut self.missing,
        } += 1;
    }

    fn add(&mut self, other: &Self) {
        let Self { ended, ready, incomplete, no_recording, dead, in_flight, excluded, not_looked_for_yet, missing } =
            other;
        self.ended += ended;
        self.ready += ready;
        self.incomplete += incomplete;
        self.no_recording += no_recording;
        self.dead += dead;
        self.in_flight += in_flight;
        self.excluded += excluded;
        self.not_looked_for_yet += not_looked_for_yet;
        self.missing += missing;
    }
}

/// A call that is neither ready nor without a recording, or that lacks recordings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
pub async fn report(question: Question) -> Result<Completeness, ReportError> {
    let Question { tenants, tenant, roster, compare, from, to, longest_call } = question;
    let at = compare.clock.now();
    let longest_call = SignedDuration::try_from(longest_call).unwrap_or_default();
    let begin = from.checked_sub(longest_call).unwrap_or(from).max(earliest_listed(at));
    let mut listing = Listing::new(tenants, tenant.clone(), QuotaClass::Reconciliation, begin, to.min(at).max(begin))
        .with_earlier(begin, from, compare.clock.clone());
    let (mut doubtful, mut doubt) = (0, None);
    let mut days: BTreeMap<Date, Counted> = BTreeMap::new();
    let (mut exceptions, mut exceptions_left_out, mut unreadable) = (Vec::new(), 0, 0);
    let mut failures = 0;
    loop {
        let slice = match listing.next().await {
            Ok(Some(slice)) => slice,
            Ok(None) => break,
            // The listing passes over what it cannot have in the end.
            Err(ListError::Nice(NiceError::TooMuch { .. })) if failures < MOST_FAILURES => {
                failures += 1;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        failures = 0;
        unreadable += slice.bad.len() as u64;
        doubtful += u64::from(slice.doubt.is_some());
        doubt = doubt.or(slice.doubt.map(|doubt| doubt.to_string()));
        let unread = slice.bad.iter().filter_map(|row| event_of_bad_row(row, &tenant, EventSource::Reconciliation));
        let listed = slice.calls.iter();
        let events: Vec<_> = listed
            .filter(|call| call.ended_at.is_none_or(|ended_at| ended_at >= from && ended_at < to))
            .filter_map(|call| event_of(call, &tenant, EventSource::Reconciliation, &roster, Members::Then))
            .chain(unread)
            .collect();
        for (event, verdict) in events.iter().zip(compare.compare(&events).await?) {
            if event.agent.is_none() && verdict.needs_a_message() {
                continue; // whose call it is nobody knows: it is unreadable, and counted as that
            }
            let day = event.ended_at.unwrap_or(from).to_zoned(TimeZone::UTC).date();
            days.entry(day).or_default().count(&verdict);
            let Some((what, reason)) = exception(verdict) else { continue };
            if exceptions.len() == MOST_EXCEPTIONS {
                exceptions_left_out += 1;
                continue;
            }
            let (conversation_id, ended_at) = (event.conversation, event.ended_at);
            exceptions.push(Exception { conversation_id, ended_at, what: what.to_owned(), reason });
        }
        listing.passed(&slice);
    }
    exceptions.sort_by_key(|exception| (exception.ended_at, exception.conversation_id));
    let mut total = Counted::default();
    for counted in days.values() {
        total.add(counted);
    }
    let days = days.into_iter().map(|(day, counted)| Day { day, counted }).collect();
    Ok(Completeness { tenant, from, to, at, days, total, exceptions, exceptions_left_out, unreadable, doubtful, doubt })
}

fn exception(verdict: Verdict) -> Option<(&'static str, String)> {
    match verdict {
        Verdict::Ready | Verdict::NoRecording => None,
        Verdict::Incomplete(missing) => Some((
            "recordings_missing",
            format!("ready, and NICE names {missing} more recordings; `recheck` asks for them"),
        )),
        Verdict::Dead(reason) => Some(("dead", reason)),
        Verdict::InFlight { last, .. } => Some(("in_flight", last)),
        Verdict::Excluded(reason) => Some(("excluded", reason)),
        Verdict::NotLookedFor => Some(("not_looked_for_yet", "the poll has not come to it".to_owned())),
        Verdict::Missing { last, .. } => Some(("missing", last)),
    }
}
