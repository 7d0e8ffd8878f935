//! One contact, and the hierarchy of a call.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stages::clients::nice::wire::contact::{hierarchy, single};

fuzz_target!(|body: &[u8]| {
    if let Ok(Ok(contact)) = single(body) {
        assert!(contact.contact_id.get() > 0);
        let again: serde_json::Value = serde_json::from_str(&contact.raw.to_string()).expect("JSON");
        assert_eq!(again, contact.raw, "what is stored reads back alike");
    }
    if let Ok(legs) = hierarchy(body) {
        assert!(legs.len() <= 1_001);
        assert!(legs.iter().all(|leg| leg.contact_id.get() > 0));
    }
});
