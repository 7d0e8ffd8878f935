//! A connection to the broker that is made again whenever it is lost, for as long as the queue lives.
//!
//! The library could restore a connection by itself. A fresh connection is easier to reason about: what was open on
//! the lost one fails once and for all, the broker hands its deliveries out again, and nothing has to be replayed.

use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use lapin::{
    Connection, ConnectionProperties, Event,
    tcp::{AsyncTcpStream, OwnedTLSConfig},
    uri::{AMQPScheme, AMQPUri},
};
use model::http::is_loopback_host;
use runtime::task;
use secrecy::ExposeSecret;
use tokio::{sync::watch, time::timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};

use super::amqp::{OK, code};
use super::suspects::SuspectMarks;
use super::topology::Topology;
use super::{RabbitError, RabbitOptions};
use crate::retry::{intervals, pause};
use crate::{QueueError, QueueMetrics};

/// Both sides send something this often; one that is silent for twice as long is given up.
const HEARTBEAT_SECS: u16 = 10;

/// From the first packet to the end of the handshake; a broker that starts accepts before it answers.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How often the connection is looked at besides its events, not all of which come for certain.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The broker may block it.
    Publish,
    /// The broker never blocks it, for nothing is published on it.
    Consume,
}

/// The socket of the connection that was begun last, so that one that hangs can be ended.
type Socket = Arc<Mutex<Option<TcpStream>>>;

#[derive(Clone)]
enum LinkState {
    Up(Arc<Connection>),
    /// The broker is short of memory or disk and takes no messages. It says why.
    Blocked(Arc<Connection>, String),
    /// Since when the connection was lost or could not be made: the reason.
    Down(String),
}

impl LinkState {
    /// Why it takes no messages.
    fn trouble(&self) -> Option<String> {
        match self {
            Self::Up(_) => None,
            Self::Blocked(_, reason) => Some(format!("the broker takes no messages: {reason}")),
            Self::Down(reason) => Some(format!("no connection to the broker: {reason}")),
        }
    }
}

/// A connection, made again whenever it is lost.
pub(super) struct Link {
    state: watch::Receiver<LinkState>,
    #[cfg_attr(not(test), expect(dead_code, reason = "tests end it"))]
    socket: Socket,
    supervisor: AbortOnDropHandle<()>,
}

impl Link {
    /// Connects and declares the topology.
    pub(super) async fn start(
        role: Role,
        options: Arc<RabbitOptions>,
        topology: Arc<Topology>,
        metrics: QueueMetrics,
        marks: Arc<SuspectMarks>,
    ) -> Result<Self, RabbitError> {
        let socket = Socket::default();
        let mut supervisor = Supervisor { role, options, topology, metrics, marks, socket: socket.clone() };
        let connection = supervisor.connect().await?;
        let (sender, state) = watch::channel(LinkState::Up(connection.clone()));
        let states = States { sender };
        let supervisor = task::spawn("connection", async move { supervisor.run(connection, states).await });
        Ok(Self { state, socket, supervisor })
    }

    /// A connection that stands; waits while there is none.
    pub(super) async fn connection(&self) -> Result<Arc<Connection>, QueueError> {
        self.wait_for(|state| match state {
            LinkState::Up(connection) | LinkState::Blocked(connection, _) => Some(connection.clone()),
            LinkState::Down(_) => None,
        })
        .await
    }

    /// A connection that takes messages; waits while there is none.
    pub(super) async fn unblocked(&self) -> Result<Arc<Connection>, QueueError> {
        self.wait_for(|state| match state {
            LinkState::Up(connection) => Some(connection.clone()),
            LinkState::Blocked(..) | LinkState::Down(_) => None,
        })
        .await
    }

    /// Waits until it takes no messages. For good also when it is closed.
    pub(super) async fn troubled(&self) {
        let mut state = self.state.clone();
        drop(state.wait_for(|state| !matches!(state, LinkState::Up(_))).await);
    }

    async fn wait_for(
        &self,
        found: impl Fn(&LinkState) -> Option<Arc<Connection>>,
    ) -> Result<Arc<Connection>, QueueError> {
        let mut state = self.state.clone();
        let state = state.wait_for(|state| found(state).is_some()).await;
        let state = state.map_err(|_| QueueError("the connection is closed for good".to_owned()))?;
        found(&state).ok_or_else(|| QueueError("the connection was lost".to_owned()))
    }

