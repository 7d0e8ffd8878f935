//! The servers that a bed stands on, and the proxies before them.

use std::ops::Deref;

use test_servers::{Postgres, Proxy, RabbitMq, S3};

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
    /// None where the queue is another.
    rabbitmq: Option<Held<RabbitMq>>,
}

impl Servers {
    /// Those of all tests.
    pub(crate) async fn shared() -> Self {
        let (postgres, rabbitmq, s3) =
            tokio::join!(test_servers::postgres(), test_servers::rabbitmq(), test_servers::s3());
        Self { postgres: Held::Shared(postgres), rabbitmq: Some(Held::Shared(rabbitmq)), s3: Held::Shared(s3) }
    }

    /// The test's own, which it may kill.
    pub(crate) async fn own() -> Self {
        let (postgres, rabbitmq, s3) = tokio::join!(Postgres::start(), RabbitMq::start(), S3::start());
        Self { postgres: Held::own(postgres), rabbitmq: Some(Held::own(rabbitmq)), s3: Held::own(s3) }
    }

    /// RabbitMQ, of a bed that has it.
    pub(crate) fn rabbitmq(&self) -> &RabbitMq {
        self.rabbitmq.as_ref().expect("the bed has RabbitMQ")
    }

    /// `kill -9` of one; its files stay.
    pub(crate) async fn kill(&self, server: Server) {
        match server {
            Server::Postgres => self.postgres.kill().await,
            Server::RabbitMq => self.rabbitmq().kill().await,
            Server::S3 => self.s3.kill().await,
        }
    }

    /// Starts one that was killed, and returns once it answers.
    pub(crate) async fn start_again(&self, server: Server) {
        match server {
            Server::Postgres => self.postgres.start_again().await,
            Server::RabbitMq => self.rabbitmq().start_again().await,
            Server::S3 => self.s3.start_again().await,
        }
    }

    /// SIGSTOP: it accepts connections and answers nothing.
    pub(crate) fn freeze(&self, server: Server) {
        match server {
            Server::Postgres => self.postgres.freeze(),
            Server::RabbitMq => self.rabbitmq().freeze(),
            Server::S3 => self.s3.freeze(),
        }
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self, server: Server) {
        match server {
            Server::Postgres => self.postgres.thaw(),
            Server::RabbitMq => self.rabbitmq().thaw(),
            Server::S3 => self.s3.thaw(),
        }
    }
}

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Server {
    Postgres,
    RabbitMq,
    S3,
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
        }
    }
}
