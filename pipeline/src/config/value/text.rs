//! Texts with a grammar of their own.

use crate::config::nearest::nearest;

/// Reads a text that is not empty and has no control characters: it ends in headers, paths and keys.
pub(super) fn plain(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err(String::new());
    }
    if text.contains(char::is_control) {
        return Err("it contains a line break or another control character".to_owned());
    }
    Ok(text.to_owned())
}

/// Reads a name that becomes part of others.
pub(super) fn name(text: &str) -> Result<String, String> {
    alphabet(text, 1..=64, |byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Reads the name of a host, as a browser writes it.
pub(super) fn host_name(text: &str) -> Result<String, String> {
    let text = text.to_ascii_lowercase();
    alphabet(&text, 1..=253, |byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
}

/// Reads the name of a header.
pub(super) fn header(text: &str) -> Result<String, String> {
    let text = text.to_ascii_lowercase();
    alphabet(&text, 1..=64, |byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Reads the name of a bucket.
pub(super) fn bucket(text: &str) -> Result<String, String> {
    alphabet(text, 3..=63, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte))
}

/// Reads a version such as `v33.0`; it becomes part of every path.
pub(super) fn api_version(text: &str) -> Result<String, String> {
    let number = |digits: &str| (1..=3).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit());
    text.strip_prefix('v')
        .and_then(|version| version.split_once('.'))
        .filter(|(major, minor)| number(major) && number(minor))
        .map(|_| text.to_owned())
        .ok_or_else(String::new)
}

/// Reads one of the words; else names the one that was probably meant.
pub(super) fn word<T: Copy>(text: &str, words: &'static [(&'static str, T)]) -> Result<T, String> {
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*value);
    }
    Err(nearest(text, words.iter().map(|(word, _)| *word))
        .map(|word| format!("did you mean \"{word}\"?"))
        .unwrap_or_default())
}

/// Reads 32 bytes in hex; the fault tells nothing of the digits.
pub(super) fn hex_key(text: &str) -> Result<[u8; 32], String> {
    let mut key = [0; 32];
    let digits = text.as_bytes();
    if digits.len() != 2 * key.len() {
        return Err("its length is not 64 digits".to_owned());
    }
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (Some(high), Some(low)) = (digit(0), digit(1)) else {
            return Err("it contains something else than hex digits".to_owned());
        };
        *byte = high << 4 | low;
    }
    Ok(key)
}

/// Reads a text of so many bytes of an alphabet.
fn alphabet(text: &str, length: std::ops::RangeInclusive<usize>, allowed: fn(u8) -> bool) -> Result<String, String> {
    let fits = length.contains(&text.len()) && text.bytes().all(allowed);
    if fits { Ok(text.to_owned()) } else { Err(String::new()) }
}
