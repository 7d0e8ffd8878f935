//! A machine that runs one of the two services, and what systemd does for it: it starts the service again when that
//! ends by itself.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use nice_knovvu::embed::{AdminPages, Embedded, LentDoors, Service, ServiceRoutes};
use runtime::{ClockSkew, Machine};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::journal::Journal;

/// systemd's pause before it starts a service again.
const RESTART: Duration = Duration::from_secs(2);

/// Gives a machine its doors; a machine that is started again has new ones.
pub type Doors = Arc<dyn Fn(&Machine) -> LentDoors + Send + Sync>;

/// A machine with its service.
pub struct Host {
    /// Its name in the journal.
    pub name: String,
    /// Its number, from 0; weather may be for one machine alone.
    pub number: u32,
    service: Service,
    settings: Mutex<String>,
    seed: u64,
    doors: Doors,
    journal: Journal,
    /// How wrong its clock is.
    pub skew: ClockSkew,
    state: Mutex<State>,
    /// Its local disk, if it keeps anything there.
    pub disk: PathBuf,
}

#[derive(Default)]
struct State {
    starts: u64,
    running: Option<Running>,
    /// Why it ended by itself, each time.
    failures: Vec<String>,
    /// When it was started last.
    started: Option<Instant>,
}

struct Running {
    machine: Machine,
    stopping: CancellationToken,
    pages: Option<AdminPages>,
    webhook: Option<Router>,
}

/// What a machine is made of.
pub struct Parts {
    /// Its name in the journal.
    pub name: String,
    /// Its number.
    pub number: u32,
    /// Which service it runs.
    pub service: Service,
    /// The settings of the service.
    pub settings: String,
    /// Draws its chance.
    pub seed: u64,
    /// Gives it its doors.
    pub doors: Doors,
    /// How wrong its clock is.
    pub skew: ClockSkew,
    /// Its local disk.
    pub disk: PathBuf,
}

impl Host {
    /// A machine that is off.
    pub fn new(parts: Parts, journal: Journal) -> Arc<Self> {
        let Parts { name, number, service, settings, seed, doors, skew, disk } = parts;
        let (settings, state) = (Mutex::new(settings), Mutex::default());
        Arc::new(Self { name, number, service, settings, seed, doors, journal, skew, state, disk })
    }

    /// Runs the service, and starts it again when it ends by itself, until it is stopped or killed.
    pub async fn run(self: Arc<Self>) {
        loop {
            let (machine, stopping) = self.begin();
            let (admin, admitted) = oneshot::channel();
            let settings = lock(&self.settings).clone();
            let world = (self.doors)(&machine);
            let service = self.service;
            let serving = {
                let stopping = stopping.clone();
                async move { Embedded::open(&settings, service, world).await?.run(admin, stopping).await }
            };
            let showing = async {
                if let Ok(ServiceRoutes { admin, webhook }) = admitted.await
                    && let Some(running) = &mut self.state().running
                {
                    (running.pages, running.webhook) = (Some(admin), webhook);
                }
            };
            let (ended, ()) = tokio::join!(machine.run(serving), showing);
            self.state().running = None;
            match ended {
                None => {
                    self.recover();
                    return self.journal.note(format_args!("{} is dead", self.name));
                }
                Some(Ok(())) if stopping.is_cancelled() => {
                    return self.journal.note(format_args!("{} has stopped", self.name));
                }
                Some(Ok(())) => self.failed("it ended without a reason"),
                Some(Err(reason)) => self.failed(&reason),
            }
            tokio::time::sleep(RESTART).await;
        }
    }

    fn begin(&self) -> (Machine, CancellationToken) {
        let mut state = self.state();
        state.starts += 1;
        state.started = Some(Instant::now());
        let machine = Machine::new(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(state.starts));
        let stopping = CancellationToken::new();
        state.running =
            Some(Running { machine: machine.clone(), stopping: stopping.clone(), pages: None, webhook: None });
        self.journal.note(format_args!("{} starts", self.name));
        (machine, stopping)
    }

