//! How troubles are drawn: one table, a row for each kind.
//!
//! A kind with twice the weight of another comes up twice as often. To add one, add its row here, its doing in
//! `trouble.rs`, and what the oracle must expect of it.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::{
    Act, DAY, Fault, HOUR, MINUTE, Manner, Outage, Part, Reading, Scale, Server, Setting, Telling, Tenant, Trouble,
};

/// A kind of trouble: its name, how often it comes up beside the others, and how one is drawn.
type Kind = (&'static str, u32, fn(&mut Dice) -> Trouble);

/// Every kind.
const KINDS: &[Kind] = &[
    // What all machines share.
    ("server", 16, server),
    // NICE's answers and doors.
    ("part of NICE away", 14, part_away),
    ("mistakes", 12, |dice| Trouble::Mistakes(dice.tenant(), dice.share(0.2, 3.0))),
    ("slow NICE", 3, |dice| Trouble::SlowNice(dice.tenant(), dice.length(MINUTE))),
    ("keys refused", 3, |dice| Trouble::Keys(dice.tenant())),
    ("tokens revoked", 2, |dice| Trouble::Tokens(dice.tenant())),
    // A token lives for an hour: most clocks are less wrong than that, some are worse.
    ("token clock", 3, |dice| Trouble::TokenClock(dice.tenant(), dice.signed(4200))),
    // NICE's limits.
    ("strangers", 4, |dice| Trouble::Strangers(dice.tenant(), dice.share(0.1, 0.8))),
    ("limit lowered", 3, |dice| Trouble::Limit(dice.tenant(), dice.share(0.1, 0.9))),
    // We ask for 120 a minute at most.
    ("ACD limit", 3, |dice| Trouble::AcdLimit(dice.tenant(), dice.number(20, 120), dice.share(0.0, 0.6))),
    // Who is in the group.
    ("group empty", 6, |dice| Trouble::Group(dice.tenant(), Reading::Empty)),
    ("group half", 6, |dice| Trouble::Group(dice.tenant(), Reading::Half)),
    ("group hidden", 6, |dice| Trouble::Group(dice.tenant(), Reading::Hidden)),
    ("group late", 2, |dice| Trouble::Group(dice.tenant(), Reading::Late(dice.length(DAY)))),
    ("members", 8, |dice| Trouble::Members(dice.tenant())),
    // What becomes of calls and their recordings.
    // So late at most that a comparison follows.
    ("late rows", 8, |dice| {
        let most = dice.scale.quiet / 3;
        Trouble::LateRows(dice.tenant(), dice.random.random_range(10 * MINUTE..most))
    }),
    ("late recordings", 8, late_recordings),
    // Each is looked for until the deadline: more of them would use up the quota that all others need.
    ("never recorded", 3, |dice| Trouble::NeverRecorded(dice.tenant(), dice.share(0.05, 0.3))),
    ("changed recordings", 8, |dice| Trouble::ChangedRecordings(dice.tenant(), dice.share(0.1, 1.0), dice.length(DAY))),
    ("gone recordings", 3, |dice| Trouble::GoneRecordings(dice.tenant(), dice.share(0.1, 1.0), dice.length(DAY))),
    ("slow media", 3, |dice| {
        // From some seconds for a recording to hours.
        Trouble::SlowMedia(dice.tenant(), dice.share(0.1, 1.0), Duration::from_millis(1 << dice.number(0, 11)))
    }),
    ("webhook loses", 2, |dice| Trouble::Webhook(dice.tenant(), Telling::Lost(dice.share(0.1, 1.0)))),
    ("webhook doubles", 2, |dice| Trouble::Webhook(dice.tenant(), Telling::Doubled(dice.share(0.1, 1.0)))),
    ("webhook late", 2, |dice| Trouble::Webhook(dice.tenant(), Telling::Late(dice.length(DAY)))),
    // Machines.
    ("kill", 5, |dice| Trouble::Kill(dice.machine())),
    ("pause", 6, |dice| Trouble::Pause(dice.machine())),
    ("stop", 3, |dice| Trouble::Stop(dice.machine())),
    ("clock", 8, |dice| {
        // From minutes to days.
        let by = (600.0 * dice.share(0.0, 5.6).exp()) as i64;
        Trouble::Clock(dice.machine(), if dice.random.random_bool(0.5) { by } else { -by })
    }),
    ("drift", 2, |dice| Trouble::Drift(dice.machine(), dice.signed(5_000))),
    ("double", 2, |dice| Trouble::Double(dice.tenant())),
    ("another", 1, |_| Trouble::Another),
    ("upgrade", 2, |_| Trouble::Upgrade),
    // Settings.
    ("poll interval", 1, |dice| {
        Trouble::Settings(Setting::PollInterval(dice.tenant(), Duration::from_secs(dice.number(15, 600).into())))
    }),
    ("agent sessions", 1, |dice| Trouble::Settings(Setting::AgentSessions(dice.tenant()))),
    ("nightly hour", 1, |dice| Trouble::Settings(Setting::Nightly(dice.tenant(), dice.number(0, 23) as u8))),
    ("playback limit", 1, playback_limit),
    ("concurrency", 1, |dice| Trouble::Settings(Setting::Concurrency(dice.number(1, 64)))),
    // People.
    ("reconcile", 2, |dice| Trouble::Operator(dice.tenant(), Act::Reconcile)),
    ("backfill", 1, |dice| Trouble::Operator(dice.tenant(), Act::Backfill)),
    ("replay letters", 1, |dice| Trouble::Operator(dice.tenant(), Act::ReplayLetters)),
    ("erase", 1, |dice| Trouble::Operator(dice.tenant(), Act::Erase)),
    ("accept agents", 1, |dice| Trouble::Operator(dice.tenant(), Act::AcceptAgents)),
    ("look", 1, |dice| Trouble::Operator(dice.tenant(), Act::Look)),
];

/// A trouble's kind: a row of the table. Whoever adds a trouble is asked for its name here.
#[cfg(test)]
pub(super) fn name_of(trouble: &Trouble) -> &'static str {
    match trouble {
        Trouble::Server(..) => "server",
        Trouble::Nice(..) => "part of NICE away",
        Trouble::Mistakes(..) => "mistakes",
        Trouble::SlowNice(..) => "slow NICE",
        Trouble::Strangers(..) => "strangers",
        Trouble::Limit(..) => "limit lowered",
        Trouble::AcdLimit(..) => "ACD limit",
        Trouble::Keys(_) => "keys refused",
        Trouble::Tokens(_) => "tokens revoked",
        Trouble::TokenClock(..) => "token clock",
        Trouble::Group(_, Reading::Empty) => "group empty",
        Trouble::Group(_, Reading::Half) => "group half",
        Trouble::Group(_, Reading::Hidden) => "group hidden",
        Trouble::Group(_, Reading::Late(_)) => "group late",
        Trouble::Members(_) => "members",
        Trouble::LateRows(..) => "late rows",
        Trouble::LateRecordings(..) => "late recordings",
        Trouble::NeverRecorded(..) => "never recorded",
        Trouble::ChangedRecordings(..) => "changed recordings",
        Trouble::GoneRecordings(..) => "gone recordings",
        Trouble::SlowMedia(..) => "slow media",
        Trouble::Webhook(_, Telling::Lost(_)) => "webhook loses",
        Trouble::Webhook(_, Telling::Doubled(_)) => "webhook doubles",
        Trouble::Webhook(_, Telling::Late(_)) => "webhook late",
        Trouble::Kill(_) => "kill",
        Trouble::Pause(_) => "pause",
        Trouble::Stop(_) => "stop",
        Trouble::Clock(..) => "clock",
        Trouble::Drift(..) => "drift",
        Trouble::Double(_) => "double",
        Trouble::Another => "another",
        Trouble::Upgrade => "upgrade",
        Trouble::Settings(Setting::PollInterval(..)) => "poll interval",
        Trouble::Settings(Setting::AgentSessions(_)) => "agent sessions",
        Trouble::Settings(Setting::Nightly(..)) => "nightly hour",
        Trouble::Settings(Setting::PlaybackLimit(..)) => "playback limit",
        Trouble::Settings(Setting::Concurrency(_)) => "concurrency",
        Trouble::Operator(_, Act::Reconcile) => "reconcile",
        Trouble::Operator(_, Act::Backfill) => "backfill",
        Trouble::Operator(_, Act::ReplayLetters) => "replay letters",
        Trouble::Operator(_, Act::Erase) => "erase",
        Trouble::Operator(_, Act::AcceptAgents) => "accept agents",
        Trouble::Operator(_, Act::Look) => "look",
    }
}

