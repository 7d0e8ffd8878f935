//! Starts producer, consumers and commands on servers, each as the database user that it is meant to be.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use nice_sim::{Sim, SimConfig};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::machines::{Proxies, Servers};
use super::store::Store;
use crate::harness::{Daemon, Ended, WEBHOOK_SECRET, executable, http_client, hurried_settings};

/// The passwords of every bed, told from all other texts.
pub(crate) const POSTGRES_PASSWORD: &str = "canary-postgres-password";
pub(crate) const RABBITMQ_PASSWORD: &str = "canary-rabbitmq-password";
pub(crate) const SEAL_KEY: &str = "ca9a47ca9a47ca9a47ca9a47ca9a47ca9a47ca9a47ca9a47ca9a47ca9a47ca9a";

const ROLES: &str = include_str!("../../../../migrations/roles.sql");

/// Roles belong to the whole server: one bed at a time makes them.
static MAKING_ROLES: Mutex<()> = Mutex::const_new(());

/// Beds so far: the names of what they have on shared servers are told apart by it.
static BEDS: AtomicU32 = AtomicU32::new(0);

/// As whom a process reaches the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Who owns the tables: `migrate`, `settings`.
    Owner,
    Producer,
    Consumer,
    /// Who is producer and consumer: `run`, and the commands of an operator.
    Both,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
            Self::Both => "both",
        }
    }
}

/// A tenant with its simulated NICE.
pub(crate) struct Tenant {
    pub(crate) id: String,
    pub(crate) sim: Sim,
}

/// Tenants, servers, and the settings that join them.
pub(crate) struct ServerBed {
    pub(crate) servers: Servers,
    pub(crate) proxies: Proxies,
    pub(crate) tenants: Vec<Tenant>,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) prefix: String,
    pub(crate) bucket: String,
    database: String,
    settings: Vec<(String, String)>,
}

impl ServerBed {
    /// Tenant `acme` on the servers of all tests.
    pub(crate) async fn new(config: SimConfig) -> Self {
        Self::on(Servers::shared().await, config).await
    }

    /// Tenant `acme` on these servers, with tables and settings.
    pub(crate) async fn on(servers: Servers, config: SimConfig) -> Self {
        let mut bed = Self::bare(servers).await;
        bed.migrate().await;
        bed.add_tenant("acme", config).await;
        bed
    }

    /// Servers with a database without tables, a user for each role, a prefix for queues and an empty bucket.
    pub(crate) async fn bare(servers: Servers) -> Self {
        let number = BEDS.fetch_add(1, Ordering::Relaxed);
        let database = servers.postgres.database().await.rsplit('/').next().unwrap().to_owned();
        let proxies = Proxies::before(&servers).await;
        let bucket = servers.s3.bucket().await;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let prefix = format!("it{number}.nice");
        let mut bed =
            Self { servers, proxies, tenants: Vec::new(), dir, prefix, bucket, database, settings: hurried_settings() };
        bed.make_roles().await;
        bed.name_queues().await;
        for (key, value) in [
            ("STATE__DIR", bed.path("producer").display().to_string()),
            ("QUEUE__PREFIX", bed.prefix.clone()),
            ("CATALOG__KIND", "postgres".to_owned()),
            ("CATALOG__SEAL_KEY", SEAL_KEY.to_owned()),
            ("RECORDINGS__KIND", "s3".to_owned()),
            ("RECORDINGS__ENDPOINT", format!("http://{}", bed.proxies.s3.address())),
            ("RECORDINGS__BUCKET", bed.bucket.clone()),
            ("RECORDINGS__REGION", bed.servers.s3.region().to_owned()),
            ("RECORDINGS__ACCESS_KEY_ID", bed.servers.s3.access_key().to_owned()),
            ("RECORDINGS__SECRET_ACCESS_KEY", bed.servers.s3.secret_key().to_owned()),
        ] {
            bed.set(key, value);
        }
        bed
    }

    /// RabbitMQ is the queue of a bed that has it, and Fluvio the one beside it; see [`ServerBed::change_queue`].
    async fn name_queues(&mut self) {
        if let Some(address) = self.servers.fluvio().map(|fluvio| fluvio.address().to_string()) {
            self.set("QUEUE__FLUVIO", address);
            self.change_queue("fluvio");
        }
        if self.servers.has_rabbitmq() {
            self.make_queue_user().await;
            self.set("QUEUE__URL", self.queue_url());
            self.change_queue("rabbitmq");
        }
    }

