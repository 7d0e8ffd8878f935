//! The way to the server: URLs, TLS, bounds, and what is done again.

use test_servers::Postgres;

use tokio_postgres::config::{SslMode, TargetSessionAttrs};

use super::*;
use crate::testing::open;
use crate::testing::test_database;

const PASSWORD: &str = "s3cr3t?p%40ss";

fn refused(url: &str) -> String {
    let options = DatabaseOptions { url: SecretString::from(url), connections: 1, service: "test" };
    let error = Database::new(options).expect_err(url);
    assert!(matches!(error, DatabaseError::Settings(_)), "{error}");
    error.to_string()
}

fn modes(url: &str) -> Vec<SslMode> {
    Connector::new(url, "test").unwrap().hosts.iter().map(Config::get_ssl_mode).collect()
}

#[test]
fn a_url_that_cannot_be_used_is_named_without_its_password() {
    for (rest, said) in [
        ("db/knovvu?sslmode=disable", "in the clear"),
        ("127.0.0.1,db/knovvu?sslmode=disable", "in the clear"),
        ("db/knovvu?sslmode=allow", "sslmode is"),
        ("db/knovvu?sslrootcert=/does/not/exist", "sslrootcert: /does/not/exist"),
        ("db/knovvu?colour=red", "colour"),
        ("db:port/knovvu", "port"),
        ("/knovvu", "names no host"),
    ] {
        let error = refused(&format!("postgres://user:{PASSWORD}@{rest}"));
        assert!(error.starts_with("[catalog] url: ") && error.contains(said), "{rest}: {error}");
        assert!(!error.contains("s3cr3t"), "{error}");
    }
    let error = refused("postgres://user:a@b?s3cr3t=c@db/knovvu");
    assert!(error.contains("%40") && !error.contains("s3cr3t"), "{error}");
    assert!(refused("host=db password=s3cr3t").contains("postgres://"));
}

#[test]
fn another_machine_is_reached_by_tls_only() {
    use SslMode::{Disable, Require};
    for (url, expected) in [
        ("postgres://u@db/k", vec![Require]),
        ("postgres://u@db/k?sslmode=prefer", vec![Require]),
        ("postgres://u@db/k?sslmode=verify-full&sslrootcert=system", vec![Require]),
        ("postgres://u@127.0.0.1/k", vec![Disable]),
        ("postgres://u@[::1]/k?sslmode=require", vec![Require]),
        ("postgres://u@localhost,db/k", vec![Disable, Require]),
        ("postgres://u@db/k?hostaddr=127.0.0.1", vec![Disable]),
        ("postgres://u@localhost/k?hostaddr=10.0.0.1", vec![Require]),
        ("postgres://u@%2Fvar%2Frun%2Fpostgresql/k?sslmode=require", vec![Disable]),
    ] {
        assert_eq!(modes(url), expected, "{url}");
    }
}

#[test]
fn of_several_hosts_the_one_that_takes_writes_is_used() {
    let asked = |url| Connector::new(url, "test").unwrap().hosts[0].get_target_session_attrs();
    assert_eq!(asked("postgres://u@127.0.0.1,localhost:5433/k"), TargetSessionAttrs::ReadWrite);
    assert_eq!(asked("postgres://u@127.0.0.1/k"), TargetSessionAttrs::Any);
}

#[test]
fn the_debug_text_has_no_password() {
    let database = open("postgres://user:s3cr3t@127.0.0.1/knovvu");
    assert!(!format!("{database:?}").contains("s3cr3t"));
}

#[tokio::test]
async fn a_session_carries_its_service_and_its_bounds() {
    let client = test_database().await.client().await.unwrap();
    for (setting, expected) in
        [("application_name", "test"), ("statement_timeout", "30s"), ("tcp_keepalives_idle", "10")]
    {
        let row = client.query_one("select current_setting($1)", &[&setting]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), expected, "{setting}");
    }
}

