//! The client of NICE against servers that misbehave in every way that was seen or feared.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails loudly, and its tasks end with it")]

#[path = "client/answers.rs"]
mod answers;
#[path = "client/extraction.rs"]
mod extraction;
#[path = "client/fake.rs"]
mod fake;
#[path = "client/media.rs"]
mod media;
#[path = "client/rig.rs"]
mod rig;
#[path = "client/sessions.rs"]
mod sessions;
#[path = "client/tokens.rs"]
mod tokens;
