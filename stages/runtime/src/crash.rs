//! Named boundaries at which a test kills the process.
//!
//! A boundary lies between two effects: an item that dies there must be neither lost nor doubled. With the
//! cargo feature `crash-points`, `NICE_KNOVVU_CRASH_AT=name` (or `name:3`, the third passage) sends the process
//! SIGKILL there. Without the feature a boundary costs nothing.

/// Every boundary, in the order of the flow. A test walks this list.
pub const POINTS: &[&str] = &[
    "event_read",
    "claim_taken",
    "message_published",
    "claim_committed",
    "watermark_moved",
    "replay_advanced",
    "webhook_stored",
    "message_dequeued",
    "metadata_fetched",
    "recording_opened",
    "row_saved",
    "upload_begun",
    "upload_halfway",
    "upload_stored",
    "description_written",
    "conversation_completed",
    "message_acked",
    "message_deferred",
];

/// The boundaries of an erasure.
pub const ERASURE_POINTS: &[&str] = &["erasure_noted", "erasure_objects_gone"];

/// The boundaries of a signed day: its file is whole beside its place; then it is there.
pub const PROOF_POINTS: &[&str] = &["signed_day_written", "signed_day_moved"];

/// Marks a boundary; see the module.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub fn point(_name: &'static str) {}

/// Marks a boundary; see the module.
#[cfg(feature = "crash-points")]
pub fn point(name: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static WISH: OnceLock<Option<(String, AtomicU32)>> = OnceLock::new();
    let wish = WISH.get_or_init(|| {
        #[expect(clippy::disallowed_methods, reason = "a test's switch, not a setting")]
        let wish = std::env::var("NICE_KNOVVU_CRASH_AT").ok()?;
        let (name, passage) = wish.split_once(':').unwrap_or((&wish, "1"));
        Some((name.to_owned(), AtomicU32::new(passage.parse().unwrap_or(1))))
    });
    let is_known = [POINTS, ERASURE_POINTS, PROOF_POINTS].iter().any(|points| points.contains(&name));
    debug_assert!(is_known, "{name} is not in POINTS");
    if let Some((at, left)) = wish
        && at == name
        && left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        let pid = rustix::process::getpid();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("a process may kill itself");
        std::thread::park();
    }
}
