//! That a server ends with the process that started it, and leaves nothing behind.
//!
//! The process is this very test binary, told by a variable of the environment which server to start. Its
//! directory for temporary files is the test's own, so that whatever is left can be seen.

use std::fs::{Permissions, set_permissions};
use std::future::pending;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use test_servers::{Postgres, Prometheus, RabbitMq, S3};

/// Names the server that the child starts.
const SERVER: &str = "TEST_SERVERS_OWNS";

/// How long a guard may take on a busy machine.
const GONE_WITHIN: Duration = Duration::from_secs(60);

/// The child: starts a server and keeps it until it is killed.
#[tokio::test]
async fn own_a_server_until_killed() {
    let Some(server) = std::env::var_os(SERVER) else { return };
    let _owned: Box<dyn std::any::Any> = match server.to_str().unwrap() {
        "postgres" => Box::new(Postgres::start().await),
        "rabbitmq" => Box::new(RabbitMq::start().await),
        "prometheus" => {
            let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dashboards/alerts.yaml");
            Box::new(Prometheus::with_rules(rules.canonicalize().unwrap()).await)
        }
        "s3" => Box::new(S3::start().await),
        other => panic!("{other} is no server"),
    };
    eprintln!("it runs");
    pending::<()>().await;
}

/// Starts the child, and returns once its server answers.
fn owner_of(server: &str, dir: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "end::own_a_server_until_killed", "--nocapture"])
        .env(SERVER, server)
        .env("TMPDIR", dir)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let before: Vec<_> = lines.take_while(|line| line != "it runs").collect();
    assert_eq!(child.try_wait().unwrap(), None, "{server} did not start:\n{}", before.join("\n"));
    child
}

/// Where the processes in `dir` work.
fn processes_in(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc").unwrap().map(Result::unwrap);
    let works_in = entries.filter_map(|entry| std::fs::read_link(entry.path().join("cwd")).ok());
    works_in.filter(|cwd| cwd.starts_with(dir)).collect()
}

fn ends_with_its_owner(server: &str) {
    let dir = tempfile::tempdir().unwrap();
    // PostgreSQL runs as another user than root.
    set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let path = dir.path().canonicalize().unwrap();
    let mut owner = owner_of(server, &path);
    assert!(!processes_in(&path).is_empty(), "it does not work where it is looked for");
    owner.kill().unwrap();
    owner.wait().unwrap();
    let deadline = Instant::now() + GONE_WITHIN;
    loop {
        let processes = processes_in(&path);
        let files: Vec<_> = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
        if processes.is_empty() && files.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "left behind: {processes:?}, {files:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn postgres_ends_with_its_owner() {
    ends_with_its_owner("postgres");
}

#[test]
fn prometheus_ends_with_its_owner() {
    ends_with_its_owner("prometheus");
}

#[test]
fn rabbitmq_ends_with_its_owner() {
    ends_with_its_owner("rabbitmq");
}

#[test]
fn s3_ends_with_its_owner() {
    ends_with_its_owner("s3");
}

#[tokio::test]
async fn a_dropped_server_is_gone() {
    let server = Postgres::start().await;
    let address = server.address();
    drop(server);
    assert!(std::net::TcpStream::connect(address).is_err(), "it listens");
}
