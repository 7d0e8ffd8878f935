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
    pub(super) fn may_try(&mut self, peer: Option<IpAddr>, now: Instant) -> bool {
        self.wrong.retain(|_, (since, _)| now.duration_since(*since) < WINDOW);
        match self.wrong.get(&of(peer)) {
            Some((_, count)) => *count < MOST_WRONG,
            None => self.wrong.len() < MOST_ADDRESSES,
        }
    }

    /// One was wrong.
    pub(super) fn count_wrong(&mut self, peer: Option<IpAddr>, now: Instant) {
        self.wrong.entry(of(peer)).or_insert_with(|| (now, 0)).1 += 1;
    }
}

fn of(peer: Option<IpAddr>) -> IpAddr {
    peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_many_wrong_tokens_an_address_waits_and_others_do_not() {
        let (mut attempts, now) = (LoginAttempts::default(), Instant::now());
        let peer = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        for _ in 0..MOST_WRONG {
            assert!(attempts.may_try(peer, now));
            attempts.count_wrong(peer, now);
        }
        assert!(!attempts.may_try(peer, now) && attempts.may_try(None, now));
        assert!(attempts.may_try(peer, now + WINDOW));
    }

    #[test]
    fn no_more_addresses_are_remembered_than_there_is_room_for() {
        let (mut attempts, now) = (LoginAttempts::default(), Instant::now());
        for number in 0..MOST_ADDRESSES {
            attempts.count_wrong(Some(IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap()))), now);
        }
        let other = Some(IpAddr::V4(Ipv4Addr::BROADCAST));
        assert!(!attempts.may_try(other, now) && attempts.may_try(other, now + WINDOW));
    }
}
