//! What a recording is, by what its host calls it and by its first bytes.
//!
//! A host that does not know calls everything `application/octet-stream`; one that is set up badly calls a recording
//! a text. The first bytes know better. They do not overrule a name for the same container: whether an MP4 is
//! `audio/mp4` or `video/mp4` is the host's to say.

use infer::MatcherType;

/// The media type of a recording that begins with `head`; an empty one is none, where nobody knows. None altogether
/// for an error page.
pub(super) fn of(header: Option<&str>, head: &[u8]) -> Option<Option<String>> {
    let told = header.map(essence);
    let seen = by_bytes(head);
    Some(match (told.as_deref(), seen) {
        (Some(told), Some(seen)) if is_media(told) && (family(told) == family(seen.name) || !seen.certain) => {
            header.map(str::to_owned)
        }
        (_, Some(seen)) => Some(seen.name.to_owned()),
        (told, None) if is_page_text(head) || told.is_some_and(is_page) => return None,
        (_, None) => header.map(str::to_owned),
    })
}

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SniffedType {
    name: &'static str,
    /// Whether nothing else begins so: two bytes of an MP3 frame may stand in any sound without a header.
    certain: bool,
}

/// The container that the bytes are in, if it is one of sound or pictures.
fn by_bytes(head: &[u8]) -> Option<SniffedType> {
    let found = infer::get(head).filter(|kind| matches!(kind.matcher_type(), MatcherType::Audio | MatcherType::Video));
    let name = match found.map(|kind| kind.mime_type()) {
        Some("audio/m4a") => "audio/mp4",
        Some("audio/x-wav") => "audio/wav",
        Some("audio/x-flac") => "audio/flac",
        Some("audio/x-aiff") => "audio/aiff",
        Some("audio/opus") => "audio/ogg",
        Some(name) => name,
        None if head.get(4..8) == Some(b"ftyp") => "video/mp4",
        None => return None,
    };
    let certain = match name {
        "audio/mpeg" => head.starts_with(b"ID3"),
        "audio/aac" | "video/mpeg" => false,
        _ => true,
    };
    Some(SniffedType { name, certain })
}

/// Whether bytes that are said to be packed are a recording as they stand: a proxy unpacked them, or an uploader set
/// the wrong header.
pub(super) fn is_plain(head: &[u8]) -> bool {
    by_bytes(head).is_some_and(|seen| seen.certain)
}

