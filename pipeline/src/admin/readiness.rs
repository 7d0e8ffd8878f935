//! `/readyz`: whether the process works, and every system that it needs.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use flow::{Blame, Outside, outside::SystemHealth};
use runtime::Clock;
use state::State;
use tokio::sync::watch;

use crate::heartbeat::ProducerState;

/// What `/readyz` looks at.
#[derive(Clone)]
pub(crate) struct ReadinessCheck {
    pub(crate) service: ServiceReadiness,
    /// The local state, where the process keeps one.
    pub(crate) state: Option<State>,
    pub(crate) outside: Outside,
    pub(crate) blame: Blame,
    pub(crate) clock: Clock,
}

/// Whether the process works; clones share it.
#[derive(Clone)]
pub(crate) struct ServiceReadiness {
    serving: Arc<AtomicBool>,
    producing: Option<watch::Receiver<bool>>,
    outside: Outside,
}

impl ServiceReadiness {
    /// Not ready yet. `producing`, where there is a producer, is set while it holds the tenant's lease.
    pub(crate) fn new(producing: Option<watch::Receiver<bool>>, outside: Outside) -> Self {
        Self { serving: Arc::default(), producing, outside }
    }

    /// Whether the producer works, where there is one.
    pub(crate) fn producing(&self) -> Option<watch::Receiver<bool>> {
        self.producing.clone()
    }

    /// Everything is started, or the end has begun.
    pub(crate) fn set_serving(&self, serving: bool) {
        self.serving.store(serving, Ordering::SeqCst);
    }

    /// Why it does not work, if it does not.
    pub(crate) fn hindrance(&self) -> Option<&'static str> {
        if !self.serving.load(Ordering::SeqCst) {
            return Some("starting or draining");
        }
        self.producer().filter(|state| *state != ProducerState::Works).map(ProducerState::as_str)
    }

    /// How the producer stands, where there is one.
    pub(crate) fn producer(&self) -> Option<ProducerState> {
        self.producing.as_ref().map(|works| ProducerState::of(*works.borrow(), &self.outside))
    }
}

/// 200, or what hinders; then each system.
pub(super) fn readyz(check: ReadinessCheck) -> Response {
    let ReadinessCheck { service, state, outside, blame, clock } = check;
    if let Err(error) = state.map_or(Ok(()), |state| state.store().check()) {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("local state: {error}\n")).into_response();
    }
    let now = clock.now();
    let health = outside.health().into_iter().map(|(system, health)| match health {
        // It answers, but does not do what it is asked for: its disk is full, or we lack a right.
        SystemHealth::Up if blame.fails_for_some(system, now) => (
            system,
            SystemHealth::Down { since: now, why: "it answers, and fails for many calls: the log says why".to_owned() },
        ),
        health => (system, health),
    });
    let health: Vec<_> = health.collect();
    let away = health.iter().any(|(_, health)| *health != SystemHealth::Up);
    let (status, mut page) = match service.hindrance() {
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        None if away => (StatusCode::SERVICE_UNAVAILABLE, "an outside system is away\n".to_owned()),
        None => (StatusCode::OK, "ready\n".to_owned()),
    };
    for (system, health) in health {
        let line = match health {
            SystemHealth::Up => format!("{system}: answers\n"),
            SystemHealth::Down { since, why } => format!("{system}: away since {since:.0}: {why}\n"),
        };
        page.push_str(&line);
    }
    (status, page).into_response()
}