    /// Which of its queues the services that start from now on use.
    pub(crate) fn change_queue(&mut self, kind: &str) {
        self.set("QUEUE__KIND", kind);
    }

    /// Whether the services use Fluvio.
    pub(crate) fn is_on_fluvio(&self) -> bool {
        self.settings.iter().any(|(key, value)| key == "NICE_KNOVVU_QUEUE__KIND" && value == "fluvio")
    }

    async fn make_roles(&self) {
        let _one_at_a_time = MAKING_ROLES.lock().await;
        self.psql(ROLES).await;
        let users = [
            (Role::Owner, "knovvu_owner"),
            (Role::Producer, "knovvu_producer"),
            (Role::Consumer, "knovvu_consumer"),
            (Role::Both, "knovvu_producer, knovvu_consumer"),
        ];
        for (role, groups) in users {
            let user = self.user(role);
            self.psql(&format!("create user {user} password '{POSTGRES_PASSWORD}' in role {groups}")).await;
        }
    }

    /// A user that may do nothing outside the prefix.
    async fn make_queue_user(&self) {
        let ours = format!("^{}([.]|$)", self.prefix.replace('.', "[.]"));
        let user = self.queue_user();
        self.manage(&format!("users/{user}"), json!({ "password": RABBITMQ_PASSWORD, "tags": "" })).await;
        let rights = json!({ "configure": ours, "write": format!("{ours}|^amq[.]default$"), "read": ours });
        self.manage(&format!("permissions/%2f/{user}"), rights).await;
    }

    async fn manage(&self, path: &str, body: Value) {
        let client = http_client().build().unwrap();
        let url = format!("{}/api/{path}", self.servers.rabbitmq().management_url());
        let answer = client.put(url).basic_auth("guest", Some("guest")).json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
    }

