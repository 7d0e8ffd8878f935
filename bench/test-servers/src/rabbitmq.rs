//! RabbitMQ: a node of one, with the management and Prometheus plugins.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use crate::daemon::Daemon;
use crate::home::Home;
use crate::probe::Probe;
use crate::server::{self, Server, blocking, lifecycle};
use crate::tls::Identity;
use crate::{ports, programs};

/// Not the one on the PATH, which Debian has changed to become another user and to forget the environment.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
const CTL: &str = "/usr/lib/rabbitmq/bin/rabbitmqctl";
const EPMD: &str = "/usr/bin/epmd";

/// How soon a message that has left a queue by itself is published again where the next queue did not take it. A node
/// that starts on a busy machine may elect a queue's leader before it knows the exchange behind it. By default what is
/// due then waits for three minutes, which is longer than a test waits.
const ADVANCED: &str = "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 5000}]}].\n";

/// A RabbitMQ.
pub struct RabbitMq {
    server: Server,
    environment: Vec<(&'static str, String)>,
    port: u16,
    management_port: u16,
    tls: Option<Tls>,
}

/// What a client needs to come in over TLS.
struct Tls {
    port: u16,
    authority: String,
}

lifecycle!(RabbitMq);

impl RabbitMq {
    /// One of the test's own.
    pub async fn start() -> Self {
        server::start("RabbitMQ", || Self::try_start(false)).await
    }

    /// One that listens for TLS as well.
    pub async fn start_with_tls() -> Self {
        server::start("RabbitMQ", || Self::try_start(true)).await
    }

    fn try_start(with_tls: bool) -> Result<Self, String> {
        let program = programs::at(SERVER, "rabbitmq-server");
        let epmd_program = programs::at(EPMD, "erlang-base");
        let home = Home::new("rabbitmq", None);
        let [port, distribution_port, epmd_port, management_port, prometheus_port, tls_port] = ports::free();

        // What the node and its tools share: without it each would take the first epmd and cookie that it finds.
        home.file(".erlang.cookie", &hex::encode(rand::random::<[u8; 16]>()));
        let environment = environment(home.path(), port, distribution_port, epmd_port);
        home.file("enabled_plugins", "[rabbitmq_management,rabbitmq_prometheus].\n");
        home.file("advanced.config", ADVANCED);
        home.file("env.conf", "");
        let mut settings = vec![
            format!("listeners.tcp.default = 127.0.0.1:{port}"),
            "management.tcp.ip = 127.0.0.1".to_owned(),
            format!("management.tcp.port = {management_port}"),
            "prometheus.tcp.ip = 127.0.0.1".to_owned(),
            format!("prometheus.tcp.port = {prometheus_port}"),
            "log.console = true".to_owned(),
            "log.console.level = info".to_owned(),
            "log.console.use_colors = off".to_owned(),
            "log.file = false".to_owned(),
        ];
        let tls = with_tls.then(|| {
            let identity = Identity::new();
            settings.extend([
                format!("listeners.ssl.default = 127.0.0.1:{tls_port}"),
                format!("ssl_options.certfile = {}", home.file("server.crt", &identity.certificate).display()),
                format!("ssl_options.keyfile = {}", home.file("server.key", &identity.key).display()),
                "ssl_options.verify = verify_none".to_owned(),
            ]);
            Tls { port: tls_port, authority: identity.authority }
        });
        home.file("rabbitmq.conf", &(settings.join("\n") + "\n"));

        // In the foreground and before the node: one that the node starts by itself would stay when all is over.
        let mut epmd = Command::new(epmd_program);
        epmd.env_clear().envs(environment.iter().cloned());
        let epmd = Daemon::start("epmd", &home, home.dir("epmd"), epmd, Probe::listens(epmd_port))?;

        let mut node = Command::new(program);
        node.env_clear().envs(environment.iter().cloned());
        let node = Daemon::start("rabbitmq", &home, home.dir("node"), node, Probe::amqp(port))?;
        let server = Server::new(vec![epmd, node], home);
        Ok(Self { server, environment, port, management_port, tls })
    }

