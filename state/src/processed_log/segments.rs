//! The processed ids on disk: a tree per UTC day, in it blocks of up to 256 ids.
//!
//! Each commit writes its ids as one block. A short last block is written again together with the ids that follow,
//! so that a quiet day of single ids takes as little room as a busy one: nothing needs compaction, a restart reads
//! 16 bytes an id, and a day expires by dropping its tree.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use model::Key;

use crate::StateError;
use crate::keyspace::{MAX_VALUE_BYTES, SegmentName};

/// The most ids in a block: sled keeps larger values in files of their own.
const BLOCK_IDS: usize = MAX_VALUE_BYTES / Key::LEN;

/// A last block with fewer ids than this is written again with those that follow: at most 1 KiB is written twice,
/// and the entries of a day cost less than 2 bytes an id.
const SHORT_BLOCK_IDS: usize = 64;

/// How many ids are read before they are put in order: a thousand for each shard in memory, 16 MiB in all.
const READ_IDS: usize = 1024 * 1024;

/// One tree of ids.
struct LogSegment {
    tree: sled::Tree,
    ids: u64,
    last_block: u64,
    last_ids: Vec<u8>,
}

/// All trees of ids, in the order of their days.
pub(super) struct Segments {
    database: sled::Db,
    by_name: BTreeMap<SegmentName, LogSegment>,
    part_limit: u64,
}

/// The UTC day of a point in time.
pub(super) fn day_of(at: Timestamp) -> Date {
    at.to_zoned(TimeZone::UTC).date()
}

impl Segments {
    /// Reads every id on disk and hands them to `found`, many at a time; a day of more than `part_limit` ids goes on in
    /// a new tree.
    pub(super) fn load(
        database: &sled::Db,
        part_limit: u64,
        mut found: impl FnMut(SegmentName, &[Key]),
    ) -> Result<Self, StateError> {
        let mut names: Vec<_> = database.tree_names().iter().filter_map(|tree| SegmentName::of_tree(tree)).collect();
        names.sort_unstable();
        let mut segments = Self { database: database.clone(), by_name: BTreeMap::new(), part_limit };
        let mut read = Vec::new();
        for name in names {
            let mut segment =
                LogSegment { tree: database.open_tree(name.tree())?, ids: 0, last_block: 0, last_ids: Vec::new() };
            let Some((last, _)) = segment.tree.last()? else {
                segments.by_name.insert(name, segment);
                continue;
            };
            let last = last.as_ref().try_into().map(u64::from_be_bytes);
            segment.last_block = last.map_err(|_| StateError::damaged("a block of processed ids has no number"))?;
            // One by one, not with an iterator: the page cache of sled takes note of the look-ups only, and keeps
            // everything it has read until there were enough of them.
            for number in 0..=segment.last_block {
                let Some(block) = segment.tree.get(number.to_be_bytes())? else { continue };
                let (ids, []) = block.as_chunks::<{ Key::LEN }>() else {
                    return Err(StateError::damaged("a block of processed ids has an odd length"));
                };
                read.extend(ids.iter().copied().map(Key::from_bytes));
                if read.len() >= READ_IDS {
                    found(name, &read);
                    read.clear();
                }
                segment.ids += ids.len() as u64;
                if number == segment.last_block {
                    segment.last_ids = block.to_vec();
                }
            }
            found(name, &read);
            read.clear();
            segments.by_name.insert(name, segment);
        }
        Ok(segments)
    }

    /// Writes ids as committed on `day`; durable at the next commit. Returns the segment they went to.
    pub(super) fn append(&mut self, day: Date, keys: &[Key]) -> Result<SegmentName, StateError> {
        let name = self.open_for(day)?;
        let segment = self.by_name.get_mut(&name).expect("it was opened just now");
        let mut rest = keys;
        while !rest.is_empty() {
            let held = segment.last_ids.len() / Key::LEN;
            if held >= SHORT_BLOCK_IDS {
                segment.last_block += 1;
                segment.last_ids.clear();
            }
            let room = BLOCK_IDS - segment.last_ids.len() / Key::LEN;
            let (now, later) = rest.split_at(room.min(rest.len()));
            segment.last_ids.extend(now.iter().flat_map(Key::as_bytes));
            segment.tree.insert(segment.last_block.to_be_bytes(), segment.last_ids.as_slice())?;
            rest = later;
        }
        segment.ids += keys.len() as u64;
        Ok(name)
    }

    /// Drops a segment with its ids.
    pub(super) fn drop_segment(&mut self, name: SegmentName) -> Result<(), StateError> {
        if self.by_name.remove(&name).is_some() {
            self.database.drop_tree(name.tree())?;
        }
        Ok(())
    }

    /// All segments, the oldest first, with the number of their ids.
    pub(super) fn list(&self) -> Vec<(SegmentName, u64)> {
        self.by_name.iter().map(|(name, segment)| (*name, segment.ids)).collect()
    }

    /// The segment of the day that still takes ids; a new one where the last is full.
    fn open_for(&mut self, day: Date) -> Result<SegmentName, StateError> {
        let of_day = SegmentName { day, part: 0 }..=SegmentName { day, part: u32::MAX };
        let part = match self.by_name.range(of_day).next_back() {
            Some((name, segment)) if segment.ids < self.part_limit => return Ok(*name),
            Some((name, _)) => name.part.saturating_add(1),
            None => 0,
        };
        let name = SegmentName { day, part };
        let tree = self.database.open_tree(name.tree())?;
        self.by_name.insert(name, LogSegment { tree, ids: 0, last_block: 0, last_ids: Vec::new() });
        Ok(name)
    }
}
