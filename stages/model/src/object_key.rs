//! Where a recording lies: `{tenant}/{yyyy}/{mm}/{dd}/{external_id}/{position}.{ext}`, by the UTC start.
//!
//! The key is built from parsed parts only, so no text from outside can lead it elsewhere.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::{ConversationKey, IdError};

/// The ending of a recording: 1–5 of `[a-z0-9]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Extension(String);

impl Extension {
    /// The ending for a media type that NICE sent; NICE's recordings are MP4 unless it says otherwise.
    pub fn for_content_type(content_type: Option<&str>) -> Self {
        let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let ext = match essence.to_ascii_lowercase().as_str() {
            "audio/wav" | "audio/x-wav" | "audio/wave" | "audio/vnd.wave" => "wav",
            "audio/mpeg" | "audio/mp3" => "mp3",
            "audio/ogg" | "application/ogg" => "ogg",
            "audio/webm" | "video/webm" => "webm",
            "audio/x-matroska" | "video/x-matroska" | "video/matroska" => "mkv",
            "audio/flac" | "audio/x-flac" => "flac",
            "audio/amr" => "amr",
            "audio/aac" | "audio/x-aac" => "aac",
            "audio/aiff" | "audio/x-aiff" => "aiff",
            "video/quicktime" => "mov",
            "video/x-msvideo" => "avi",
            "audio/x-ms-wma" | "video/x-ms-wmv" => "wma",
            _ => "mp4",
        };
        Self(ext.to_owned())
    }
}

impl FromStr for Extension {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let fits = (1..=5).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError { what: "file extension", rule: "1 to 5 lower-case letters or digits" })
        }
    }
}

impl fmt::Display for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The key of one object in the recording store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectKey {
    folder: String,
    position: u32,
    extension: Extension,
}

impl ObjectKey {
    /// The key of the recording at `position` of a conversation that started at `started_at`.
    pub fn new(key: &ConversationKey, started_at: Timestamp, position: u32, extension: Extension) -> Self {
        Self { folder: Self::folder_of(key, started_at), position, extension }
    }

    /// The folder that holds all recordings of a conversation that started at `started_at`.
    pub fn folder_of(key: &ConversationKey, started_at: Timestamp) -> String {
        let day = started_at.to_zoned(TimeZone::UTC).date();
        format!("{}/{:04}/{:02}/{:02}/{}", key.tenant, day.year(), day.month(), day.day(), key.external_id)
    }

    /// The day by which a conversation's recording lies where a row says that it lies, as the start of a call on that
    /// day; none where the text is no key of a recording of this conversation.
    pub fn day_of(key: &ConversationKey, object_key: &str) -> Option<Timestamp> {
        let mut parts = object_key.strip_prefix(key.tenant.as_str())?.strip_prefix('/')?.split('/');
        let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
        let date = Date::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?).ok()?;
        let day = date.to_zoned(TimeZone::UTC).ok()?.timestamp();
        // As it would be written, and nothing else that reads as this day.
        let name = object_key.strip_prefix(&Self::folder_of(key, day))?.strip_prefix('/')?;
        (!name.is_empty() && !name.contains('/')).then_some(day)
    }

    /// The folder that holds all recordings of the conversation.
    pub fn folder(&self) -> &str {
        &self.folder
    }

    /// The place of the recording within its conversation, from 0 by start time.
    pub fn position(&self) -> u32 {
        self.position
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}.{}", self.folder, self.position, self.extension)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_follows_the_utc_start() {
        let key = ConversationKey { tenant: "acme".parse().unwrap(), external_id: "698800000001".parse().unwrap() };
        let start: Timestamp = "2026-01-01T00:30:00+02:00".parse().unwrap();
        let object = ObjectKey::new(&key, start, 0, Extension::for_content_type(Some("video/mp4")));
        assert_eq!(object.to_string(), "acme/2025/12/31/698800000001/0.mp4");
        assert_eq!(object.folder(), "acme/2025/12/31/698800000001");
    }

    #[test]
    fn the_day_is_read_back_from_a_key_of_the_same_conversation_only() {
        let key = ConversationKey { tenant: "acme".parse().unwrap(), external_id: "12".parse().unwrap() };
        let start: Timestamp = "2025-12-31T22:30:00Z".parse().unwrap();
        let object = ObjectKey::new(&key, start, 0, Extension::for_content_type(None));
        let day = ObjectKey::day_of(&key, &object.to_string()).unwrap();
        assert_eq!(ObjectKey::folder_of(&key, day), object.folder());
        for other in [
            "",
            "acme",
            "acme/2025/12/31/12",
            "acme/2025/12/31/12/",
            "acme/2025/12/31/1/0.mp4",
            "acme/2025/12/31/123/0.mp4",
            "other/2025/12/31/12/0.mp4",
            "acme/2025/13/31/12/0.mp4",
            "acme/2025/012/31/12/0.mp4",
            "acme/2025/12/31/12/a/0.mp4",
            "acme/../12/31/12/0.mp4",
            "/acme/2025/12/31/12/0.mp4",
        ] {
            assert_eq!(ObjectKey::day_of(&key, other), None, "{other}");
        }
    }

    #[test]
    fn an_extension_is_a_short_lower_case_word() {
        for bad in ["", "MP4", "mp4/..", "a.b", "abcdef", "m p"] {
            assert!(bad.parse::<Extension>().is_err(), "{bad}");
        }
        assert_eq!(Extension::for_content_type(Some("audio/x-wav; codecs=1")).to_string(), "wav");
        assert_eq!(Extension::for_content_type(Some("../../etc")).to_string(), "mp4");
        for (kind, extension) in [("audio/flac", "flac"), ("audio/AMR", "amr"), ("video/x-matroska", "mkv")] {
            let found = Extension::for_content_type(Some(kind)).to_string();
            assert_eq!((found.as_str(), found.parse::<Extension>().is_ok()), (extension, true));
        }
    }
}
