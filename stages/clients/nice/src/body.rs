//! Reading an answer's body: bounded in bytes, on the wire and after unpacking.
//!
//! Memory never exceeds the endpoint's cap, whatever the other side announces, sends or packs.

use std::io::Read;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use model::text::bare_json;
use reqwest::Response;
use reqwest::header::{CONTENT_ENCODING, HeaderMap};
use runtime::task;

/// Why a body could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyReadError {
    /// The connection ended before the body did.
    #[error("the body broke off")]
    Broken,
    /// More than any real answer has.
    #[error("the body is larger than any real answer")]
    TooLarge,
    /// Packed so tightly that it can only be meant to do harm.
    #[error("the packed body grows beyond reason")]
    Bomb,
    /// Packed in a way that was not asked for, or damaged.
    #[error("the body cannot be unpacked")]
    Encoding,
}

impl BodyReadError {
    /// The word in metrics.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::TooLarge | Self::Bomb => "too_large",
            Self::Encoding => "encoding",
        }
    }
}

/// Reads a body of at most `cap` bytes, packed or not.
pub(super) async fn read(mut response: Response, cap: usize) -> Result<Bytes, BodyReadError> {
    let said_packed = is_gzip(response.headers())?;
    if response.content_length().is_some_and(|length| length > cap as u64) {
        return Err(BodyReadError::TooLarge);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|_| BodyReadError::Broken)? {
        if body.len() + chunk.len() > cap {
            return Err(BodyReadError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    if !is_packed(&body, said_packed) {
        return Ok(body.into());
    }
    // Unpacking tens of MiB takes long enough to hold up the other tasks of this thread.
    task::blocking(move || unpack(&body, cap)).await.unwrap_or(Err(BodyReadError::Encoding))
}

/// Whether the headers say so; one that is named twice, by a server and a proxy, is one.
fn is_gzip(headers: &HeaderMap) -> Result<bool, BodyReadError> {
    let mut packed = false;
    for encoding in headers.get_all(CONTENT_ENCODING) {
        for word in encoding.to_str().unwrap_or("?").split(',') {
            match word.trim().to_ascii_lowercase().as_str() {
                "" | "identity" => {}
                "gzip" | "x-gzip" => packed = true,
                _ => return Err(BodyReadError::Encoding),
            }
        }
    }
    Ok(packed)
}

/// What gzip begins with; no JSON does.
const GZIP: &[u8] = b"\x1f\x8b";

/// A proxy that unpacks or packs may leave the header as it was: the first bytes decide. What begins as neither is
/// damaged, and told so by who unpacks it.
fn is_packed(body: &[u8], said_packed: bool) -> bool {
    let is_json = bare_json(body).trim_ascii_start().first().is_none_or(|byte| b"{[\"".contains(byte));
    body.starts_with(GZIP) || (said_packed && !is_json)
}

/// JSON of rows that differ in a few digits packs some 30:1; zeros pack 1000:1.
const MAX_RATIO: usize = 100;

/// Below this, any ratio is harmless.
const RATIO_COUNTS_FROM: usize = 1024 * 1024;

/// Unpacks gzip into at most `cap` bytes.
fn unpack(packed: &[u8], cap: usize) -> Result<Bytes, BodyReadError> {
    let bomb_at = packed.len().saturating_mul(MAX_RATIO).max(RATIO_COUNTS_FROM);
    let most = cap.min(bomb_at);
    let mut unpacked = Vec::new();
    MultiGzDecoder::new(packed)
        .take(most as u64 + 1)
        .read_to_end(&mut unpacked)
        .map_err(|_| BodyReadError::Encoding)?;
    match unpacked.len() {
        length if length > bomb_at => Err(BodyReadError::Bomb),
        length if length > cap => Err(BodyReadError::TooLarge),
        _ => Ok(unpacked.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use reqwest::header::HeaderValue;

    use super::*;

    fn pack(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_was_packed_is_unpacked() {
        assert_eq!(unpack(&pack(b"{\"a\":1}"), 100).unwrap(), "{\"a\":1}");
        let twice = [pack(b"{\"a\""), pack(b":1}")].concat();
        assert_eq!(unpack(&twice, 100).unwrap(), "{\"a\":1}");
    }

    #[test]
    fn the_first_bytes_say_whether_a_body_is_packed() {
        let packed = pack(b"{\"a\":1}");
        assert!(is_packed(&packed, true));
        assert!(is_packed(&packed, false), "a proxy dropped the header");
        for plain in [&b"{\"a\":1}"[..], b" [1]", b"\"id\"", b"\xef\xbb\xbf{}"] {
            assert!(!is_packed(plain, false) && !is_packed(plain, true), "a proxy unpacked it: {plain:?}");
        }
        assert!(is_packed(b"\x1f", true), "a cut is no plain body");
        assert!(is_packed(b"damaged", true));
        assert!(!is_packed(b"<html>", false));
    }

    #[test]
    fn an_encoding_may_be_named_in_any_way_and_twice() {
        let read = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_ENCODING, HeaderValue::from_static(value));
            }
            is_gzip(&headers)
        };
        for values in
            [&["gzip"][..], &[" GZip "], &["x-gzip"], &["gzip", "gzip"], &["identity, gzip"], &["gzip,identity"]]
        {
            assert_eq!(read(values), Ok(true), "{values:?}");
        }
        for values in [&[][..], &[""], &["Identity"]] {
            assert_eq!(read(values), Ok(false), "{values:?}");
        }
        assert_eq!(read(&["br"]), Err(BodyReadError::Encoding));
        assert_eq!(read(&["gzip, br"]), Err(BodyReadError::Encoding));
    }

    #[test]
    fn a_bomb_is_refused_before_it_unfolds() {
        let bomb = pack(&vec![0; 64 * 1024 * 1024]);
        assert_eq!(unpack(&bomb, 32 * 1024 * 1024), Err(BodyReadError::Bomb));
        assert_eq!(unpack(&bomb, 1024), Err(BodyReadError::TooLarge));
        assert_eq!(unpack(&pack(&vec![0; 900_000]), 1024 * 1024).unwrap().len(), 900_000);
    }

    #[test]
    fn a_cut_or_damaged_body_is_an_error() {
        let packed = pack(&(0..10_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<_>>());
        for cut in [0, 1, 9, 10, 100, packed.len() - 1] {
            assert_eq!(unpack(&packed[..cut], 1024 * 1024), Err(BodyReadError::Encoding), "{cut}");
        }
        let mut damaged = packed.clone();
        let end = damaged.len() - 5;
        damaged[end] ^= 1;
        assert_eq!(unpack(&damaged, 1024 * 1024), Err(BodyReadError::Encoding));
    }
}