    /// Makes the tables, and gives each role its rights.
    pub(crate) async fn migrate(&self) {
        let ended = self.ended(Role::Owner, &["migrate"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let _one_at_a_time = MAKING_ROLES.lock().await;
        self.psql(ROLES).await;
    }

    /// A tenant with a NICE of its own, whose settings stand in the database.
    pub(crate) async fn add_tenant(&mut self, id: &str, config: SimConfig) {
        self.adopt(id, Sim::start(config).await.expect("the simulated NICE starts"));
    }

    /// The same with a NICE that runs already.
    pub(crate) fn adopt(&mut self, id: &str, sim: Sim) {
        self.tenants.push(Tenant { id: id.to_owned(), sim });
        self.set_nice(id, &[]);
    }

    /// Puts a tenant's NICE settings into the database, these keys changed.
    pub(crate) fn set_nice(&self, id: &str, changes: &[(&str, &str)]) {
        let mut settings = self.sim_of(id).settings();
        for (key, value) in changes {
            settings.retain(|(known, _)| known != key);
            settings.push((key, (*value).to_owned()));
        }
        self.put_settings(id, &settings);
    }

    /// Gives a further tenant the NICE, and the key, of one that is there.
    pub(crate) fn share_nice(&self, of: &str, id: &str) {
        self.put_settings(id, &self.sim_of(of).settings());
    }

    /// Unasked: some tests give settings that NICE refuses, or count what it is asked.
    fn put_settings(&self, id: &str, settings: &[(&str, String)]) {
        let line = |(key, value): &(&str, String)| match *key {
            "media_hosts" => format!("{key} = [{value:?}]\n"),
            _ => format!("{key} = {value:?}\n"),
        };
        let table = format!("[nice]\n{}", settings.iter().map(line).collect::<String>());
        let ended = self.fed(Role::Owner, &["settings", "set", "--force", "--tenant", id], &table);
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }

    /// The simulated NICE of tenant `acme`.
    pub(crate) fn sim(&self) -> &Sim {
        self.sim_of("acme")
    }

    pub(crate) fn sim_of(&self, id: &str) -> &Sim {
        &self.tenants.iter().find(|tenant| tenant.id == id).expect("a tenant of the bed").sim
    }

    /// Changes a setting, named as in the environment without its prefix.
    pub(crate) fn set(&mut self, key: &str, value: impl Into<String>) {
        let key = format!("NICE_KNOVVU_{key}");
        self.settings.retain(|(known, _)| *known != key);
        self.settings.push((key, value.into()));
    }

    /// Switches the producer's webhook receiver on.
    pub(crate) fn with_webhook(&mut self) -> std::net::SocketAddr {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        self.set("EVENTS__WEBHOOK", "true");
        self.set("EVENTS__WEBHOOK_LISTEN", free.to_string());
        self.set("EVENTS__WEBHOOK_TOKEN", WEBHOOK_SECRET);
        free
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn user(&self, role: Role) -> String {
        format!("{}_{}", role.name(), self.database)
    }

    fn queue_user(&self) -> String {
        format!("nice_{}", self.database)
    }

    fn queue_url(&self) -> String {
        format!("amqp://{}:{RABBITMQ_PASSWORD}@{}/%2f", self.queue_user(), self.proxies.rabbitmq().address())
    }

    /// The database as this role reaches it.
    pub(crate) fn catalog_url(&self, role: Role) -> String {
        let (user, address) = (self.user(role), self.proxies.postgres.address());
        format!("postgres://{user}:{POSTGRES_PASSWORD}@{address}/{}", self.database)
    }

    /// The database as its superuser reaches it, past the proxy.
    fn superuser_url(&self) -> String {
        let server = self.servers.postgres.url();
        format!("{}/{}", server.rsplit_once('/').unwrap().0, self.database)
    }

    /// Some SQL as the superuser.
    pub(crate) async fn psql(&self, sql: &str) -> String {
        self.servers.postgres.psql(&self.superuser_url(), sql).await
    }

    /// A connection as the superuser.
    pub(crate) async fn sql(&self) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.superuser_url(), tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// The bucket, past the proxy and past the client under test.
    pub(crate) fn store(&self) -> Store {
        Store::new(&self.servers.s3, &self.bucket)
    }

    /// The executable with these settings.
    pub(crate) fn command(&self, role: Role, arguments: &[&str]) -> Command {
        let mut command = executable(arguments);
        command.current_dir(self.dir.path()).envs(self.settings.iter().cloned());
        if !self.settings.iter().any(|(key, _)| key == "NICE_KNOVVU_CATALOG__URL") {
            command.env("NICE_KNOVVU_CATALOG__URL", self.catalog_url(role));
        }
        command
    }

    /// Runs a command to its end.
    pub(crate) fn ended(&self, role: Role, arguments: &[&str]) -> Ended {
        Ended::of(self.command(role, arguments))
    }

    /// The same with a text on its stdin.
    pub(crate) fn fed(&self, role: Role, arguments: &[&str], text: &str) -> Ended {
        Ended::fed(self.command(role, arguments), text)
    }

    /// Runs an operator's command that prints JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let ended = self.ended(Role::Both, arguments);
        // `status` says by its code how it stands.
        let is_status = arguments[0] == "status" && matches!(ended.code, Some(3 | 4));
        assert!(ended.code == Some(0) || is_status, "{arguments:?}: {ended:?}");
        serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    }

    /// Starts the producer of tenant `acme`.
    pub(crate) fn producer(&self) -> Daemon {
        self.start(Role::Producer, "producer", &[])
    }

    /// Starts a consumer; its log is `{name}.log`.
    pub(crate) fn consumer(&self, name: &str) -> Daemon {
        self.start(Role::Consumer, name, &[])
    }

    /// Starts so many consumers.
    pub(crate) fn consumers(&self, count: usize) -> Vec<Daemon> {
        (0..count).map(|number| self.consumer(&format!("consumer-{number}"))).collect()
    }

    /// Starts a service, whose log is `{name}.log`. Consumers share all settings with each other and with the producer;
    /// what produces keeps its state in a directory of its name.
    pub(crate) fn start(&self, role: Role, name: &str, environment: &[(&str, &str)]) -> Daemon {
        let service = match role {
            Role::Producer => "producer",
            Role::Consumer => "consumer",
            Role::Owner | Role::Both => "run",
        };
        let mut command = self.command(role, &[service]);
        if role != Role::Consumer {
            command.env("NICE_KNOVVU_STATE__DIR", self.path(name));
        }
        command.envs(environment.iter().copied());
        Daemon::spawn(command, self.path(name), self.path(&format!("{name}.log")))
    }
}

impl Drop for ServerBed {
    /// Keeps what a failed test leaves, to be looked at.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
            eprintln!("left to look at: {}", self.dir.path().display());
        }
    }
}

/// Ends services by SIGTERM, each with exit code 0.
pub(crate) fn terminate(services: impl IntoIterator<Item = Daemon>) {
    for mut service in services {
        let status = service.terminate();
        assert!(status.success(), "{status}\n{}", service.logged());
    }
}
