//! Fluvio, where this machine has it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use test_servers::Fluvio;

/// Asks for the versions that a server understands.
fn ask(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"\0\0\0\x15\0\x12\0\x01\0\0\0\x01\0\0\0\x051.0.0\0\0\0\0").unwrap();
    stream
}

/// Whether the answer comes in clear: it begins with its length, which is small. A word of TLS does not.
fn answers(mut stream: &TcpStream, within: Duration) -> bool {
    stream.set_read_timeout(Some(within)).unwrap();
    let mut first = [1];
    stream.read_exact(&mut first).is_ok() && first == [0]
}

#[tokio::test]
async fn controller_and_broker_come_back_after_a_kill_and_stand_still_while_frozen() {
    let Some(server) = Fluvio::find().await else { return };
    let (sc, spu) = (server.address(), server.spu_address());
    assert!(sc.ip().is_loopback() && spu.ip().is_loopback());
    server.kill_sc().await;
    server.kill_spu().await;
    assert!(TcpStream::connect(sc).is_err() && TcpStream::connect(spu).is_err());
    server.start_spu_again().await;
    server.start_sc_again().await;
    for (address, freeze, thaw) in [
        (sc, Fluvio::freeze_sc as fn(&Fluvio), Fluvio::thaw_sc as fn(&Fluvio)),
        (spu, Fluvio::freeze_spu, Fluvio::thaw_spu),
    ] {
        assert!(answers(&ask(address), Duration::from_secs(60)));
        freeze(&server);
        let stream = ask(address);
        assert!(!answers(&stream, Duration::from_millis(100)), "it answers");
        thaw(&server);
        assert!(answers(&stream, Duration::from_secs(60)));
    }
    assert!(server.cpu_seconds() > 0.0);
}

#[tokio::test]
async fn over_tls_it_answers_nothing_in_clear() {
    let Some(server) = Fluvio::find_with_tls().await else { return };
    assert!(!answers(&ask(server.address()), Duration::from_secs(60)), "it answers in clear");
    let profiles = std::fs::read_to_string(server.profile()).unwrap();
    assert!(profiles.contains(&server.address().to_string()));
}
