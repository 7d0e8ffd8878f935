//! An S3 store: Ceph's RADOS Gateway from the distribution's packages, or garage where `TEST_S3=garage` asks for it.
//!
//! Neither is MinIO. The gateway has what our product relies on, atomic conditional writes included, and is
//! installed in half a minute; garage checks every checksum that S3 knows, and takes minutes to build.

mod ceph;
mod garage;
mod request;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::server::{self, Server, blocking, lifecycle};

/// The region that requests are signed for.
pub(crate) const REGION: &str = "us-east-1";

/// An S3 store with one user, over plain HTTP, with buckets in the path.
pub struct S3 {
    server: Server,
    port: u16,
    keys: Keys,
    /// How many buckets were made.
    buckets: AtomicU32,
}

/// The user's keys.
#[derive(Clone)]
struct Keys {
    access: String,
    secret: String,
}

lifecycle!(S3);

impl S3 {
    /// One of the test's own.
    pub async fn start() -> Self {
        // A choice of the person who runs the tests.
        match std::env::var("TEST_S3").as_deref() {
            Ok("garage") => server::start("garage", garage::start).await,
            Ok("ceph") | Err(_) => server::start("RADOS Gateway", ceph::start).await,
            Ok(other) => panic!("TEST_S3={other}: it is `ceph` or `garage`"),
        }
    }

    fn new(server: Server, port: u16, keys: Keys) -> Self {
        Self { server, port, keys, buckets: AtomicU32::new(0) }
    }

    /// `kill -9`; the objects stay: of a RADOS Gateway, what stores them lives on.
    pub async fn kill(&self) {
        self.server.kill().await;
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The region that it takes.
    pub fn region(&self) -> &str {
        REGION
    }

    /// The id of the access key.
    pub fn access_key(&self) -> &str {
        &self.keys.access
    }

    /// The secret of the access key.
    pub fn secret_key(&self) -> &str {
        &self.keys.secret
    }

    /// A new, empty bucket.
    pub async fn bucket(&self) -> String {
        let name = format!("test-{}", self.buckets.fetch_add(1, Ordering::Relaxed));
        self.request("PUT", &format!("/{name}"), Vec::new()).await;
        name
    }

    /// The body of the answer to a signed request. The path is `/bucket/key`, of letters, digits and `-._` only, and
    /// may have one `?name` of a subresource. Panics unless the answer is 2xx.
    pub async fn request(&self, method: &'static str, path: &str, body: Vec<u8>) -> Vec<u8> {
        let (address, keys, path) = (self.address(), self.keys.clone(), path.to_owned());
        let answer = blocking(move || request::send(address, &keys, method, &path, &body)).await;
        answer.unwrap_or_else(|error| panic!("{error}"))
    }
}
