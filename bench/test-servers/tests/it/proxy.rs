//! The proxy, before a server that answers each byte with the same.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use test_servers::Proxy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

/// A server that ends with the test's runtime.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    address
}

async fn echoes(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"x").await?;
    stream.read_exact(&mut [0]).await.map(drop)
}

#[tokio::test]
async fn it_passes_all_bytes_and_the_end_on() {
    let proxy = Proxy::before(echo().await).await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    let sent: Vec<u8> = (0..1_000_000_u32).map(|i| i as u8).collect();
    let (mut read, mut write) = stream.split();
    let mut received = Vec::new();
    let send = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    tokio::join!(send, async { read.read_to_end(&mut received).await.unwrap() });
    assert!(received == sent);
}

#[tokio::test]
async fn a_cut_resets_what_is_open_and_lets_new_ones_in() {
    let proxy = Proxy::before(echo().await).await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    echoes(&mut stream).await.unwrap();
    proxy.cut();
    assert_eq!(stream.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    echoes(&mut stream).await.unwrap();
}

#[tokio::test]
async fn it_refuses_as_a_server_that_is_not_there_and_keeps_what_is_open() {
    let proxy = Proxy::before(echo().await).await;
    let mut open = TcpStream::connect(proxy.address()).await.unwrap();
    echoes(&mut open).await.unwrap();
    proxy.refuse(true);
    // Its listener goes as soon as the runtime gets to it; until then a connection is reset.
    loop {
        match TcpStream::connect(proxy.address()).await {
            Ok(mut stream) => assert!(echoes(&mut stream).await.is_err(), "a connection came through"),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => break,
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
    echoes(&mut open).await.unwrap();
    proxy.refuse(false);
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    echoes(&mut stream).await.unwrap();
}

#[tokio::test]
async fn a_stall_holds_bytes_back_and_loses_none() {
    let proxy = Proxy::before(echo().await).await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    proxy.stall(true);
    assert!(timeout(Duration::from_millis(100), echoes(&mut stream)).await.is_err(), "it answers");
    proxy.stall(false);
    // The byte of the first try comes first.
    echoes(&mut stream).await.unwrap();
    stream.read_exact(&mut [0]).await.unwrap();
}

#[tokio::test]
async fn a_delay_holds_each_way() {
    let proxy = Proxy::before(echo().await).await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    let delay = Duration::from_millis(50);
    proxy.delay(delay);
    let before = Instant::now();
    echoes(&mut stream).await.unwrap();
    assert!(before.elapsed() >= 2 * delay);
}

#[tokio::test]
async fn what_reaches_no_server_is_reset() {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let proxy = Proxy::before(upstream).await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn connections_end_with_the_proxy() {
    let proxy = Proxy::before(echo().await).await;
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    echoes(&mut stream).await.unwrap();
    drop(proxy);
    assert_eq!(stream.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}
