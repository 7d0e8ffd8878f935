//! Serves HTTP with bounds: connections, header time, idle time.

use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// Connections at a time; one more waits in the listener's backlog. Each costs some 30 KiB.
const MAX_CONNECTIONS: usize = 512;

/// A sender gets this long for its request line and headers, and may idle this long between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves `router` until `stopping` is set; then lets requests under way finish.
pub async fn serve(listener: TcpListener, router: Router, stopping: CancellationToken) {
    let room = std::sync::Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let accepted = stopping
            .run_until_cancelled(async {
                let permit = room.clone().acquire_owned().await;
                (listener.accept().await, permit)
            })
            .await;
        let stream = match accepted {
            None => break,
            Some((Ok((stream, _)), permit)) => (stream, permit),
            Some((Err(error), _)) => {
                // Out of file descriptors: wait for some to be returned.
                warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        let stopping = stopping.clone();
        // Tracked, and ended by the timeouts or by `stopping`.
        connections.spawn(async move {
            let (stream, _permit) = stream;
            let mut connection = std::pin::pin!(
                hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service)
            );
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stopping.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                debug!(%error, "connection ended early");
            }
        });
    }
    connections.close();
    connections.wait().await;
}
