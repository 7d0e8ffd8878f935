//! What all servers have in common: they start, are killed, frozen, and start again.

use std::panic;
use std::sync::Arc;

use crate::daemon::Daemon;
use crate::home::Home;

/// How often a start is tried, each time on other ports: one that was free may be taken before the server is there.
const ATTEMPTS: usize = 3;

/// A server that runs.
#[derive(Clone)]
pub(crate) struct Server(Arc<Parts>);

struct Parts {
    /// In the order of their start. The last is the server itself; what carries it stays when that is killed.
    daemons: Vec<Daemon>,
    /// Last, so that it removes what the daemons do not need any more.
    _home: Home,
}

impl Server {
    pub(crate) fn new(daemons: Vec<Daemon>, home: Home) -> Self {
        assert!(!daemons.is_empty(), "a server is at least one daemon");
        Self(Arc::new(Parts { daemons, _home: home }))
    }

    fn itself(&self) -> &Daemon {
        self.0.daemons.last().expect("there is at least one")
    }

    pub(crate) async fn kill(&self) {
        let server = self.clone();
        blocking(move || server.itself().kill()).await;
    }

    pub(crate) async fn start_again(&self) {
        let server = self.clone();
        let started = blocking(move || server.itself().start_again()).await;
        started.unwrap_or_else(|error| panic!("start again: {error}"));
    }

    pub(crate) fn freeze(&self) {
        self.itself().freeze();
    }

    pub(crate) fn thaw(&self) {
        self.itself().thaw();
    }

    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.0.daemons.iter().map(Daemon::cpu_seconds).sum()
    }
}

/// Gives a type with a field `server` what every server can do in the same way.
macro_rules! lifecycle {
    ($server:ident) => {
        impl $server {
            /// Starts it on the same ports and files, and returns once it answers. One that runs is killed before.
            pub async fn start_again(&self) {
                self.server.start_again().await;
            }

            /// SIGSTOP: it accepts connections and answers nothing. Returns when all of it stands still.
            pub fn freeze(&self) {
                self.server.freeze();
            }

            /// SIGCONT.
            pub fn thaw(&self) {
                self.server.thaw();
            }

            /// User and system seconds of its processes since it was first started.
            pub fn cpu_seconds(&self) -> f64 {
                self.server.cpu_seconds()
            }
        }
    };
}
pub(crate) use lifecycle;

/// Tries to start a server, some times.
pub(crate) async fn start<T: Send + 'static>(
    name: &'static str,
    start: impl Fn() -> Result<T, String> + Send + 'static,
) -> T {
    blocking(move || {
        for attempt in 1..ATTEMPTS {
            match start() {
                Ok(server) => return server,
                Err(error) => eprintln!("{name} did not start, attempt {attempt} of {ATTEMPTS}: {error}"),
            }
        }
        start().unwrap_or_else(|error| panic!("{name} did not start, {ATTEMPTS} times; at last: {error}"))
    })
    .await
}

/// Runs what blocks on a thread of its own; a panic in it goes on here.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => panic::resume_unwind(error.into_panic()),
    }
}
