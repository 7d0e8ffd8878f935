//! Real servers for tests: PostgreSQL, PgBouncer, RabbitMQ, Fluvio, Prometheus and an S3 store, private to the test
//! process.
//!
//! Each listens on 127.0.0.1 on ports of its own, keeps its files in a directory of its own, and ends with the
//! test process even where that is killed: a shell at the other end of a pipe sees the pipe end, kills what is
//! left of the server and removes the directory. A test may kill a server, start it again on the same files,
//! freeze it, or put a [`Proxy`] before it that cuts and stalls.
//!
//! Whatever goes wrong panics with what was tried and the end of the server's log: this is test support. What a
//! server needs on the machine is installed by `./test`.
//!
//! # Nothing here lives on a runtime
//! A `#[tokio::test]` has a runtime that ends with it, while the shared servers stay. So the work is done by
//! blocking code on threads, which also keeps a paused clock from running ahead of a server that starts. Only the
//! [`Proxy`] belongs to the test that makes it.

mod daemon;
mod fluvio;
mod home;
mod pgbouncer;
mod ports;
mod postgres;
mod probe;
mod process;
mod programs;
mod prometheus;
mod proxy;
mod rabbitmq;
mod s3;
mod server;
mod tls;

use tokio::sync::OnceCell;

pub use fluvio::Fluvio;
pub use pgbouncer::PgBouncer;
pub use postgres::Postgres;
pub use prometheus::Prometheus;
pub use proxy::Proxy;
pub use rabbitmq::RabbitMq;
pub use s3::S3;

/// The PostgreSQL that all tests of this process share; each takes a [`database`](Postgres::database) of its own.
pub async fn postgres() -> &'static Postgres {
    static SHARED: OnceCell<Postgres> = OnceCell::const_new();
    SHARED.get_or_init(Postgres::start).await
}

/// The RabbitMQ that all tests of this process share; each takes names of its own.
pub async fn rabbitmq() -> &'static RabbitMq {
    static SHARED: OnceCell<RabbitMq> = OnceCell::const_new();
    SHARED.get_or_init(RabbitMq::start).await
}

/// The Fluvio that all tests of this process share; each takes topics of its own. None where this machine has none,
/// which is said on the error output.
pub async fn fluvio() -> Option<&'static Fluvio> {
    static SHARED: OnceCell<Option<Fluvio>> = OnceCell::const_new();
    SHARED.get_or_init(Fluvio::find).await.as_ref()
}

/// The S3 store that all tests of this process share; each takes a [`bucket`](S3::bucket) of its own.
pub async fn s3() -> &'static S3 {
    static SHARED: OnceCell<S3> = OnceCell::const_new();
    SHARED.get_or_init(S3::start).await
}