#[tokio::test]
async fn what_a_url_asks_of_a_session_comes_later_and_wins() {
    let database = test_database().await;
    let row = database.client().await.unwrap().query_one("select current_database()", &[]).await.unwrap();
    let name: String = row.get(0);
    let server = test_servers::postgres().await.url();
    let url = |options: &str| format!("{}/{name}?options={options}", server.rsplit_once('/').unwrap().0);
    for (options, statement_timeout, work_mem) in [
        ("-c%20statement_timeout%3D7s", "7s", "4MB"),
        ("-cstatement_timeout%3D2500%20--work_mem%3D6MB", "2500ms", "6MB"),
        ("-c%20statement_timeout%3D0", "0", "4MB"),
    ] {
        let client = open(&url(options)).client().await.unwrap();
        let set = "select current_setting('statement_timeout'), current_setting('work_mem')";
        let set = client.query_one(set, &[]).await.unwrap();
        assert_eq!([0, 1].map(|column| set.get::<_, &str>(column)), [statement_timeout, work_mem], "{options}");
    }
    let client = open(&url("-c%20search_path%3Da,b")).client().await.unwrap();
    let path = client.query_one("select current_setting('search_path')", &[]).await.unwrap();
    assert_eq!(path.get::<_, &str>(0), "a,b");
    client
        .batch_execute("create schema b; create table b.found (); select from found; drop schema b cascade")
        .await
        .unwrap();
    for odd in ["-c%20statement_timeout", "geqo%3Doff", "-c%20a%27b%3D1", "-c%20x%3By%3D1"] {
        let said = refused(&url(odd));
        assert!(said.contains("options: write each as -c name=value"), "{odd}: {said}");
    }
}

#[tokio::test]
async fn a_session_that_does_not_keep_its_bounds_is_refused() {
    let mut connector = Connector::new(&test_servers::postgres().await.url(), "test").unwrap();
    let [_, question] = &*connector.session;
    // As where a pool keeps what it is told for itself.
    connector.session = Arc::new(["select 1".to_owned(), question.clone()]);
    let error = connector.open().await.unwrap_err().expect("an answer");
    let error = DatabaseError::of("connect", &error);
    assert!(matches!(error, DatabaseError::Settings(_)), "{error}");
    assert!(error.to_string().contains("pool_mode = session"), "{error}");
}

/// A file with the authority of the server's certificate.
fn authority(server: &Postgres) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), server.ca_pem()).unwrap();
    file
}

#[tokio::test]
async fn tls_verifies_the_chain_and_the_name() {
    let server = test_servers::postgres().await;
    let authority = authority(server);
    let trusted = format!("sslmode=require&sslrootcert={}", authority.path().display());
    let url = server.url();
    let database = open(&format!("{url}?{trusted}"));
    let used = database.query("is it encrypted", "select ssl from pg_stat_ssl where pid = pg_backend_pid()", &[]).await;
    assert!(used.unwrap()[0].get::<_, bool>(0));
    let asking = |url: String| async move { open(&url).dedicated().await.unwrap_err().to_string() };
    let error = asking(format!("{url}?sslmode=require")).await;
    assert!(error.contains("UnknownIssuer"), "{error}");
    std::fs::write(authority.path(), format!("\u{feff}{}", server.ca_pem())).unwrap();
    let database = open(&format!("{url}?{trusted}"));
    database.query("is it trusted", "select 1", &[]).await.expect("a byte order mark is no part of the file");
    let elsewhere = url.replace("127.0.0.1", "db.example");
    let error = asking(format!("{elsewhere}?hostaddr=127.0.0.1&{trusted}")).await;
    assert!(error.contains("certificate"), "{error}");
    assert!(error.contains("db.example") || error.contains("name"), "{error}");
}

#[tokio::test]
async fn a_lost_session_is_replaced_and_the_operation_run_again() {
    let database = test_database().await;
    let runs = std::sync::atomic::AtomicUsize::new(0);
    let runs = &runs;
    let answer = database
        .run("try", |client| async move {
            let run = runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if run < 2 {
                client.batch_execute("select pg_terminate_backend(pg_backend_pid())").await?;
            }
            Ok(client.query_one("select 7", &[]).await?.get::<_, i32>(0))
        })
        .await;
    assert_eq!((answer.unwrap(), runs.load(std::sync::atomic::Ordering::Relaxed)), (7, 3));
}

