//! What a seed stands for: who is there, how many calls they take, and what goes wrong, when, for how long.
//!
//! A plan is data: it can be printed, shortened by leaving faults out, and run again.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

mod draw;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// How many are simulated, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// For so long things go wrong.
    pub bad: Duration,
    /// For so long the world is well again before the oracle judges: longer than a recording is awaited, and than a
    /// letter lies before it goes back by itself; a comparison falls into it.
    pub quiet: Duration,
    /// NICE had no recording until then: there is none. In production it is longer.
    pub recording_deadline: Duration,
    /// Calls a day, of all tenants together.
    pub calls: u32,
    /// Faults a day, about.
    pub faults: f64,
}

impl Default for Scale {
    fn default() -> Self {
        Self { bad: DAY, quiet: 36 * HOUR, recording_deadline: DAY, calls: 200, faults: 6.0 }
    }
}

impl Scale {
    /// What goes wrong does so within some hours, and is judged some hours later.
    pub fn short() -> Self {
        Self { bad: 3 * HOUR, quiet: 9 * HOUR, recording_deadline: HOUR, calls: 240, faults: 150.0 }
    }
}

/// A run of the world.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Decides what the plan leaves open.
    pub seed: u64,
    /// Its lengths.
    pub scale: Scale,
    /// The tenants, each with its NICE and its producer.
    pub tenants: Vec<Tenant>,
    /// How many consumers there are.
    pub consumers: u32,
    /// What goes wrong.
    pub faults: Vec<Fault>,
}

/// A tenant.
#[derive(Debug, Clone)]
pub struct Tenant {
    /// Calls a day.
    pub calls: u32,
    /// Whether a second producer stands by from the start.
    pub stand_by: bool,
    /// Time between two polls.
    pub poll_interval: Duration,
    /// Whether agents' sessions are listened to as well.
    pub agent_sessions: bool,
    /// Requests to media playback in five minutes.
    pub playback_limit: u32,
    /// Rows that NICE gives at a time, however many are asked for.
    pub page: usize,
    /// Whether a script of NICE's tells the producer of calls that ended.
    pub webhook: bool,
}

/// Something that goes wrong, or that somebody does.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// When it begins.
    pub at: Duration,
    /// For how long.
    pub lasts: Duration,
    /// What it is.
    pub what: Trouble,
}

impl Fault {
    /// When it is over.
    pub fn ends(&self) -> Duration {
        self.at + self.lasts
    }
}

/// A server that all machines share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// The Knovvu database: catalog, settings, budgets, leases.
    Catalog,
    /// The broker.
    Queue,
    /// The recording store.
    Store,
    /// The network to NICE and to the media hosts.
    Internet,
}

/// What a server does to requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Manner {
    /// Connections are refused.
    Away,
    /// Nothing is heard.
    Silent,
    /// Each answer takes longer.
    Slow(Duration),
    /// This share of requests fails, half of them done all the same.
    Refuses(f64),
    /// Nothing more can be written.
    Full,
}

/// A part of NICE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The API.
    Api,
    /// The token endpoint.
    Tokens,
    /// The media host.
    Media,
}

/// How a part of NICE is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// Connections are refused.
    Refused,
    /// No answer comes.
    Silent,
    /// This status comes.
    Status(u16),
    /// This status comes to so many of a hundred requests.
    Odd(u16, u8),
    /// A page of a proxy comes with status 200.
    Html,
}

