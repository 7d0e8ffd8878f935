//! Headers that are numbers: how long to wait, which bytes these are.
#![no_main]

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use model::retry_after::{MOST, retry_after};
use nice::{
    ContentRange,
    wire::lenient::{seconds, time},
};

fuzz_target!(|header: &[u8]| {
    for now in [Timestamp::UNIX_EPOCH, Timestamp::MIN, Timestamp::MAX] {
        assert!(retry_after(header, now).is_none_or(|wait| wait <= MOST));
    }
    if let Some(range) = ContentRange::parse(header) {
        assert!(range.first < range.end && range.total.is_none_or(|total| range.end <= total));
    }
    if let Ok(text) = std::str::from_utf8(header) {
        if let Some(moment) = time(text) {
            assert_eq!(time(&moment.to_string()), Some(moment));
        }
        assert!(seconds(text).is_none_or(|length| length.as_secs() <= 315_360_000));
    }
});
