//! What goes wrong, how often, and the draws that decide it.
//!
//! Every kind has its own seeded run of draws, so that switching one on does not move the others. A fault hits a single
//! answer (a repeat of the request may be spared), except for the kinds marked as lasting, which hold as long as they
//! are on, and those that stay: what they did to a call they did for good, though they are off again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{chance::Dice, clock::Millis};

const DAY: Duration = Duration::from_secs(24 * 3600);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// How a host is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// Nobody accepts the connection.
    Refused,
    /// The connection stands, and no answer comes.
    Silent,
    /// Something in front answers with this status and a page.
    Status(u16),
    /// Something in front answers 200 with an HTML page.
    Html,
}

/// An outage and the share of the requests that it hits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Away {
    /// What a request meets that is hit.
    pub how: Outage,
    /// From 0 to 1; the other requests are answered.
    pub share: f64,
}

impl Away {
    /// Every request is hit.
    pub fn whole(how: Outage) -> Self {
        Self { how, share: 1.0 }
    }
}

/// The hosts that can be away on their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Api,
    Tokens,
    Media,
}

/// The probability of each kind of fault, from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Faults {
    /// Decides when each kind strikes.
    pub seed: u64,
    /// A burst of 500, 502 and 503 begins (ACD, playback and tokens each have their own).
    pub server_errors: f64,
    /// How many answers a burst spoils, at most.
    pub burst_length: u32,
    /// A request to the ACD API or to playback is answered 429, whatever the limit.
    pub throttled: f64,
    /// The connection is reset in the middle of a medium.
    pub media_reset: f64,
    /// A medium ends before its `Content-Length`.
    pub media_truncated: f64,
    /// A medium comes in small pieces with pauses between them.
    pub slow_body: f64,
    /// The pause between two pieces of a slow body.
    pub slow_pause: Duration,
    /// A medium stops in the middle and says nothing more until the client hangs up.
    pub media_stall: f64,
    /// `Content-Length` promises more than the medium has: the connection ends instead of the missing bytes.
    pub content_length_long: f64,
    /// `Content-Length` promises less than the medium has. The client cannot tell: what it stores is not the truth.
    pub content_length_short: f64,
    /// Share of rows that a list shows again on a later page (lasting).
    pub duplicate_rows: f64,
    /// Rows appear in front while a list is paged, so that a page begins with the row the last one ended with.
    pub rows_inserted: f64,
    /// Rows vanish from the front while a list is paged, so that a page skips one. Only a later poll finds it.
    pub rows_vanish: f64,
    /// The service's clock is off by so many milliseconds in `lastPollTime`, `lastUpdateTime` and `updatedSince`
    /// (lasting).
    pub clock_skew_millis: i64,
    /// A valid token is revoked and the request answered 401.
    pub token_revoked: f64,
    /// `_links.next` points to a host that is not the service.
    pub foreign_next_link: f64,
    /// Ids in an answer are text.
    pub ids_as_strings: f64,
    /// Unknown fields stand in an answer.
    pub unknown_fields: f64,
    /// Rows with `agentId: null` appear in a contact list, as a share of the real rows (lasting).
    pub null_agents: f64,
    /// The agents of a group are answered with 204, whoever is in it.
    pub group_no_content: f64,
    /// For so long after its end, a contact that is asked for by itself has neither agent nor duration yet (lasting).
    pub half_record: Duration,
    /// An HTML page comes with status 200 instead of JSON.
    pub html: f64,
    /// The JSON text ends in the middle.
    pub truncated_json: f64,
    /// A JSON answer is a gzip body that unpacks to a gibibyte.
    pub gzip_bomb: f64,
    /// A JSON answer is a gibibyte long, without `Content-Length`.
    pub huge_json: f64,
    /// Rows with ids outside any grammar (`../x`, negative, overlong) appear in each contact list (lasting while 1).
    pub hostile_rows: f64,
    /// The media link of a call, or the link to an extraction's file, points to a host that is not the service.
    pub foreign_media_link: f64,
    /// A medium comes byte by byte, with a slow body's pause between.
    pub media_trickle: f64,
    /// A medium comes as it was stored by an uploader that packs: in gzip, with the header that says so.
    pub media_encoding: f64,
    /// A medium's type is `binary/octet-stream`.
    pub media_generic_type: f64,
    /// The media link answers 307 to another signed link of the service.
    pub media_redirect: f64,
    /// The media link answers 302 to itself, without end.
    pub media_redirect_endless: f64,
    /// The media link answers 302 to a host that is not the service.
    pub media_redirect_foreign: f64,
    /// The agents of a group are answered with 200 and an empty list, whoever is in it.
    pub group_empty: f64,
    /// Share of a group's members that its list leaves out without a word (lasting: the same members while it is on).
    pub group_half: f64,
    /// Share of a group's members that its list leaves out and counts in `hiddenAgents` (lasting, as above).
    pub group_hidden: f64,
    /// A group's list is so old: who joined since is not in it, who left since still is (lasting).
    pub group_late: Duration,
    /// Share of the legs that end while this is on whose row comes late among the completed, with its old time of
    /// update (stays).
    pub late_rows: f64,
    /// The longest such delay; the shortest is two minutes, and short ones are as likely as long ones.
    pub late_rows_by: Duration,
    /// Share of the legs that end while this is on whose row has neither agent nor duration at first (stays).
    pub half_rows: f64,
    /// For so long after the end; then the row is whole, and nothing says that it changed.
    pub half_rows_for: Duration,
    /// Share of the legs that end while this is on whose row is updated once more, one to 24 hours later (stays).
    pub changed_rows: f64,
    /// Unreadable rows stand between the rows of a contact list, as a share of those (lasting).
    pub unreadable_rows: f64,
    /// `totalRecords` of a list is too low, too high or 0.
    pub total_lies: f64,
    /// A page ends early, with a right link to the rest or with none.
    pub short_pages: f64,
    /// `_links.next` leads to the same page again.
    pub next_repeats: f64,
    /// `_links.next` leads to an unknown operation, or far behind the end.
    pub next_nowhere: f64,
    /// Share of the calls that end while this is on whose recording comes late (stays).
    pub recordings_late: f64,
    /// The longest such delay; the shortest is ten minutes, and short ones are as likely as long ones.
    pub recordings_late_by: Duration,
    /// Share of the calls that end while this is on whose recording never comes: they answer for good as if it were not
    /// there yet (stays).
    pub recordings_never: f64,
    /// Share of the calls of one leg that end while this is on that have a second recording, later by as much as a late
    /// one; half of those are not even listed before (stays).
    pub recordings_in_parts: f64,
    /// Share of the calls that end while this is on under whose links other bytes lie after a while (stays).
    pub recordings_changed: f64,
    /// The longest such while; the shortest is 30 seconds.
    pub recordings_changed_after: Duration,
    /// Share of the calls that end while this is on whose recordings are gone after a while: media playback knows the
    /// call no more, and old links lead to nothing (stays).
    pub recordings_gone: f64,
    /// The longest such while; the shortest is an hour.
    pub recordings_gone_after: Duration,
    /// Share of the media-playback limit that requests of another client of the tenant ask for (lasting).
    pub strangers_playback: f64,
    /// The same of the ACD's limit, where there is one.
    pub strangers_acd: f64,
    /// A 429 tells in `Retry-After` how long to wait.
    pub retry_after: f64,
    /// A 429 has a `Retry-After` that makes no sense.
    pub retry_after_absurd: f64,
    /// The service user's key and secret are refused as if they were wrong.
    pub keys_refused: f64,
    /// The clock of the token endpoints is off by so many milliseconds: one that is behind gives tokens that end before they
    /// say, and where it is behind by more than a token lives, ended ones (lasting).
    pub token_clock_millis: i64,
    /// Media playback answers 403, as to a user without the permission.
    pub playback_forbidden: f64,
    /// ACD, media playback, data extraction and user management are away.
    pub api_away: Option<Away>,
    /// Discovery and the token endpoints are away.
    pub tokens_away: Option<Away>,
    /// The host of the signed links is away.
    pub media_away: Option<Away>,
    /// Every answer takes so much longer.
    pub latency: Duration,
    /// And up to so much on top, drawn for each answer.
    pub latency_spread: Duration,
}

