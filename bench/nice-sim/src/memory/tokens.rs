//! The tokens that clients were given.

use std::{collections::HashMap, sync::Mutex};

use super::lock;
use crate::clock::Millis;

/// Tokens kept; the oldest go first, so that a client that never caches cannot fill the memory.
const KEPT: usize = 10_000;

/// The tokens in force, with the end of each.
#[derive(Debug, Default)]
pub(crate) struct Tokens(Mutex<Live>);

#[derive(Debug, Default)]
struct Live {
    issued: u64,
    access: HashMap<String, Millis>,
    refresh: HashMap<String, Millis>,
}

impl Tokens {
    /// Whether a token is in force.
    pub(crate) fn valid(&self, token: &str, now: Millis) -> bool {
        lock(&self.0).access.get(token).is_some_and(|ends| now < *ends)
    }

    /// Takes a token out of force.
    pub(crate) fn revoke(&self, token: &str) {
        lock(&self.0).access.remove(token);
    }

    /// Takes all access tokens out of force.
    pub(crate) fn revoke_all(&self) {
        lock(&self.0).access.clear();
    }

    /// Takes a refresh token, which is good for one use.
    pub(crate) fn take_refresh(&self, token: &str, now: Millis) -> bool {
        lock(&self.0).refresh.remove(token).is_some_and(|ends| now < ends)
    }

    /// The number of the next token. Those that have ended are forgotten.
    pub(crate) fn next_serial(&self, now: Millis) -> u64 {
        let mut live = lock(&self.0);
        live.access.retain(|_, ends| *ends > now);
        live.refresh.retain(|_, ends| *ends > now);
        if live.access.len() >= KEPT || live.refresh.len() >= KEPT {
            live.access.clear();
            live.refresh.clear();
        }
        live.issued += 1;
        live.issued
    }

    /// Puts an access token and its refresh token in force, each until its end.
    pub(crate) fn insert(&self, [access, refresh]: [&str; 2], [access_ends, refresh_ends]: [Millis; 2]) {
        let mut live = lock(&self.0);
        live.access.insert(access.to_owned(), access_ends);
        live.refresh.insert(refresh.to_owned(), refresh_ends);
    }
}
