//! One caller fetches what many wait for.

use tokio::sync::Mutex;

/// What a caller finds before it fetches.
#[derive(Debug)]
pub enum Lookup<T> {
    /// Good as it is.
    Use(T),
    /// Good, and growing old: one caller renews it while the others go on with it.
    Renew(T),
    /// There is none: one caller fetches it while the others wait.
    Fetch,
}

/// Lets one caller at a time fetch. One that gives up in the middle hands the turn to the next.
#[derive(Debug, Default)]
pub struct SingleFlight {
    turn: Mutex<()>,
}

impl SingleFlight {
    /// What `lookup` finds, or what `fetch` brings where that is due; `fetch` is told whether there is an old one.
    pub async fn get<T, Fetching: Future<Output = T>>(
        &self,
        lookup: impl Fn() -> Lookup<T>,
        fetch: impl FnOnce(bool) -> Fetching,
    ) -> T {
        let (_turn, is_renewal) = match lookup() {
            Lookup::Use(found) => return found,
            Lookup::Renew(old) => match self.turn.try_lock() {
                Ok(turn) => (turn, true),
                Err(_) => return old,
            },
            Lookup::Fetch => (self.turn.lock().await, false),
        };
        // Another may have fetched it, or failed to, while this one waited for its turn.
        match lookup() {
            Lookup::Use(found) => found,
            // Boxed: it is rare, and whoever awaits this would hold the room for it.
            Lookup::Renew(_) | Lookup::Fetch => Box::pin(fetch(is_renewal)).await,
        }
    }
}