impl Faults {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self {
            seed: 0,
            server_errors: 0.0,
            burst_length: 4,
            throttled: 0.0,
            media_reset: 0.0,
            media_truncated: 0.0,
            slow_body: 0.0,
            slow_pause: Duration::from_millis(50),
            media_stall: 0.0,
            content_length_long: 0.0,
            content_length_short: 0.0,
            duplicate_rows: 0.0,
            rows_inserted: 0.0,
            rows_vanish: 0.0,
            clock_skew_millis: 0,
            token_revoked: 0.0,
            foreign_next_link: 0.0,
            ids_as_strings: 0.0,
            unknown_fields: 0.0,
            null_agents: 0.0,
            group_no_content: 0.0,
            half_record: Duration::ZERO,
            html: 0.0,
            truncated_json: 0.0,
            gzip_bomb: 0.0,
            huge_json: 0.0,
            hostile_rows: 0.0,
            foreign_media_link: 0.0,
            media_trickle: 0.0,
            media_encoding: 0.0,
            media_generic_type: 0.0,
            media_redirect: 0.0,
            media_redirect_endless: 0.0,
            media_redirect_foreign: 0.0,
            group_empty: 0.0,
            group_half: 0.0,
            group_hidden: 0.0,
            group_late: Duration::ZERO,
            late_rows: 0.0,
            late_rows_by: DAY,
            half_rows: 0.0,
            half_rows_for: Duration::from_secs(300),
            changed_rows: 0.0,
            unreadable_rows: 0.0,
            total_lies: 0.0,
            short_pages: 0.0,
            next_repeats: 0.0,
            next_nowhere: 0.0,
            recordings_late: 0.0,
            recordings_late_by: DAY,
            recordings_never: 0.0,
            recordings_in_parts: 0.0,
            recordings_changed: 0.0,
            recordings_changed_after: DAY,
            recordings_gone: 0.0,
            recordings_gone_after: WEEK,
            strangers_playback: 0.0,
            strangers_acd: 0.0,
            retry_after: 0.0,
            retry_after_absurd: 0.0,
            keys_refused: 0.0,
            token_clock_millis: 0,
            playback_forbidden: 0.0,
            api_away: None,
            tokens_away: None,
            media_away: None,
            latency: Duration::ZERO,
            latency_spread: Duration::ZERO,
        }
    }

    /// Everything that a repeated request or a repeated poll heals: each call can still be imported whole.
    pub fn all(seed: u64) -> Self {
        Self {
            seed,
            server_errors: 0.04,
            media_reset: 0.08,
            media_truncated: 0.08,
            slow_body: 0.1,
            content_length_long: 0.05,
            duplicate_rows: 0.1,
            rows_inserted: 0.3,
            clock_skew_millis: Dice::new(seed, "skew").between(0, 60_000) as i64 - 30_000,
            token_revoked: 0.02,
            foreign_next_link: 0.02,
            ids_as_strings: 0.3,
            unknown_fields: 0.5,
            null_agents: 0.1,
            html: 0.03,
            truncated_json: 0.03,
            media_encoding: 0.05,
            media_redirect: 0.05,
            ..Self::none()
        }
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::none()
    }
}

