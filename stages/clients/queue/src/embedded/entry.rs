//! Keys and values of the tree.

use jiff::Timestamp;
use model::Lane;

/// Lane (1 byte), due time in milliseconds (8, big-endian), sequence (8, big-endian): due messages come first.
pub(super) type QueueKey = [u8; 17];

/// The value: deliveries so far (4 bytes, big-endian), then the message.
const COUNT_BYTES: usize = 4;

pub(super) fn lane_byte(lane: Lane) -> u8 {
    match lane {
        Lane::Live => 0,
        Lane::Backfill => 1,
    }
}

pub(super) fn due_of(key: &QueueKey) -> Timestamp {
    let mut millis = [0; 8];
    millis.copy_from_slice(&key[1..9]);
    i64::try_from(u64::from_be_bytes(millis))
        .ok()
        .and_then(|millis| Timestamp::from_millisecond(millis).ok())
        .unwrap_or(Timestamp::MAX)
}

/// How often the message of an entry was delivered.
pub(super) fn count_of(value: &[u8]) -> u32 {
    value.first_chunk().map_or(0, |count| u32::from_be_bytes(*count))
}

pub(super) fn entry_value(count: u32, body: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(COUNT_BYTES + body.len());
    value.extend_from_slice(&count.to_be_bytes());
    value.extend_from_slice(body);
    value
}

/// The message of an entry.
pub(super) fn body_of(value: &[u8]) -> &[u8] {
    &value[COUNT_BYTES.min(value.len())..]
}
