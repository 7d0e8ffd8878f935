//! Plays a recording: streamed from the store as it is read, never kept.

use std::io;

use axum::{
    body::Body,
    extract::Path,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{Stream, StreamExt, future};

use super::conversation::contact;
use super::visit::Visit;
use crate::admission::OperatorRole;
use crate::operations::OperationError;

/// A recording, or the part of it that a player asks for. That it is played is written down first.
pub(super) async fn play(visit: Visit, Path((id, position)): Path<(String, u32)>, headers: HeaderMap) -> Response {
    if !visit.context.playback || !visit.visitor.may(OperatorRole::Act) {
        return (StatusCode::FORBIDDEN, "[admin] playback is off, or you may not act\n").into_response();
    }
    // Another page may not make a browser play one, nor learn whether it is there.
    let site = headers.get("sec-fetch-site").and_then(|site| site.to_str().ok()).unwrap_or("same-origin");
    if site != "same-origin" {
        return StatusCode::FORBIDDEN.into_response();
    }
    let answered = answer(&visit, &id, position, &headers).await;
    answered.unwrap_or_else(|error| (StatusCode::NOT_FOUND, format!("{error}\n")).into_response())
}

async fn answer(visit: &Visit, id: &str, position: u32, headers: &HeaderMap) -> Result<Response, OperationError> {
    let conversation_id = contact(id)?;
    visit.record("play recording", &format!("conversation {conversation_id}, recording {position}")).await?;
    let (recording, body) = visit.context.operations.personal.recording(conversation_id, position).await?;
    let size = recording.size_bytes;
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok()).and_then(|range| part(range, size));
    let (from, to) = range.unwrap_or((0, size));
    let body = body.map(|piece| piece.map_err(|error| io::Error::other(error.to_string())));
    let mut answer = Body::from_stream(cut(body, from, to)).into_response();
    if let Some((from, to)) = range {
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        set(&mut answer, header::CONTENT_RANGE, &format!("bytes {from}-{}/{size}", to - 1));
    }
    set(&mut answer, header::CONTENT_LENGTH, &(to - from).to_string());
    set(&mut answer, header::ACCEPT_RANGES, "bytes");
    // What NICE called it is not believed where a browser would run it.
    let kind =
        Some(recording.content_type.as_str()).filter(|kind| kind.starts_with("audio/") || kind.starts_with("video/"));
    set(&mut answer, header::CONTENT_TYPE, kind.unwrap_or("application/octet-stream"));
    Ok(answer)
}

fn set(answer: &mut Response, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}

/// The one part of so many bytes that a range asks for, its end not included; none where the whole is the answer.
fn part(range: &str, size: u64) -> Option<(u64, u64)> {
    let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
    let part = match (from.parse::<u64>(), to.parse::<u64>()) {
        (Ok(from), Ok(to)) => (from, to.saturating_add(1).min(size)),
        (Ok(from), Err(_)) if to.is_empty() => (from, size),
        (Err(_), Ok(last)) if from.is_empty() => (size.saturating_sub(last), size),
        _ => return None,
    };
    (part.0 < part.1).then_some(part)
}

/// The bytes from `from` to before `to`; the rest is read no further.
fn cut(
    body: impl Stream<Item = io::Result<Bytes>> + Send,
    from: u64,
    to: u64,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let pieces = body.scan(0_u64, move |at, piece| {
        let piece = piece.map(|piece| {
            let (begin, length) = (*at, piece.len() as u64);
            *at += length;
            let first = from.saturating_sub(begin).min(length) as usize;
            let last = to.saturating_sub(begin).min(length) as usize;
            (piece.slice(first.min(last)..last), begin >= to)
        });
        let is_over = matches!(piece, Ok((_, true)));
        future::ready((!is_over).then(|| piece.map(|(piece, _)| piece)))
    });
    pieces.filter(|piece| future::ready(!matches!(piece, Ok(piece) if piece.is_empty())))
}

#[cfg(test)]
mod tests {
    use futures::{TryStreamExt, executor::block_on, stream};

    use super::*;

    #[test]
    fn a_range_is_the_part_that_a_player_asks_for() {
        assert_eq!(part("bytes=0-", 10), Some((0, 10)));
        assert_eq!(part("bytes=2-5", 10), Some((2, 6)));
        assert_eq!(part("bytes=2-99", 10), Some((2, 10)));
        assert_eq!(part("bytes=-3", 10), Some((7, 10)));
        for none in ["bytes=10-", "bytes=5-2", "bytes=a-b", "items=0-", "bytes=0-1,4-5", "bytes=-0"] {
            assert_eq!(part(none, 10), None, "{none}");
        }
    }

    #[test]
    fn only_the_bytes_of_the_range_are_sent() {
        for (from, to) in [(0, 10), (3, 7), (0, 4), (4, 8), (9, 10), (4, 4)] {
            let pieces = ["0123", "", "4567", "89"].map(|piece| Ok(Bytes::from(piece)));
            let sent: Vec<Bytes> = block_on(cut(stream::iter(pieces), from, to).try_collect()).unwrap();
            assert_eq!(sent.concat(), b"0123456789"[from as usize..to as usize], "{from} {to}");
        }
    }
}
