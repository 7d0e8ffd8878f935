//! PostgreSQL.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::daemon::Daemon;
use crate::home::Home;
use crate::probe::Probe;
use crate::server::{self, Server, blocking, lifecycle};
use crate::tls::Identity;
use crate::{ports, programs};

/// Connections of many tests at a time.
const MAX_CONNECTIONS: u32 = 200;

/// A PostgreSQL that syncs what it commits, asks for passwords, and speaks TLS with who wants to.
pub struct Postgres {
    server: Server,
    programs: PathBuf,
    port: u16,
    password: String,
    authority: String,
    /// How many databases were made.
    databases: AtomicU32,
}

lifecycle!(Postgres);

impl Postgres {
    /// One of the test's own.
    pub async fn start() -> Self {
        server::start("PostgreSQL", Self::try_start).await
    }

    fn try_start() -> Result<Self, String> {
        let programs = programs::postgresql();
        let user = programs::postgres_user();
        let home = Home::new("postgres", user);
        let data = home.dir("data");
        let password: String = hex::encode(rand::random::<[u8; 16]>());
        let [port] = ports::free();

        let mut initdb = programs::short(programs.join("initdb"));
        initdb
            .args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"])
            // What is empty needs no care; the server itself syncs.
            .arg("--no-sync")
            .arg("--pwfile")
            .arg(home.file("password", &password))
            .arg("--pgdata")
            .arg(&data)
            .current_dir(&data);
        programs::output(programs::run_as(&mut initdb, user))?;

        let identity = Identity::new();
        let settings = [
            "listen_addresses = '127.0.0.1'".to_owned(),
            format!("port = {port}"),
            "unix_socket_directories = ''".to_owned(),
            format!("max_connections = {MAX_CONNECTIONS}"),
            "ssl = on".to_owned(),
            format!("ssl_cert_file = '{}'", home.file("server.crt", &identity.certificate).display()),
            format!("ssl_key_file = '{}'", home.file("server.key", &identity.key).display()),
            // In the directory, and so removed with it, even after a kill.
            "dynamic_shared_memory_type = mmap".to_owned(),
        ];
        home.file("data/postgresql.auto.conf", &(settings.join("\n") + "\n"));

        let mut postgres = Command::new(programs.join("postgres"));
        programs::run_as(postgres.arg("-D").arg(&data), user);
        let daemon = Daemon::start("postgres", &home, data, postgres, Probe::postgresql(port))?;
        let server = Server::new(vec![daemon], home);
        Ok(Self { server, programs, port, password, authority: identity.authority, databases: AtomicU32::new(0) })
    }

    /// `kill -9`; the files stay.
    pub async fn kill(&self) {
        self.server.kill().await;
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The database `postgres`, as the superuser.
    pub fn url(&self) -> String {
        self.url_of("postgres", "postgres", &self.password)
    }

    /// The superuser's.
    pub(crate) fn password(&self) -> &str {
        &self.password
    }

    /// A database as a user of the test's own; what is given must need no escape in a URL.
    pub fn url_of(&self, database: &str, user: &str, password: &str) -> String {
        format!("postgres://{user}:{password}@{}/{database}", self.address())
    }

    /// The authority of its certificate, which is for 127.0.0.1 and localhost.
    pub fn ca_pem(&self) -> &str {
        &self.authority
    }

    /// A new, empty database, as the superuser.
    pub async fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.psql(&self.url(), &format!("CREATE DATABASE {name}")).await;
        self.url_of(&name, "postgres", &self.password)
    }

    /// What `psql` prints for some SQL: rows as lines, fields apart by `|`. Panics if any of it fails.
    pub async fn psql(&self, url: &str, sql: &str) -> String {
        let mut psql = programs::short(self.programs.join("psql"));
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]);
        psql.args(["--dbname", url, "--command", sql]);
        blocking(move || programs::output(&mut psql).unwrap_or_else(|error| panic!("{error}"))).await
    }
}