/// The runs of draws behind a [`Faults`].
#[derive(Debug)]
pub(crate) struct FaultDraws {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The probabilities in force, each from its instant on; the first from the beginning of time.
    in_force: Vec<(Millis, Arc<Faults>)>,
    runs: HashMap<&'static str, Dice>,
    bursts: HashMap<&'static str, u32>,
}

impl FaultDraws {
    pub(crate) fn new(faults: Faults) -> Self {
        Self {
            state: Mutex::new(State {
                in_force: vec![(Millis::MIN, Arc::new(faults))],
                runs: HashMap::new(),
                bursts: HashMap::new(),
            }),
        }
    }

    /// Puts other probabilities in force from `now` on; runs and bursts go on.
    pub(crate) fn set(&self, faults: Faults, now: Millis) {
        let mut state = self.lock();
        // Of those of one instant only the last was ever in force.
        state.in_force.pop_if(|(from, _)| *from == now);
        state.in_force.push((now, Arc::new(faults)));
    }

    /// The probabilities in force.
    pub(crate) fn current(&self) -> Arc<Faults> {
        Arc::clone(self.lock().current())
    }

    /// The probabilities that were in force at an instant.
    pub(crate) fn in_force(&self, at: Millis) -> Arc<Faults> {
        let state = self.lock();
        let later = state.in_force.partition_point(|(from, _)| *from <= at);
        Arc::clone(&state.in_force[later.max(1) - 1].1)
    }

