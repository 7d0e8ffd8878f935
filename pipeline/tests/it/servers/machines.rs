//! The servers that a bed stands on, and the proxies before them.

use std::io::Write;
use std::ops::Deref;

use test_servers::{Fluvio, Postgres, Proxy, RabbitMq, S3};

/// A server that all tests share, or one of the test's own.
pub(crate) enum Held<T: 'static> {
    Shared(&'static T),
    Own(Box<T>),
}

impl<T> Held<T> {
    fn own(server: T) -> Self {
        Self::Own(Box::new(server))
    }
}

impl<T> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Shared(server) => server,
            Self::Own(server) => server,
        }
    }
}

/// One of each server.
pub(crate) struct Servers {
    pub(crate) postgres: Held<Postgres>,
    pub(crate) s3: Held<S3>,
    /// None where Fluvio is alone.
    rabbitmq: Option<Held<RabbitMq>>,
    fluvio: Option<Held<Fluvio>>,
}

impl Servers {
    /// Those of all tests.
    pub(crate) async fn shared() -> Self {
        let (postgres, rabbitmq, s3) =
            tokio::join!(test_servers::postgres(), test_servers::rabbitmq(), test_servers::s3());
        let rabbitmq = Some(Held::Shared(rabbitmq));
        Self { postgres: Held::Shared(postgres), s3: Held::Shared(s3), rabbitmq, fluvio: None }
    }

    /// Those of all tests, and Fluvio beside RabbitMQ. None, which is said aloud, where there is none.
    pub(crate) async fn shared_with_fluvio() -> Option<Self> {
        if !knows_fluvio() {
            return None;
        }
        let fluvio = Held::Shared(test_servers::fluvio().await?);
        Some(Self { fluvio: Some(fluvio), ..Self::shared().await })
    }

    /// The test's own, which it may kill.
    pub(crate) async fn own() -> Self {
        let (postgres, rabbitmq, s3) = tokio::join!(Postgres::start(), RabbitMq::start(), S3::start());
        let rabbitmq = Some(Held::own(rabbitmq));
        Self { postgres: Held::own(postgres), s3: Held::own(s3), rabbitmq, fluvio: None }
    }

    /// The test's own, with Fluvio in the place of RabbitMQ. None, which is said aloud, where there is none.
    pub(crate) async fn own_on_fluvio() -> Option<Self> {
        if !knows_fluvio() {
            return None;
        }
        let fluvio = Held::own(Fluvio::find().await?);
        let (postgres, s3) = tokio::join!(Postgres::start(), S3::start());
        Some(Self { postgres: Held::own(postgres), s3: Held::own(s3), rabbitmq: None, fluvio: Some(fluvio) })
    }

    /// RabbitMQ, of a bed that has it.
    pub(crate) fn rabbitmq(&self) -> &RabbitMq {
        self.rabbitmq.as_ref().expect("the bed has RabbitMQ")
    }

    /// Whether there is RabbitMQ.
    pub(crate) fn has_rabbitmq(&self) -> bool {
        self.rabbitmq.is_some()
    }

    /// Fluvio, where there is one.
    pub(crate) fn fluvio(&self) -> Option<&Fluvio> {
        self.fluvio.as_deref()
    }

    fn cluster(&self) -> &Fluvio {
        self.fluvio().expect("the bed has Fluvio")
    }

    /// `kill -9` of one; its files stay.
    pub(crate) async fn kill(&self, server: Server) {
        match server {
            Server::Postgres => self.postgres.kill().await,
            Server::RabbitMq => self.rabbitmq().kill().await,
            Server::S3 => self.s3.kill().await,
            Server::FluvioSc => self.cluster().kill_sc().await,
            Server::FluvioSpu => self.cluster().kill_spu().await,
        }
    }

    /// Starts one that was killed, and returns once it answers.
    pub(crate) async fn start_again(&self, server: Server) {
        match server {
            Server::Postgres => self.postgres.start_again().await,
            Server::RabbitMq => self.rabbitmq().start_again().await,
            Server::S3 => self.s3.start_again().await,
            Server::FluvioSc => self.cluster().start_sc_again().await,
            Server::FluvioSpu => self.cluster().start_spu_again().await,
        }
    }

    /// SIGSTOP: it accepts connections and answers nothing.
    pub(crate) fn freeze(&self, server: Server) {
        match server {
            Server::Postgres => self.postgres.freeze(),
            Server::RabbitMq => self.rabbitmq().freeze(),
            Server::S3 => self.s3.freeze(),
            Server::FluvioSc => self.cluster().freeze_sc(),
            Server::FluvioSpu => self.cluster().freeze_spu(),
        }
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self, server: Server) {
        match server {
            Server::Postgres => self.postgres.thaw(),
            Server::RabbitMq => self.rabbitmq().thaw(),
            Server::S3 => self.s3.thaw(),
            Server::FluvioSc => self.cluster().thaw_sc(),
            Server::FluvioSpu => self.cluster().thaw_spu(),
        }
    }
}

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Server {
    Postgres,
    RabbitMq,
    S3,
    /// Fluvio's controller.
    FluvioSc,
    /// Fluvio's broker.
    FluvioSpu,
}

/// Whether the daemon under test has the queue on Fluvio built in. Says aloud where it has not.
fn knows_fluvio() -> bool {
    let known = cfg!(feature = "fluvio");
    if !known {
        // Not by `eprintln!`: the test runner would keep that to itself.
        let word = "\n*** built without the feature `fluvio`: the queue on Fluvio is NOT tested ***\n\n";
        drop(std::io::stderr().write_all(word.as_bytes()));
    }
    known
}

/// What stands between the services and each server.
pub(crate) struct Proxies {
    pub(crate) postgres: Proxy,
    pub(crate) s3: Proxy,
    rabbitmq: Option<Proxy>,
}

impl Proxies {
    pub(crate) async fn before(servers: &Servers) -> Self {
        let rabbitmq = match &servers.rabbitmq {
            Some(rabbitmq) => Some(Proxy::before(rabbitmq.address()).await),
            None => None,
        };
        Self {
            postgres: Proxy::before(servers.postgres.address()).await,
            s3: Proxy::before(servers.s3.address()).await,
            rabbitmq,
        }
    }

    /// That of RabbitMQ, of a bed that has it.
    pub(crate) fn rabbitmq(&self) -> &Proxy {
        self.rabbitmq.as_ref().expect("the bed has RabbitMQ")
    }

    /// That of a server.
    pub(crate) fn of(&self, server: Server) -> &Proxy {
        match server {
            Server::Postgres => &self.postgres,
            Server::RabbitMq => self.rabbitmq(),
            Server::S3 => &self.s3,
            Server::FluvioSc | Server::FluvioSpu => panic!("Fluvio tells its clients itself where its servers are"),
        }
    }
}
