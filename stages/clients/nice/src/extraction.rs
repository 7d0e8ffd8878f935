//! Data extraction: the calls of past days, listed by the recording platform.
//!
//! In: a range of days. Out: an [`Extraction`], a stream of rows that are read as they arrive. NICE makes the listing
//! in a job of its own: it is begun, looked at until it is over, and its file fetched from an object store, under the
//! rules that hold for recordings. NICE takes one job of a tenant at a time and one call in 30 seconds, so the callers
//! of one client take [turns](ExtractionTurn). After a crash a job may go on without a reader; it ends by itself, and
//! until then NICE refuses the next one, which is waited out.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use jiff::civil::Date;
use model::{ContactId, QuotaClass};
use reqwest::{Response, Url};
use serde_json::{Value, json};
use tokio::{sync::Mutex, time::Instant};

use super::api::Posted;
use super::endpoint::Endpoint;
use super::http::{ApiAnswer, parse};
use super::wire::extraction::{self, ExtractedLeg, ExtractedRow, ExtractionTable, JobStatus, TableError};
use super::{Inner, LinkRefused, MediaLink, NiceClient, NiceError, Timeouts, check_link, net};

/// The most days of one extraction: NICE's advice for history is two weeks.
pub const EXTRACTION_DAYS: i32 = 14;

/// How often a job is asked for in vain: another extraction of the tenant may run for a minute or two.
const MAX_REFUSALS: u32 = 5;

/// The newest column set that is known.
const VERSION: &str = "10";

/// The most rows of the most length would be more; no listing is.
const MAX_FILE: u64 = 8 * 1024 * 1024 * 1024;

/// Whose turn it is to ask for an extraction, and when NICE was last asked for one.
pub(super) struct ExtractionTurn {
    last_call: Mutex<Option<Instant>>,
    pace: Duration,
    poll: Duration,
    total: Duration,
    idle: Duration,
}

impl ExtractionTurn {
    /// Nothing asked yet.
    pub(super) fn new(timeouts: &Timeouts) -> Self {
        Self {
            last_call: Mutex::new(None),
            pace: timeouts.extraction_pace,
            poll: timeouts.extraction_poll,
            total: timeouts.extraction_total,
            idle: timeouts.media_idle,
        }
    }
}

impl NiceClient {
    /// Has NICE list the calls that begin on these days, both included, days of UTC; at most [`EXTRACTION_DAYS`].
    ///
    /// For days beyond the reach of [`Self::completed`]. NICE runs one extraction of a tenant at a time and begins one
    /// in 30 seconds, so a call waits for the others of this client, and then up to some minutes for its own. A call
    /// that ended within the last half hour may be missing. Neither of the tenant's rate budgets is drawn on.
    pub async fn extract(&self, first_day: Date, last_day: Date) -> Result<Extraction, NiceError> {
        let (inner, first, last) = (&*self.inner, first_day, last_day);
        check_range(first, last)?;
        let jobs = net::below(&inner.discovery.facade(&inner.api).await?, &["data-extraction", "v1", "jobs"]);
        let (job, link) = {
            // Held until the job is over: NICE has one at a time.
            let mut last_call = inner.extraction.last_call.lock().await;
            let id = begin(inner, &jobs, &body(first, last), &mut last_call).await?;
            let job = net::below(&jobs, &[&id]);
            let link = outcome(inner, &job).await?;
            (job, link)
        };
        let response = match open(inner, &link).await {
            Err(NiceError::LinkExpired) => match look(inner, &job).await? {
                JobStatus::Succeeded(link) => open(inner, &link).await,
                JobStatus::Running | JobStatus::Ended(_) => Err(NiceError::LinkExpired),
            },
            opened => opened,
        };
        let response = response.map_err(|error| match error {
            NiceError::LinkExpired => {
                NiceError::transient("extraction: the link to its file was refused or has expired")
            }
            other => other,
        })?;
        let table = ExtractionTable::new();
        Ok(Extraction { response, table, chunk: Bytes::new(), over: false, read: 0, idle: inner.extraction.idle })
    }
}

fn check_range(first: Date, last: Date) -> Result<(), NiceError> {
    if first > last {
        return Err(NiceError::permanent("extraction: the first day comes after the last"));
    }
    let days = last.since(first).map_or(i32::MAX, |span| span.get_days().saturating_add(1));
    if days > EXTRACTION_DAYS {
        let what = format!("extraction: the range has more than {EXTRACTION_DAYS} days, split it");
        return Err(NiceError::permanent(what));
    }
    Ok(())
}

