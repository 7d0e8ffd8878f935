//! The message on the queue.
#![no_main]

use model::ContactEvent;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if let Ok(event) = ContactEvent::decode(body) {
        let again = ContactEvent::decode(&event.encode()).expect("what was written can be read");
        assert_eq!(again, event);
    }
});