/// The names of all kinds.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(name, ..)| *name)
}

/// Less is over before anybody looks again: the group is read every ten minutes.
const HARD: Duration = Duration::from_secs(12 * 60);

/// What sets the world of a seed apart: everything a little, or a few kinds over and over, or few that last.
pub(super) struct Mood {
    /// Kinds that most of the troubles are of, each as often as the next; none for no preference.
    kinds: Vec<&'static Kind>,
    /// None is over soon.
    is_hard: bool,
    /// How many troubles there are, against the usual number.
    pub(super) share: f64,
}

impl Mood {
    /// The mood of a seed.
    pub(super) fn draw(random: &mut StdRng) -> Self {
        let (kinds, is_hard, share) = match random.random_range(0..10) {
            0..3 => (0, false, 1.0),
            3..6 => (random.random_range(2..=6), false, 1.0),
            _ => (random.random_range(2..=5), true, 0.7),
        };
        let kinds = KINDS.choose_multiple_weighted(random, kinds, |(_, weight, _)| f64::from(*weight));
        Self { kinds: kinds.into_iter().flatten().collect(), is_hard, share }
    }

    fn kind(&self, random: &mut StdRng) -> Option<&'static Kind> {
        match self.kinds.choose(random) {
            Some(kind) if random.random_bool(0.75) => Some(kind),
            _ => KINDS.choose_weighted(random, |(_, weight, _)| *weight).ok(),
        }
    }
}