    /// What keeps the connection from taking messages.
    pub(super) fn trouble(&self) -> Option<String> {
        self.state.borrow().trouble()
    }

    /// Ends the connection in good order, and for good.
    pub(super) async fn close(&self) {
        self.supervisor.abort();
        let connection = match &*self.state.borrow() {
            LinkState::Up(connection) | LinkState::Blocked(connection, _) => connection.clone(),
            LinkState::Down(_) => return,
        };
        if let Err(error) = connection.close(OK, "done".into()).await {
            debug!(%error, "connection not closed");
        }
    }

    /// Ends the connection without a word, and for good.
    #[cfg(test)]
    pub(super) fn sever(&self) {
        self.supervisor.abort();
        end(&self.socket);
    }
}

/// Where the supervisor tells how its connection stands.
struct States {
    sender: watch::Sender<LinkState>,
}

impl States {
    fn is_blocked(&self) -> bool {
        matches!(&*self.sender.borrow(), LinkState::Blocked(..))
    }

    fn tell(&self, state: LinkState) {
        self.sender.send_replace(state);
    }
}

struct Supervisor {
    role: Role,
    options: Arc<RabbitOptions>,
    topology: Arc<Topology>,
    metrics: QueueMetrics,
    marks: Arc<SuspectMarks>,
    socket: Socket,
}

impl Supervisor {
    async fn run(&mut self, mut connection: Arc<Connection>, states: States) {
        loop {
            let reason = self.watch_over(connection, &states).await;
            self.note_blocked(false);
            // The library's thread ends with its socket, whatever it waits for.
            end(&self.socket);
            warn!(role = ?self.role, reason, "connection to the broker lost");
            states.tell(LinkState::Down(reason));
            connection = self.connect_insisting(&states).await;
            self.metrics.reconnects.inc();
            self.forgive(&connection).await;
            info!(role = ?self.role, "connected to the broker again");
            states.tell(LinkState::Up(connection.clone()));
        }
    }

    /// Takes the marks at suspects away that were lost with the last connection, before others have waited for it
    /// too long. Where that fails, the next session does it.
    async fn forgive(&self, connection: &Connection) {
        let forgiving = timeout(CONNECT_TIMEOUT, self.marks.forgive(connection));
        if self.role == Role::Consume && !matches!(forgiving.await, Ok(Ok(()))) {
            warn!("marks at suspects not taken away");
        }
    }

    /// Returns when the connection is lost, with the reason.
    async fn watch_over(&self, connection: Arc<Connection>, states: &States) -> String {
        let mut events = connection.events_listener();
        let mut reason = "closed".to_owned();
        while connection.status().connected() {
            // Its own word for it, should the event that tells of the end not come.
            if states.is_blocked() && !connection.status().blocked() {
                self.unblocked(&connection, states);
            }
            match timeout(LOOK_INTERVAL, events.next()).await {
                Ok(Some(Event::ConnectionBlocked(why))) => {
                    warn!(reason = why, "the broker takes no messages");
                    self.note_blocked(true);
                    states.tell(LinkState::Blocked(connection.clone(), why));
                }
                Ok(Some(Event::ConnectionUnblocked)) => self.unblocked(&connection, states),
                // Errors of a channel come as well.
                Ok(Some(Event::Error(error))) if !connection.status().connected() => reason = error.to_string(),
                Ok(_) | Err(_) => {}
            }
        }
        reason
    }

    fn unblocked(&self, connection: &Arc<Connection>, states: &States) {
        info!("the broker takes messages again");
        self.note_blocked(false);
        states.tell(LinkState::Up(connection.clone()));
    }