/// A kind of fault.
#[derive(Debug, Clone, PartialEq)]
pub enum Trouble {
    /// A shared server fails, for all machines or for one.
    Server(Server, Manner, Option<u32>),
    /// A part of a tenant's NICE is away.
    Nice(usize, Part, Outage),
    /// A tenant's NICE makes every mistake of its fault list now and then, in this intensity.
    Mistakes(usize, f64),
    /// A tenant's NICE is slow.
    SlowNice(usize, Duration),
    /// Strangers use this share of a tenant's rate limits.
    Strangers(usize, f64),
    /// NICE lowers the limit of media playback to this share.
    Limit(usize, f64),
    /// The ACD has a limit of so many requests a minute, and strangers use this share of it.
    AcdLimit(usize, u32, f64),
    /// NICE refuses the keys.
    Keys(usize),
    /// Every token is revoked.
    Tokens(usize),
    /// The clock of who gives tokens is ahead, or behind, by so many seconds.
    TokenClock(usize, i64),
    /// The group reads in a wrong way.
    Group(usize, Reading),
    /// Agents join the group or leave it.
    Members(usize),
    /// Calls of this time are listed late.
    LateRows(usize, Duration),
    /// Recordings of this time come late.
    LateRecordings(usize, Duration),
    /// This share of the calls of this time is never recorded.
    NeverRecorded(usize, f64),
    /// Under the links of this share of the calls of this time other bytes lie, so long after their recording at most.
    ChangedRecordings(usize, f64, Duration),
    /// The recordings of this share of the calls of this time are gone, so long after they came at most.
    GoneRecordings(usize, f64, Duration),
    /// The media host gives this share of the media byte by byte, with this pause between.
    SlowMedia(usize, f64, Duration),
    /// NICE's script tells of calls that ended in a wrong way.
    Webhook(usize, Telling),
    /// A machine is killed, and started again after the time of the fault.
    Kill(u32),
    /// A machine is suspended.
    Pause(u32),
    /// A machine is stopped in order, and started again after the time of the fault.
    Stop(u32),
    /// A machine's clock is ahead, or behind.
    Clock(u32, i64),
    /// A machine's clock goes too fast or too slow, by so many millionths.
    Drift(u32, i64),
    /// A second producer of the tenant runs.
    Double(usize),
    /// One more consumer runs.
    Another,
    /// Machines are started again with other settings, one after the other, and with the old ones in the end.
    Settings(Setting),
    /// Every machine is replaced, one after the other, each by a second one beside it. There is one version only.
    Upgrade,
    /// An operator does something.
    Operator(usize, Act),
}

impl Trouble {
    /// Whose NICE it is about; none where it concerns all.
    pub fn tenant(&self) -> Option<usize> {
        match self {
            Self::Nice(tenant, ..)
            | Self::Mistakes(tenant, _)
            | Self::SlowNice(tenant, _)
            | Self::Strangers(tenant, _)
            | Self::Limit(tenant, _)
            | Self::Keys(tenant)
            | Self::Tokens(tenant)
            | Self::Group(tenant, _)
            | Self::Members(tenant)
            | Self::LateRows(tenant, _)
            | Self::LateRecordings(tenant, _)
            | Self::AcdLimit(tenant, ..)
            | Self::TokenClock(tenant, _)
            | Self::NeverRecorded(tenant, _)
            | Self::ChangedRecordings(tenant, ..)
            | Self::GoneRecordings(tenant, ..)
            | Self::SlowMedia(tenant, ..)
            | Self::Webhook(tenant, _)
            | Self::Settings(
                Setting::PollInterval(tenant, _) | Setting::AgentSessions(tenant) | Setting::Nightly(tenant, _),
            )
            | Self::Double(tenant)
            | Self::Operator(tenant, _) => Some(*tenant),
            Self::Server(..)
            | Self::Kill(_)
            | Self::Pause(_)
            | Self::Stop(_)
            | Self::Clock(..)
            | Self::Drift(..)
            | Self::Settings(Setting::PlaybackLimit(..) | Setting::Concurrency(_))
            | Self::Upgrade
            | Self::Another => None,
        }
    }

    /// Whether a call may be ready late for it. What becomes of recordings befalls single calls, and who loses a word of
    /// NICE's script has the poll.
    pub fn delays(&self) -> bool {
        !matches!(
            self,
            Self::NeverRecorded(..)
                | Self::ChangedRecordings(..)
                | Self::GoneRecordings(..)
                | Self::Webhook(..)
                | Self::Operator(_, Act::Look)
        )
    }
}

/// A wrong way to read a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Nobody is in it.
    Empty,
    /// Half of its members are in it.
    Half,
    /// Half of its members are hidden.
    Hidden,
    /// It is read as it was so long ago.
    Late(Duration),
}

/// A wrong way to tell of calls that ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Telling {
    /// This share is never told.
    Lost(f64),
    /// This share is told again and again.
    Doubled(f64),
    /// Each is told so much later at most, so that later ones overtake earlier ones.
    Late(Duration),
}

/// A setting that somebody changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// The time between a tenant's polls.
    PollInterval(usize, Duration),
    /// Whether a tenant's agents' sessions are listened to: the other way round.
    AgentSessions(usize),
    /// The hour of a tenant's nightly comparison.
    Nightly(usize, u8),
    /// A tenant's limit of media playback, at NICE and in the settings of all machines.
    PlaybackLimit(usize, u32),
    /// Conversations that a consumer works on at a time.
    Concurrency(u32),
}

