//! The servers that a bed stands on, and the proxies before them.

use std::ops::Deref;

use test_servers::{Postgres, Proxy, RabbitMq, S3};

/// A server that all tests share, or one of the test's own.
pub(crate) enum Held<T: 'static> {
    Shared(&'static T),
    Own(Box<T>),
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
    pub(crate) rabbitmq: Held<RabbitMq>,
    pub(crate) s3: Held<S3>,
}

impl Servers {
    /// Those of all tests.
    pub(crate) async fn shared() -> Self {
        let (postgres, rabbitmq, s3) =
            tokio::join!(test_servers::postgres(), test_servers::rabbitmq(), test_servers::s3());
        Self { postgres: Held::Shared(postgres), rabbitmq: Held::Shared(rabbitmq), s3: Held::Shared(s3) }
    }

    /// The test's own, which it may kill.
    pub(crate) async fn own() -> Self {
        let (postgres, rabbitmq, s3) = tokio::join!(Postgres::start(), RabbitMq::start(), S3::start());
        let (postgres, rabbitmq, s3) = (Box::new(postgres), Box::new(rabbitmq), Box::new(s3));
        Self { postgres: Held::Own(postgres), rabbitmq: Held::Own(rabbitmq), s3: Held::Own(s3) }
    }
}

/// What stands between the services and each server.
pub(crate) struct Proxies {
    pub(crate) postgres: Proxy,
    pub(crate) rabbitmq: Proxy,
    pub(crate) s3: Proxy,
}

impl Proxies {
    pub(crate) async fn before(servers: &Servers) -> Self {
        Self {
            postgres: Proxy::before(servers.postgres.address()).await,
            rabbitmq: Proxy::before(servers.rabbitmq.address()).await,
            s3: Proxy::before(servers.s3.address()).await,
        }
    }
}