#[tokio::test]
async fn what_would_fail_again_is_not_run_again() {
    let database = test_database().await;
    database.client().await.unwrap().batch_execute("create table odd (value integer check (value < 5))").await.unwrap();
    for (sql, said) in [
        ("insert into odd values (77777)", "SQLSTATE 23514, table odd, constraint odd_value_check"),
        ("select 'secret'::integer", "SQLSTATE 22P02"),
        ("select * from nothing", "relation \"nothing\" does not exist"),
    ] {
        let runs = std::sync::atomic::AtomicUsize::new(0);
        let runs = &runs;
        let operation = |client: Object| async move {
            runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            client.batch_execute(sql).await
        };
        let error = database.run("try", operation).await.unwrap_err();
        assert!(!error.is_passing() && error.to_string().contains(said), "{error}");
        assert!(!error.to_string().contains("77777") && !error.to_string().contains("secret"), "{error}");
        assert_eq!(runs.load(std::sync::atomic::Ordering::Relaxed), 1);
    }
}

#[tokio::test]
async fn a_standby_is_asked_again_for_it_may_be_promoted() {
    let database = test_database().await;
    let runs = std::sync::atomic::AtomicUsize::new(0);
    let runs = &runs;
    let operation = |client: Object| async move {
        let mode = if runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 { "on" } else { "off" };
        client
            .batch_execute(&format!("set default_transaction_read_only = {mode}; create table if not exists t ()"))
            .await
    };
    database.run("try", operation).await.unwrap();
}

#[tokio::test]
async fn after_a_failover_the_other_host_is_used_though_sessions_with_the_first_one_live() {
    let (first, second) = (Postgres::start().await, test_servers::postgres().await);
    for server in [&first, second] {
        let user = "create user test_failover password 'test_failover' superuser";
        open(&server.url()).client().await.unwrap().batch_execute(user).await.unwrap();
    }
    let hosts = format!("127.0.0.1:1,{},{}", first.address(), second.address());
    let database = open(&format!("postgres://test_failover:test_failover@{hosts}/postgres"));
    let port = || async {
        let write = |client: Object| async move {
            // A standby refuses it.
            client.batch_execute("create unlogged table if not exists test_failover ()").await?;
            client.query_one("select current_setting('port')", &[]).await
        };
        database.run("try", write).await.unwrap().get::<_, String>(0)
    };
    assert_eq!(port().await, first.address().port().to_string());
    let admin = open(&first.url()).dedicated().await.unwrap();
    admin.client.batch_execute("alter system set default_transaction_read_only = on").await.unwrap();
    admin.client.batch_execute("select pg_reload_conf()").await.unwrap();
    let waiting = "select pg_sleep(0.01) where current_setting('default_transaction_read_only') = 'off'";
    while admin.client.query_opt(waiting, &[]).await.unwrap().is_some() {}
    assert_eq!(port().await, second.address().port().to_string());
}

#[tokio::test]
async fn a_server_that_is_not_there_is_given_up_in_bounded_time() {
    let database = open("postgres://nobody@127.0.0.1:1/nowhere");
    tokio::time::pause();
    let since = Instant::now();
    let error = database.query("try", "select 1", &[]).await.unwrap_err();
    assert!(error.is_passing() && error.to_string().contains("refused"), "{error}");
    assert!(since.elapsed() < PATIENCE + Duration::from_secs(1));
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up_in_bounded_time_and_used_again_when_it_is_back() {
    let server = Postgres::start().await;
    let database = open(&server.url());
    database.query("try", "select 1", &[]).await.unwrap();
    server.freeze();
    tokio::time::pause();
    let since = Instant::now();
    let error = database.query("try", "select 1", &[]).await.unwrap_err();
    assert!(error.is_passing(), "{error}");
    assert!(since.elapsed() < PATIENCE + Duration::from_secs(1));
    tokio::time::resume();
    server.thaw();
    database.query("try", "select 1", &[]).await.unwrap();
}

#[tokio::test]
async fn all_connections_in_use_is_an_error_in_bounded_time() {
    let database = test_database().await;
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(database.client().await.unwrap());
    }
    tokio::time::pause();
    let error = database.client().await.unwrap_err();
    assert!(error.to_string().contains("all connections are in use"), "{error}");
}
