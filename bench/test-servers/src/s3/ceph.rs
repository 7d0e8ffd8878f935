//! Ceph's RADOS Gateway, on the smallest cluster there is: a monitor, and one daemon that keeps objects in memory.

use std::path::Path;
use std::process::Command;

use super::{Keys, S3};
use crate::daemon::Daemon;
use crate::home::Home;
use crate::probe::Probe;
use crate::server::Server;
use crate::{ports, programs};

/// The most that all objects of all tests of a process take.
const MEMORY: u64 = 4 << 30;

/// The gateway's name in the cluster.
const GATEWAY: &str = "client.rgw";

pub(super) fn start() -> Result<S3, String> {
    let monitor_program = programs::at("/usr/bin/ceph-mon", "ceph-mon");
    let store_program = programs::at("/usr/bin/ceph-osd", "ceph-osd");
    let gateway_program = programs::at("/usr/bin/radosgw", "radosgw");
    let home = Home::new("s3", None);
    let [monitor, store, gateway] = ["mon", "osd", "rgw"].map(|name| home.dir(name));
    let [port, monitor_port, monitor_port_v1] = ports::free();
    let (cluster, store_id) = (uuid(), uuid());
    let monitors = format!("[v2:127.0.0.1:{monitor_port},v1:127.0.0.1:{monitor_port_v1}]");
    let conf = home.file("ceph.conf", &conf(home.path(), &cluster, &monitors, port));

    let short = |program: &Path, args: &[&str]| -> Result<String, String> {
        let mut command = programs::short(program);
        command.env_remove("CEPH_ARGS").arg("--conf").arg(&conf).args(args);
        programs::output(&mut command)
    };
    let stays = |program: &Path, args: &[&str]| -> Command {
        let mut command = Command::new(program);
        command.env_remove("CEPH_ARGS").arg("--conf").arg(&conf).arg("--foreground").args(args);
        command
    };

    let map = home.path().join("monmap").display().to_string();
    short(Path::new("monmaptool"), &["--create", "--fsid", &cluster, "--addv", "a", &monitors, &map])?;
    short(monitor_program, &["--id", "a", "--mkfs", "--monmap", &map])?;
    let command = stays(monitor_program, &["--id", "a"]);
    let monitor = Daemon::start("ceph-mon", &home, monitor, command, Probe::listens(monitor_port))?;

    short(Path::new("ceph"), &["osd", "new", &store_id])?;
    short(store_program, &["--id", "0", "--mkfs", "--osd-uuid", &store_id])?;
    let command = stays(store_program, &["--id", "0"]);
    // It takes any port; the next step waits until the cluster is there.
    let store = Daemon::start("ceph-osd", &home, store, command, Probe::none())?;

    let keys =
        Keys { access: hex::encode(rand::random::<[u8; 10]>()), secret: hex::encode(rand::random::<[u8; 20]>()) };
    let user = ["user", "create", "--uid", "test", "--display-name", "test", "--name", GATEWAY];
    let user = [&user[..], &["--access-key", &keys.access, "--secret-key", &keys.secret]].concat();
    short(Path::new("radosgw-admin"), &user)?;
    let command = stays(gateway_program, &["--name", GATEWAY]);
    let gateway = Daemon::start("radosgw", &home, gateway, command, Probe::http(port))?;
    Ok(S3::new(Server::new(vec![monitor, store, gateway], home), port, keys))
}

fn conf(home: &Path, cluster: &str, monitors: &str, port: u16) -> String {
    let home = home.display();
    format!(
        "[global]
fsid = {cluster}
mon host = {monitors}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
# Secure mode needs keys, and without one of these the gateway waits for ever.
ms mon client mode = crc secure
ms mon service mode = crc
ms mon cluster mode = crc
mon data = {home}/mon
mon data avail crit = 1
mon max pg per osd = 1000
mon data avail crit = 1
mon data avail warn = 2
osd data = {home}/osd
osd objectstore = memstore
memstore device bytes = {MEMORY}
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
admin socket = {home}/$name.asok
run dir = {home}
log file =
log to stderr = true
[{GATEWAY}]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw data = {home}/rgw
"
    )
}

fn uuid() -> String {
    let hex = hex::encode(rand::random::<[u8; 16]>());
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