/// What an operator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Compares the last day.
    Reconcile,
    /// Plays the time since the beginning back.
    Backfill,
    /// Sends all dead letters back.
    ReplayLetters,
    /// Erases a conversation.
    Erase,
    /// Reads the group now, and believes it.
    AcceptAgents,
    /// Asks how everything stands.
    Look,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64, scale: Scale) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let tenants: Vec<_> = match dice.random_bool(0.35) {
            // Very different ones beside each other.
            true => vec![tenant(&mut dice, scale.calls * 9 / 10), tenant(&mut dice, (scale.calls / 10).max(5))],
            false => vec![tenant(&mut dice, scale.calls)],
        };
        let consumers = dice.random_range(1..=3);
        let machines = machines(&tenants, consumers);
        let days = scale.bad.as_secs_f64() / DAY.as_secs_f64();
        let mood = draw::Mood::draw(&mut dice);
        let count = (days * scale.faults * mood.share * dice.random_range(0.3..1.7)).ceil().max(1.0);
        let fault = |_| draw::fault(&mut dice, scale, &tenants, machines, &mood);
        let mut faults: Vec<_> = (0..count as u32).map(fault).collect();
        faults.sort_by_key(|fault| fault.at);
        Self { seed, scale, tenants, consumers, faults }
    }

    /// A time in which nothing goes wrong.
    pub fn calm(seed: u64, scale: Scale) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        Self { seed, scale, tenants: vec![tenant(&mut dice, scale.calls)], consumers: 2, faults: Vec::new() }
    }

    /// How long the whole run takes.
    pub fn whole(&self) -> Duration {
        self.healed() + self.scale.quiet
    }

    /// When the last fault is over.
    pub fn healed(&self) -> Duration {
        self.faults.iter().map(Fault::ends).max().unwrap_or_default().max(self.scale.bad)
    }

    /// Until when there are calls: the last ones have the time that they need.
    pub fn last_calls(&self) -> Duration {
        self.whole() - (8 * HOUR).min(self.scale.quiet / 3)
    }

    /// Whose producer a machine runs, if it is one that was there at the start.
    pub fn tenant_of(&self, machine: u32) -> Option<usize> {
        let mut first = 0;
        self.tenants.iter().position(|tenant| {
            first += 1 + u32::from(tenant.stand_by);
            machine < first
        })
    }

    /// The highest limit of media playback that a tenant's machines are ever given.
    pub fn highest_playback_limit(&self, tenant: usize) -> u32 {
        let changed = self.faults.iter().filter_map(|fault| match fault.what {
            Trouble::Settings(Setting::PlaybackLimit(whose, limit)) if whose == tenant => Some(limit),
            _ => None,
        });
        changed.fold(self.tenants[tenant].playback_limit, u32::max)
    }

    /// How many machines there are at the start: first the producers of each tenant, then the consumers.
    pub fn machines(&self) -> u32 {
        machines(&self.tenants, self.consumers)
    }
}

fn machines(tenants: &[Tenant], consumers: u32) -> u32 {
    tenants.iter().map(|tenant| 1 + u32::from(tenant.stand_by)).sum::<u32>() + consumers
}

fn tenant(dice: &mut StdRng, calls: u32) -> Tenant {
    Tenant {
        calls,
        stand_by: dice.random_bool(0.3),
        poll_interval: *[60, 120, 300].map(Duration::from_secs).choose(dice).unwrap_or(&MINUTE),
        agent_sessions: dice.random_bool(0.2),
        // So low that a busy day meets it.
        playback_limit: (calls / 20).clamp(10, 150),
        // So few that the calls of an hour are several pages.
        page: *[4, 10, 10_000].choose(dice).unwrap_or(&10_000),
        webhook: dice.random_bool(0.4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_plan() {
        let plan = |seed| format!("{:?}", Plan::of(seed, Scale::default()));
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn every_kind_of_trouble_comes_up() {
        let missing = |seeds: std::ops::Range<u64>| {
            let faults = seeds.flat_map(|seed| Plan::of(seed, Scale::default()).faults);
            let drawn: std::collections::BTreeSet<_> = faults.map(|fault| draw::name_of(&fault.what)).collect();
            draw::names().filter(|name| !drawn.contains(name)).collect::<Vec<_>>()
        };
        assert_eq!(missing(0..600), [""; 0]);
        assert_ne!(missing(0..1), [""; 0], "one seed has a few kinds");
    }
}
