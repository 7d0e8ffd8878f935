//! Data extraction: the answers about a job, and the rows of its file.
//!
//! The file is CSV of any length, read as it arrives: [`ExtractionTable`] holds one row, whatever is sent. Columns are
//! found by name, since their set and order depend on the version. Of a row only ids, a date and a status are kept;
//! names and numbers of people go no further than the row's buffer.

use bytes::{Buf, Bytes};
use csv_core::{ReadRecordResult, Reader};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use model::{AgentId, ContactId};
use serde_json::value::RawValue;

use super::ShapeError;
use super::lenient;
use super::lenient::Object;
use crate::BadRow;

/// What NICE says of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobStatus {
    /// It goes on; any word that is not known counts as this.
    Running,
    /// Its file lies at this link, which is not yet checked.
    Succeeded(String),
    /// It ended without a file.
    Ended(&'static str),
}

/// The longest job id: NICE's are UUIDs.
const MAX_JOB_ID: usize = 128;

/// Reads the id of a new job: a bare JSON string. It becomes part of a path.
pub fn job_id(body: &[u8]) -> Result<String, ShapeError> {
    let text = lenient::document(body)?;
    let raw: &RawValue = serde_json::from_str(&text).map_err(|_| ShapeError::NotJson)?;
    let id = lenient::scalar(raw).ok_or(ShapeError::Shape("no job id"))?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let fits = (1..=MAX_JOB_ID).contains(&id.len()) && id.bytes().all(plain);
    if fits { Ok(id.into_owned()) } else { Err(ShapeError::Grammar("a job id")) }
}

/// Reads how a job stands.
pub fn job_status(body: &[u8]) -> Result<JobStatus, ShapeError> {
    let text = lenient::document(body)?;
    let object = Object::parse(&text)?;
    let job = object.object(&["jobStatus"]).unwrap_or(object);
    let word = job.text(&["status"]).ok_or(ShapeError::Shape("no status of the job"))?;
    let is = |known: &str| word.trim().eq_ignore_ascii_case(known);
    if is("SUCCEEDED") {
        let link = job.object(&["result"]).and_then(|result| result.text(&["url"]));
        return link.map(JobStatus::Succeeded).ok_or(ShapeError::Shape("no link to the job's file"));
    }
    let ended = ["FAILED", "CANCELLED", "EXPIRED"].into_iter().find(|known| is(known));
    Ok(ended.map_or(JobStatus::Running, JobStatus::Ended))
}

/// One agent's part of a call, as the recording platform lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtractedLeg {
    /// The leg.
    pub contact_id: ContactId,
    /// The call it belongs to; its own id where NICE names none.
    pub master_contact_id: ContactId,
    /// The agent; none for a leg without one.
    pub agent_id: Option<AgentId>,
    /// The day on which the segment began; a date without a zone is taken as UTC's.
    pub started_on: Option<Date>,
    /// When the segment began, where NICE says more than the day; a time without a zone is taken as UTC.
    pub started_at: Option<Timestamp>,
    /// There is a recording of voice; assumed where NICE does not say.
    pub has_voice: bool,
}

/// A leg, or a row that cannot be read as one.
pub type ExtractedRow = Result<ExtractedLeg, BadRow>;

/// Why a file cannot be read; never with a piece of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Nothing was sent, not even the names of the columns.
    #[error("the file is empty")]
    Empty,
    /// A page for people, or an error of the object store.
    #[error("the file is not CSV")]
    NotCsv,
    /// A column that cannot be done without.
    #[error("the file has no column {0}: has NICE changed the extraction's columns?")]
    NoColumn(&'static str),
    /// As long as that only when a quote is never closed.
    #[error("a row of the file is longer than any real row")]
    RowTooLong,
    /// More than fits into the memory of those who read on.
    #[error("the file has more than {MAX_ROWS} rows: ask for fewer days at a time")]
    TooManyRows,
}

/// A real row has less than 1 KiB, with some notes of an agent perhaps 10. No field is longer than its row.
const MAX_ROW: usize = 256 * 1024;

/// Some 30 columns are known.
const MAX_FIELDS: usize = 512;

/// Two weeks of 100,000 segments a day, and some.
const MAX_ROWS: u64 = 2_000_000;

/// The byte order mark that may precede the first column's name.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

const MASTER: &str = "ACD Call ID";
const CONTACT: &str = "Agent 1 Contact Number";
const AGENT: &str = "Agent 1 ACD ID";

/// Where the columns are.
#[derive(Debug, Clone, Copy)]
struct CsvColumns {
    count: usize,
    master: usize,
    contact: usize,
    agent: usize,
    start: Option<usize>,
    voice: Option<usize>,
}

/// A file that is being read.
pub struct ExtractionTable {
    reader: Reader,
    /// How many bytes of a mark were seen; none once something else was.
    mark: Option<usize>,
    row: Box<[u8]>,
    length: usize,
    ends: Box<[usize]>,
    fields: usize,
    columns: Option<CsvColumns>,
    rows: u64,
}

impl Default for ExtractionTable {
    fn default() -> Self {
        Self::new()
    }
}

impl ExtractionTable {
    /// Nothing read yet.
    pub fn new() -> Self {
        let mut reader = Reader::new();
        // It skips a mark itself, but only one that comes whole with the first bytes: after an empty line it does not.
        reader.read_record(b"\n", &mut [0], &mut [0]);
        Self {
            reader,
            mark: Some(0),
            row: vec![0; MAX_ROW].into(),
            length: 0,
            ends: vec![0; MAX_FIELDS].into(),
            fields: 0,
            columns: None,
            rows: 0,
        }
    }