    fn failed(&self, reason: &str) {
        self.journal.note(format_args!("{} ended by itself: {reason}", self.name));
        self.state().failures.push(reason.to_owned());
    }

    /// Kills it: nothing of it runs any more.
    pub fn kill(&self) {
        if let Some(running) = &self.state().running {
            self.journal.note(format_args!("{} is killed", self.name));
            running.machine.kill();
            // What its process had not written yet is lost with it, though its memory goes on being tidied up here.
            if let Err(error) = copy(&self.disk, &self.left_behind()) {
                self.journal.note(format_args!("{}: its disk is not kept as it was: {error}", self.name));
            }
        }
    }

    /// The disk as it was when the process died.
    fn left_behind(&self) -> PathBuf {
        self.disk.with_extension("killed")
    }

    /// Puts the disk back to what it was when the process died.
    fn recover(&self) {
        let left = self.left_behind();
        if left.is_dir() {
            let swapped = std::fs::remove_dir_all(&self.disk).and_then(|()| std::fs::rename(&left, &self.disk));
            if let Err(error) = swapped {
                self.journal.note(format_args!("{}: its disk is not as it was: {error}", self.name));
            }
        }
    }

    /// Stops it in order, as SIGTERM does.
    pub fn stop(&self) {
        if let Some(running) = &self.state().running {
            self.journal.note(format_args!("{} is stopped", self.name));
            running.stopping.cancel();
        }
    }

    /// Suspends it.
    pub fn pause(&self) {
        if let Some(running) = &self.state().running {
            self.journal.note(format_args!("{} is suspended", self.name));
            running.machine.pause();
        }
    }

    /// Lets it go on.
    pub fn resume(&self) {
        if let Some(running) = &self.state().running {
            self.journal.note(format_args!("{} goes on", self.name));
            running.machine.resume();
        }
    }

    /// Whether its service runs.
    pub fn is_running(&self) -> bool {
        self.state().running.is_some()
    }

    /// Whether its service runs, and shall end.
    pub fn is_stopping(&self) -> bool {
        self.state().running.as_ref().is_some_and(|running| running.stopping.is_cancelled())
    }

    /// Gives it other settings from the next start on.
    pub fn configure(&self, settings: String) {
        *lock(&self.settings) = settings;
    }

    /// The service that it runs.
    pub fn service(&self) -> Service {
        self.service
    }

    /// When it was started last, if ever.
    pub fn last_start(&self) -> Option<Instant> {
        self.state().started
    }

    /// Why it ended by itself, each time.
    pub fn failures(&self) -> Vec<String> {
        self.state().failures.clone()
    }

    /// Asks its admin pages; none while they are not there.
    pub async fn ask(&self, method: Method, path: &str, body: serde_json::Value) -> Option<(StatusCode, String)> {
        let (machine, pages, token) = {
            let state = self.state();
            let running = state.running.as_ref()?;
            let pages = running.pages.as_ref()?;
            (running.machine.clone(), pages.router.clone(), pages.token.clone())
        };
        machine.run(answer(pages, &token, method, path, body)).await.flatten()
    }

    /// Tells its webhook of a call that ended; none while it has none.
    pub async fn tell(&self, event: &serde_json::Value, secret: &str) -> Option<StatusCode> {
        let (machine, webhook) = {
            let state = self.state();
            let running = state.running.as_ref()?;
            (running.machine.clone(), running.webhook.clone()?)
        };
        let answer = answer(webhook, secret, Method::POST, "/nice/events/contact-ended", event.clone());
        machine.run(answer).await.flatten().map(|(status, _)| status)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

async fn answer(
    pages: Router,
    token: &str,
    method: Method,
    path: &str,
    body: serde_json::Value,
) -> Option<(StatusCode, String)> {
    use tower::ServiceExt;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))
        .ok()?;
    let answer = pages.oneshot(request).await.ok()?;
    let status = answer.status();
    let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.ok()?;
    Some((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Copies a directory that may not be there.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if !from.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false => drop(std::fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
