//! Series in the form in which Prometheus takes them from others: remote write 1.0, a protobuf message in a snappy
//! block. Unlike its text formats, this one can say that a series is over.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};

use anyhow::Context;
use jiff::Timestamp;

use super::exposition::Labels;

/// The value that says that a series is over: a NaN of Prometheus' own.
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// How many samples are held before they go to the file.
const HELD: usize = 100_000;

/// Samples on their way to a file, which holds one request after another, each behind its length.
pub(super) struct Record {
    series: Vec<Series>,
    numbers: HashMap<Labels, usize>,
    held: usize,
    file: BufWriter<File>,
    span: Option<(Timestamp, Timestamp)>,
}

struct Series {
    /// As they stand in a request.
    labels: Vec<u8>,
    samples: Vec<(i64, f64)>,
}

impl Record {
    pub(super) fn new() -> anyhow::Result<Self> {
        let file = tempfile::tempfile().context("make a file for the recorded series")?;
        Ok(Self { series: Vec::new(), numbers: HashMap::new(), held: 0, file: BufWriter::new(file), span: None })
    }

    /// The number of the series with these labels.
    pub(super) fn series(&mut self, labels: &Labels) -> usize {
        if let Some(number) = self.numbers.get(labels) {
            return *number;
        }
        let mut encoded = Vec::new();
        for (name, value) in labels {
            let mut label = Vec::new();
            put_bytes(&mut label, 1, name.as_bytes());
            put_bytes(&mut label, 2, value.as_bytes());
            put_bytes(&mut encoded, 1, &label);
        }
        self.series.push(Series { labels: encoded, samples: Vec::new() });
        self.numbers.insert(labels.clone(), self.series.len() - 1);
        self.series.len() - 1
    }

    /// A series had this value then.
    pub(super) fn enter(&mut self, series: usize, at: Timestamp, value: f64) -> anyhow::Result<()> {
        let (first, last) = self.span.unwrap_or((at, at));
        self.span = Some((first.min(at), last.max(at)));
        self.series[series].samples.push((at.as_millisecond(), value));
        self.held += 1;
        if self.held >= HELD { self.flush() } else { Ok(()) }
    }

    /// A series is not there any more.
    pub(super) fn ends(&mut self, series: usize, at: Timestamp) -> anyhow::Result<()> {
        self.enter(series, at, f64::from_bits(STALE))
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let mut request = Vec::new();
        for series in self.series.iter_mut().filter(|series| !series.samples.is_empty()) {
            let mut encoded = series.labels.clone();
            for (at, value) in series.samples.drain(..) {
                put_bytes(&mut encoded, 2, &sample(at, value));
            }
            put_bytes(&mut request, 1, &encoded);
        }
        self.held = 0;
        let block = snappy(&request);
        let written = self.file.write_all(&(block.len() as u64).to_le_bytes());
        written.and_then(|()| self.file.write_all(&block)).context("write the recorded series")
    }

    /// All that was recorded.
    pub(super) fn finish(mut self) -> anyhow::Result<Recorded> {
        self.flush()?;
        let mut file = self.file.into_inner().context("write the recorded series")?;
        file.rewind().context("read the recorded series")?;
        Ok(Recorded { span: self.span, file: BufReader::new(file) })
    }
}

/// What was recorded, to be sent.
pub(super) struct Recorded {
    /// The times of the first and the last sample.
    pub(super) span: Option<(Timestamp, Timestamp)>,
    file: BufReader<File>,
}

impl Recorded {
    /// The next request's body; none after the last.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        let mut length = [0; 8];
        match self.file.read_exact(&mut length) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error).context("read the recorded series"),
        }
        let mut block = vec![0; usize::try_from(u64::from_le_bytes(length))?];
        self.file.read_exact(&mut block).context("read the recorded series")?;
        Ok(Some(block))
    }
}

fn sample(at: i64, value: f64) -> Vec<u8> {
    let mut sample = vec![1 << 3 | 1];
    sample.extend(value.to_le_bytes());
    sample.push(2 << 3);
    // Negative times too are the 64 bits of their two's complement.
    put_varint(&mut sample, at.cast_unsigned());
    sample
}

/// A field of the kind that says its length.
fn put_bytes(message: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    message.push(field << 3 | 2);
    put_varint(message, bytes.len() as u64);
    message.extend_from_slice(bytes);
}

fn put_varint(message: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        message.push(number as u8 | 0x80);
        number >>= 7;
    }
    message.push(number as u8);
}

/// A snappy block of literals: right, if not smaller. It goes to the loopback.
fn snappy(bytes: &[u8]) -> Vec<u8> {
    /// The most of one literal, so that its length less one stands in two bytes.
    const LITERAL: usize = 1 << 16;
    let mut block = Vec::with_capacity(bytes.len() + bytes.len() / LITERAL * 3 + 16);
    put_varint(&mut block, bytes.len() as u64);
    for literal in bytes.chunks(LITERAL) {
        let length = (literal.len() - 1) as u16;
        block.push(61 << 2);
        block.extend(length.to_le_bytes());
        block.extend_from_slice(literal);
    }
    block
}
