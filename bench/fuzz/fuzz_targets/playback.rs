//! Media playback.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nice::{SegmentId, wire::playback::playback};

fn fits(id: &SegmentId) -> bool {
    let text = id.as_str();
    (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fuzz_target!(|body: &[u8]| {
    let Ok(Some(playback)) = playback(body) else { return };
    assert!(!playback.interactions.is_empty());
    for interaction in &playback.interactions {
        assert!(interaction.segments.iter().all(|segment| fits(&segment.id)));
        assert!(interaction.participants.iter().filter_map(|one| one.segment_id.as_ref()).all(fits));
    }
    assert!(!format!("{playback:?}").contains("://"), "a link is shown");
});
