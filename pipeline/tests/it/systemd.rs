//! What systemd hears of the daemon when it is started as `Type=notify`.

use std::os::unix::net::UnixDatagram;

use crate::harness::{Bed, PATIENCE, hurried};

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_tells_systemd_when_it_is_ready_alive_and_stopping() {
    let bed = Bed::new(hurried(71, 0)).await;
    let path = bed.dir.path().join("notify");
    let systemd = Systemd::listen(&path);
    let mut daemon = bed.start_with(&[("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "100000")]);
    let started = systemd.hears("READY=1");
    assert!(!started.contains(&"STOPPING=1".to_owned()), "{started:?}");
    // Its producer may wait for its turn still: who waits for another to give up the tenant has started too.
    let (_, page) = daemon.get("/readyz").await.expect("ready was said before the admin address answers");
    assert!(!page.contains("starting"), "ready was said too early: {page}");
    daemon.ready().await;
    for _ in 0..3 {
        systemd.hears("WATCHDOG=1");
    }
    daemon.signal(rustix::process::Signal::TERM);
    systemd.hears("STOPPING=1");
    assert!(daemon.wait().success());
}

/// systemd's end of the socket.
struct Systemd(UnixDatagram);

impl Systemd {
    fn listen(path: &std::path::Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// Reads until a message comes; all that was said up to it.
    fn hears(&self, awaited: &str) -> Vec<String> {
        let (mut heard, mut message) = (Vec::new(), [0; 256]);
        loop {
            let length = self.0.recv(&mut message).unwrap_or_else(|error| panic!("{awaited} not said: {error}"));
            heard.push(String::from_utf8_lossy(&message[..length]).trim_end().to_owned());
            if heard.last().is_some_and(|last| last == awaited) {
                return heard;
            }
        }
    }
}
