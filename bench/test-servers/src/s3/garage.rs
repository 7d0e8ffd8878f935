//! garage, where the one who runs the tests has built it.

use std::net::Ipv4Addr;
use std::process::Command;

use super::{Keys, REGION, S3};
use crate::daemon::Daemon;
use crate::home::Home;
use crate::probe::Probe;
use crate::server::Server;
use crate::{ports, programs};

pub(super) fn start() -> Result<S3, String> {
    let version = programs::output(programs::short("garage").arg("--version"));
    version.unwrap_or_else(|error| panic!("garage is not on the PATH, bench/README.md says how it is built: {error}"));
    let home = Home::new("s3", None);
    let [port, rpc_port] = ports::free();
    let rpc = format!("{}:{rpc_port}", Ipv4Addr::LOCALHOST);
    let conf = format!(
        r#"metadata_dir = "{dir}/metadata"
data_dir = "{dir}/data"
db_engine = "sqlite"
# So that what was answered is there after a kill.
metadata_fsync = true
data_fsync = true
replication_factor = 1
rpc_bind_addr = "{rpc}"
rpc_public_addr = "{rpc}"
rpc_secret = "{secret}"
[s3_api]
s3_region = "{REGION}"
api_bind_addr = "127.0.0.1:{port}"
root_domain = ".s3.localhost"
"#,
        dir = home.path().display(),
        secret = hex::encode(rand::random::<[u8; 32]>()),
    );
    // The forms that garage wants them in.
    let keys = Keys {
        access: format!("GK{}", hex::encode(rand::random::<[u8; 12]>())),
        secret: hex::encode(rand::random::<[u8; 32]>()),
    };
    let mut garage = Command::new("garage");
    garage
        .args(["server", "--single-node", "--default-access-key"])
        .env("GARAGE_CONFIG_FILE", home.file("garage.toml", &conf))
        .env("GARAGE_DEFAULT_ACCESS_KEY", &keys.access)
        .env("GARAGE_DEFAULT_SECRET_KEY", &keys.secret);
    let daemon = Daemon::start("garage", &home, home.dir("node"), garage, Probe::http(port))?;
    Ok(S3::new(Server::new(vec![daemon], home), port, keys))
}
