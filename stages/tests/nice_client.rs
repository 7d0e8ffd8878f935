//! The client of NICE against servers that misbehave in every way that was seen or feared.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test fails loudly, and its tasks end with it")]

#[path = "nice_client/answers.rs"]
mod answers;
#[path = "nice_client/extraction.rs"]
mod extraction;
#[path = "nice_client/fake.rs"]
mod fake;
#[path = "nice_client/media.rs"]
mod media;
#[path = "nice_client/rig.rs"]
mod rig;
#[path = "nice_client/sessions.rs"]
mod sessions;
#[path = "nice_client/tenants.rs"]
mod tenants;
#[path = "nice_client/tokens.rs"]
mod tokens;
