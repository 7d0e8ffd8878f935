//! A connection that is more than its requests: what a server keeps for a machine until the connection ends.
//!
//! Each end learns of the end by itself. A machine sends a sign of life now and then; one that is suspended sends none,
//! and after a while the server holds it for gone. The machine learns that some moments after it goes on: until then it
//! believes that it has what another one may have by now. Where nothing is heard the machine holds the server for gone
//! after a while, mostly sooner. A process that dies closes its connections.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime::task;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{Link, lock};

/// How long each end goes without a sign of life before the connection counts as lost.
#[derive(Debug, Clone, Copy)]
pub struct Heartbeat {
    /// Between two signs of life.
    pub interval: Duration,
    /// The machine's patience.
    pub client: Duration,
    /// The server's patience.
    pub server: Duration,
}

/// The server's end.
#[derive(Debug)]
pub struct Session {
    heard: Mutex<Instant>,
    patience: Duration,
    is_closed: AtomicBool,
    is_broken: AtomicBool,
    has_died: AtomicBool,
    lost: CancellationToken,
    /// Wakes those who wait for what the session holds.
    server: Arc<Notify>,
}

impl Session {
    /// Whether it has ended, for the server; from then on nothing is kept for it.
    pub fn is_over(&self) -> bool {
        if lock(&self.heard).elapsed() > self.patience {
            self.close();
        }
        self.is_closed.load(Ordering::SeqCst)
    }

    /// Whether it ended because its process died.
    pub fn has_died(&self) -> bool {
        self.has_died.load(Ordering::SeqCst)
    }

    fn close(&self) {
        if !self.is_closed.swap(true, Ordering::SeqCst) {
            self.server.notify_waiters();
        }
    }
}

/// The machine's end. Dropped, it closes the connection, which the server learns at once if it hears anything.
#[derive(Debug)]
pub struct Connection {
    session: Arc<Session>,
    link: Link,
    _beat: AbortOnDropHandle<()>,
}

impl Connection {
    /// Opens a connection; whether the server has heard of it is for a request to find out.
    pub fn open(link: &Link, heartbeat: Heartbeat, server: Arc<Notify>) -> Self {
        let session = Arc::new(Session {
            heard: Mutex::new(Instant::now()),
            patience: heartbeat.server,
            is_closed: AtomicBool::new(false),
            is_broken: AtomicBool::new(false),
            has_died: AtomicBool::new(false),
            lost: CancellationToken::new(),
            server,
        });
        let beat = task::spawn("heartbeat", beat(link.clone(), session.clone(), heartbeat));
        Self { session, link: link.clone(), _beat: beat }
    }

    /// The server's end.
    pub fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// Ends when the machine has learned that the connection is lost.
    pub fn lost(&self) -> CancellationToken {
        self.session.lost.clone()
    }

    /// Whether the machine believes that it stands.
    pub fn stands(&self) -> bool {
        !self.session.lost.is_cancelled()
    }

    /// Closes it in good order: what the server keeps for it is free at once, if the server hears of it.
    pub fn close(&self) {
        self.session.lost.cancel();
        if !self.link.sky().is_silent {
            self.session.close();
        }
    }

    /// Something that was sent will never arrive: the connection ends with the next sign of life.
    pub fn tear(&self) {
        self.session.is_broken.store(true, Ordering::SeqCst);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.session.has_died.fetch_or(self.link.is_killed(), Ordering::SeqCst);
        self.close();
    }
}

/// Gives signs of life until the connection is lost, and the machine knows it.
async fn beat(link: Link, session: Arc<Session>, heartbeat: Heartbeat) {
    let breaks = link.breaks();
    loop {
        tokio::time::sleep(heartbeat.interval).await;
        let sky = link.sky();
        if sky.is_silent {
            if lock(&session.heard).elapsed() > heartbeat.client {
                break;
            }
        } else if sky.is_away || link.breaks() != breaks || session.is_broken.load(Ordering::SeqCst) {
            session.close();
            break;
        } else if session.is_over() {
            tokio::time::sleep(link.jittered(heartbeat.interval)).await;
            break;
        } else {
            *lock(&session.heard) = Instant::now();
        }
    }
    session.lost.cancel();
}
