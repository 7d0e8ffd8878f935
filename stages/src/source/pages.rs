//! One list of completed calls, page by page until an empty one.
//!
//! What NICE says of a list's end is a hint. A total may count rows that we may not see, or those of one page; a page
//! may be shorter than was asked for; a link may be missing. So a page with rows is followed by another question, and
//! what does not add up in the end is a [`ListDoubt`]: whoever reads the list does not call it whole.

use std::collections::HashSet;
use std::fmt;

use model::ContactId;
use nice::{BadRow, CompletedFilter, CompletedQuery, ContactPage, ContactRow, Excess, NextLink, NiceClient, NiceError};

/// So many pages in a row without a new row, and the pages repeat themselves. A single one may be made of rows that
/// moved while they were paged.
const MOST_REPEATS: u32 = 2;

/// Fewer rows are not asked for at a time.
const SMALLEST: u32 = 50;

/// Why a list may not be whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListDoubt {
    /// NICE's own count is another.
    Total {
        /// Rows that it announced.
        announced: u64,
        /// Rows that it gave.
        listed: u64,
    },
    /// NICE gives the same rows again instead of those behind them.
    Repeats,
    /// Rows went on moving while they were paged.
    Unrest,
    /// NICE gives an answer that cannot be read, or none, however little is asked for.
    NotRead,
}

impl fmt::Display for ListDoubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Total { announced, listed } => write!(f, "NICE announced {announced} rows and gave {listed}"),
            Self::Repeats => f.write_str("NICE gave the same rows again instead of those that follow"),
            Self::NotRead => f.write_str("what NICE gave cannot be read, however little is asked for"),
            Self::Unrest => f.write_str("NICE's rows went on moving while they were read"),
        }
    }
}

/// How many rows are asked for at a time: fewer where NICE cannot give as many.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageSize {
    most: u32,
    now: u32,
}

impl PageSize {
    pub(super) fn new(most: u32) -> Self {
        Self { most, now: most }
    }

    /// Half as many; false where that would be too few. A damaged answer is divided down to the row that does the
    /// damage.
    pub(super) fn shrink(&mut self, why: Excess) -> bool {
        let (before, least) = (self.now, if why == Excess::Damage { 1 } else { SMALLEST.min(self.most) });
        self.now = (self.now / 2).max(least).min(before);
        self.now < before
    }

    /// Rows of a page.
    pub(super) fn rows(self) -> u32 {
        self.now
    }

    /// Twice as many, behind a row that had to be read alone.
    pub(super) fn recover(&mut self) {
        if self.now < SMALLEST {
            self.grow();
        }
    }

    /// Twice as many, after a list that was read whole.
    pub(super) fn grow(&mut self) {
        self.now = self.now.saturating_mul(2).min(self.most);
    }
}

/// A list under way.
#[derive(Debug)]
pub(super) struct CompletedPages {
    filter: CompletedFilter,
    /// Pages begin in the middle of the one before: a row that moves over their boundary stands in another.
    overlapping: bool,
    skip: u64,
    next: Option<NextLink>,
    seen: HashSet<Result<ContactId, BadRow>>,
    rows: u64,
    longest: u64,
    announced: Option<u64>,
    /// Pages in a row that brought no new row.
    repeats: u32,
    requests: u64,
}

impl CompletedPages {
    pub(super) fn new(filter: CompletedFilter) -> Self {
        Self {
            filter,
            overlapping: false,
            skip: 0,
            next: None,
            seen: HashSet::new(),
            rows: 0,
            longest: 0,
            announced: None,
            repeats: 0,
            requests: 0,
        }
    }

    /// The same list in pages that overlap by half.
    pub(super) fn overlapping(filter: CompletedFilter) -> Self {
        Self { overlapping: true, ..Self::new(filter) }
    }

    /// The next page that has rows; none at the end, or where the pages repeat themselves. After an error the same
    /// page again.
    pub(super) async fn next(&mut self, nice: &NiceClient, size: PageSize) -> Result<Option<ContactPage>, NiceError> {
        if self.repeats >= MOST_REPEATS {
            return Ok(None);
        }
        self.requests += 1;
        let query = CompletedQuery { filter: self.filter, top: size.now, skip: self.skip, next: self.next.take() };
        let mut page = nice.completed(&query).await?;
        let rows = page.contacts.len() as u64;
        if rows == 0 {
            if self.rows == 0 {
                // Nothing, of something that NICE counts: rows that we may not see.
                self.announced = page.total;
            }
            return Ok(None);
        }
        let before = self.seen.len();
        let key = |row: &ContactRow| row.as_ref().map(|contact| contact.contact_id).map_err(BadRow::clone);
        self.seen.extend(page.contacts.iter().map(key));
        // The last pages of those that overlap are made of rows that were there; they become shorter.
        let is_repeat = self.seen.len() == before && (!self.overlapping || rows >= self.longest);
        self.repeats = if is_repeat { self.repeats + 1 } else { 0 };
        self.longest = self.longest.max(rows);
        self.rows += rows;
        self.announced = page.total.or(self.announced);
        (self.skip, self.next) = match self.overlapping {
            true => (self.skip + rows.div_ceil(2), None),
            false => (self.skip + rows, page.next.take()),
        };
        Ok(Some(page))
    }

    /// Passes over rows that cannot be had.
    pub(super) fn step_over(&mut self, rows: u32) {
        self.skip += u64::from(rows);
        self.next = None;
    }

    /// Requests so far.
    pub(super) fn requests(&self) -> u64 {
        self.requests
    }

    /// Rows so far, each as often as it was shown.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// How many rows there are, as NICE says.
    pub(super) fn announced(&self) -> Option<u64> {
        self.announced
    }

    /// Whether the last page brought nothing new.
    pub(super) fn repeats(&self) -> bool {
        self.repeats > 0
    }

    /// What speaks against it that all rows were given, once the end was reached.
    pub(super) fn doubt(&self) -> Option<ListDoubt> {
        if self.repeats >= MOST_REPEATS {
            return Some(ListDoubt::Repeats);
        }
        self.total_doubt()
    }

    /// NICE's own count, where it is another.
    pub(super) fn total_doubt(&self) -> Option<ListDoubt> {
        let announced = self.announced?;
        // Rows that are shown twice may count once or twice.
        let once = self.seen.len() as u64;
        let adds_up = if self.overlapping { announced == once } else { (once..=self.rows).contains(&announced) };
        (!adds_up).then_some(ListDoubt::Total { announced, listed: once })
    }
}
