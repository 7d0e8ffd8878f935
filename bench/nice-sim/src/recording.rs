//! A recording: a real MP4 of any size, made on the fly and never held in memory.
//!
//! The file is the fixture (a playable call) followed by one ISO-BMFF `free` box, which players skip. What stands in
//! the box is the counter-mode stream of the recording's seed: no two recordings have equal bytes, and any offset can be
//! produced without the bytes before it, which is what Range requests and broken bodies need.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::chance::word;

/// Seven seconds of a two-channel call; `fixtures/README.md` says how it was made.
static FIXTURE: &[u8] = include_bytes!("../fixtures/call.mp4");

/// How much is produced at a time: large enough to keep a socket busy, small enough for thousands of streams.
pub(crate) const CHUNK: u64 = 64 * 1024;

/// The smallest size at which a recording holds the playable fixture and a box of its own bytes.
pub const SMALLEST_PLAYABLE: u64 = 28 * 1024;

/// One recording, as a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Recording {
    pub(crate) seed: u64,
    pub(crate) size: u64,
}

impl Recording {
    /// The bytes before the random stream: the fixture where it fits, and the header of the `free` box.
    fn head(&self) -> Vec<u8> {
        let fixture = if self.size >= SMALLEST_PLAYABLE { FIXTURE } else { &[] };
        let box_size = self.size - fixture.len() as u64;
        let mut head = fixture.to_vec();
        match u32::try_from(box_size) {
            Ok(small) if box_size >= 8 => {
                head.extend_from_slice(&small.to_be_bytes());
                head.extend_from_slice(b"free");
            }
            Ok(_) => {} // too small for a box: a few bytes that are no media at all
            Err(_) => {
                head.extend_from_slice(&1_u32.to_be_bytes());
                head.extend_from_slice(b"free");
                head.extend_from_slice(&box_size.to_be_bytes());
            }
        }
        head
    }

    /// Reads the recording from `start` up to `end`, in chunks.
    pub(crate) fn read(self, start: u64, end: u64) -> impl Iterator<Item = Bytes> + Send {
        let head = self.head();
        let end = end.min(self.size);
        let mut at = start;
        std::iter::from_fn(move || {
            let length = CHUNK.min(end.checked_sub(at)?);
            if length == 0 {
                return None;
            }
            let mut chunk = vec![0; length as usize];
            self.fill(&head, at, &mut chunk);
            at += length;
            Some(Bytes::from(chunk))
        })
    }

    /// The lower-case hex SHA-256 of the whole.
    pub(crate) fn sha256(self) -> String {
        let mut hash = Sha256::new();
        for chunk in self.read(0, self.size) {
            hash.update(&chunk);
        }
        hex::encode(hash.finalize())
    }

    /// Writes the bytes from `at` on into `out`.
    fn fill(&self, head: &[u8], at: u64, out: &mut [u8]) {
        let from_head = head.get(at as usize..).map_or(0, |rest| {
            let length = rest.len().min(out.len());
            out[..length].copy_from_slice(&rest[..length]);
            length
        });
        let at = at + from_head as u64;
        let out = &mut out[from_head..];

        // Words are counted from the start of the file, so an offset inside a word begins in its middle.
        let skipped = (at % 8) as usize;
        let (first, rest) = out.split_at_mut(if skipped == 0 { 0 } else { (8 - skipped).min(out.len()) });
        let mut counter = at / 8;
        if skipped > 0 {
            let bytes = word(self.seed, counter).to_le_bytes();
            first.copy_from_slice(&bytes[skipped..skipped + first.len()]);
            counter += 1;
        }
        let mut words = rest.chunks_exact_mut(8);
        for slot in &mut words {
            slot.copy_from_slice(&word(self.seed, counter).to_le_bytes());
            counter += 1;
        }
        let last = words.into_remainder();
        last.copy_from_slice(&word(self.seed, counter).to_le_bytes()[..last.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(recording: Recording, start: u64, end: u64) -> Vec<u8> {
        recording.read(start, end).flatten().collect()
    }

    #[test]
    fn any_part_equals_the_same_part_of_the_whole() {
        let recording = Recording { seed: 5, size: 3 * CHUNK + 77 };
        let whole = bytes(recording, 0, recording.size);
        assert_eq!(whole.len() as u64, recording.size);
        for (start, end) in [(0, 1), (27_000, 29_000), (CHUNK - 3, CHUNK + 5), (100_001, 100_002), (70_003, 190_001)] {
            assert_eq!(bytes(recording, start, end), whole[start as usize..end as usize], "{start}..{end}");
        }
        assert_eq!(bytes(recording, recording.size, u64::MAX), b"");
    }

    #[test]
    fn the_boxes_add_up_to_the_size() {
        for size in [0, 1, 8, 1000, SMALLEST_PLAYABLE, 100_000] {
            let recording = Recording { seed: 1, size };
            let whole = bytes(recording, 0, size);
            assert_eq!(whole.len() as u64, size);
            let mut at = 0;
            while size >= 8 && at < whole.len() {
                at +=
                    u32::from_be_bytes(whole[at..at + 4].try_into().expect("as many bytes as the number has")) as usize;
            }
            assert!(size < 8 || at == whole.len(), "{size}");
        }
    }

    #[test]
    fn a_box_above_four_gibibytes_has_a_large_size() {
        let size = 5 << 30;
        let recording = Recording { seed: 1, size };
        let fixture = FIXTURE.len() as u64;
        let header = bytes(recording, fixture, fixture + 16);
        assert_eq!(header[..8], [0, 0, 0, 1, b'f', b'r', b'e', b'e']);
        assert_eq!(
            u64::from_be_bytes(header[8..].try_into().expect("as many bytes as the number has")),
            size - fixture
        );
        assert_eq!(bytes(recording, size - 10, size).len(), 10);
    }

    #[test]
    fn two_seeds_share_no_bytes_beyond_the_fixture() {
        let hash = |seed| Recording { seed, size: 40_000 }.sha256();
        assert_ne!(hash(1), hash(2));
        assert_eq!(hash(1), hash(1));
        assert!((FIXTURE.len() as u64) + 16 <= SMALLEST_PLAYABLE);
    }
}
