//! The turning points of the service → datagrams to systemd (`Type=notify`): ready, stopping, a line of status, and
//! that the process is alive.
//!
//! systemd names its socket and its patience in the environment. Where it names none, in a shell or a container,
//! nothing is sent. A message that does not arrive changes nothing here: systemd's own limits decide what follows.
//!
//! Nobody waits for systemd to read. While its socket is full, beats and lines of status are left out; that the service
//! is ready, or ends, is said by a thread that waits.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use runtime::task;
use sd_notify::NotifyState;
use tokio::time::MissedTickBehavior;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, error};

/// Speaks to the systemd that started this process, if one did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Notifier {
    /// systemd's patience: it kills and restarts a process that has been silent for so long.
    patience: Option<Duration>,
}

impl Notifier {
    /// Takes what systemd put into the environment.
    pub(crate) fn from_environment() -> Self {
        Self { patience: sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero()) }
    }

    /// Says that the start is over: units that are ordered after this one may go on.
    ///
    /// A service that waits for another one to give up its lease has started too, and says so with
    /// [`Self::status`]; else `systemctl start` would wait with it.
    pub(crate) fn ready(&self) {
        send(&NotifyState::Ready);
    }

    /// Shows a line in `systemctl status`.
    pub(crate) fn status(&self, text: &str) {
        // What follows a line break would be a message of its own.
        send(&NotifyState::Status(text.lines().next().unwrap_or_default()));
    }

    /// Says that the service drains and ends.
    pub(crate) fn stopping(&self) {
        send(&NotifyState::Stopping);
    }

    /// Says at half of systemd's patience that the process is alive, until the task is dropped or `alive` denies it.
    ///
    /// The task runs among those that do the work: a runtime that hangs sends nothing. None where systemd
    /// does not watch.
    pub(crate) fn watchdog(&self, alive: impl Fn() -> bool + Send + 'static) -> Option<AbortOnDropHandle<()>> {
        let mut beats = tokio::time::interval(self.patience? / 2);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Some(task::spawn("watchdog", async move {
            loop {
                beats.tick().await;
                if !alive() {
                    error!("systemd is told nothing more, so that it starts the process again");
                    return;
                }
                send(&NotifyState::Watchdog);
            }
        }))
    }
}

/// Where systemd listens.
const SOCKET: &str = "NOTIFY_SOCKET";

/// systemd's own patience with a start is a minute and a half.
const INSISTING: Duration = Duration::from_secs(90);

fn send(message: &NotifyState<'_>) {
    let Some(name) = std::env::var_os(SOCKET) else { return };
    let text = format!("{message}\n");
    let sent = match try_send(&name, &text) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock && is_turning_point(message) => insist(name, text),
        sent => sent,
    };
    if let Err(error) = sent {
        debug!(%error, "systemd not told");
    }
}

fn is_turning_point(message: &NotifyState<'_>) -> bool {
    matches!(message, NotifyState::Ready | NotifyState::Stopping)
}

fn connected(name: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match name.as_bytes().strip_prefix(b"@") {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(name)?,
    }
    Ok(socket)
}

/// Sends what the socket takes at once.
fn try_send(name: &OsStr, text: &str) -> io::Result<()> {
    let socket = connected(name)?;
    socket.set_nonblocking(true)?;
    socket.send(text.as_bytes()).map(drop)
}

