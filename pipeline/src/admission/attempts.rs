//! Wrong tokens are counted, so that nobody tries many.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tokio::time::Instant;

/// Wrong ones of an address within the window; the next is not looked at.
const MOST_WRONG: u32 = 10;

/// How long a wrong one counts.
const WINDOW: Duration = Duration::from_secs(300);

/// Addresses that are remembered. If more try at a time, all of them wait.
const MOST_ADDRESSES: usize = 1024;

/// The wrong tokens of late, by the address that they came from.
#[derive(Default)]
pub(super) struct LoginAttempts {
    wrong: BTreeMap<IpAddr, (Instant, u32)>,
}

impl LoginAttempts {
    /// Whether another token is looked at.
    pub(super) fn may_try(&mut self, peer: Option<IpAddr>) -> bool {
        self.wrong.retain(|_, (since, _)| since.elapsed() < WINDOW);
        match self.wrong.get(&of(peer)) {
            Some((_, count)) => *count < MOST_WRONG,
            None => self.wrong.len() < MOST_ADDRESSES,
        }
    }

    /// One was wrong.
    pub(super) fn count_wrong(&mut self, peer: Option<IpAddr>) {
        self.wrong.entry(of(peer)).or_insert_with(|| (Instant::now(), 0)).1 += 1;
    }
}

fn of(peer: Option<IpAddr>) -> IpAddr {
    peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}
