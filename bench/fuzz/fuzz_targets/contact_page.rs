//! A page of completed contacts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nice::wire::contact::completed;

fuzz_target!(|body: &[u8]| {
    let Ok(page) = completed(body) else { return };
    assert!(page.rows.len() <= body.len());
    for contact in page.rows.iter().flatten() {
        assert!(contact.contact_id.get() > 0 && contact.master_contact_id.get() > 0);
        assert!(contact.raw.is_null(), "a row of a page is not kept whole");
        let texts = [&contact.from_address, &contact.to_address, &contact.first_name, &contact.last_name];
        assert!(texts.into_iter().flatten().all(|text| !text.contains('\0') && text.len() <= 4096));
        if let (Some(start), Some(end)) = (contact.started_at, contact.ended_at()) {
            assert!(start <= end);
        }
        assert!(!format!("{contact:?}").contains("fromAddr"));
    }
});