/// Draws what goes wrong, when, and for how long.
pub(super) fn fault(random: &mut StdRng, scale: Scale, tenants: &[Tenant], machines: u32, mood: &Mood) -> Fault {
    let bad = scale.bad;
    let mut at = bad.mul_f64(random.random_range(0.02..1.0));
    let kind = mood.kind(random);
    let mut dice = Dice { random, scale, tenants, machines };
    let what = kind.map_or(Trouble::Another, |(.., draw)| draw(&mut dice));
    let most = (bad - at).max(if mood.is_hard { 2 * HOUR } else { HOUR }).min(7 * DAY);
    let mut lasts = match mood.is_hard {
        true => dice.random.random_range(HARD..most),
        false => dice.length(most),
    };
    match what {
        // So long that it befalls some calls.
        Trouble::LateRows(..)
        | Trouble::LateRecordings(..)
        | Trouble::NeverRecorded(..)
        | Trouble::ChangedRecordings(..)
        | Trouble::GoneRecordings(..) => lasts = lasts.max(bad / 6),
        // What is over before the group is read again nobody sees.
        Trouble::Group(..) => lasts = lasts.max(HARD),
        // A machine may start with the wrong time.
        Trouble::Clock(..) if dice.random.random_bool(0.4) => at = Duration::ZERO,
        _ => {}
    }
    Fault { at, lasts, what }
}

/// What a kind is drawn with.
struct Dice<'a> {
    random: &'a mut StdRng,
    scale: Scale,
    tenants: &'a [Tenant],
    machines: u32,
}

impl Dice<'_> {
    fn tenant(&mut self) -> usize {
        self.random.random_range(0..self.tenants.len())
    }

    fn machine(&mut self) -> u32 {
        self.random.random_range(0..self.machines)
    }

    /// From seconds to days, each order of magnitude as likely as the next.
    fn length(&mut self, most: Duration) -> Duration {
        let (least, most) = (5.0_f64.ln(), most.as_secs_f64().max(10.0).ln());
        Duration::from_secs_f64(self.random.random_range(least..most).exp())
    }

    fn share(&mut self, least: f64, most: f64) -> f64 {
        self.random.random_range(least..most)
    }

    fn number(&mut self, least: u32, most: u32) -> u32 {
        self.random.random_range(least..=most)
    }

    /// So much in either direction, at most.
    fn signed(&mut self, most: i64) -> i64 {
        self.random.random_range(-most..=most)
    }

    fn one<T: Copy>(&mut self, first: T, others: &[T]) -> T {
        let at = self.random.random_range(0..=others.len());
        if at == 0 { first } else { others[at - 1] }
    }
}

fn server(dice: &mut Dice) -> Trouble {
    let server = dice.one(Server::Catalog, &[Server::Queue, Server::Store, Server::Internet]);
    let manner = match dice.number(0, 4) {
        0 => Manner::Away,
        1 => Manner::Silent,
        2 => Manner::Slow(dice.length(MINUTE)),
        3 => Manner::Refuses(dice.share(0.05, 0.9)),
        _ if server == Server::Internet => Manner::Away,
        _ => Manner::Full,
    };
    let machine = dice.machine();
    Trouble::Server(server, manner, dice.random.random_bool(0.25).then_some(machine))
}

fn part_away(dice: &mut Dice) -> Trouble {
    let part = dice.one(Part::Api, &[Part::Api, Part::Api, Part::Tokens, Part::Media]);
    // A gateway that has lost its way says what it likes.
    let status = dice.one(503, &[400, 403, 404, 405, 409, 410, 418, 500, 502, 504]);
    let outage = match dice.number(0, 6) {
        0 => Outage::Refused,
        1 => Outage::Silent,
        2 => Outage::Html,
        3 | 4 => Outage::Odd(status, dice.number(5, 70) as u8),
        _ => Outage::Status(status),
    };
    Trouble::Nice(dice.tenant(), part, outage)
}

/// One that is later than the deadline counts as none.
fn late_recordings(dice: &mut Dice) -> Trouble {
    // NICE's own half hour comes on top.
    let most = dice.scale.recording_deadline / 3;
    let by = dice.random.random_range(most / 4..most);
    Trouble::LateRecordings(dice.tenant(), by)
}

/// NICE grants more, or less.
fn playback_limit(dice: &mut Dice) -> Trouble {
    let tenant = dice.tenant();
    let limit = f64::from(dice.tenants[tenant].playback_limit) * dice.share(0.4, 2.0);
    Trouble::Settings(Setting::PlaybackLimit(tenant, (limit as u32).max(5)))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::plan::Plan;

    #[test]
    fn each_row_draws_the_kind_that_it_names() {
        let Plan { scale, tenants, .. } = Plan::of(1, Scale::default());
        for (name, _, draw) in KINDS {
            let mut dice = Dice { random: &mut StdRng::seed_from_u64(1), scale, tenants: &tenants, machines: 3 };
            assert_eq!(name_of(&draw(&mut dice)), *name);
        }
    }
}
