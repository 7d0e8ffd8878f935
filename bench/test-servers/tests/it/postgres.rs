//! PostgreSQL.

use test_servers::Postgres;

#[tokio::test]
async fn a_committed_row_survives_a_kill() {
    let server = Postgres::start().await;
    let url = server.database().await;
    server.psql(&url, "CREATE TABLE kept (id int); INSERT INTO kept VALUES (7)").await;
    server.kill().await;
    server.start_again().await;
    assert_eq!(server.psql(&url, "SELECT id FROM kept").await.trim(), "7");
    assert!(server.cpu_seconds() > 0.0);
}

#[tokio::test]
async fn a_restart_does_not_disturb_a_paused_clock() {
    tokio::time::pause();
    let server = Postgres::start().await;
    let before = tokio::time::Instant::now();
    server.kill().await;
    server.start_again().await;
    assert_eq!(tokio::time::Instant::now(), before);
}

#[tokio::test]
async fn a_database_is_new_and_empty() {
    let server = test_servers::postgres().await;
    let (one, other) = tokio::join!(server.database(), server.database());
    assert_ne!(one, other);
    server.psql(&one, "CREATE TABLE mine ()").await;
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(server.psql(&one, tables).await.trim(), "1");
    assert_eq!(server.psql(&other, tables).await.trim(), "0");
}

#[tokio::test]
async fn a_role_needs_its_password_and_commits_are_synced() {
    let server = test_servers::postgres().await;
    server.psql(&server.url(), "CREATE ROLE reader LOGIN PASSWORD 'right'").await;
    let settings = "SELECT current_user, current_setting('fsync'), current_setting('synchronous_commit')";
    let right = server.url_of("postgres", "reader", "right");
    assert_eq!(server.psql(&right, settings).await.trim(), "reader|on|on");
    let wrong = server.url_of("postgres", "reader", "wrong");
    let refused = tokio::spawn(async move { server.psql(&wrong, settings).await }).await;
    assert!(refused.is_err(), "it lets in with a wrong password");
}

#[tokio::test]
async fn it_is_reached_with_tls_and_without() {
    let server = test_servers::postgres().await;
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), server.ca_pem()).unwrap();
    let encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let plain = format!("{}?sslmode=disable", server.url());
    assert_eq!(server.psql(&plain, encrypted).await.trim(), "f");
    let verified = format!("{}?sslmode=verify-full&sslrootcert={}", server.url(), ca.path().display());
    assert_eq!(server.psql(&verified, encrypted).await.trim(), "t");
}
