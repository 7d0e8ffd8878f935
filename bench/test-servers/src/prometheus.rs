//! A Prometheus that scrapes nothing: it is given its series, and asked about them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::daemon::Daemon;
use crate::home::Home;
use crate::probe::Probe;
use crate::server::{self, Server};
use crate::{ports, programs};

/// So long that nothing happens by the clock of the machine: it evaluates no rule, cuts no block and drops nothing.
const NEVER: &str = "100y";

/// A Prometheus with the rules of one file.
///
/// It takes series by remote write, of whatever time as long as they come in the order of time, and never evaluates
/// its rules by itself: the results would lie at the time of the machine, and shut out all that is older.
pub struct Prometheus {
    _server: Server,
    port: u16,
}

impl Prometheus {
    /// One that knows these rules, by their absolute path.
    pub async fn with_rules(rules: PathBuf) -> Self {
        server::start("Prometheus", move || Self::try_start(&rules)).await
    }

    fn try_start(rules: &Path) -> Result<Self, String> {
        let program = programs::at("/usr/bin/prometheus", "prometheus");
        let home = Home::new("prometheus", None);
        let dir = home.dir("work");
        let [port] = ports::free();
        let settings = format!("global: {{ evaluation_interval: {NEVER} }}\nrule_files: [{:?}]\n", rules.display());
        let mut prometheus = Command::new(program);
        prometheus
            .arg(format!("--config.file={}", home.file("prometheus.yaml", &settings).display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--storage.tsdb.retention.time={NEVER}"))
            .args(["--storage.tsdb.min-block-duration=1y", "--storage.tsdb.max-block-duration=1y"])
            .arg("--web.enable-remote-write-receiver");
        let daemon = Daemon::start("prometheus", &home, dir, prometheus, Probe::prometheus(port))?;
        Ok(Self { _server: Server::new(vec![daemon], home), port })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }
}
