//! One contact, and the hierarchy of a call.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nice::wire::contact::{hierarchy, single};
use serde_json::Value;

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(elements) => elements.iter().any(holds_nul),
        Value::Object(members) => members.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fuzz_target!(|body: &[u8]| {
    if let Ok(Ok(contact)) = single(body) {
        assert!(contact.contact_id.get() > 0);
        assert!(!holds_nul(&contact.raw), "NUL is kept");
        // A byte of the body is at most six of the output: an escaped control character.
        assert!(contact.raw.to_string().len() <= 6 * 64 * 1024 + 1024, "the raw object is not capped");
        let again: Value = serde_json::from_str(&contact.raw.to_string()).expect("JSON");
        assert_eq!(again, contact.raw, "what is stored reads back alike");
    }
    if let Ok(legs) = hierarchy(body) {
        assert!(legs.len() <= 1_001);
        assert!(legs.iter().all(|leg| leg.contact_id.get() > 0));
    }
});
