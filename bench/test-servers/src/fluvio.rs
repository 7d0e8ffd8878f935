//! Fluvio: a streaming controller (SC) and one streaming processing unit (SPU), which holds what is stored.
//!
//! No package has its server. So it is used where `fluvio-run` is on the PATH, and what needs it does without it
//! elsewhere, and says so.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::daemon::Daemon;
use crate::home::Home;
use crate::ports;
use crate::probe::Probe;
use crate::server::{self, Server};
use crate::tls::Identity;

const PROGRAM: &str = "fluvio-run";

/// The number of the SPU, and the name that the SC has for it, also where a certificate is for it.
const SPU: u32 = 5001;
const SPU_NAME: &str = "custom-spu-5001";

/// What the certificates are for: SC and SPU, as the client names them.
const TLS_DOMAIN: &str = "fluvio.test";

/// The SC writes what it knows of a partition every 400 ms while records come, and all of it within a few milliseconds.
/// So one that has written nothing for this long is between two writes.
const CALM: Duration = Duration::from_millis(100);

/// How often a calm moment is looked for; some hundred times what it takes.
const LOOKS: usize = 1000;

/// A cluster of Fluvio with one SC and one SPU.
pub struct Fluvio {
    sc: Server,
    spu: Server,
    metadata: PathBuf,
    port: u16,
    spu_port: u16,
    profile: Option<PathBuf>,
}

/// Ports of 127.0.0.1.
struct Ports {
    sc: u16,
    sc_private: u16,
    spu: u16,
    spu_private: u16,
    sc_plain: u16,
    spu_plain: u16,
}

impl Fluvio {
    /// One of the test's own. None, and a word on the error output, where this machine has no `fluvio-run`.
    pub async fn find() -> Option<Self> {
        let program = program()?;
        Some(server::start("Fluvio", move || Self::try_start(&program, false)).await)
    }

    /// The same, spoken to over TLS; see [`profile`](Self::profile).
    pub async fn find_with_tls() -> Option<Self> {
        let program = program()?;
        Some(server::start("Fluvio", move || Self::try_start(&program, true)).await)
    }

    fn try_start(program: &Path, with_tls: bool) -> Result<Self, String> {
        let [sc, sc_private, spu, spu_private, sc_plain, spu_plain] = ports::free();
        let ports = Ports { sc, sc_private, spu, spu_private, sc_plain, spu_plain };
        let (sc_home, spu_home) = (Home::new("fluvio-sc", None), Home::new("fluvio-spu", None));
        let identity = with_tls.then(|| Identity::for_names(&[TLS_DOMAIN, &format!("{SPU_NAME}.{TLS_DOMAIN}")]));

        let metadata = sc_home.dir("metadata");
        std::fs::create_dir(metadata.join("SPU")).map_err(|error| format!("make the metadata of the SPU: {error}"))?;
        // As if it had been registered with the SC by its client, which is not needed then.
        sc_home.file(&format!("metadata/SPU/{SPU_NAME}.yaml"), &registration(&ports));
        let mut command = command(program, &sc_home, "sc");
        command.arg("--local").arg(&metadata).args(["--bind-public", &local(ports.sc)]);
        command.args(["--bind-private", &local(ports.sc_private)]);
        let mut profile = None;
        if let Some(identity) = &identity {
            add_tls(&mut command, &sc_home, identity, ports.sc_plain);
            profile = Some(sc_home.file("profiles.toml", &profiles(&sc_home, identity, ports.sc)));
        }
        let probe = Probe::fluvio(if with_tls { ports.sc_plain } else { ports.sc });
        let sc = Daemon::start("sc", &sc_home, sc_home.dir("work"), command, probe)?;

        let mut command = self::command(program, &spu_home, "spu");
        command.args(["--id", &SPU.to_string(), "--sc-addr", &local(ports.sc_private)]);
        command.args(["--public-server", &local(ports.spu), "--private-server", &local(ports.spu_private)]);
        command.arg("--log-base-dir").arg(spu_home.dir("log"));
        if let Some(identity) = &identity {
            add_tls(&mut command, &spu_home, identity, ports.spu_plain);
        }
        let probe = Probe::fluvio(if with_tls { ports.spu_plain } else { ports.spu });
        let spu = Daemon::start("spu", &spu_home, spu_home.dir("work"), command, probe)?;

        let (sc, spu) = (Server::new(vec![sc], sc_home), Server::new(vec![spu], spu_home));
        Ok(Self { sc, spu, metadata, port: ports.sc, spu_port: ports.spu, profile })
    }

