//! Which addresses are our own machine, which are private, and which URL may carry a secret.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use reqwest::Url;

/// The URL of a path below a root, whether the root ends in a slash or not.
pub(super) fn below(root: &Url, segments: &[&str]) -> Url {
    let mut url = root.clone();
    url.set_query(None);
    url.set_fragment(None);
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

/// Whether an address belongs to the public internet: not private, loopback, link-local, metadata, shared (CGNAT),
/// multicast, reserved or unspecified, in IPv4, in IPv6, or in IPv4 hidden inside IPv6.
pub(super) fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

/// Whether an address is no address: what resolvers that filter say in place of "there is none".
pub(super) fn is_no_address(ip: IpAddr) -> bool {
    ip.to_canonical().is_unspecified()
}

/// Whether an address belongs to a private network that a customer may own: never this machine, never the link, never
/// what a cloud serves its metadata on.
pub(super) fn is_private_network(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let private = matches!((a, b), (10, _) | (172, 16..=31) | (192, 168) | (100, 64..=127));
            private && v4 != ALIBABA_METADATA
        }
        IpAddr::V6(v6) => v6.segments()[0] & 0xfe00 == 0xfc00 && !METADATA_V6.contains(&v6),
    }
}

/// Where Alibaba's machines find their metadata, amid the addresses that carriers share.
const ALIBABA_METADATA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);

/// Where the machines of AWS and of Google find their metadata, amid private addresses.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254), Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254)];

/// Azure's platform address: it looks public and serves metadata to every machine there.
const AZURE_WIRE_SERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = match (a, b, c) {
        (0 | 10 | 127, ..) => true,                           // this network, private, loopback
        (100, 64..=127, _) => true,                           // shared by carriers
        (169, 254, _) => true,                                // link-local, and the clouds' metadata
        (172, 16..=31, _) | (192, 168, _) => true,            // private
        (192, 0, 0) | (192, 88, 99) => true,                  // protocol assignments, 6to4 relays
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => true, // documentation
        (198, 18..=19, _) => true,                            // benchmarks
        (224..=255, ..) => true,                              // multicast, reserved, broadcast
        _ => false,
    };
    !special && ip != AZURE_WIRE_SERVER
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let s = ip.segments();
    let embedded = |high: u16, low: u16| {
        let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        [0, 0, 0, 0, 0, 0xffff, high, low] => embedded(high, low), // IPv4-mapped
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low), // NAT64
        [0x2002, ..] => false,                                     // 6to4 hides any IPv4 address
        [0x2001, second, ..] if second < 0x0200 => false,          // Teredo, ORCHID and the like
        [0x2001, 0x0db8, ..] => false,                             // documentation
        [0x3fff, second, ..] if second < 0x1000 => false,          // documentation
        [first, ..] => (0x2000..0x4000).contains(&first),          // global unicast, and nothing else
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_not_public_in_any_disguise() {
        for ip in [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.0.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "3fff::1",
            "100::1",
            "5f00::1",
        ] {
            assert!(!is_public(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn public_addresses_are_public() {
        for ip in [
            "1.1.1.1",
            "52.216.1.1",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:52.216.1.1",
            "64:ff9b::34d8:101",
            "2001:4860:4860::8888",
        ] {
            assert!(is_public(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn a_private_network_is_neither_this_machine_nor_the_link_nor_metadata() {
        for ip in [
            "10.0.0.5",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "::ffff:10.0.0.5",
            "fc00::1",
            "fd12:3456::1",
        ] {
            assert!(is_private_network(ip.parse().unwrap()), "{ip}");
        }
        for ip in [
            "0.0.0.0",
            "127.0.0.1",
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.2.1",
            "224.0.0.1",
            "255.255.255.255",
            "52.216.1.1",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "fe80::1",
            "fec0::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "64:ff9b::a00:5",
            "2002:a00:5::",
            "ff02::1",
            "2606:4700::1111",
        ] {
            assert!(!is_private_network(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn the_unspecified_address_is_none() {
        for ip in ["0.0.0.0", "::", "::ffff:0.0.0.0"] {
            assert!(is_no_address(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["0.0.0.1", "::1", "10.0.0.1"] {
            assert!(!is_no_address(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn a_path_stands_below_its_root() {
        for root in ["https://a.example", "https://a.example/", "https://a.example?x=1"] {
            assert_eq!(below(&Url::parse(root).unwrap(), &["b", "c/d"]).as_str(), "https://a.example/b/c%2Fd");
        }
        assert_eq!(below(&Url::parse("https://a.example/p/").unwrap(), &["b"]).as_str(), "https://a.example/p/b");
    }
}
