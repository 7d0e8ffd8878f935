//! Tokens, their claims, and discovery.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nice::wire::identity::{Claims, claims, configuration, token, token_endpoint};
use secrecy::ExposeSecret;

fn check(claims: &Claims) {
    for word in [&claims.tenant_id, &claims.area, &claims.cluster].into_iter().flatten() {
        assert!((1..=63).contains(&word.len()));
        assert!(word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
    }
}

fuzz_target!(|body: &[u8]| {
    if let Ok(issued) = token(body) {
        assert!(issued.access_token.expose_secret().bytes().all(|byte| (0x21..0x7f).contains(&byte)));
        assert_ne!(issued.expires_in_secs, Some(0));
        check(&issued.claims);
    }
    check(&claims(&String::from_utf8_lossy(body)));
    if let Ok(found) = configuration(body) {
        check(&Claims { area: found.area.clone(), ..Claims::default() });
        let hosts = found.domain.iter().all(|domain| !domain.contains(['/', '@', ':', '?', '#', '\\', ' ']));
        assert!(hosts);
    }
    drop(token_endpoint(body));
});