    /// Where the SC listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Where the SPU listens.
    pub fn spu_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.spu_port).into()
    }

    /// The file of the client's profiles, of one that was started with TLS: `tls` trusts it, `stranger` does not.
    pub fn profile(&self) -> &Path {
        self.profile.as_deref().expect("it was started by `find_with_tls`")
    }

    /// `kill -9` of the SC; its files stay.
    ///
    /// It writes its files in place. Killed in the middle of that it leaves half a file, over which it reads no partition
    /// at all when it starts again, until somebody deletes that file. No client can mend that, so it dies between two
    /// writes.
    pub async fn kill_sc(&self) {
        for _ in 0..LOOKS {
            self.sc.freeze();
            if self.is_calm() {
                break;
            }
            self.sc.thaw();
            tokio::time::sleep(CALM / 10).await;
        }
        self.sc.kill().await;
    }

    /// Whether the SC has written nothing for a moment.
    fn is_calm(&self) -> bool {
        let files = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let written = files(&self.metadata).flat_map(|kind| files(&kind).collect::<Vec<_>>());
        let age = |file: PathBuf| std::fs::metadata(file).ok()?.modified().ok()?.elapsed().ok();
        written.filter_map(age).min().is_none_or(|youngest| youngest >= CALM)
    }

    /// Starts the SC on the same ports and files, and returns once it answers.
    pub async fn start_sc_again(&self) {
        self.sc.start_again().await;
    }

    /// SIGSTOP of the SC: it accepts connections and answers nothing.
    pub fn freeze_sc(&self) {
        self.sc.freeze();
    }

    /// SIGCONT of the SC.
    pub fn thaw_sc(&self) {
        self.sc.thaw();
    }

    /// `kill -9` of the SPU; its files stay.
    pub async fn kill_spu(&self) {
        self.spu.kill().await;
    }

    /// Starts the SPU on the same ports and files, and returns once it answers. The SC finds it after that.
    pub async fn start_spu_again(&self) {
        self.spu.start_again().await;
    }

    /// SIGSTOP of the SPU: it accepts connections and answers nothing.
    pub fn freeze_spu(&self) {
        self.spu.freeze();
    }

    /// SIGCONT of the SPU.
    pub fn thaw_spu(&self) {
        self.spu.thaw();
    }

    /// User and system seconds of its processes since it was first started.
    pub fn cpu_seconds(&self) -> f64 {
        self.sc.cpu_seconds() + self.spu.cpu_seconds()
    }
}

/// The server's program, if this machine has it.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(PROGRAM)).find(|program| program.is_file());
    if found.is_none() {
        // Not by `eprintln!`: the test runner would keep that to itself.
        let word = format!("\n*** {PROGRAM} is not on the PATH: what needs a real Fluvio is NOT tested ***\n\n");
        drop(std::io::stderr().write_all(word.as_bytes()));
    }
    found
}

fn command(program: &Path, home: &Home, role: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home.path()).env("RUST_LOG", "info");
    // The metrics' socket: the same file for every SPU of a machine otherwise.
    command.env("FLUVIO_METRIC_SPU", home.path().join("metrics.sock"));
    command.arg(role);
    command
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// What the SC keeps of an SPU.
fn registration(Ports { spu, spu_private, .. }: &Ports) -> String {
    format!(
        "!1.0.0\n\
         meta:\n  id: {SPU_NAME}\n  revision: 0\n\
         key: {SPU_NAME}\n\
         status:\n  resolution: Init\n\
         spec:\n  spuId: {SPU}\n  spuType: Custom\n  \
         publicEndpoint:\n    port: {spu}\n    ingress:\n    - hostname: 127.0.0.1\n      ip: null\n    \
         encryption: PLAINTEXT\n  \
         privateEndpoint:\n    port: {spu_private}\n    host: 127.0.0.1\n    encryption: PLAINTEXT\n"
    )
}

/// Has a program speak TLS at its public port, and in clear at another.
fn add_tls(command: &mut Command, home: &Home, identity: &Identity, plain: u16) {
    command.arg("--tls").args(["--bind-non-tls-public", &local(plain)]);
    command.arg("--server-cert").arg(home.file("server.crt", &identity.certificate));
    command.arg("--server-key").arg(home.file("server.key", &identity.key));
}

fn profiles(home: &Home, identity: &Identity, port: u16) -> String {
    let stranger = Identity::for_names(&[TLS_DOMAIN]);
    let cluster = |name: &str, trusted: &str| {
        // The client shows a certificate, asked or not.
        let (key, cert) = (home.path().join("server.key"), home.path().join("server.crt"));
        let ca_cert = home.file(&format!("{name}.pem"), trusted);
        format!(
            "[profile.{name}]\ncluster = \"{name}\"\n\n\
             [cluster.{name}]\nendpoint = \"{}\"\n\n\
             [cluster.{name}.tls]\ntls_policy = \"verified\"\ntls_source = \"files\"\n\n\
             [cluster.{name}.tls.certs]\ndomain = \"{TLS_DOMAIN}\"\nkey = {key:?}\ncert = {cert:?}\n\
             ca_cert = {ca_cert:?}\n\n",
            local(port)
        )
    };
    let (own, other) = (cluster("tls", &identity.authority), cluster("stranger", &stranger.authority));
    format!("version = \"2.0\"\ncurrent_profile = \"tls\"\n\n{own}{other}")
}
