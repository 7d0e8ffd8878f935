//! The message on the queue.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::ContactEvent;

fuzz_target!(|body: &[u8]| {
    if let Ok(event) = ContactEvent::decode(body) {
        let again = ContactEvent::decode(&event.encode()).expect("what was written can be read");
        assert_eq!(again, event);
    }
});
