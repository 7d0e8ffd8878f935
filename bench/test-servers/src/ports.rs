//! Free ports.

use std::net::{Ipv4Addr, TcpListener};

use rand::Rng;

/// The lowest port that is tried.
const LOWEST: u16 = 10_000;

/// As many ports as a server needs, free at this moment.
///
/// They lie below those that the kernel gives to outgoing connections. From there, a client that tries again and
/// again to reach a killed server would one day be given the server's own port to connect from, connect to itself,
/// and keep the server from coming back.
pub(crate) fn free<const N: usize>() -> [u16; N] {
    let end = first_ephemeral().max(LOWEST + 1_000);
    let mut held = Vec::with_capacity(N);
    // Bounded: that a thousand in a row are taken does not happen by chance.
    for _ in 0..1_000 {
        let port = rand::rng().random_range(LOWEST..end);
        held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
        if held.len() == N {
            return std::array::from_fn(|i| held[i].local_addr().expect("it is bound").port());
        }
    }
    panic!("no {N} free ports between {LOWEST} and {end} on 127.0.0.1");
}

fn first_ephemeral() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768)
}
