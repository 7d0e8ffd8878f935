//! Ranges of time that a request may name.

use jiff::Timestamp;
use stages::source::{REACH, listing::horizon};

use super::OperationError;

/// Refuses a range in which nothing can have happened.
pub(crate) fn check_range(from: Timestamp, to: Timestamp, now: Timestamp) -> Result<(), OperationError> {
    if from >= to {
        let remedy = "--to is the moment after the last, so of one day it is the next day";
        return Err(OperationError::Invalid(format!("--to: {to} is not after --from {from}; {remedy}")));
    }
    if from >= now {
        let remedy = "give a moment that has passed";
        return Err(OperationError::Invalid(format!("--from: {from} lies in the future; {remedy}")));
    }
    Ok(())
}

/// Refuses what NICE does not list any more.
pub(crate) fn check_listed(from: Timestamp, now: Timestamp, key: &str) -> Result<(), OperationError> {
    if from < now.checked_sub(REACH).unwrap_or(Timestamp::MIN) {
        let begin = horizon(now);
        return Err(OperationError::Invalid(format!(
            "{key}: {from} lies beyond the 30 days that NICE lists; begin at {begin} or later"
        )));
    }
    Ok(())
}
