//! Entries of `media_hosts`, and links against them. The first line is an entry, the rest a link.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nice::{MediaHost, check_link};

fuzz_target!(|text: &str| {
    let (entry, link) = text.split_once('\n').unwrap_or(("", text));
    let fixed = ["media.example.com", "*.amazonaws.com", "127.0.0.1:9000", "[::1]:9000", "localhost:9000"];
    let mut hosts = fixed.iter().map(|host| host.parse().expect("a valid entry")).collect::<Vec<MediaHost>>();
    if let Ok(host) = entry.parse::<MediaHost>() {
        assert_eq!(host.to_string().parse::<MediaHost>().as_ref(), Ok(&host), "an entry reads back");
        hosts = vec![host];
    }
    let Ok(url) = check_link(&hosts, link) else { return };
    let host = url.host_str().expect("a link that passes has a host");
    let here = host == "localhost" || host == "[::1]" || host.starts_with("127.");
    assert!(url.username().is_empty() && url.password().is_none() && url.fragment().is_none());
    assert!(url.scheme() == "https" || (url.scheme() == "http" && here), "{url}");
    assert!(
        !here
            || url.port().is_some()
            || hosts.iter().any(|entry| entry.to_string().ends_with(":443") || entry.to_string().ends_with(":80"))
    );
    // Whatever else reads the URL must see the same host.
    let (_, rest) = url.as_str().split_once("://").expect("it has an authority");
    let authority = rest.split(['/', '?', '#']).next().expect("split gives one");
    assert!(authority == host || authority.strip_prefix(host).is_some_and(|port| port.starts_with(':')), "{url}");
    let listed = hosts.iter().map(ToString::to_string).any(|entry| match entry.strip_prefix('*') {
        Some(suffix) => host.ends_with(suffix),
        None => entry == host || entry.strip_prefix(host).is_some_and(|port| port.starts_with(':')),
    });
    assert!(listed, "{url} is on no list");
});