fn body(first: Date, last: Date) -> Value {
    json!({
        "entityName": "recording-interaction-metadata",
        "version": VERSION,
        "startDate": first.to_string(),
        "endDate": last.to_string(),
    })
}

/// Begins a job and returns its id.
///
/// NICE says 403 both when the permission is missing and when another extraction of the tenant is running or was asked
/// for within the last 30 seconds. The latter passes, so it is tried again; then a person must look.
async fn begin(inner: &Inner, jobs: &Url, body: &Value, last_call: &mut Option<Instant>) -> Result<String, NiceError> {
    for _ in 0..MAX_REFUSALS {
        if let Some(last) = *last_call {
            tokio::time::sleep_until(last + inner.extraction.pace).await;
        }
        // Noted before as well: a caller that gives up meanwhile has asked all the same.
        *last_call = Some(Instant::now());
        let posted = inner.api.post(Endpoint::ExtractionBegin, jobs, QuotaClass::Backfill, body).await;
        *last_call = Some(Instant::now());
        match posted? {
            Posted::Answered(ApiAnswer::Body(body)) => {
                return parse(Endpoint::ExtractionBegin, body, extraction::job_id).await;
            }
            Posted::Answered(ApiAnswer::Nothing) => {
                return Err(NiceError::transient("extraction: NICE named no job"));
            }
            Posted::Answered(ApiAnswer::NotFound) => {
                return Err(NiceError::refused("extraction: NICE has no data extraction there, is facade_url right?"));
            }
            Posted::Forbidden => tracing::info!("NICE refuses an extraction at the moment"),
        }
    }
    Err(NiceError::refused(
        "extraction: NICE answered 403 each time: either the service user's role lacks the permission Extract \
         Interaction Metadata (Search & Playback, APIs), or another extraction of the tenant goes on: let it end",
    ))
}

/// Waits for the end of a job and returns the link to its file. A job takes minutes to repeat, so a passing trouble
/// does not end the wait.
async fn outcome(inner: &Inner, job: &Url) -> Result<String, NiceError> {
    let ExtractionTurn { poll, total, .. } = inner.extraction;
    let until = Instant::now() + total;
    let mut trouble = NiceError::transient("extraction: the job was not over in time");
    let mut wait = poll;
    loop {
        tokio::time::sleep(wait).await;
        wait = poll;
        match look(inner, job).await {
            Ok(JobStatus::Succeeded(link)) => return Ok(link),
            Ok(JobStatus::Ended(word)) => {
                return Err(NiceError::transient(format!("extraction: NICE ended the job as {word}")));
            }
            Ok(JobStatus::Running) => {}
            Err(NiceError::Transient { what, retry_after }) => {
                wait = poll.max(retry_after.unwrap_or_default());
                trouble = NiceError::Transient { what, retry_after };
            }
            Err(other) => return Err(other),
        }
        if Instant::now() + wait > until {
            return Err(trouble);
        }
    }
}

/// Looks at a job once; one that NICE does not know yet is running.
async fn look(inner: &Inner, job: &Url) -> Result<JobStatus, NiceError> {
    match inner.api.get(Endpoint::ExtractionJob, job, QuotaClass::Backfill).await? {
        ApiAnswer::Body(body) => parse(Endpoint::ExtractionJob, body, extraction::job_status).await,
        ApiAnswer::Nothing | ApiAnswer::NotFound => Ok(JobStatus::Running),
    }
}

/// Opens the file behind a link, if the link may be followed.
async fn open(inner: &Inner, link: &str) -> Result<Response, NiceError> {
    check_link(&inner.settings.media_hosts, link).map_err(|refused| {
        let remedy = match refused {
            LinkRefused::OffTheList { .. } => "; media_hosts must list its host",
            _ => "",
        };
        NiceError::refused(format!("extraction: {refused}{remedy}"))
    })?;
    inner.media.get_listing(&MediaLink::new(link)).await
}

/// A listing that was opened; its rows are not yet read.
pub struct Extraction {
    response: Response,
    table: ExtractionTable,
    chunk: Bytes,
    over: bool,
    read: u64,
    idle: Duration,
}

