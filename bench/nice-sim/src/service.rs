//! What every request's handler shares.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use crate::{
    chance::{Dice, derive},
    clock::{Clock, Millis},
    config::SimConfig,
    counters::Counters,
    fate::Fates,
    faults::{FaultDraws, Faults},
    memory::{
        extractions::Jobs,
        lock,
        media::{Hashes, Served},
        rows::Rows,
        sessions::Sessions,
        tokens::Tokens,
    },
    quota::Quota,
    world::World,
};

/// The simulated service: its world, its clock and its memory of clients.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) config: SimConfig,
    /// `http://address:port`, without a slash at the end.
    pub(crate) base: String,
    /// The same of the host that nobody may call.
    pub(crate) trap: String,
    pub(crate) clock: Clock,
    pub(crate) counters: Counters,
    pub(crate) faults: FaultDraws,
    pub(crate) tokens: Tokens,
    pub(crate) sessions: Sessions,
    pub(crate) extractions: Jobs,
    pub(crate) rows: Rows,
    pub(crate) hashes: Hashes,
    /// Signs media links.
    pub(crate) link_key: u64,
    world: RwLock<World>,
    playback_quota: Mutex<Quota>,
    acd_quota: Mutex<Quota>,
    media_opened: Mutex<HashMap<String, u32>>,
    pub(crate) media_served: Served,
    logged_out: Mutex<BTreeSet<i64>>,
    /// Decides which ends are announced never or twice, and how the body looks.
    pub(crate) announcing: Mutex<Dice>,
}

impl Service {
    pub(crate) fn new(config: SimConfig, base: String, trap: String, clock: Clock) -> Self {
        let now = clock.now();
        let playback = &config.playback;
        let playback_limit = Some((playback.limit, playback.window));
        let service = Self {
            world: RwLock::new(World::new(&config, clock.started_at())),
            playback_quota: Mutex::new(Quota::new("playback", playback_limit, playback.strict_window, now)),
            acd_quota: Mutex::new(Quota::new("acd", config.acd.rate_limit, config.acd.strict_window, now)),
            faults: FaultDraws::new(config.faults.clone()),
            tokens: Tokens::default(),
            sessions: Sessions::default(),
            extractions: Jobs::default(),
            rows: Rows::default(),
            hashes: Hashes::default(),
            counters: Counters::default(),
            link_key: derive(config.seed, "media links"),
            media_opened: Mutex::default(),
            media_served: Served::default(),
            logged_out: Mutex::default(),
            announcing: Mutex::new(Dice::new(config.seed, "webhook")),
            config,
            base,
            trap,
            clock,
        };
        service.strangers(&service.config.faults, now);
        service
    }

    /// Puts other faults in force.
    pub(crate) fn set_faults(&self, faults: Faults) {
        let now = self.now();
        self.strangers(&faults, now);
        self.faults.set(faults, now);
    }

    fn strangers(&self, faults: &Faults, now: Millis) {
        self.playback_quota().set_strangers(faults.strangers_playback, now);
        self.acd_quota().set_strangers(faults.strangers_acd, now);
    }

    /// What becomes of calls.
    pub(crate) fn fates(&self) -> Fates<'_> {
        Fates { seed: self.config.seed, faults: &self.faults }
    }

    pub(crate) fn world(&self) -> RwLockReadGuard<'_, World> {
        self.world.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn world_mut(&self) -> RwLockWriteGuard<'_, World> {
        self.world.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now(&self) -> i64 {
        self.clock.now()
    }

    pub(crate) fn playback_quota(&self) -> MutexGuard<'_, Quota> {
        lock(&self.playback_quota)
    }

    pub(crate) fn acd_quota(&self) -> MutexGuard<'_, Quota> {
        lock(&self.acd_quota)
    }

    /// Counts a request for a medium and returns how many there were before.
    pub(crate) fn media_opened_before(&self, name: &str) -> u32 {
        let mut opened = lock(&self.media_opened);
        let times = opened.entry(name.to_owned()).or_default();
        *times += 1;
        *times - 1
    }

    /// Whether an agent is logged in: an active agent is, unless a test logged the agent out.
    pub(crate) fn logged_in(&self, agent: i64) -> bool {
        let now = self.now();
        let active = self.world().directory.agent(agent).is_some_and(|agent| agent.at(now).active);
        active && !lock(&self.logged_out).contains(&agent)
    }

    pub(crate) fn set_logged_in(&self, agent: i64, logged_in: bool) {
        let mut logged_out = lock(&self.logged_out);
        if logged_in {
            logged_out.remove(&agent)
        } else {
            logged_out.insert(agent)
        };
    }
}
