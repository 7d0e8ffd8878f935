//! One machine of the cluster, and the connections to it.
//!
//! The client library keeps one connection for everything, and objects around it that do not recover from all that can
//! happen to it. Here a connection has one user at a time. Whatever goes wrong on it, also a user that was dropped in
//! the middle of an exchange, ends that connection; the next user makes another.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fluvio::dataplane::api::{Request, RequestMessage};
use fluvio_socket::{ClientConfig, FluvioSocket, Versions};
use futures::{FutureExt, StreamExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::{QueueError, QueueMetrics};

/// From the first packet to the end of the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// As many questions as are asked at once. A machine answers those of one connection one after the other, so a wait for
/// replicas would hold up all others; more connections than this bring no more.
const MOST_AT_ONCE: usize = 8;

/// A machine of the cluster.
pub(super) struct Peer {
    config: ClientConfig,
    /// Those that nobody uses now. As many as were used at once.
    idle: Mutex<Vec<PeerConnection>>,
    users: Semaphore,
    /// Whether the last that was heard of it is that it cannot be reached.
    lost: AtomicBool,
    closed: AtomicBool,
    metrics: QueueMetrics,
}

impl Peer {
    pub(super) fn new(config: ClientConfig, metrics: QueueMetrics) -> Self {
        Self {
            config,
            idle: Mutex::default(),
            users: Semaphore::new(MOST_AT_ONCE),
            lost: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            metrics,
        }
    }

    /// Host and port.
    pub(super) fn address(&self) -> &str {
        self.config.addr()
    }

    /// Asks a question. `request` makes it for the version of it that the machine understands.
    pub(super) async fn ask<R: Request>(
        &self,
        within: Duration,
        request: impl FnOnce(i16) -> Result<R, QueueError>,
    ) -> Result<R::Response, QueueError> {
        let waiting = timeout(within, self.users.acquire()).await;
        let _user = waiting.map_err(|_| QueueError(format!("{}: too much is asked of it", self.address())))?;
        let mut connection = match self.idle_connection() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let message = connection.message(1, request)?;
        let answer = match timeout(within, connection.socket.send(&message)).await {
            Ok(Ok(answer)) => answer.response,
            Ok(Err(error)) => return Err(self.lose(&error.to_string())),
            Err(_) => return Err(self.lose(&format!("no answer within {within:?}"))),
        };
        if !self.closed.load(Ordering::Relaxed) {
            self.idle().push(connection);
        }
        Ok(answer)
    }

    /// A connection of one's own.
    pub(super) async fn connect(&self) -> Result<PeerConnection, QueueError> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(QueueError("the connection is closed for good".to_owned()));
        }
        let (socket, config, versions) = match timeout(CONNECT_TIMEOUT, self.config.recreate().connect()).await {
            Ok(Ok(connected)) => connected.split(),
            Ok(Err(error)) => return Err(self.lose(&error.to_string())),
            Err(_) => return Err(self.lose(&format!("no answer within {CONNECT_TIMEOUT:?}"))),
        };
        if self.lost.swap(false, Ordering::Relaxed) {
            self.metrics.reconnects.inc();
            info!("connected to the cluster again: {}", self.address());
        }
        Ok(PeerConnection { socket, versions, client: config.client_id().to_owned() })
    }

    /// Takes note that a connection is lost, and gives the others up that nobody uses: what ended one of them has
    /// mostly ended all.
    pub(super) fn lose(&self, reason: &str) -> QueueError {
        self.idle().clear();
        let error = QueueError(format!("{}: {reason}", self.address()));
        if !self.closed.load(Ordering::Relaxed) && !self.lost.swap(true, Ordering::Relaxed) {
            warn!(%error, "connection to the cluster lost, will be made again");
        }
        error
    }

    /// Ends the connections that nobody uses, and has no more be made.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.idle().clear();
    }

    /// One of those that nobody uses, unless the other side has ended it.
    fn idle_connection(&self) -> Option<PeerConnection> {
        let mut idle = self.idle();
        while let Some(mut connection) = idle.pop() {
            // It asks nothing of us, so all that can come while nobody uses it is its end.
            if connection.socket.get_mut_stream().get_mut_tcp_stream().next().now_or_never().is_none() {
                return Some(connection);
            }
        }
        None
    }

    fn idle(&self) -> MutexGuard<'_, Vec<PeerConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection to a machine of the cluster.
pub(super) struct PeerConnection {
    pub(super) socket: FluvioSocket,
    versions: Versions,
    client: String,
}

impl PeerConnection {
    /// A question as it is sent; the answers to it bear the same `id`.
    pub(super) fn message<R: Request>(
        &self,
        id: i32,
        request: impl FnOnce(i16) -> Result<R, QueueError>,
    ) -> Result<RequestMessage<R>, QueueError> {
        let version = self.versions.lookup_version::<R>();
        let version = version.ok_or_else(|| {
            let platform = self.versions.platform_version();
            QueueError(format!("the cluster's version {platform} does not understand request {}", R::API_KEY))
        })?;
        let mut message = RequestMessage::new_request(request(version)?);
        message.header.set_client_id(self.client.clone()).set_api_version(version).set_correlation_id(id);
        Ok(message)
    }
}
