//! An exact set of keys that costs about 28 bytes a key at any size and never stops the world to grow.
//!
//! A hash table doubles when it is full, so it takes between 19 and 39 bytes a key. Here the keys are spread over
//! shards of which the largest expects twice as many as the smallest: at any size some have just doubled and some are
//! about to, and never do many of them move at once.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use crate::Key;

/// Ten million keys make 40,000 a shard: moving those takes less than a sync.
const SHARDS: usize = 256;

/// How many beginnings of keys are told apart to find the shard: 11 to 22 of them belong to each.
const BEGINNINGS: usize = 4096;

/// A set of keys in shards.
pub(super) struct KeySet {
    shards: Vec<HashSet<Key, BuildHasherDefault<KeyHasher>>>,
    shard_of_beginning: Vec<u8>,
    len: usize,
}

impl KeySet {
    pub(super) fn new() -> Self {
        // The inverse of 2^x: shard i covers 2^(i/256) to 2^((i+1)/256) of what 1 to 2 stands for.
        let shard = |beginning: usize| ((1.0 + beginning as f64 / BEGINNINGS as f64).log2() * SHARDS as f64) as u8;
        Self {
            shards: (0..SHARDS).map(|_| HashSet::default()).collect(),
            shard_of_beginning: (0..BEGINNINGS).map(shard).collect(),
            len: 0,
        }
    }

    /// Adds a key; false if it was there.
    pub(super) fn insert(&mut self, key: Key) -> bool {
        let shard = self.shard(&key);
        let new = self.shards[shard].insert(key);
        self.len += usize::from(new);
        new
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.shards[self.shard(key)].contains(key)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn shard(&self, key: &Key) -> usize {
        let [first, second, ..] = *key.as_bytes();
        let beginning = (usize::from(u16::from_be_bytes([first, second])) * BEGINNINGS) >> u16::BITS;
        usize::from(self.shard_of_beginning[beginning])
    }
}

/// Keys are the beginning of a SHA-256: their own bytes are as good a hash as any.
#[derive(Default)]
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        // The last eight: the first two chose the shard already.
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
    fn memory_stays_near_its_mean_at_any_size() {
        let mut set = KeySet::new();
        let mut worst = 0.0_f64;
        for n in 0u64..400_000 {
            let mut bytes = [0; Key::LEN];
            bytes[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
            bytes[8..].copy_from_slice(&n.wrapping_mul(0xd1b5_4a32_d192_ed03).to_be_bytes());
            set.insert(Key::from_bytes(bytes));
            if n >= 100_000 && n % 10_000 == 0 {
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
