//! A TCP proxy that misbehaves on request.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;

/// Connections at a time; more wait in the listener's queue. More than a test opens.
const CONNECTIONS: usize = 1_024;

/// The most that is held of one direction of a connection.
const CHUNK: usize = 16 * 1024;

/// Stands before a server and lets through what the test allows. It lives on the runtime of the test that made it,
/// and its connections end with it.
pub struct Proxy {
    upstream: SocketAddr,
    address: SocketAddr,
    faults: watch::Sender<Faults>,
    connections: Arc<Semaphore>,
    /// None while connections are refused.
    acceptor: Mutex<Option<AbortHandle>>,
    /// Bound to the address and never listening: it keeps the port while connections are refused.
    _port: TcpSocket,
}

/// What is wrong at this moment.
#[derive(Clone, Copy, Default)]
struct Faults {
    /// How often all connections were cut.
    cuts: u64,
    refuse: bool,
    stall: bool,
    delay: Duration,
}

impl Proxy {
    /// A proxy without faults.
    pub async fn before(upstream: SocketAddr) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let port = bind(any).expect("a free port can be had");
        let proxy = Self {
            upstream,
            address: port.local_addr().expect("it is bound"),
            faults: watch::Sender::default(),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            acceptor: Mutex::default(),
            _port: port,
        };
        proxy.refuse(false);
        proxy
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets every connection there is, on both sides; new ones are accepted.
    pub fn cut(&self) {
        self.faults.send_modify(|faults| faults.cuts += 1);
    }

    /// Whether new connections are refused, as by a server that is not there. Those there are stay.
    pub fn refuse(&self, refuse: bool) {
        self.faults.send_modify(|faults| faults.refuse = refuse);
        let mut acceptor = self.acceptor();
        if let Some(running) = acceptor.take() {
            running.abort();
        }
        if !refuse {
            let listener = bind(self.address).and_then(|socket| socket.listen(1_024)).expect("the port is kept");
            let accept = accept(listener, self.upstream, self.faults.subscribe(), self.connections.clone());
            *acceptor = Some(tokio::spawn(accept).abort_handle());
        }
    }

    /// Whether bytes stop flowing, while connections stay open and new ones are accepted.
    pub fn stall(&self, stall: bool) {
        self.faults.send_modify(|faults| faults.stall = stall);
    }

    /// How long each piece of up to 16 KiB is held, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.faults.send_modify(|faults| faults.delay = delay);
    }

    fn acceptor(&self) -> MutexGuard<'_, Option<AbortHandle>> {
        self.acceptor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The connections see that `faults` is gone.
        if let Some(running) = self.acceptor().take() {
            running.abort();
        }
    }
}

/// A socket at that address, which it may share with the others of this proxy.
fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn accept(
    listener: TcpListener,
    upstream: SocketAddr,
    faults: watch::Receiver<Faults>,
    connections: Arc<Semaphore>,
) {
    loop {
        let permit = connections.clone().acquire_owned().await.expect("it is never closed");
        let Ok((client, _)) = listener.accept().await else { continue };
        // One that was accepted as the test said to refuse is ended; so nothing comes through after that.
        if faults.borrow().refuse {
            let _ended = client.set_zero_linger();
            continue;
        }
        let faults = faults.clone();
        tokio::spawn(async move {
            connect(client, upstream, faults).await;
            drop(permit);
        });
    }
}

/// One connection, from its first byte to its end. Any end but an orderly one is passed on as a reset.
async fn connect(mut client: TcpStream, upstream: SocketAddr, mut faults: watch::Receiver<Faults>) {
    let cuts = faults.borrow_and_update().cuts;
    let (to_server, to_client) = (faults.clone(), faults.clone());
    let cut = async {
        // An error says that the proxy is gone.
        let _cut = faults.wait_for(|faults| faults.cuts != cuts).await;
    };
    tokio::pin!(cut);
    let server = tokio::select! {
        server = TcpStream::connect(upstream) => server,
        () = &mut cut => return reset(&client),
    };
    let Ok(mut server) = server else { return reset(&client) };
    // Small writes of a protocol that waits for answers must not wait for each other as well.
    let _nodelay = client.set_nodelay(true).and(server.set_nodelay(true));
    let whole = {
        let ((client_read, client_write), (server_read, server_write)) = (client.split(), server.split());
        let flow = async {
            tokio::try_join!(pump(client_read, server_write, to_server), pump(server_read, client_write, to_client))
        };
        tokio::select! {
            flowed = flow => flowed.is_ok(),
            () = &mut cut => false,
        }
    };
    if !whole {
        reset(&client);
        reset(&server);
    }
}

/// Has the peer see a reset when the connection is dropped.
fn reset(connection: &TcpStream) {
    // One that is gone already is as good as reset.
    let _gone = connection.set_zero_linger();
}

/// One direction, to its orderly end.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut faults: watch::Receiver<Faults>) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = from.read(&mut chunk).await?;
        let delay = faults.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        faults.wait_for(|faults| !faults.stall).await.map_err(io::Error::other)?;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&chunk[..length]).await?;
    }
}