    async fn connect_insisting(&mut self, states: &States) -> Arc<Connection> {
        let mut intervals = intervals();
        let mut last = String::new();
        loop {
            pause(&mut intervals).await;
            match self.connect().await {
                Ok(connection) => return connection,
                Err(error) => {
                    let reason = error.to_string();
                    if reason != last {
                        warn!(role = ?self.role, reason, "no connection to the broker, will try again");
                    }
                    states.tell(LinkState::Down(reason.clone()));
                    last = reason;
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<Arc<Connection>, RabbitError> {
        let connection = self.dial().await?;
        self.topology.declare(&connection).await?;
        Ok(Arc::new(connection))
    }

    async fn dial(&self) -> Result<Connection, RabbitError> {
        let uri = parse(self.options.url.expose_secret())?;
        let address = format!("{}:{}", uri.authority.host, uri.authority.port);
        let unreachable = |reason: String| RabbitError::Unreachable { address: address.clone(), reason };
        let name = match self.role {
            Role::Publish => format!("{} publish", self.options.service),
            Role::Consume => format!("{} consume", self.options.service),
        };
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let runtime = lapin::runtime::default_runtime().map_err(|error| unreachable(error.to_string()))?;
        let (socket, ca) = (self.socket.clone(), self.options.ca.clone());
        let connecting = Connection::connector(
            uri,
            runtime,
            async move |uri, runtime| {
                let host = uri.authority.host;
                let address = runtime.to_socket_addrs((host.clone(), uri.authority.port));
                let stream = AsyncTcpStream::connect(&runtime, address).await?;
                if let AsyncTcpStream::Plain(plain) = &stream {
                    let handle = plain.get_ref().as_fd().try_clone_to_owned()?;
                    *lock(&socket) = Some(handle.into());
                }
                match uri.scheme {
                    lapin::uri::AMQPScheme::AMQP => Ok(stream),
                    lapin::uri::AMQPScheme::AMQPS => {
                        let config = OwnedTLSConfig { identity: None, cert_chain: ca.clone() };
                        Ok(stream.into_tls(&host, config.as_ref()).await?)
                    }
                }
            },
            properties,
        );
        match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(match code(&error) {
                Some(403) => RabbitError::Login { address },
                Some(530) => RabbitError::VirtualHost { address, reason: error.to_string() },
                _ => unreachable(error.to_string()),
            }),
            Err(_) => {
                end(&self.socket);
                Err(unreachable(format!("no answer within {CONNECT_TIMEOUT:?}")))
            }
        }
    }

    fn note_blocked(&self, blocked: bool) {
        if self.role == Role::Publish {
            self.metrics.connection_blocked.set(blocked.into());
        }
    }
}

/// The URL with a heartbeat. The library takes a missing or an odd host for localhost, which nobody meant. A password
/// leaves the machine by TLS only.
pub(super) fn parse(url: &str) -> Result<AMQPUri, RabbitError> {
    let mut uri: AMQPUri = url.parse().map_err(|_| RabbitError::Url("not a URL of a broker".to_owned()))?;
    if uri.authority.host.is_empty() || (uri.authority.host == "localhost" && !url.contains("localhost")) {
        return Err(RabbitError::Url("no host name or IPv4 address".to_owned()));
    }
    if uri.scheme == AMQPScheme::AMQP && !is_loopback_host(&uri.authority.host) {
        return Err(RabbitError::Url(
            "amqp:// would send the password in clear; beyond this machine use amqps://".to_owned(),
        ));
    }
    uri.query.heartbeat = Some(uri.query.heartbeat.filter(|secs| *secs > 0).unwrap_or(HEARTBEAT_SECS));
    Ok(uri)
}

fn lock(socket: &Socket) -> std::sync::MutexGuard<'_, Option<TcpStream>> {
    socket.lock().unwrap_or_else(PoisonError::into_inner)
}

fn end(socket: &Socket) {
    if let Some(socket) = lock(socket).take() {
        // An error says that it has ended already.
        drop(socket.shutdown(Shutdown::Both));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_host_and_gets_a_heartbeat() {
        let uri = parse("amqps://u:p@10.0.0.1:5672/%2f").unwrap();
        assert_eq!((uri.authority.host.as_str(), uri.query.heartbeat), ("10.0.0.1", Some(HEARTBEAT_SECS)));
        assert_eq!(parse("amqps://localhost?heartbeat=0").unwrap().query.heartbeat, Some(HEARTBEAT_SECS));
        for url in ["", "http://localhost", "amqp:///", "amqps://[2001:db8::1]:5672/", "amqp://u:p@10.0.0.1"] {
            let error = parse(url).unwrap_err();
            assert!(matches!(error, RabbitError::Url(_)), "{url}: {error}");
        }
    }
}
