//! A joined session, and the events of one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nice::{
    AgentEvent, Feed, SessionId,
    wire::session::{events, joined},
};

fn fits_into_a_path(session: &SessionId) -> bool {
    let text = session.as_str();
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.=+".contains(&byte));
    plain && (1..=512).contains(&text.len()) && !text.starts_with('.')
}

fuzz_target!(|body: &[u8]| {
    if let Ok(session) = joined(body) {
        assert!(fits_into_a_path(&session));
    }
    if let Ok(Feed::Events { next, events }) = events(body) {
        assert!(next.is_none_or(|next| fits_into_a_path(&next)));
        assert!(events.len() <= 10_000);
        for event in events {
            assert!(!matches!(event, AgentEvent::Call(call) if call.contact.get() == 0));
        }
    }
});