/// A media type without its parameters, in lower case.
fn essence(header: &str) -> String {
    header.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn is_media(essence: &str) -> bool {
    essence.starts_with("audio/") || essence.starts_with("video/") || essence == "application/ogg"
}

/// One name for all names of a container.
fn family(essence: &str) -> &str {
    match essence {
        "audio/mp4" | "audio/m4a" | "audio/x-m4a" | "audio/3gpp" | "audio/3gpp2" | "audio/quicktime" => "video/mp4",
        "video/x-m4v" | "video/m4v" | "video/quicktime" | "video/3gpp" | "video/3gpp2" => "video/mp4",
        "audio/x-wav" | "audio/wave" | "audio/vnd.wave" | "audio/x-pn-wav" => "audio/wav",
        "audio/mp3" | "audio/mpeg3" | "audio/x-mpeg-3" | "audio/x-mp3" => "audio/mpeg",
        "application/ogg" | "video/ogg" | "audio/opus" | "audio/vorbis" | "audio/x-ogg" => "audio/ogg",
        "audio/webm" | "video/x-matroska" | "audio/x-matroska" | "video/matroska" | "audio/matroska" => "video/webm",
        "audio/x-flac" => "audio/flac",
        "audio/x-aiff" => "audio/aiff",
        "audio/x-aac" | "audio/aacp" => "audio/aac",
        "audio/x-ms-wma" | "video/x-ms-asf" => "video/x-ms-wmv",
        other => other,
    }
}

/// Media types of error pages, which are no recordings.
fn is_page(essence: &str) -> bool {
    essence.starts_with("text/") || ["application/json", "application/xml", "application/xhtml+xml"].contains(&essence)
}

/// Whether a header names a page.
pub(super) fn names_page(header: &str) -> bool {
    is_page(&essence(header))
}

/// How pages begin.
const PAGES: [&str; 5] = ["<!doctype", "<html", "<?xml", "<error", "{\""];

/// Whether the bytes are an error page, whatever they are called.
fn is_page_text(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let begins = |page: &&str| head.get(..page.len()).is_some_and(|start| start.eq_ignore_ascii_case(page.as_bytes()));
    PAGES.iter().any(begins) && !head.iter().any(|byte| byte.is_ascii_control() && !byte.is_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MP4: &[u8] = b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2mp41";
    const WAV: &[u8] = b"RIFF\x24\0\0\0WAVEfmt ";
    const FRAME: &[u8] = b"\xff\xfb\x90\0\0\0\0\0";

    fn kind(header: &str, head: &[u8]) -> Option<String> {
        of(Some(header).filter(|header| !header.is_empty()), head).expect("a recording")
    }

    #[test]
    fn the_bytes_say_what_a_generic_header_does_not() {
        for header in ["", "application/octet-stream", "binary/octet-stream", "text/plain; charset=utf-8", "x"] {
            assert_eq!(kind(header, MP4).as_deref(), Some("video/mp4"), "{header}");
            assert_eq!(kind(header, WAV).as_deref(), Some("audio/wav"), "{header}");
            assert_eq!(kind(header, b"ID3\x04\0\0\0\0").as_deref(), Some("audio/mpeg"), "{header}");
            assert_eq!(kind(header, FRAME).as_deref(), Some("audio/mpeg"), "{header}");
            assert_eq!(kind(header, b"OggS\0\x02\0\0\0\0").as_deref(), Some("audio/ogg"), "{header}");
            assert_eq!(kind(header, b"fLaC\0\0\0\x22").as_deref(), Some("audio/flac"), "{header}");
            assert_eq!(kind(header, b"#!AMR\n\0\0\0\0\0\0").as_deref(), Some("audio/amr"), "{header}");
            assert_eq!(kind(header, b"\0\0\0\x18ftypM4A \0\0\0\0").as_deref(), Some("audio/mp4"), "{header}");
            assert_eq!(kind(header, b"\0\0\0\x18ftyp3gp5\0\0\0\0").as_deref(), Some("video/mp4"), "{header}");
        }
    }

    #[test]
    fn a_header_that_contradicts_the_bytes_is_overruled_and_one_that_agrees_is_not() {
        assert_eq!(kind("audio/wav", MP4).as_deref(), Some("video/mp4"));
        assert_eq!(kind("video/mp4", WAV).as_deref(), Some("audio/wav"));
        for header in ["audio/mp4", "video/mp4", "Audio/MP4; codecs=mp4a.40.2", "audio/x-m4a", "video/quicktime"] {
            assert_eq!(kind(header, MP4).as_deref(), Some(header));
        }
        assert_eq!(kind("audio/x-wav", WAV).as_deref(), Some("audio/x-wav"));
        assert_eq!(kind("audio/basic", FRAME).as_deref(), Some("audio/basic"), "two bytes are no proof");
    }

    #[test]
    fn what_nobody_knows_stays_as_it_was_told() {
        for head in [&b""[..], b"\0", b"\0\0\0\x10free\x01\x02\x03", &[0x7f; 600]] {
            assert_eq!(kind("audio/mp4", head).as_deref(), Some("audio/mp4"));
            assert_eq!(kind("application/octet-stream", head).as_deref(), Some("application/octet-stream"));
            assert_eq!(kind("", head), None);
        }
    }

    #[test]
    fn a_page_is_told_from_a_recording() {
        for header in ["text/html; charset=utf-8", "TEXT/plain", "application/json", "application/xml;x"] {
            assert_eq!(of(Some(header), b"anything"), None, "{header}");
            assert_eq!(of(Some(header), b""), None, "{header}");
        }
        for header in [None, Some("application/octet-stream"), Some("video/mp4")] {
            for head in [
                &b"<!DOCTYPE html><p>"[..],
                b"\xef\xbb\xbf <?xml version=\"1.0\"?>\n<Error>",
                b"<html>",
                b"{\"message\":1}",
            ] {
                assert_eq!(of(header, head), None, "{header:?}");
            }
        }
        assert!(of(Some("video/mp4"), b"<html\0\x01\x02").is_some(), "no text");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(head in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
            of(None, &head);
            is_plain(&head);
        }
    }
}
