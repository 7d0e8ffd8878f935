//! Reading JSON that is not quite what was promised: names in any case, scalars as texts, nulls, absences.
//!
//! An [`Object`] keeps its members as slices of the body, so a member that nobody asks for costs nothing.
//!
//! # What is taken loosely, and at which door
//!
//! | looseness | taken for | doors |
//! |---|---|---|
//! | a byte order mark in front | nothing | every JSON body of NICE's, webhook, queue message, extraction file, settings file, `settings set`, secret files, CA files, shared credentials, S3's XML |
//! | blanks or NUL after the end of a JSON text | nothing | NICE, webhook, queue message |
//! | a second text after the end, a body that is cut off | an error | everywhere |
//! | `NaN`, `Infinity`, `-Infinity` as a bare value | null | NICE |
//! | bytes that are not UTF-8 | U+FFFD, in their own value only | NICE; elsewhere an error |
//! | a member named twice | the last one | NICE; elsewhere an error, since nobody knows which call is meant |
//! | names in another case | the same name | NICE, columns of the extraction file |
//! | null, or an empty text | absent | NICE, webhook, queue message (null) |
//! | a number or a truth value as text, in any case | what it says | NICE; ids also at the webhook |
//! | `expires_in` as a decimal | whole seconds, downwards | tokens |
//! | blanks around a token or a time | nothing | NICE |
//! | a time without an offset, or as a number | UTC; (milli)seconds since 1970 | NICE |
//! | the wrapper `resultSet` | nothing | NICE |
//! | a body packed without saying so, or said to be packed and not | as its first bytes say | NICE |
//! | `gzip` named twice, beside `identity`, in any case | once | NICE |
//! | up to 1,000 headers | headers | NICE, media hosts, S3; webhook and admin address |
//! | a header with blanks before its colon, or on several lines | the same header | NICE, media hosts, S3 |
//! | a header whose name is none | nothing; without a length, the body ends with the connection | NICE, media hosts, S3 |
//! | `Retry-After` as a decimal, a list, in quotes, or as an older date | see [`model::retry_after`] | NICE, media hosts, S3 |
//! | the type of a body, its charset | not looked at | NICE, webhook; of a recording: a page is told from sound in any case |

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use memchr::memmem;
use model::text::bare_json;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::ShapeError;

/// More members than any object of NICE's has: a contact has some 80, an agent some 100.
pub(super) const MAX_MEMBERS: usize = 1_024;

/// Room for so many is made at once.
const USUAL_MEMBERS: usize = 64;

/// Longer texts are cut: a name, a login or a phone number is far shorter.
const MAX_TEXT: usize = 4 * 1024;

/// The text of a body: UTF-8 (a byte that is not is replaced, and harms its own value only), without a mark in front.
pub fn document(body: &[u8]) -> Result<Cow<'_, str>, ShapeError> {
    let body = bare_json(body);
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => Err(ShapeError::Empty),
        Some(b'<') => Err(ShapeError::Html),
        Some(_) => {
            // The lossy way takes several times as long to find that nothing is lost.
            let text = std::str::from_utf8(body).map_or_else(|_| String::from_utf8_lossy(body), Cow::Borrowed);
            Ok(plain_words(&text).map_or(text, Cow::Owned))
        }
    }
}

/// What some programs write for a number that is none; JSON has no word for it. A longer word stands first.
const NO_NUMBERS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// The text with `null` for each bare word that stands for a number that is none; none where there is no such word.
/// A word inside a string, or where no value can stand, is left as it is.
pub fn plain_words(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    // Pages are large, and nearly all are sound: a search that costs next to nothing.
    if memmem::find(bytes, b"NaN").is_none() && memmem::find(bytes, b"Infinity").is_none() {
        return None;
    }
    let mut plain = String::new();
    let (mut copied, mut at) = (0, 0);
    let (mut in_string, mut before) = (false, b' ');
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'N' | b'I' | b'-' if matches!(before, b':' | b'[' | b',' | b' ') => {
                let word = NO_NUMBERS.into_iter().find(|word| bytes[at..].starts_with(word.as_bytes()));
                if let Some(word) = word.filter(|word| ends_value(bytes.get(at + word.len()))) {
                    plain.push_str(&text[copied..at]);
                    plain.push_str("null");
                    at += word.len();
                    copied = at;
                    before = b'l';
                    continue;
                }
            }
            _ => {}
        }
        if !byte.is_ascii_whitespace() {
            before = *byte;
        }
        at += 1;
    }
    plain.push_str(&text[copied..]);
    (copied > 0).then_some(plain)
}