/// Sends what must be said; there are two such messages in the life of a service.
fn insist(name: OsString, text: String) -> io::Result<()> {
    let waiting = std::thread::Builder::new().name("systemd".to_owned());
    let spawned = waiting.spawn(move || {
        let sent = connected(&name).and_then(|socket| {
            socket.set_write_timeout(Some(INSISTING))?;
            socket.send(text.as_bytes())
        });
        if let Err(error) = sent {
            debug!(%error, "systemd not told");
        }
    });
    spawned.map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Notify;

    use super::*;

    /// Set in the process that plays the daemon: systemd's variables are read from a real environment.
    const PLAYS_THE_DAEMON: &str = "PLAYS_THE_DAEMON";

    #[tokio::test]
    async fn systemd_hears_what_is_true_and_no_more_once_the_state_has_failed() {
        if std::env::var_os(PLAYS_THE_DAEMON).is_some() {
            return play_the_daemon().await;
        }
        let heard = hear("systemd_hears_what_is_true_and_no_more_once_the_state_has_failed", "20000");
        assert_eq!(heard, ["READY=1", "STATUS=works", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1", "STOPPING=1"]);
    }

    /// Three beats of a healthy state, then it fails.
    async fn play_the_daemon() {
        let notifier = Notifier::from_environment();
        notifier.ready();
        notifier.status("works\nREADY=0");
        let (asked, denied) = (AtomicU32::new(0), Arc::new(Notify::new()));
        let told = denied.clone();
        let beating = notifier.watchdog(move || {
            let alive = asked.fetch_add(1, Ordering::SeqCst) < 3;
            if !alive {
                told.notify_one();
            }
            alive
        });
        denied.notified().await;
        beating.expect("systemd watches").await.unwrap();
        notifier.stopping();
    }

    #[tokio::test]
    async fn without_systemd_nothing_is_sent_and_nothing_fails() {
        if std::env::var_os(PLAYS_THE_DAEMON).is_some() {
            let notifier = Notifier::from_environment();
            assert!(notifier.watchdog(|| true).is_none(), "no systemd watches");
            return;
        }
        assert!(hear("without_systemd_nothing_is_sent_and_nothing_fails", "0").is_empty());
    }

    #[tokio::test]
    async fn a_socket_that_nobody_reads_holds_nobody_up() {
        if let Some(done) = std::env::var_os(PLAYS_THE_DAEMON) {
            let notifier = Notifier::from_environment();
            // More than any socket holds.
            (0..5_000).for_each(|_| notifier.status("works"));
            notifier.ready();
            std::fs::write(done, "").unwrap();
            // Until it is killed.
            return std::future::pending().await;
        }
        let dir = tempfile::tempdir().unwrap();
        let (path, done) = (dir.path().join("notify"), dir.path().join("done"));
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut daemon = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "systemd::tests::a_socket_that_nobody_reads_holds_nobody_up", "--nocapture"])
            .env(PLAYS_THE_DAEMON, &done)
            .env("NOTIFY_SOCKET", &path)
            .spawn()
            .unwrap();
        let begun = tokio::time::Instant::now();
        while !done.exists() && begun.elapsed() < Duration::from_secs(60) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let held_up = !done.exists();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let (mut statuses, mut message) = (0, [0; 256]);
        let ready = loop {
            match socket.recv(&mut message) {
                Ok(length) if message[..length].starts_with(b"READY=1") => break true,
                Ok(_) => statuses += 1,
                Err(_) => break false,
            }
        };
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        assert!(!held_up, "the daemon waits for systemd");
        assert!(ready, "what must be said is not said");
        assert!((1..5_000).contains(&statuses), "{statuses} lines of status");
    }

    /// Runs a test of this module as a process that systemd started; what it said.
    fn hear(test: &str, watchdog_usec: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let daemon = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("systemd::tests::{test}"), "--nocapture"])
            .envs([(PLAYS_THE_DAEMON, "yes"), ("WATCHDOG_USEC", watchdog_usec)])
            .env("NOTIFY_SOCKET", &path)
            .env_remove("WATCHDOG_PID")
            .output()
            .unwrap();
        assert!(daemon.status.success(), "{}", String::from_utf8_lossy(&daemon.stderr));
        // All that was said lies in the socket by now.
        socket.set_nonblocking(true).unwrap();
        let mut heard = Vec::new();
        let mut message = [0; 256];
        while let Ok(length) = socket.recv(&mut message) {
            heard.push(String::from_utf8_lossy(&message[..length]).trim_end().to_owned());
        }
        heard
    }
}
