//! Every tree, key and value on disk, on one page.
//!
//! ```text
//! <dir>/lock                      taken by the process that has the directory open
//! <dir>/sled/                     the one database; all trees below are in it
//! <dir>/sled/damaged              a page was found unreadable: the next start sets the database aside
//! <dir>/set-aside-<UTC time>/     a database that did not open; kept for a person to look at, never read again
//!
//! tree                            key                              value
//! meta                            "format"                         u32: FORMAT
//! processed/<UTC day>/<part>      block number, u64                1..=256 keys of 16 bytes, one after the other
//! inbox                           event id u64, part u16           part 0: length u32, then bytes; others: bytes
//! rates                           written by earlier versions; removed when the state is opened
//! watermarks                      written by earlier versions: name, then nanoseconds since 1970 (i128); the caller's
//! <others>/...                    belong to the caller of `Store::tree`: the embedded queue, catalog, rate budgets
//! ```
//!
//! Numbers are big-endian, so that keys sort as their numbers do. A value stays below [`MAX_VALUE_BYTES`].

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// The version of all that stands on this page.
pub(crate) const FORMAT: u32 = 1;

/// The largest value that sled keeps in its log whatever its neighbours: a leaf holds up to 20 of them and moves
/// into a file of its own above 128 KiB. Larger values are durable too, but cost a file and a sync each.
pub const MAX_VALUE_BYTES: usize = 4096;

/// Holds the format version.
pub(crate) const META: &str = "meta";
/// The key of the format version.
pub(crate) const META_FORMAT: &[u8] = b"format";
/// Holds the webhook events not yet brought into the flow.
pub(crate) const INBOX: &str = "inbox";
/// Held the grants of rate windows.
pub(crate) const RATES: &str = "rates";
/// The first segment of the trees of processed ids.
const PROCESSED: &str = "processed";

/// Whether a tree of this name belongs to the state itself.
pub(crate) fn is_reserved(name: &str) -> bool {
    let first = name.split('/').next().unwrap_or_default();
    first.is_empty() || first.starts_with("__") || [META, INBOX, RATES, PROCESSED].contains(&first)
}

/// The name of a segment of processed ids: a UTC day and, on a very full day, more than one part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentName {
    /// The UTC day of the commits.
    pub(crate) day: Date,
    /// Counts from 0 within the day.
    pub(crate) part: u32,
}

impl SegmentName {
    /// The tree that holds the segment.
    pub(crate) fn tree(&self) -> String {
        format!("{PROCESSED}/{}/{:04}", self.day, self.part)
    }

    /// Whether the day ended longer than `retention` before `now`.
    pub(crate) fn ended_before(&self, now: Timestamp, retention: SignedDuration) -> bool {
        let end = self.day.tomorrow().and_then(|next| next.to_zoned(TimeZone::UTC));
        let oldest = now.checked_sub(retention);
        matches!((end, oldest), (Ok(end), Ok(oldest)) if end.timestamp() < oldest)
    }

    /// The segment that a tree holds; `None` for trees of another kind.
    pub(crate) fn of_tree(tree: &[u8]) -> Option<Self> {
        let mut segments = std::str::from_utf8(tree).ok()?.split('/');
        if segments.next()? != PROCESSED {
            return None;
        }
        let day = segments.next()?.parse().ok()?;
        let part = segments.next()?.parse().ok()?;
        segments.next().is_none().then_some(Self { day, part })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_found_again_by_its_tree() {
        let name = SegmentName { day: jiff::civil::date(2026, 11, 22), part: 3 };
        assert_eq!(name.tree(), "processed/2026-11-22/0003");
        assert_eq!(SegmentName::of_tree(name.tree().as_bytes()), Some(name));
        assert_eq!(SegmentName::of_tree(b"processed/2026-11-22/0003/x"), None);
        assert_eq!(SegmentName::of_tree(b"inbox"), None);
        assert_eq!(SegmentName::of_tree(b"\xff"), None);
    }

    #[test]
    fn names_of_the_state_are_reserved() {
        for name in ["", "meta", "processed/x", "inbox", "rates", "__sled__default"] {
            assert!(is_reserved(name), "{name}");
        }
        assert!(!is_reserved("queue/live"));
        assert!(!is_reserved("inboxes"));
    }
}
