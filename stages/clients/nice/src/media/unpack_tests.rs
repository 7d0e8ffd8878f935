use async_compression::tokio::write::{BrotliEncoder, DeflateEncoder, GzipEncoder, ZlibEncoder, ZstdEncoder};
use reqwest::header::HeaderValue;
use tokio::io::AsyncWriteExt;

use super::*;

/// Bytes of a recording that pack some, and none of which are equal for long.
fn recording() -> Vec<u8> {
    let mut bytes = b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2mp41".to_vec();
    bytes.extend((0..60_000_u32).flat_map(u32::to_le_bytes));
    bytes
}

/// The ways to pack, with the bare one that some call deflate.
const WAYS: [&str; 5] = ["gzip", "deflate", "bare deflate", "br", "zstd"];

async fn pack(way: &str, bytes: &[u8]) -> Vec<u8> {
    macro_rules! packed {
        ($encoder:ident) => {{
            let mut encoder = $encoder::new(Vec::new());
            encoder.write_all(bytes).await.unwrap();
            encoder.shutdown().await.unwrap();
            encoder.into_inner()
        }};
    }
    match way {
        "gzip" => packed!(GzipEncoder),
        "deflate" => packed!(ZlibEncoder),
        "bare deflate" => packed!(DeflateEncoder),
        "br" => packed!(BrotliEncoder),
        _ => packed!(ZstdEncoder),
    }
}

fn said(values: &[&'static str]) -> Packing {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(CONTENT_ENCODING, HeaderValue::from_static(value));
    }
    Packing::of(&headers)
}

fn codings(way: &'static str) -> Vec<Coding> {
    let name = if way == "bare deflate" { "deflate" } else { way };
    match said(&[name]) {
        Packing::In(codings) => codings,
        other => panic!("{other:?}"),
    }
}

/// Unpacks bytes that come in chunks of this size.
async fn unpacked_of(codings: &[Coding], packed: &[u8], chunk: usize) -> Result<Vec<u8>, NiceError> {
    let chunks: Vec<_> = packed.chunks(chunk).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
    let body = unpack(stream::iter(chunks).boxed(), codings, &packed[..packed.len().min(10)]);
    body.try_fold(Vec::new(), |mut all, piece| async move {
        assert!(piece.len() <= PIECE);
        all.extend_from_slice(&piece);
        Ok(all)
    })
    .await
}

async fn unpacked(way: &'static str, packed: &[u8]) -> Result<Vec<u8>, NiceError> {
    unpacked_of(&codings(way), packed, 1000).await
}

fn is_trouble(outcome: &Result<Vec<u8>, NiceError>) -> bool {
    matches!(outcome, Err(NiceError::Media { what, .. }) if what.contains("cannot be unpacked"))
}

#[tokio::test]
async fn what_was_packed_is_unpacked_whatever_the_chunks() {
    for way in WAYS {
        let packed = pack(way, &recording()).await;
        assert_ne!(packed, recording());
        for chunk in [1, 1000, usize::MAX / 2] {
            assert!(unpacked_of(&codings(way), &packed, chunk).await.unwrap() == recording(), "{way} {chunk}");
        }
    }
    let twice = pack("gzip", &pack("br", &recording()).await).await;
    assert!(unpacked_of(&[Coding::Brotli, Coding::Gzip], &twice, 1000).await.unwrap() == recording());
}

#[tokio::test]
async fn a_packed_recording_that_is_cut_or_damaged_never_ends_cleanly() {
    for way in WAYS {
        let packed = pack(way, &recording()).await;
        for cut in [1, 5, 100, packed.len() / 2, packed.len() - 1] {
            let outcome = unpacked(way, &packed[..cut]).await;
            assert!(is_trouble(&outcome), "{way}, {cut} of {}: {:?}", packed.len(), outcome.map(|bytes| bytes.len()));
        }
        let followed = [&packed[..], b"more"].concat();
        assert!(is_trouble(&unpacked(way, &followed).await), "{way} with more behind it");
    }
    for way in ["gzip", "deflate"] {
        let mut packed = pack(way, &recording()).await;
        let end = packed.len() - 3;
        packed[end] ^= 1;
        assert!(is_trouble(&unpacked(way, &packed).await), "{way} with another checksum");
    }
}

#[tokio::test]
async fn an_error_below_comes_through_as_it_is() {
    let packed = pack("gzip", &recording()).await;
    let chunks = [Ok(Bytes::copy_from_slice(&packed[..1000])), Err(NiceError::LinkExpired)];
    let body = unpack(stream::iter(chunks).boxed(), &[Coding::Gzip], &packed[..10]);
    assert_eq!(body.try_collect::<Vec<_>>().await, Err(NiceError::LinkExpired));
}

#[tokio::test]
async fn a_bomb_ends_before_it_fills_a_store() {
    // An hour of silence is none.
    let silence = pack("gzip", &vec![0; 30 << 20]).await;
    assert_eq!(unpacked("gzip", &silence).await.unwrap().len(), 30 << 20);
    let bomb = pack("zstd", &vec![0; 100 << 20]).await;
    assert!(bomb.len() < 1 << 20, "{}", bomb.len());
    let outcome = unpacked("zstd", &bomb).await;
    // Not for ever: the host may send something else the next time.
    assert!(matches!(&outcome, Err(NiceError::Media { what, .. }) if what.contains("beyond reason")));
    assert_eq!(most(1 << 40), MOST);
}

#[tokio::test]
async fn hours_of_silence_are_no_bomb() {
    let silence = pack("gzip", &vec![0; 80 << 20]).await;
    assert!(silence.len() * 1000 < 80 << 20, "{}", silence.len());
    assert_eq!(unpacked("gzip", &silence).await.map(|bytes| bytes.len()), Ok(80 << 20));
}

#[test]
fn an_encoding_may_be_named_in_any_way_and_twice() {
    for values in
        [&["gzip"][..], &[" GZip "], &["x-gzip"], &["gzip", "gzip"], &["identity, gzip"], &["aws-chunked,gzip"]]
    {
        assert_eq!(said(values), Packing::In(vec![Coding::Gzip]), "{values:?}");
    }
    for values in [&[][..], &[""], &["Identity"], &["aws-chunked"]] {
        assert_eq!(said(values), Packing::None, "{values:?}");
    }
    assert_eq!(said(&["br", "gzip"]), Packing::In(vec![Coding::Brotli, Coding::Gzip]));
    assert_eq!(said(&["compress"]), Packing::Unknown("compress".to_owned()));
    assert_eq!(said(&["a b <secret>"]), Packing::Unknown("an odd word".to_owned()));
    assert!(matches!(said(&["gzip, br, zstd"]), Packing::Unknown(_)));
}

#[test]
fn a_header_that_the_bytes_contradict_is_not_believed() {
    for values in [&["gzip"][..], &["br"], &["compress"], &["utf-8"]] {
        assert_eq!(said(values).of_bytes(&recording()[..100]), Ok(Vec::new()), "{values:?}");
        assert_eq!(said(values).of_bytes(b""), Ok(Vec::new()), "{values:?}");
    }
    assert_eq!(said(&["gzip"]).of_bytes(b"\x1f\x8b\x08"), Ok(vec![Coding::Gzip]));
    let Err(NiceError::Media { what, .. }) = said(&["compress"]).of_bytes(b"\x1f\x9d") else { panic!() };
    assert!(what.contains("(compress)"), "{what}");
}