impl Extraction {
    /// The rows in NICE's order, one per segment: a leg comes as often as it has segments.
    ///
    /// One row is in memory at a time. The stream ends without an error only when the file is whole; after an error
    /// nothing more comes. It does not resume: the object store waits for a slow reader only so long, so take the rows
    /// as they come, and on an error ask for the extraction again.
    pub fn into_rows(self) -> impl Stream<Item = Result<ExtractedRow, NiceError>> + Send {
        futures::stream::try_unfold(self, |mut extraction| async move {
            Ok(extraction.next().await?.map(|row| (row, extraction)))
        })
    }

    /// The rows with each leg once: the segments after its first are left out. A leg that had no voice so far comes
    /// again when a segment with voice does. Of all legs only the ids are kept.
    pub fn into_legs(self) -> impl Stream<Item = Result<ExtractedRow, NiceError>> + Send {
        let mut seen = SeenLegs::default();
        self.into_rows().filter(move |row| {
            let news = match row {
                Ok(Ok(leg)) => seen.is_news(leg),
                Ok(Err(_)) | Err(_) => true,
            };
            futures::future::ready(news)
        })
    }

    async fn next(&mut self) -> Result<Option<ExtractedRow>, NiceError> {
        loop {
            if let Some(row) = self.table.next(&mut self.chunk).map_err(unreadable)? {
                return Ok(Some(row));
            }
            if self.over {
                return self.table.finish().map_err(unreadable);
            }
            let chunk = tokio::time::timeout(self.idle, self.response.chunk()).await;
            let chunk = chunk.map_err(|_| NiceError::media("extraction: the file stalled"))?;
            match chunk.map_err(|_| NiceError::media("extraction: the file broke off"))? {
                Some(chunk) => self.chunk = chunk,
                None => self.over = true,
            }
            self.read += self.chunk.len() as u64;
            if self.read > MAX_FILE {
                return Err(NiceError::permanent(
                    "extraction: the file is larger than any real one, ask for fewer days",
                ));
            }
        }
    }
}

impl fmt::Debug for Extraction {
    /// Without the URL and the rows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extraction").field("read", &self.read).finish_non_exhaustive()
    }
}

/// An empty file or a page may be another one next time; the rest stays as it is.
fn unreadable(error: TableError) -> NiceError {
    let what = format!("extraction: {error}");
    match error {
        TableError::Empty | TableError::NotCsv => NiceError::transient(what),
        TableError::NoColumn(_) | TableError::RowTooLong | TableError::TooManyRows => NiceError::Permanent { what },
    }
}

/// The legs that came, and whether one of their segments had voice.
#[derive(Default)]
struct SeenLegs {
    legs: HashMap<ContactId, bool>,
}

impl SeenLegs {
    fn is_news(&mut self, leg: &ExtractedLeg) -> bool {
        match self.legs.insert(leg.contact_id, leg.has_voice) {
            Some(true) => {
                self.legs.insert(leg.contact_id, true);
                false
            }
            Some(false) => leg.has_voice,
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(contact_id: u64, has_voice: bool) -> ExtractedLeg {
        let contact_id = ContactId::from_number(contact_id).unwrap();
        let (started_on, started_at) = (None, None);
        ExtractedLeg { contact_id, master_contact_id: contact_id, agent_id: None, started_on, started_at, has_voice }
    }

    #[test]
    fn a_leg_comes_once_and_again_only_for_its_voice() {
        let mut seen = SeenLegs::default();
        let news = [(7, false), (7, false), (8, true), (7, true), (7, false), (7, true), (8, false), (8, true)]
            .map(|(id, has_voice)| seen.is_news(&leg(id, has_voice)));
        assert_eq!(news, [true, false, true, true, false, false, false, false]);
    }

    #[test]
    fn a_range_is_at_most_two_weeks_and_not_reversed() {
        let day = |text: &str| text.parse::<Date>().unwrap();
        assert_eq!(check_range(day("2026-02-28"), day("2026-02-28")), Ok(()));
        assert_eq!(check_range(day("2024-02-20"), day("2024-03-04")), Ok(()), "over a leap day");
        for (first, last) in
            [("2024-02-20", "2024-03-05"), ("2026-04-02", "2026-04-01"), ("-009999-01-01", "9999-12-31")]
        {
            let outcome = check_range(day(first), day(last));
            assert!(matches!(outcome, Err(NiceError::Permanent { .. })), "{first}..{last}");
        }
    }
}