/// Whether a bare word ends before this byte.
fn ends_value(next: Option<&u8>) -> bool {
    next.is_none_or(|byte| byte.is_ascii_whitespace() || matches!(byte, b',' | b'}' | b']'))
}

/// The members of a JSON object, unread.
pub struct Object<'a> {
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Object<'a> {
    /// The object of these members.
    pub(super) fn with(members: Vec<(Cow<'a, str>, &'a RawValue)>) -> Self {
        Self { members }
    }

    /// Reads a whole body, and takes off the wrapper `resultSet` of old versions.
    pub fn parse(text: &'a str) -> Result<Self, ShapeError> {
        match serde_json::from_str::<Self>(text) {
            Ok(object) => Ok(object.object(&["resultSet"]).unwrap_or(object)),
            Err(error) if error.is_data() => Err(ShapeError::Shape("not an object of a plausible size")),
            Err(_) => Err(ShapeError::NotJson),
        }
    }

    /// The object that this value is, if it is one.
    pub fn of(raw: &'a RawValue) -> Option<Self> {
        if raw.get().starts_with('{') { serde_json::from_str(raw.get()).ok() } else { None }
    }

    /// The members in the order of the body.
    pub fn members(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.members.iter().map(|(name, raw)| (name.as_ref(), *raw))
    }

    /// The first of these names that is there and not null; a name spelled exactly wins over one in another case.
    pub fn value(&self, names: &[&str]) -> Option<&'a RawValue> {
        names.iter().find_map(|wanted| {
            let exact = self.members.iter().rev().find(|(name, _)| name == wanted);
            let similar = || self.members.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
            exact.or_else(similar).map(|(_, raw)| *raw).filter(|raw| raw.get() != "null")
        })
    }

    /// The object under one of these names.
    pub fn object(&self, names: &[&str]) -> Option<Object<'a>> {
        self.value(names).and_then(Object::of)
    }

    /// The elements of the array under one of these names; none if it is absent, an error if it is no array or
    /// has more than `most`.
    pub fn items(&self, names: &[&str], most: usize) -> Result<Option<Vec<&'a RawValue>>, ShapeError> {
        self.value(names).map(|raw| items(raw, most)).transpose()
    }

    /// The text under one of these names, NUL stripped; an empty one counts as absent.
    pub fn text(&self, names: &[&str]) -> Option<String> {
        self.value(names).and_then(scalar).map(|text| tidy(&text)).filter(|text| !text.is_empty())
    }

    /// The whole number under one of these names.
    pub fn integer(&self, names: &[&str]) -> Option<i64> {
        let text = self.value(names).and_then(scalar)?;
        let text = text.trim();
        match text.split_once('.') {
            Some((whole, zeros)) if zeros.bytes().all(|byte| byte == b'0') => whole.parse().ok(),
            _ => text.parse().ok(),
        }
    }

    /// The truth value under one of these names.
    pub fn flag(&self, names: &[&str]) -> Option<bool> {
        let text = self.value(names).and_then(scalar)?;
        match text.trim() {
            "1" => Some(true),
            "0" => Some(false),
            word if word.eq_ignore_ascii_case("true") => Some(true),
            word if word.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        }
    }

    /// The moment under one of these names.
    pub fn time(&self, names: &[&str]) -> Option<Timestamp> {
        self.value(names).and_then(scalar).and_then(|text| time(&text))
    }

    /// The number of seconds under one of these names.
    pub fn seconds(&self, names: &[&str]) -> Option<Duration> {
        self.value(names).and_then(scalar).and_then(|text| seconds(&text))
    }
}