    /// The next row that ends in `input`, which is cut by what was read; none when `input` is used up.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<ExtractedRow>, TableError> {
        self.skip_mark(input);
        // To the parser, empty input is the end of the file.
        while !input.is_empty() {
            let (result, taken) = self.read(input);
            input.advance(taken);
            if let Some(row) = self.take(result)? {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// The row that only the end of the file ends, after the last byte.
    pub fn finish(&mut self) -> Result<Option<ExtractedRow>, TableError> {
        loop {
            let (result, _) = self.read(&[]);
            match result {
                ReadRecordResult::End if self.columns.is_none() => return Err(TableError::Empty),
                ReadRecordResult::End => return Ok(None),
                _ => {
                    if let Some(row) = self.take(result)? {
                        return Ok(Some(row));
                    }
                }
            }
        }
    }

    /// The mark may come in pieces.
    fn skip_mark(&mut self, input: &mut Bytes) {
        while let (Some(seen), Some(byte)) = (self.mark, input.first()) {
            let is_next = BYTE_ORDER_MARK.get(seen) == Some(byte);
            self.mark = is_next.then_some(seen + 1);
            if is_next {
                input.advance(1);
            }
        }
    }

    fn read(&mut self, input: &[u8]) -> (ReadRecordResult, usize) {
        let (row, ends) = (&mut self.row[self.length..], &mut self.ends[self.fields..]);
        let (result, taken, length, fields) = self.reader.read_record(input, row, ends);
        self.length += length;
        self.fields += fields;
        (result, taken)
    }

    fn take(&mut self, result: ReadRecordResult) -> Result<Option<ExtractedRow>, TableError> {
        match result {
            ReadRecordResult::InputEmpty | ReadRecordResult::End => return Ok(None),
            ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => return Err(TableError::RowTooLong),
            ReadRecordResult::Record => {}
        }
        let fields = Fields { row: &self.row[..self.length], ends: &self.ends[..self.fields] };
        let row = match &self.columns {
            None => {
                self.columns = Some(CsvColumns::named(&fields)?);
                None
            }
            Some(_) if self.rows == MAX_ROWS => return Err(TableError::TooManyRows),
            Some(columns) => {
                self.rows += 1;
                Some(columns.leg(&fields))
            }
        };
        (self.length, self.fields) = (0, 0);
        Ok(row)
    }
}

/// One row.
struct Fields<'a> {
    row: &'a [u8],
    ends: &'a [usize],
}

impl Fields<'_> {
    /// The field at a place; empty where there is none, or none that is text.
    fn get(&self, at: usize) -> &str {
        let start = if at == 0 { Some(0) } else { self.ends.get(at - 1).copied() };
        let bytes = start.zip(self.ends.get(at)).and_then(|(start, end)| self.row.get(start..*end));
        // One that is not text breaks any grammar: the replacement is neither a digit nor empty.
        std::str::from_utf8(bytes.unwrap_or_default()).map_or("\u{fffd}", str::trim)
    }
}

impl CsvColumns {
    fn named(header: &Fields<'_>) -> Result<Self, TableError> {
        let names: Vec<String> = (0..header.ends.len()).map(|at| header.get(at).to_ascii_lowercase()).collect();
        if names.first().is_some_and(|name| name.starts_with('<')) {
            return Err(TableError::NotCsv);
        }
        let find = |fits: &dyn Fn(&str) -> bool| names.iter().position(|name| fits(name));
        let lower = |name: &str| name.to_ascii_lowercase();
        let is = |wanted: &str| find(&|name| name == lower(wanted));
        Ok(Self {
            count: names.len(),
            master: find(&|name| name.starts_with(&lower(MASTER))).ok_or(TableError::NoColumn(MASTER))?,
            contact: find(&|name| name.contains(&lower(CONTACT))).ok_or(TableError::NoColumn(CONTACT))?,
            agent: is(AGENT).ok_or(TableError::NoColumn(AGENT))?,
            start: is("Start Date"),
            voice: is("Voice Recording Status"),
        })
    }

    fn leg(&self, row: &Fields<'_>) -> ExtractedRow {
        let bad = |reason: &str| BadRow { reason: reason.to_owned(), contact_id: None };
        if row.ends.len() != self.count {
            return Err(bad("the row has not as many fields as there are columns"));
        }
        let contact_id = match row.get(self.contact) {
            "" | "0" => return Err(bad("the row has no contact number")),
            text => text.parse().map_err(|_| bad("the contact number breaks the grammar"))?,
        };
        let master = id(row.get(self.master)).map_err(|()| bad("the call id breaks the grammar"))?;
        let (started_on, started_at) = self.start.map_or((None, None), |at| start(row.get(at)));
        Ok(ExtractedLeg {
            contact_id,
            master_contact_id: master.unwrap_or(contact_id),
            agent_id: id(row.get(self.agent)).map_err(|()| bad("the agent id breaks the grammar"))?,
            started_on,
            started_at,
            has_voice: self.voice.is_none_or(|at| row.get(at).eq_ignore_ascii_case("success")),
        })
    }
}

/// An id; none for an empty one or zero.
fn id<T: std::str::FromStr>(text: &str) -> Result<Option<T>, ()> {
    match text {
        "" | "0" => Ok(None),
        text => text.parse().map(Some).map_err(|_| ()),
    }
}

/// The day and, where it is said, the moment. An unreadable one is none: which of `04/05/2026` is the month is not
/// guessed.
fn start(text: &str) -> (Option<Date>, Option<Timestamp>) {
    /// `2026-04-01`.
    const DATE: usize = 10;
    match lenient::time(text) {
        None => (None, None),
        Some(moment) => {
            let day = moment.to_zoned(TimeZone::UTC).date();
            (Some(day), (text.len() > DATE || !text.contains('-')).then_some(moment))
        }
    }
}

#[cfg(test)]
#[path = "extraction_tests.rs"]
mod tests;