    /// `kill -9`; the files stay.
    ///
    /// RabbitMQ 3.10 writes down which quorum queues there are half a second after they were declared. One that was
    /// declared later comes back without its messages, confirmed ones too, and without a leader. No client can mend
    /// that, so it is written down before; that takes a second, and 7 more where the node is frozen.
    pub async fn kill(&self) {
        let mut write = self.ctl_command(&["eval", "[dets:sync(Table) || Table <- dets:all()]."]);
        // One that cannot be asked is frozen, or dead already.
        let _asked = blocking(move || programs::output(&mut write)).await;
        self.server.kill().await;
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    fn ctl_command(&self, args: &[&str]) -> Command {
        let mut ctl = programs::short(CTL);
        ctl.env_clear().envs(self.environment.iter().cloned()).arg("--quiet").args(args);
        ctl
    }

    /// The default virtual host, as the user who may do everything.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@{}/%2f", self.address())
    }

    /// The same over TLS, of one that was started so.
    pub fn tls_url(&self) -> String {
        format!("amqps://guest:guest@127.0.0.1:{}/%2f", self.tls().port)
    }

    /// The authority of its certificate, which is for 127.0.0.1 and localhost, of one that was started with TLS.
    pub fn ca_pem(&self) -> &str {
        &self.tls().authority
    }

    fn tls(&self) -> &Tls {
        self.tls.as_ref().expect("it was started by `start_with_tls`")
    }

    /// The management plugin's API, for the same user.
    pub fn management_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.management_port)
    }

    /// What `rabbitmqctl` prints. Panics unless it succeeds.
    pub async fn ctl(&self, args: &[&str]) -> String {
        let mut ctl = self.ctl_command(args);
        blocking(move || programs::output(&mut ctl).unwrap_or_else(|error| panic!("{error}"))).await
    }
}

fn environment(home: &Path, port: u16, distribution_port: u16, epmd_port: u16) -> Vec<(&'static str, String)> {
    let in_home = |name: &str| home.join(name).display().to_string();
    vec![
        ("PATH", "/usr/local/bin:/usr/bin:/bin".to_owned()),
        ("LC_ALL", "C.UTF-8".to_owned()),
        ("HOME", home.display().to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        ("ERL_EPMD_PORT", epmd_port.to_string()),
        ("RABBITMQ_NODENAME", format!("test{port}@localhost")),
        ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".to_owned()),
        ("RABBITMQ_NODE_PORT", port.to_string()),
        ("RABBITMQ_DIST_PORT", distribution_port.to_string()),
        ("RABBITMQ_CONF_ENV_FILE", in_home("env.conf")),
        ("RABBITMQ_CONFIG_FILE", in_home("rabbitmq.conf")),
        ("RABBITMQ_ADVANCED_CONFIG_FILE", in_home("advanced.config")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", in_home("enabled_plugins")),
        ("RABBITMQ_FEATURE_FLAGS_FILE", in_home("feature_flags")),
        ("RABBITMQ_GENERATED_CONFIG_DIR", in_home("generated")),
        ("RABBITMQ_SCHEMA_DIR", in_home("generated")),
        ("RABBITMQ_MNESIA_BASE", in_home("mnesia")),
        ("RABBITMQ_LOG_BASE", in_home("logs")),
        ("RABBITMQ_PID_FILE", in_home("node.pid")),
        // Any free port of this machine's own address for what `rabbitmqctl` listens on.
        ("RABBITMQ_CTL_DIST_PORT_MIN", "0".to_owned()),
        ("RABBITMQ_CTL_DIST_PORT_MAX", "0".to_owned()),
        ("RABBITMQ_CTL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}".to_owned()),
        // Two schedulers that sleep when there is nothing to do: other tests run beside it.
        (
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none".to_owned(),
        ),
        // Has the script become the node instead of watching it, so that what is killed is the node.
        ("RUNNING_UNDER_SYSTEMD", "true".to_owned()),
    ]
}
