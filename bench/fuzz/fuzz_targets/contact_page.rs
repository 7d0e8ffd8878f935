//! A page of completed contacts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use stages::clients::nice::wire::contact::completed;

fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(elements) => elements.iter().any(holds_nul),
        Value::Object(members) => members.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fuzz_target!(|body: &[u8]| {
    let Ok(page) = completed(body) else { return };
    assert!(page.rows.len() <= body.len());
    for contact in page.rows.iter().flatten() {
        assert!(contact.contact_id.get() > 0 && contact.master_contact_id.get() > 0);
        assert!(!holds_nul(&contact.raw), "NUL is kept");
        // A byte of the body is at most six of the output: an escaped control character.
        assert!(contact.raw.to_string().len() <= 6 * 64 * 1024 + 1024, "the raw object is not capped");
        let texts = [&contact.from_address, &contact.to_address, &contact.first_name, &contact.last_name];
        assert!(texts.into_iter().flatten().all(|text| !text.contains('\0') && text.len() <= 4096));
        if let (Some(start), Some(end)) = (contact.started_at, contact.ended_at()) {
            assert!(start <= end);
        }
        assert!(!format!("{contact:?}").contains("fromAddr"));
    }
});
