//! What a seed stands for: who is there, how many calls they take, and what goes wrong, when, for how long.
//!
//! A plan is data: it can be printed, shortened by leaving faults out, and run again.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

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
        Self { bad: 3 * HOUR, quiet: 9 * HOUR, recording_deadline: 3 * HOUR / 2, calls: 240, faults: 56.0 }
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
    /// NICE refuses the keys.
    Keys(usize),
    /// Every token is revoked.
    Tokens(usize),
    /// The group reads in a wrong way.
    Group(usize, Reading),
    /// Agents join the group or leave it.
    Members(usize),
    /// Calls of this time are listed late.
    LateRows(usize, Duration),
    /// Recordings of this time come late.
    LateRecordings(usize, Duration),
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
            | Self::Double(tenant)
            | Self::Operator(tenant, _) => Some(*tenant),
            Self::Server(..)
            | Self::Kill(_)
            | Self::Pause(_)
            | Self::Stop(_)
            | Self::Clock(..)
            | Self::Drift(..)
            | Self::Another => None,
        }
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
        let manner = Mood::draw(&mut dice);
        let count = (days * scale.faults * manner.share * dice.random_range(0.3..1.7)).ceil().max(1.0);
        let fault = |_| fault(&mut dice, scale, tenants.len(), machines, &manner);
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
        page: *[4, 20, 10_000].choose(dice).unwrap_or(&10_000),
    }
}

/// The kinds of trouble, each as often as its share of these.
const KINDS: u32 = 100;

/// Less is over before anybody looks again: the group is read every ten minutes.
const HARD: Duration = Duration::from_secs(12 * 60);

/// What sets the world of a seed apart: everything a little, or a few kinds over and over, or little that lasts.
struct Mood {
    /// Kinds that most of the troubles are of; empty for no preference.
    kinds: Vec<u32>,
    /// The shortest trouble.
    least: Duration,
    /// How many troubles, against the usual number.
    share: f64,
}

impl Mood {
    fn draw(dice: &mut StdRng) -> Self {
        let (fewest, most, least, share) = match dice.random_range(0..10) {
            0..3 => (0, 0, Duration::from_secs(5), 1.0),
            3..6 => (2, 5, Duration::from_secs(5), 1.0),
            _ => (1, 4, HARD, 0.6),
        };
        let kinds = (0..dice.random_range(fewest..=most)).map(|_| dice.random_range(0..KINDS)).collect();
        Self { kinds, least, share }
    }

    fn kind(&self, dice: &mut StdRng) -> u32 {
        match self.kinds.choose(dice) {
            Some(kind) if dice.random_bool(0.75) => *kind,
            _ => dice.random_range(0..KINDS),
        }
    }
}

/// From seconds to days, each order of magnitude as likely as the next.
fn length(dice: &mut StdRng, most: Duration) -> Duration {
    between(dice, Duration::from_secs(5), most)
}

fn between(dice: &mut StdRng, least: Duration, most: Duration) -> Duration {
    let (least, most) = (least.as_secs_f64(), most.as_secs_f64());
    Duration::from_secs_f64(dice.random_range(least.ln()..most.max(least * 2.0).ln()).exp())
}

fn fault(dice: &mut StdRng, scale: Scale, tenants: usize, machines: u32, mood: &Mood) -> Fault {
    let bad = scale.bad;
    let mut at = bad.mul_f64(dice.random_range(0.02..1.0));
    let mut lasts = between(dice, mood.least, (bad - at).max(HOUR).min(7 * DAY));
    let tenant = dice.random_range(0..tenants);
    let machine = dice.random_range(0..machines);
    let what = match mood.kind(dice) {
        0..24 => {
            let server = *[Server::Catalog, Server::Queue, Server::Store, Server::Internet]
                .choose(dice)
                .unwrap_or(&Server::Queue);
            let manner = match dice.random_range(0..5) {
                0 => Manner::Away,
                1 => Manner::Silent,
                2 => Manner::Slow(length(dice, MINUTE)),
                // A broker that does half of what it refuses makes copies of each message that waits, and copies of those.
                // Where it does so for hours nothing bounds them yet: see the page of the simulation.
                3 if server == Server::Queue => Manner::Refuses(dice.random_range(0.05..0.9) / 10.0),
                3 => Manner::Refuses(dice.random_range(0.05..0.9)),
                _ if server == Server::Internet => Manner::Away,
                _ => Manner::Full,
            };
            Trouble::Server(server, manner, dice.random_bool(0.25).then_some(machine))
        }
        24..36 => {
            let part = *[Part::Api, Part::Tokens, Part::Media].choose(dice).unwrap_or(&Part::Api);
            // A gateway that has lost its way says what it likes.
            let status = *[400, 403, 404, 409, 418, 500, 502, 503, 504].choose(dice).unwrap_or(&503);
            let outage = match dice.random_range(0..6) {
                0 => Outage::Refused,
                1 => Outage::Silent,
                2 => Outage::Html,
                3 => Outage::Odd(status, dice.random_range(5..70)),
                _ => Outage::Status(status),
            };
            Trouble::Nice(tenant, part, outage)
        }
        36..44 => Trouble::Mistakes(tenant, dice.random_range(0.2..3.0)),
        44..47 => Trouble::SlowNice(tenant, length(dice, MINUTE)),
        47..51 => Trouble::Strangers(tenant, dice.random_range(0.1..0.8)),
        51..54 => Trouble::Limit(tenant, dice.random_range(0.1..0.9)),
        54..57 => Trouble::Keys(tenant),
        57..59 => Trouble::Tokens(tenant),
        59..63 => {
            let reading = *[Reading::Empty, Reading::Half, Reading::Hidden].choose(dice).unwrap_or(&Reading::Empty);
            Trouble::Group(tenant, reading)
        }
        63..66 => Trouble::Members(tenant),
        // So late at most that a comparison follows.
        66..70 => {
            lasts = lasts.max(scale.bad / 8);
            Trouble::LateRows(tenant, between(dice, 10 * MINUTE, scale.quiet / 3))
        }
        // One that is later than the deadline counts as none.
        70..74 => {
            lasts = lasts.max(scale.bad / 8);
            let most = scale.recording_deadline / 2;
            Trouble::LateRecordings(tenant, between(dice, most / 8, most))
        }
        74..79 => Trouble::Kill(machine),
        79..82 => Trouble::Pause(machine),
        82..85 => Trouble::Stop(machine),
        85..88 => {
            // A machine may have started with the wrong time.
            if dice.random_bool(0.3) {
                at = Duration::ZERO;
            }
            let by = length(dice, 2 * DAY).as_secs() as i64;
            Trouble::Clock(machine, if dice.random_bool(0.5) { by } else { -by })
        }
        88..90 => Trouble::Drift(machine, dice.random_range(-5_000..5_000)),
        90..92 => Trouble::Double(tenant),
        92..93 => Trouble::Another,
        _ => {
            let acts = [Act::Reconcile, Act::Backfill, Act::ReplayLetters, Act::Erase, Act::AcceptAgents, Act::Look];
            Trouble::Operator(tenant, *acts.choose(dice).unwrap_or(&Act::Look))
        }
    };
    Fault { at, lasts, what }
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
        let mut kinds = std::collections::BTreeSet::new();
        for seed in 0..300 {
            for fault in Plan::of(seed, Scale::default()).faults {
                let text = format!("{:?}", fault.what);
                kinds.insert(text.split('(').next().unwrap_or_default().to_owned());
            }
        }
        assert!(kinds.len() >= 19, "{kinds:?}");
    }
}
