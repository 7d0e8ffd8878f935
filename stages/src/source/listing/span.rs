//! All rows of one span of time.
//!
//! In: a span, and how many rows are asked for at a time. Out: its pages, with what speaks against it that these are
//! all; or the word that there are more rows than one answer holds. Only a span that cannot be cut any more is paged,
//! and that again until no row is missing.

use std::collections::BTreeMap;

use nice::{BadRow, ContactPage, ContactRow, NiceClient, NiceError};
use tracing::debug;

use super::{length::SHORTEST, slice::Span};
use crate::source::pages::{CompletedPages, ListDoubt, PageSize};

/// The most rows of one second.
const MOST_OF_A_SECOND: usize = 100_000;

/// How often a second is paged that does not come to rest.
const MAX_ROUNDS: u32 = 5;

/// What came of the question for a span.
pub(super) enum SpanAnswer {
    /// All of its rows, and what speaks against that.
    Whole(Vec<ContactPage>, Option<ListDoubt>),
    /// There are more rows than an answer holds, so many at least.
    More(u64),
}

/// Asks for a span, and for what follows on it. `longest` is the number of rows of the longest answer so far.
pub(super) async fn read(
    nice: &NiceClient,
    size: PageSize,
    span: Span,
    longest: &mut usize,
    requests: &mut u64,
) -> Result<SpanAnswer, NiceError> {
    // No answer is longer than what is asked for now.
    *longest = (*longest).min(size.rows() as usize);
    let mut pages = CompletedPages::new(span.filter());
    let answer = read_one(&mut pages, nice, size, longest).await;
    *requests += pages.requests();
    match answer? {
        SpanAnswer::More(_) if span.length() <= SHORTEST => page_through(nice, size, span, requests).await,
        answer => Ok(answer),
    }
}

/// Reads a span whose rows are to stand in one answer.
async fn read_one(
    pages: &mut CompletedPages,
    nice: &NiceClient,
    size: PageSize,
    longest: &mut usize,
) -> Result<SpanAnswer, NiceError> {
    let mut read: Vec<ContactPage> = Vec::new();
    while let Some(page) = pages.next(nice, size).await? {
        let rows = page.contacts.len();
        *longest = (*longest).max(rows);
        // A server that does not pass over rows shows the same again. Unless it cuts its answers short, all are there.
        // Others that were there are rows that moved, and one may have slipped.
        let is_the_same = pages.repeats() && read.first().is_some_and(|first| first.contacts.len() == rows);
        let is_cut_short = !is_the_same || rows * 4 >= *longest * 3;
        if !read.is_empty() && is_cut_short {
            // How many there are is worth a guess: a wrong one costs requests.
            return Ok(SpanAnswer::More(pages.rows().max(pages.announced().unwrap_or_default())));
        }
        match pages.repeats() {
            true => return Ok(SpanAnswer::Whole(read, pages.total_doubt())),
            false => read.push(page),
        }
    }
    Ok(SpanAnswer::Whole(read, pages.doubt()))
}

/// All rows of a span that cannot be cut. Rows may move from page to page meanwhile: paged again, in pages that
/// overlap, until they are as many as NICE says there are, or until nothing new appears.
async fn page_through(
    nice: &NiceClient,
    size: PageSize,
    span: Span,
    requests: &mut u64,
) -> Result<SpanAnswer, NiceError> {
    let mut found = BTreeMap::new();
    let mut told_at = None;
    let mut doubt = None;
    for round in 0..=MAX_ROUNDS {
        let mut pages =
            if round == 0 { CompletedPages::new(span.filter()) } else { CompletedPages::overlapping(span.filter()) };
        let before = found.len();
        let answer = collect(&mut pages, nice, size, &mut found).await;
        *requests += pages.requests();
        told_at = answer?.or(told_at);
        let has_rested = round > 0 && found.len() == before;
        doubt = pages
            .doubt()
            .or((round == MAX_ROUNDS && !has_rested && pages.announced().is_none()).then_some(ListDoubt::Unrest));
        if has_rested || (doubt.is_none() && pages.announced().is_some()) {
            break;
        }
        debug!(attempt = round, "rows move while they are paged, paged again");
    }
    let contacts = found.into_values().collect();
    let page = ContactPage { contacts, last_poll_time: told_at, total: None, next: None, refused_next: false };
    Ok(SpanAnswer::Whole(vec![page], doubt))
}

/// Adds the rows of all pages, and gives the last time that NICE's clock showed.
async fn collect(
    pages: &mut CompletedPages,
    nice: &NiceClient,
    size: PageSize,
    found: &mut BTreeMap<Result<model::ContactId, BadRow>, ContactRow>,
) -> Result<Option<jiff::Timestamp>, NiceError> {
    let mut told_at = None;
    while let Some(page) = pages.next(nice, size).await? {
        told_at = page.last_poll_time.or(told_at);
        for row in page.contacts {
            let key = row.as_ref().map(|call| call.contact_id).map_err(BadRow::clone);
            found.insert(key, row);
        }
        if found.len() > MOST_OF_A_SECOND {
            return Err(NiceError::transient("completed: NICE's list has no end"));
        }
    }
    Ok(told_at)
}