    /// How a host is away for the request that comes now, if it is.
    pub(crate) fn outage(&self, host: Host) -> Option<Outage> {
        let mut state = self.lock();
        let faults = Arc::clone(state.current());
        let (outage, kind) = match host {
            Host::Api => (faults.api_away, "api away"),
            Host::Tokens => (faults.tokens_away, "tokens away"),
            Host::Media => (faults.media_away, "media away"),
        };
        outage.filter(|away| state.dice(kind).hits(away.share)).map(|away| away.how)
    }

    /// How much longer an answer takes.
    pub(crate) fn latency(&self) -> Duration {
        let mut state = self.lock();
        let faults = Arc::clone(state.current());
        if faults.latency_spread.is_zero() {
            return faults.latency;
        }
        faults.latency + faults.latency_spread.mul_f64(state.dice("latency").fraction())
    }

    /// One of the items, where the fault named `kind` strikes now.
    pub(crate) fn strikes_with<'a, T>(
        &self,
        kind: &'static str,
        items: &'a [T],
        probability: impl FnOnce(&Faults) -> f64,
    ) -> Option<&'a T> {
        let mut state = self.lock();
        let probability = probability(state.current());
        let dice = (probability > 0.0).then(|| state.dice(kind))?;
        dice.hits(probability).then(|| dice.pick(items))
    }

    /// Decides whether the fault named `kind` strikes now.
    pub(crate) fn strikes(&self, kind: &'static str, probability: impl FnOnce(&Faults) -> f64) -> bool {
        let mut state = self.lock();
        let probability = probability(state.current());
        probability > 0.0 && state.dice(kind).hits(probability)
    }

    /// The status that a burst of errors on `surface` answers with, if one is on or begins now.
    pub(crate) fn server_error(&self, surface: &'static str) -> Option<u16> {
        let mut state = self.lock();
        let (probability, longest) = (state.current().server_errors, state.current().burst_length);
        if probability <= 0.0 {
            return None;
        }
        let left = state.bursts.get(surface).copied().unwrap_or(0);
        let dice = state.dice(surface);
        let left = match left {
            0 if dice.hits(probability) => dice.between(1, u64::from(longest.max(1))) as u32,
            left => left,
        };
        let status = *dice.pick(&[500, 502, 503]);
        state.bursts.insert(surface, left.saturating_sub(1));
        (left > 0).then_some(status)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn current(&self) -> &Arc<Faults> {
        &self.in_force[self.in_force.len() - 1].1 // one is in force from the beginning of time
    }

    fn dice(&mut self, kind: &'static str) -> &mut Dice {
        let seed = self.current().seed;
        self.runs.entry(kind).or_insert_with(|| Dice::new(seed, kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_ends() {
        let draws = FaultDraws::new(Faults { server_errors: 0.2, ..Faults::all(3) });
        let errors = (0..1000).filter(|_| draws.server_error("acd").is_some()).count();
        assert!((100..800).contains(&errors), "{errors}");
    }

    #[test]
    fn nothing_strikes_by_default() {
        let draws = FaultDraws::new(Faults::none());
        assert!(!draws.strikes("html", |faults| faults.html));
        assert_eq!(draws.server_error("acd"), None);
    }
}
