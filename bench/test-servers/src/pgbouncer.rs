//! PgBouncer, a pool before a PostgreSQL.

use std::process::Command;

use crate::daemon::Daemon;
use crate::home::Home;
use crate::postgres::Postgres;
use crate::probe::Probe;
use crate::server::{self, Server};
use crate::{ports, programs};

/// A pool of connections as the superuser, whoever asks.
pub struct PgBouncer {
    _server: Server,
    port: u16,
}

impl PgBouncer {
    /// One with these settings beside its own, a line each.
    pub async fn before(postgres: &Postgres, settings: &'static str) -> Self {
        let (to, password) = (postgres.address().port(), postgres.password().to_owned());
        server::start("PgBouncer", move || Self::try_start(to, &password, settings)).await
    }

    fn try_start(to: u16, password: &str, more: &str) -> Result<Self, String> {
        let program = programs::at("/usr/sbin/pgbouncer", "pgbouncer");
        let user = programs::postgres_user();
        let home = Home::new("pgbouncer", user);
        let dir = home.dir("work");
        let [port] = ports::free();
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={to} user=postgres password={password}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             {more}\n"
        );
        let mut pgbouncer = Command::new(program);
        programs::run_as(pgbouncer.arg(home.file("pgbouncer.ini", &settings)), user);
        let daemon = Daemon::start("pgbouncer", &home, dir, pgbouncer, Probe::postgresql(port))?;
        Ok(Self { _server: Server::new(vec![daemon], home), port })
    }

    /// The URL of a database, through the pool.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
}
