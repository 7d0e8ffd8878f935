//! Serves HTTP with bounds: connections, header time, idle time, and the time for which a client reads nothing. Each
//! request knows the address of its client.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

/// Connections at a time; one more waits in the listener's backlog. Each costs some 30 KiB.
const MAX_CONNECTIONS: usize = 512;

/// A sender gets this long for its request line and headers, and may idle this long between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that reads nothing of its answer for this time is cut off; its place is free for another.
const READER_TIMEOUT: Duration = Duration::from_secs(30);

/// When the service ends, a client gets this long for the rest of its request and answer.
const LAST_ANSWER: Duration = Duration::from_secs(10);

/// Headers that a request may have: each proxy on its way adds some. Their length is bounded by the transport.
const MAX_HEADERS: usize = 1_000;

/// Serves `router` until `stopping` is set; then lets requests under way finish.
pub async fn serve(listener: TcpListener, router: Router, stopping: CancellationToken) {
    serve_readers(listener, router, stopping, READER_TIMEOUT).await;
}

async fn serve_readers(listener: TcpListener, router: Router, stopping: CancellationToken, reader_timeout: Duration) {
    let room = std::sync::Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let accepted = stopping
            .run_until_cancelled(async {
                let permit = room.clone().acquire_owned().await;
                (listener.accept().await, permit)
            })
            .await;
        let (stream, peer, permit) = match accepted {
            None => break,
            Some((Ok((stream, peer)), permit)) => (stream, peer, permit),
            Some((Err(error), _)) => {
                // Out of file descriptors: wait for some to be returned.
                warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let answering = TowerToHyperService::new(router.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            answering.call(request)
        });
        let stopping = stopping.clone();
        // Tracked, and ended by the timeouts or by `stopping`.
        connections.spawn(async move {
            let _permit = permit;
            let mut connection = std::pin::pin!(
                hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .max_headers(MAX_HEADERS)
                    .serve_connection(TokioIo::new(TimedReader::new(stream, reader_timeout)), service)
            );
            let ended = tokio::select! {
                biased;
                ended = connection.as_mut() => ended,
                () = stopping.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    match tokio::time::timeout(LAST_ANSWER, connection).await {
                        Ok(ended) => ended,
                        Err(_) => return debug!("connection cut at the end of the service"),
                    }
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

/// A connection whose client has to go on reading what is written to it.
struct TimedReader<S> {
    stream: S,
    patience: Duration,
    /// Runs while the stream takes nothing more.
    stands_still: Pin<Box<Sleep>>,
    is_counting: bool,
}

impl<S> TimedReader<S> {
    fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, stands_still: Box::pin(tokio::time::sleep(patience)), is_counting: false }
    }

    /// What the stream made of a write: an error when it has stood still for too long.
    fn judge<T>(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if wrote.is_ready() {
            self.is_counting = false;
            return wrote;
        }
        if !self.is_counting {
            self.is_counting = true;
            self.stands_still.as_mut().reset(Instant::now() + self.patience);
        }
        ready!(self.stands_still.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedReader<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedReader<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.judge(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use runtime::task;

    /// More than the buffers of a connection hold.
    const PAGE: usize = 32 * 1024 * 1024;

    /// Clients that ask and then read nothing; they take every place there is.
    async fn ask(address: std::net::SocketAddr, path: &str) -> TcpStream {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
        client
    }

    #[tokio::test]
    async fn clients_that_read_nothing_lose_their_places() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let page = bytes::Bytes::from(vec![b'x'; PAGE]);
        let router = Router::new()
            .route("/page", get(move || std::future::ready(page.clone())))
            .route("/livez", get(|| async { "alive" }));
        let stopping = CancellationToken::new();
        let patience = Duration::from_millis(200);
        let served = task::spawn("serve", serve_readers(listener, router, stopping.clone(), patience));
        let mut mute = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            mute.push(ask(address, "/page").await);
        }
        let mut client = ask(address, "/livez").await;
        let mut answer = [0; 12];
        let read = tokio::time::timeout(Duration::from_secs(60), client.read_exact(&mut answer)).await;
        read.expect("a place becomes free").unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        stopping.cancel();
        tokio::time::timeout(Duration::from_secs(60), served).await.expect("the server ends").unwrap();
        drop(mute);
    }

    #[tokio::test]
    async fn a_slow_reader_is_no_mute_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let page = bytes::Bytes::from(vec![b'x'; PAGE]);
        let router = Router::new().route("/page", get(move || std::future::ready(page.clone())));
        let patience = Duration::from_secs(2);
        let _served = task::spawn("serve", serve_readers(listener, router, CancellationToken::new(), patience));
        let mut client = ask(address, "/page").await;
        let (mut read, mut piece) = (0, vec![0; PAGE / 8]);
        while read < PAGE {
            tokio::time::sleep(Duration::from_millis(300)).await;
            read += match client.read(&mut piece).await.unwrap() {
                0 => panic!("cut after {read} bytes"),
                length => length,
            };
        }
    }

    #[tokio::test]
    async fn many_headers_are_no_bad_request() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/livez", get(|| async { "alive" }));
        let _served = task::spawn("serve", serve(listener, router, CancellationToken::new()));
        let mut client = TcpStream::connect(address).await.unwrap();
        let headers: String = (0..900).map(|n| format!("x-proxy-{n}: via\r\n")).collect();
        client.write_all(format!("GET /livez HTTP/1.1\r\nhost: x\r\n{headers}\r\n").as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
}
