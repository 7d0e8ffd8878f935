//! Days beyond NICE's reach, read by data extraction.
//!
//! A slice is a day then, or what is left of it, and of a call there is no end.

use futures::StreamExt;
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use nice::{NiceClient, NiceError};

use super::slice::{ListedCall, Slice, Span};
use crate::source::earliest_listed;

/// The most calls of a day that data extraction lists: far more than a tenant has.
const MOST_OF_A_DAY: usize = 1_000_000;

/// What is left of the day of `from`, before `end`. Calls without a recording of voice are left out: nothing of them
/// could be imported.
pub(super) async fn read_day(nice: &NiceClient, from: Timestamp, end: Timestamp) -> Result<Slice, NiceError> {
    let day = from.to_zoned(TimeZone::UTC).date();
    let span = Span { from, to: first_moment_after(day).min(end) };
    let mut rows = std::pin::pin!(nice.extract(day, day).await?.into_legs());
    let (mut calls, mut bad) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next().await {
        match row? {
            Ok(leg) if leg.has_voice => calls.push(ListedCall::from(&leg)),
            Ok(_) => {}
            Err(row) => bad.push(row),
        }
        if calls.len() + bad.len() > MOST_OF_A_DAY {
            return Err(NiceError::permanent("extraction: the day has more calls than any tenant"));
        }
    }
    Ok(Slice::new(span, calls, bad))
}

/// The first moment of the day from which on the list of completed calls is whole.
pub fn horizon(now: Timestamp) -> Timestamp {
    first_moment_after(earliest_listed(now).to_zoned(TimeZone::UTC).date())
}

fn first_moment_after(day: Date) -> Timestamp {
    let next = day.tomorrow().ok().and_then(|next| next.to_zoned(TimeZone::UTC).ok());
    next.map_or(Timestamp::MAX, |next| next.timestamp())
}
