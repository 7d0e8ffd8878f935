//! How far the search for open uploads has come.
//!
//! A listing of a bucket may be long, and a sweep is one of many: each reads some pages and goes on where the one
//! before stopped, from tenant to tenant. Without knowing the tenants it reads the whole bucket, with what others keep
//! there.

use std::sync::{Mutex, MutexGuard, PoisonError};

use model::TenantId;

/// The place after which a listing goes on: a key, and an upload of it.
pub(super) type Marker = (Option<String>, Option<String>);

/// The way through the bucket.
#[derive(Debug, Default)]
pub(super) struct Walk(Mutex<WalkPosition>);

#[derive(Debug, Default)]
struct WalkPosition {
    /// What keys begin with, one tenant after the other.
    prefixes: Vec<String>,
    /// Where it is.
    prefix: String,
    after: Marker,
}

impl Walk {
    /// These tenants there are. Where it is, it stays.
    pub(super) fn learn(&self, tenants: &[TenantId]) {
        let mut prefixes: Vec<_> = tenants.iter().map(|tenant| format!("{tenant}/")).collect();
        prefixes.sort_unstable();
        self.position().prefixes = prefixes;
    }

    /// The next page: under what prefix, and after what.
    pub(super) fn next(&self) -> (String, Marker) {
        let mut position = self.position();
        if position.prefix.is_empty() && !position.prefixes.is_empty() {
            position.step();
        }
        (position.prefix.clone(), position.after.clone())
    }

    /// Notes that the page was read, and what follows it. False at the end of a round.
    pub(super) fn read(&self, next: Option<Marker>) -> bool {
        let mut position = self.position();
        match next {
            Some(after) => {
                position.after = after;
                true
            }
            None => position.step(),
        }
    }

    fn position(&self) -> MutexGuard<'_, WalkPosition> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WalkPosition {
    /// On to the next tenant; false where the next one is the first.
    fn step(&mut self) -> bool {
        self.after = Marker::default();
        let next = self.prefixes.iter().find(|prefix| **prefix > self.prefix);
        let goes_on = next.is_some();
        self.prefix = next.or(self.prefixes.first()).cloned().unwrap_or_default();
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(key: &str) -> Option<Marker> {
        Some((Some(key.to_owned()), None))
    }

    #[test]
    fn it_goes_from_page_to_page_and_from_tenant_to_tenant() {
        let walk = Walk::default();
        assert_eq!(walk.next(), (String::new(), Marker::default()));
        assert!(walk.read(marker("a")));
        assert_eq!(walk.next().1.0.as_deref(), Some("a"));
        assert!(!walk.read(None), "the end of the bucket");
        walk.learn(&["b", "a"].map(|tenant| tenant.parse().unwrap()));
        assert_eq!(walk.next(), ("a/".to_owned(), Marker::default()));
        assert!(walk.read(marker("a/1")));
        // A tenant more or less does not begin it anew.
        walk.learn(&["b", "c"].map(|tenant| tenant.parse().unwrap()));
        assert_eq!(walk.next(), ("a/".to_owned(), marker("a/1").unwrap()));
        assert!(walk.read(None));
        assert_eq!(walk.next().0, "b/");
        assert!(walk.read(None));
        assert_eq!(walk.next().0, "c/");
        assert!(!walk.read(None));
        assert_eq!(walk.next().0, "b/");
    }
}
