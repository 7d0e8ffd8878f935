//! RabbitMQ.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use test_servers::RabbitMq;

/// The body of an answer of the management plugin.
fn manage(server: &RabbitMq, method: &str, path: &str, body: &str) -> String {
    let address: SocketAddr = server.management_url().strip_prefix("http://").unwrap().parse().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} /api/{path} HTTP/1.0\r\nAuthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 2"), "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

#[tokio::test]
async fn a_confirmed_message_survives_a_kill() {
    let server = RabbitMq::start().await;
    let queue = r#"{"durable": true, "arguments": {"x-queue-type": "quorum"}}"#;
    manage(&server, "PUT", "queues/%2f/kept", queue);
    let message = r#"{"routing_key": "kept", "payload": "seven", "payload_encoding": "string",
        "properties": {"delivery_mode": 2}}"#;
    // It answers once the broker has confirmed.
    assert_eq!(manage(&server, "POST", "exchanges/%2f/amq.default/publish", message), r#"{"routed":true}"#);
    server.kill().await;
    server.start_again().await;
    let queues = server.ctl(&["list_queues", "--no-table-headers", "name", "durable"]).await;
    assert_eq!(queues.trim(), "kept\ttrue");
    let get = r#"{"count": 1, "ackmode": "ack_requeue_false", "encoding": "auto"}"#;
    let got = manage(&server, "POST", "queues/%2f/kept/get", get);
    assert!(got.contains(r#""payload":"seven""#), "{got}");
    assert!(server.cpu_seconds() > 0.0);
}

#[tokio::test]
async fn a_message_that_was_due_before_its_next_queue_was_there_comes_soon_after_it() {
    let server = RabbitMq::start().await;
    manage(&server, "PUT", "queues/%2f/lane", r#"{"durable": true, "arguments": {"x-queue-type": "quorum"}}"#);
    let step = r#"{"durable": true, "arguments": {"x-queue-type": "quorum", "x-message-ttl": 100,
        "x-overflow": "reject-publish", "x-dead-letter-strategy": "at-least-once",
        "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "lane"}}"#;
    manage(&server, "PUT", "queues/%2f/step", step);
    let counted =
        async || server.ctl(&["list_queues", "--no-table-headers", "name", "messages", "messages_ready"]).await;
    let becomes = async |expected: &str| {
        let begun = Instant::now();
        while !counted().await.contains(expected) {
            // Less than what the broker would wait for by default.
            assert!(begun.elapsed() < Duration::from_secs(120), "not {expected:?}: {}", counted().await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let lane = "{'%2F_lane', node()}";
    server.ctl(&["eval", &format!("ok = ra:stop_server(quorum_queues, {lane}).")]).await;
    let message = r#"{"routing_key": "step", "payload": "seven", "payload_encoding": "string",
        "properties": {"delivery_mode": 2}}"#;
    assert_eq!(manage(&server, "POST", "exchanges/%2f/amq.default/publish", message), r#"{"routed":true}"#);
    // It has left the step, and nothing has taken it.
    becomes("step\t1\t0").await;
    server.ctl(&["eval", &format!("ok = ra:restart_server(quorum_queues, {lane}).")]).await;
    becomes("lane\t1\t1").await;
}

#[tokio::test]
async fn a_frozen_broker_accepts_and_does_not_answer_until_it_thaws() {
    let server = RabbitMq::start().await;
    let ask = || {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.write_all(b"AMQP\0\0\x09\x01").unwrap();
        stream
    };
    server.freeze();
    let mut stream = ask();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(stream.read_exact(&mut [0]).is_err(), "it answers");
    server.thaw();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.read_exact(&mut [0]).unwrap();
}

#[tokio::test]
async fn it_speaks_tls_with_a_certificate_of_its_authority() {
    let server = RabbitMq::start_with_tls().await;
    let address = server.tls_url().replace("amqps://guest:guest@", "").replace("/%2f", "");
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), server.ca_pem()).unwrap();
    // The distribution's own `openssl` comes with PostgreSQL's packages.
    let mut openssl = Command::new("openssl");
    openssl.args(["s_client", "-connect", &address, "-verify_ip", "127.0.0.1", "-verify_return_error", "-CAfile"]);
    let output = openssl.arg(ca.path()).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("Verify return code: 0 (ok)"), "{text}");
}
