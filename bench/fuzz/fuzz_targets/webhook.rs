//! The body that a Studio script posts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::{ContactEvent, TenantId};
use stages::source::webhook::parse;

fuzz_target!(|body: &[u8]| {
    let tenant: TenantId = "acme".parse().expect("a tenant id");
    match parse(body, &tenant) {
        Ok(event) => {
            let again = ContactEvent::decode(&event.encode()).expect("the inbox can be read");
            assert_eq!(again, event);
        }
        // A refusal names a field of ours; it never repeats what was sent.
        Err(why) => assert!(why.is_ascii() && why.len() < 120),
    }
});
