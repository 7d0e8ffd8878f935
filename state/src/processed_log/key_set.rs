//! An exact set of keys that costs about 28 bytes a key at any size and never stops the world to grow.
//!
//! A hash table doubles when it is full, so it takes between 19 and 39 bytes a key, and what it leaves behind is of
//! no use to anyone else of its size. Here the keys are spread over many small tables of which the largest expects
//! twice as many keys as the smallest: at any size some have just doubled and some are about to, few of them move at
//! a time, and what one leaves the next one takes.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use model::Key;

/// Twenty million keys make 20,000 a shard, which move in less time than a sync takes.
const SHARDS: u64 = 1024;

/// A set of keys in shards.
pub(super) struct KeySet {
    shards: Vec<HashSet<Key, BuildHasherDefault<KeyHasher>>>,
    len: usize,
}

impl KeySet {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| HashSet::default()).collect(), len: 0 }
    }

    /// Adds a key; false if it was there.
    pub(super) fn insert(&mut self, key: Key) -> bool {
        let new = self.shards[shard_of(&key)].insert(key);
        self.len += usize::from(new);
        new
    }

    /// Adds many keys, shard by shard: a table that is at hand takes a key in a quarter of the time.
    pub(super) fn insert_all(&mut self, keys: &[Key]) {
        let mut ends = [0usize; SHARDS as usize];
        for key in keys {
            ends[shard_of(key)] += 1;
        }
        let mut end = 0;
        for (shard, count) in self.shards.iter_mut().zip(&mut ends) {
            shard.reserve(*count);
            end += *count;
            *count = end;
        }
        let mut sorted = vec![Key::from_bytes([0; Key::LEN]); keys.len()];
        for key in keys {
            let place = &mut ends[shard_of(key)];
            *place -= 1;
            sorted[*place] = *key;
        }
        for key in sorted {
            self.insert(key);
        }
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.shards[shard_of(key)].contains(key)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

/// Spreads keys by their first four bytes.
///
/// With those as x in 0..1 the shard is (4x - x²) / 3 of all: its slope falls from 4/3 to 2/3, so that the last shard
/// covers twice as much of the keys as the first.
fn shard_of(key: &Key) -> usize {
    let [a, b, c, d, ..] = *key.as_bytes();
    let x = u64::from(u32::from_be_bytes([a, b, c, d])) >> 8; // 24 bits: the product below stays within 64
    let one = 1u64 << 24;
    (((4 * one * x - x * x) / 3 * SHARDS) >> 48) as usize
}

/// Keys are the beginning of a SHA-256: their own bytes are as good a hash as any.
#[derive(Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        // The last eight: the first four chose the shard already.
        if let Some(tail) = bytes.last_chunk() {
            self.0 = u64::from_le_bytes(*tail);
        }
    }

    // The length prefix of a slice says nothing: all keys are of one size.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_at_once_are_the_same_as_one_by_one() {
        let keys: Vec<_> = (0..5000).map(|n: u32| Key::of(&[&n.to_string()])).collect();
        let mut set = KeySet::new();
        set.insert_all(&keys[..3000]);
        set.insert_all(&keys[2000..]);
        set.insert_all(&[]);
        assert_eq!(set.len(), 5000);
        assert!(keys.iter().all(|key| set.contains(key)));
    }

    #[test]
    fn every_key_has_a_shard() {
        assert_eq!(shard_of(&Key::from_bytes([0; 16])), 0);
        assert_eq!(shard_of(&Key::from_bytes([255; 16])), SHARDS as usize - 1);
    }

    #[test]
    fn memory_stays_near_its_mean_at_any_size() {
        let mut set = KeySet::new();
        let mut worst = 0.0_f64;
        for n in 0u64..1_000_000 {
            let mut bytes = [0; Key::LEN];
            bytes[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
            bytes[8..].copy_from_slice(&n.wrapping_mul(0xd1b5_4a32_d192_ed03).to_be_bytes());
            set.insert(Key::from_bytes(bytes));
            if n >= 250_000 && n % 10_000 == 0 {
                // 16 bytes and a control byte for each of the buckets, of which 7 of 8 may be used.
                let buckets: usize = set.shards.iter().map(|shard| shard.capacity() * 8 / 7).sum();
                worst = worst.max(buckets as f64 * 17.0 / n as f64);
            }
        }
        assert!(worst < 31.0, "{worst:.1} bytes a key");
    }

    #[test]
    fn a_key_is_found_exactly_when_it_was_inserted() {
        let mut set = KeySet::new();
        let key = |n: u32| Key::of(&[&n.to_string()]);
        for n in 0..10_000 {
            assert!(set.insert(key(n)));
            assert!(!set.insert(key(n)));
        }
        assert_eq!(set.len(), 10_000);
        assert!((0..10_000).all(|n| set.contains(&key(n))));
        assert!((10_000..20_000).all(|n| !set.contains(&key(n))));
    }
}
