//! The connector that `rusoto_core` asks for by name, and that opens no connection.
//!
//! `rusoto_core` 0.48 does not compile without one of two TLS stacks, of which one is unmaintained and the other
//! links OpenSSL. Here every request leaves through a dispatcher over reqwest instead, so the stack behind this name
//! would never be used. `[patch.crates-io]` of the workspace puts this crate in its place.

use std::future::{Ready, ready};
use std::io;
use std::marker::PhantomData;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper::client::HttpConnector;
use hyper::service::Service;
use tokio::net::TcpStream;

/// Refuses every connection.
#[derive(Debug, Clone, Copy)]
pub struct HttpsConnector<T>(PhantomData<fn() -> T>);

impl HttpsConnector<HttpConnector> {
    /// Makes one.
    #[expect(clippy::new_without_default, reason = "rusoto_core calls `new` and nothing else")]
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T> Service<Uri> for HttpsConnector<T> {
    type Response = TcpStream;
    type Error = io::Error;
    type Future = Ready<Result<TcpStream, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        ready(Err(io::Error::new(io::ErrorKind::Unsupported, "S3 is reached through our own dispatcher only")))
    }
}
