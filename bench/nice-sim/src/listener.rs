//! The sockets: connections that can be reset on purpose, and that all end at once when the simulation stops.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A listener whose connections obey the simulation.
#[derive(Debug)]
pub(crate) struct SimListener {
    pub(crate) inner: TcpListener,
    pub(crate) stop: CancellationToken,
}

impl Listener for SimListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, peer) = Listener::accept(&mut self.inner).await;
        let stopped = Box::pin(self.stop.clone().cancelled_owned());
        (Connection { stream, line: Line::default(), stopped, over: false }, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// The handle by which a request's handler can have its connection reset.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line(Arc<AtomicU8>);

/// The connection ends with a reset instead of an orderly close.
const RESET: u8 = 1;

/// The same, and nothing more is written.
const REFUSED: u8 = 2;

impl Line {
    /// The connection ends with a reset instead of an orderly close.
    pub(crate) fn reset(&self) {
        self.0.store(RESET, Ordering::Relaxed);
    }

    /// The connection ends with a reset before anything of the answer is written.
    pub(crate) fn refuse(&self) {
        self.0.store(REFUSED, Ordering::Relaxed);
    }

    fn is_reset(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    fn is_refused(&self) -> bool {
        self.0.load(Ordering::Relaxed) == REFUSED
    }
}

/// Marks an answer in memory that no client gets: its connection was refused. It stands among the extensions of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

impl Connected<IncomingStream<'_, SimListener>> for Line {
    fn connect_info(stream: IncomingStream<'_, SimListener>) -> Self {
        stream.io().line.clone()
    }
}

/// One connection.
pub(crate) struct Connection {
    stream: TcpStream,
    line: Line,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    over: bool,
}

impl Connection {
    /// An error once the simulation has stopped; wakes the task when it does.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        self.over = self.over || self.stopped.as_mut().poll(context).is_ready();
        if self.over { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        if self.line.is_refused() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.line.is_reset() {
            return Poll::Ready(Ok(())); // a reset is no orderly end
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.line.is_reset() {
            // With no time to linger the kernel drops what is unsent and answers with a reset.
            drop(self.stream.set_zero_linger());
        }
    }
}