/// The elements of an array, unread; an error if it is no array or has more than `most`.
pub fn items(raw: &RawValue, most: usize) -> Result<Vec<&RawValue>, ShapeError> {
    serde_json::Deserializer::from_str(raw.get())
        .deserialize_seq(ArrayVisitor { most })
        .map_err(|_| ShapeError::Shape("a list is no array, or longer than NICE's are"))
}

struct ArrayVisitor {
    most: usize,
}

impl<'de> Visitor<'de> for ArrayVisitor {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = array.next_element()? {
            if elements.len() == self.most {
                return Err(serde::de::Error::custom("too many elements"));
            }
            elements.push(element);
        }
        Ok(elements)
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::with_capacity(USUAL_MEMBERS);
        while let Some(MemberName(name)) = object.next_key()? {
            if members.len() == MAX_MEMBERS {
                return Err(serde::de::Error::custom("too many members"));
            }
            members.push((name, object.next_value()?));
        }
        Ok(Object { members })
    }
}

/// A member's name, borrowed from the body unless it holds escapes.
pub(super) struct MemberName<'a>(pub(super) Cow<'a, str>);

impl<'de> Deserialize<'de> for MemberName<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(NameVisitor)
    }
}

struct NameVisitor;

impl<'de> Visitor<'de> for NameVisitor {
    type Value = MemberName<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(MemberName(Cow::Borrowed(name)))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(MemberName(Cow::Owned(name.to_owned())))
    }
}

/// A text, a number or a truth value as text; none for null, arrays and objects.
pub fn scalar(raw: &RawValue) -> Option<Cow<'_, str>> {
    let text = raw.get();
    match text.as_bytes().first()? {
        b'"' => serde_json::from_str::<String>(text).ok().map(Cow::Owned),
        b'{' | b'[' | b'n' => None,
        _ => Some(Cow::Borrowed(text)),
    }
}

/// A text without NUL, which PostgreSQL stores neither in a text nor in JSON, and of a bearable length.
pub fn tidy(text: &str) -> String {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text[..end].replace('\0', "")
}

/// Before this, a time is .NET's way to say "none"; after the other, somebody's.
const PLAUSIBLE_YEARS: std::ops::Range<i16> = 1971..9000;

/// A moment: RFC 3339, or without an offset (then UTC), or a bare date, or a number of (milli)seconds since 1970.
pub fn time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let text = shortened_fraction(text);
    let moment = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // 1e11 seconds are in the year 5138, 1e11 milliseconds in 1973.
        match text.parse::<i64>().ok()? {
            seconds if seconds < 100_000_000_000 => Timestamp::from_second(seconds).ok()?,
            millis => Timestamp::from_millisecond(millis).ok()?,
        }
    } else {
        let zoned = text.parse::<Timestamp>().ok();
        zoned.or_else(|| text.parse::<DateTime>().ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp()))?
    };
    PLAUSIBLE_YEARS.contains(&TimeZone::UTC.to_datetime(moment).year()).then_some(moment)
}

/// The text with at most nine digits of a fraction, which is as fine as our clock is.
fn shortened_fraction(text: &str) -> Cow<'_, str> {
    let Some(dot) = text.find('.') else { return Cow::Borrowed(text) };
    let digits = text[dot + 1..].bytes().take_while(u8::is_ascii_digit).count();
    if digits <= 9 {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("{}{}", &text[..dot + 10], &text[dot + 1 + digits..]))
}

/// Ten years: a longer call is a mistake.
const MAX_SECONDS: f64 = 315_360_000.0;

/// A duration in seconds, to the nanosecond where it is written plainly.
pub fn seconds(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let duration = if !whole.is_empty() && whole.len() <= 12 && digits(whole) && digits(fraction) {
        let nanos = format!("{:0<9}", &fraction[..fraction.len().min(9)]);
        Duration::new(whole.parse().ok()?, nanos.parse().ok()?)
    } else {
        Duration::try_from_secs_f64(text.parse().ok()?).ok()?
    };
    (duration.as_secs_f64() <= MAX_SECONDS).then_some(duration)
}

#[cfg(test)]
#[path = "lenient_tests.rs"]
mod tests;
