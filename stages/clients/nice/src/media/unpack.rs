//! A recording out of its content encoding, while it streams.
//!
//! We ask for none, but an object that was stored with one comes with it. The length that was announced, the ranges
//! and the entity tag are those of the packed bytes, so the reader below knows nothing of this: here its bytes are
//! unpacked a piece at a time. What is packed beyond reason is refused before it fills a store.

use std::io;
use std::pin::Pin;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_compression::{
    tokio::bufread::{BrotliDecoder, DeflateDecoder, GzipDecoder, ZlibDecoder, ZstdDecoder},
    zstd::DParameter,
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use reqwest::header::{CONTENT_ENCODING, HeaderMap};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt, BufReader};
use tokio_util::io::StreamReader;

use super::{MediaBody, kind};
use crate::NiceError;

/// What the headers say of the encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packing {
    /// The bytes are as they are.
    None,
    /// Packed in these, in the order in which that was done.
    In(Vec<Coding>),
    /// Packed in a way that nobody here knows, named where it can be printed.
    Unknown(String),
}

/// A content encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// Nobody packs more often than this.
const MOST_CODINGS: usize = 2;

impl Packing {
    /// Reads the headers; an encoding that is named twice, by a server and a proxy, is one.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut codings = Vec::new();
        for header in headers.get_all(CONTENT_ENCODING) {
            for word in header.to_str().unwrap_or("?").split(',') {
                let coding = match word.trim().to_ascii_lowercase().as_str() {
                    // The second is what some uploaders leave behind on an object.
                    "" | "identity" | "aws-chunked" => continue,
                    "gzip" | "x-gzip" => Coding::Gzip,
                    "deflate" => Coding::Deflate,
                    "br" => Coding::Brotli,
                    "zstd" => Coding::Zstd,
                    other => return Self::Unknown(printable(other)),
                };
                if codings.last() != Some(&coding) {
                    codings.push(coding);
                }
            }
        }
        match codings.len() {
            0 => Self::None,
            1..=MOST_CODINGS => Self::In(codings),
            _ => Self::Unknown("more than two at a time".to_owned()),
        }
    }

    /// How bytes that begin with `head` are packed in truth: what is plainly a recording, or empty, is not.
    pub(super) fn of_bytes(self, head: &[u8]) -> Result<Vec<Coding>, NiceError> {
        match self {
            _ if head.is_empty() || kind::is_plain(head) => Ok(Vec::new()),
            Self::None => Ok(Vec::new()),
            Self::In(codings) => Ok(codings),
            Self::Unknown(name) => Err(NiceError::media(format!(
                "the recording comes in a content encoding that is not known here ({name}); gzip, deflate, br and zstd are"
            ))),
        }
    }
}

/// The word of a header, where it is one.
fn printable(word: &str) -> String {
    let is_word = word.len() <= 32 && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if is_word { word.to_owned() } else { "an odd word".to_owned() }
}

/// What is unpacked at a time.
const PIECE: usize = 64 * 1024;

/// Sound that is not silence packs 2:1, silence as far as deflate can, which is 1032:1. Who packs silence further, as
/// brotli and zstd do, is believed only as far as any ratio is harmless.
const MAX_RATIO: u64 = 1100;

/// Below this any ratio is harmless: it is an hour of silence.
const RATIO_COUNTS_FROM: u64 = 64 * 1024 * 1024;

/// No packed recording is larger: it is days of plain sound.
const MOST: u64 = 8 * 1024 * 1024 * 1024;

/// More than this is never kept to unpack by; RFC 9659 allows no more.
const ZSTD_WINDOW_LOG: u32 = 23;

/// The unpacked bytes of a body that begins with `head`. They end without an error only after all of the body.
pub(super) fn unpack(body: MediaBody, codings: &[Coding], head: &[u8]) -> MediaBody {
    let packed = Arc::new(AtomicU64::new(0));
    let count = packed.clone();
    let body = body.inspect_ok(move |chunk| {
        count.fetch_add(chunk.len() as u64, Ordering::Relaxed);
    });
    let mut reader: Packed = Box::pin(StreamReader::new(body.map_err(io::Error::other)));
    for (depth, coding) in codings.iter().rev().enumerate() {
        reader = Box::pin(BufReader::with_capacity(PIECE, decoder(*coding, reader, head, depth == 0)));
    }
    stream::try_unfold((reader, 0_u64), move |(mut reader, mut read)| {
        let packed = packed.clone();
        async move {
            let mut piece = Vec::with_capacity(PIECE);
            let length = (&mut reader).take(PIECE as u64).read_buf(&mut piece).await.map_err(fault)?;
            if length == 0 {
                return Ok(None);
            }
            read += length as u64;
            if read > most(packed.load(Ordering::Relaxed)) {
                return Err(NiceError::media("the packed recording grows beyond reason"));
            }
            Ok(Some((Bytes::from(piece), (reader, read))))
        }
    })
    .boxed()
}

/// How many bytes so many packed ones may become.
fn most(packed: u64) -> u64 {
    packed.saturating_mul(MAX_RATIO).clamp(RATIO_COUNTS_FROM, MOST)
}

type Packed = Pin<Box<dyn AsyncBufRead + Send>>;

/// The decoder of one encoding. Each reads on after its end, so that the length of the packed bytes is checked and
/// nothing follows unseen.
fn decoder(coding: Coding, packed: Packed, head: &[u8], outermost: bool) -> Pin<Box<dyn AsyncRead + Send>> {
    macro_rules! whole {
        ($decoder:expr) => {{
            let mut decoder = $decoder;
            decoder.multiple_members(true);
            Box::pin(decoder)
        }};
    }
    match coding {
        Coding::Gzip => whole!(GzipDecoder::new(packed)),
        // The name stands for zlib's format, and some send the bare one.
        Coding::Deflate if outermost && !is_zlib(head) => whole!(DeflateDecoder::new(packed)),
        Coding::Deflate => whole!(ZlibDecoder::new(packed)),
        Coding::Brotli => whole!(BrotliDecoder::new(packed)),
        Coding::Zstd => whole!(ZstdDecoder::with_params(packed, &[DParameter::window_log_max(ZSTD_WINDOW_LOG)])),
    }
}

/// Whether the bytes begin as zlib's format does: method 8, and a header that 31 divides.
fn is_zlib(head: &[u8]) -> bool {
    matches!(head, [first, second, ..] if first & 0x0f == 8 && u16::from_be_bytes([*first, *second]) % 31 == 0)
}

/// What went wrong: on the wire, or in the packed bytes.
fn fault(error: io::Error) -> NiceError {
    match error.downcast::<NiceError>() {
        Ok(error) => error,
        Err(_) => NiceError::media("the recording cannot be unpacked: its bytes are not in the encoding that it names"),
    }
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
