//! The decision: who may send a request to NICE now, and when the others may ask again.
//!
//! A [`Budget`] is plain data. It is loaded, [`Budget::turn`] changes it, it is saved; whoever does that has the clock
//! and does the I/O.
//!
//! # The time
//! The budget has a time of its own. A clock that is set back does not take it back, and one that jumps ahead takes it
//! no further than the asking process has lived since it last saw it ([`Witness`]). What passes while the clock is
//! behind is withheld from it, and each process learns how much. So a request counts for its window and longer, never
//! for less. Only a process that asks for the first time believes whatever the clock shows.
//!
//! # Who goes first
//! Each class has a floor, a part of the limit, and gathers a place for each spacing of it that it was not granted,
//! those of one window at most. A class that waits and has a place goes before all that have none; of several the one
//! that has gone without for longest, and the first in the order of [`QuotaClass`]. What is left goes by that order
//! alone. So live calls go first, and no flood of any class stops another. What nobody waits for is anybody's.
//!
//! Reconciliation and backfill have together what `live_reserve` leaves, evenly, so that a live call that finds the
//! window full waits for one of theirs to leave it. What nobody has confirmed to exist has its floor, and may use what
//! the others leave idle of half of the budget, those two not counted.

use std::time::Duration;

use model::QuotaClass;
use serde::{Deserialize, Serialize};

use super::request::{ASKED_AGAIN, CLASSES, UNSETTLED};
use super::restraint::{RateRefusal, Restraint};
use super::terms::micros;
use super::usage::Refused;
use super::window::{Grain, Window};
use super::{BudgetDecision, BudgetRequest, Grant, GrantOutcome, GrantReport, Micros, Terms, Usage, Witness};

/// A clock that moved by more than this against the budget's time was set.
const SETTING: u64 = 1_000_000;

/// Who waits for another's request or turn may ask again after this time.
const SOON: Micros = 250_000;

/// Who was sent away still counts as waiting for some places' time, within these bounds.
const WAITS_AT_LEAST: Micros = 1_000_000;
const WAITS_AT_MOST: Micros = 30_000_000;

/// An even place that comes late is made up for if it is late by less than so many of them, or than this time.
const LATE_PLACES: f64 = 2.0;
const LATE_AT_LEAST: f64 = 250_000.0;

/// One NICE tenant's budget of one API family.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Budget {
    /// The latest time that it has seen, by its own reckoning.
    time: Micros,
    /// What the clock is ahead of that reckoning.
    skew: i64,
    /// What has passed, as processes know, while the clock was set back and this time stood still.
    withheld: Micros,
    window: Window,
    /// By class, in order.
    classes: Vec<ClassState>,
    /// The next even place of reconciliation and backfill.
    bulk_place: Micros,
    restraint: Option<Restraint>,
}

/// What a class has been granted, and whether it waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct ClassState {
    /// From then on it gathers places of its floor.
    floor_from: Micros,
    /// Until then it counts as waiting.
    waits_until: Micros,
    /// Until then as many of its places are kept for it as it was granted last: who had an answer may ask again.
    kept_until: Micros,
    kept: u32,
}

impl Budget {
    /// Hears what has happened, and decides. `clock` may be any; `age` is that of the asking process.
    pub fn turn(&mut self, clock: Micros, age: Duration, request: &BudgetRequest) -> BudgetDecision {
        let (skew, withheld) = (self.skew, self.withheld);
        self.advance(clock, age, request.witness);
        self.classes.resize(CLASSES, ClassState::default());
        let turn = TurnContext::new(self, &request.terms);
        self.window.expire(self.time, turn.grain);
        for report in &request.reports {
            self.hear(report, age, &turn);
        }
        // Reports first, or a refusal that was just heard would not hold.
        let turn = TurnContext::new(self, &request.terms);
        self.restraint = self.restraint.filter(|restraint| self.time < restraint.over_at(turn.grain.counted));
        for class in QuotaClass::ALL.into_iter().filter(|class| request.wanted[*class as usize] > 0) {
            let waits = &mut self.classes[class as usize].waits_until;
            *waits = (*waits).max(self.time + 1);
        }
        let mut decision = BudgetDecision {
            now: self.time,
            withheld: self.withheld,
            grants: Vec::new(),
            not_before: [None; CLASSES],
            limit_now: turn.most,
            must_last: false,
        };
        for class in QuotaClass::ALL {
            let wanted = request.wanted[class as usize];
            let granted = if wanted > 0 { self.decide(class, wanted, &turn) } else { Ok(0) };
            let count = granted.unwrap_or(0);
            if count > 0 {
                let at = self.grant(class, count, &turn);
                decision.grants.push(Grant { class, count, at });
            }
            if count < wanted {
                let until = granted.err().unwrap_or(self.time);
                decision.not_before[class as usize] = Some(Duration::from_micros(until.saturating_sub(self.time)));
                self.classes[class as usize].waits_until = self.waits_until(until, &turn);
            } else if wanted > 0 {
                let kept_until = self.time + micros(ASKED_AGAIN);
                let standing = &mut self.classes[class as usize];
                *standing = ClassState { waits_until: 0, kept_until, kept: count, ..*standing };
            }
        }
        let is_refused = request.reports.iter().any(|report| matches!(report.outcome, GrantOutcome::Refused(_)));
        let was_set = self.skew.abs_diff(skew).max(self.withheld - withheld) > SETTING;
        decision.must_last = !decision.grants.is_empty() || is_refused || was_set;
        decision
    }

    /// How much of it is in use, by a clock that may be any.
    pub fn usage(&self, clock: Micros, terms: &Terms) -> Usage {
        let mut budget = self.clone();
        budget.advance(clock, Duration::ZERO, None);
        let turn = TurnContext::new(&budget, terms);
        budget.window.expire(budget.time, turn.grain);
        let classes = QuotaClass::ALL.map(|class| (class, budget.window.used_by(|other| other == class)));
        let until = |at: Micros| Duration::from_micros(at.saturating_sub(budget.time));
        let over_at = |restraint: &Restraint| restraint.over_at(turn.grain.counted);
        let restraint = budget.restraint.filter(|restraint| budget.time < over_at(restraint));
        Usage {
            limit: terms.rate.limit,
            limit_now: turn.most,
            by_class: classes.into_iter().filter(|(_, used)| *used > 0).collect(),
            refused: restraint.map(|restraint| Refused {
                count: restraint.refusals,
                ago: Duration::from_micros(budget.time.saturating_sub(restraint.closed_at)),
                closed_for: restraint.paused_until(budget.time).map(until),
                full_pace_in: until(over_at(&restraint)),
            }),
        }
    }

    /// Goes on to the time that the clock shows, as far as the asking process knows that it has passed.
    fn advance(&mut self, clock: Micros, age: Duration, witness: Option<Witness>) {
        let signed = |micros: Micros| i64::try_from(micros).unwrap_or(i64::MAX);
        let shown = signed(clock).saturating_sub(self.skew);
        // Where the budget would be if it had gone on with the process: at most, and at least.
        let lived = |since: Duration, witness: &Witness| {
            let withheld = self.withheld.saturating_sub(witness.withheld);
            witness.seen.saturating_add(micros(age.saturating_sub(since))).saturating_sub(withheld)
        };
        let at_most = witness.map_or(i64::MAX, |witness| signed(lived(witness.began, &witness)));
        let at_least = witness.map_or(0, |witness| lived(witness.ended, &witness));
        self.time = self.time.max(u64::try_from(shown.min(at_most)).unwrap_or(0));
        self.withheld = self.withheld.saturating_add(at_least.saturating_sub(self.time));
        self.skew = signed(clock).saturating_sub(signed(self.time));
    }

    fn hear(&mut self, report: &GrantReport, age: Duration, turn: &TurnContext) {
        let now = self.time;
        let answered = match report.outcome {
            GrantOutcome::Unsent => None,
            GrantOutcome::Over(at) => Some(now.saturating_sub(micros(age.saturating_sub(at)))),
            GrantOutcome::Refused(_) => Some(now),
        };
        let is_heard = |restraint: Restraint| report.at == UNSETTLED && report.granted_at <= restraint.closed_at;
        if let GrantOutcome::Refused(retry_after) = report.outcome {
            if self.restraint.is_some_and(is_heard) {
                return;
            }
            let refusal = RateRefusal {
                now,
                granted_at: report.granted_at,
                retry_after: retry_after.map(micros),
                used: self.window.used(),
                limit: turn.terms.rate.limit,
                counted: turn.grain.counted,
            };
            self.restraint = Some(Restraint::after(self.restraint, &refusal));
        } else if let Some(restraint) = &mut self.restraint {
            restraint.settled(report.granted_at, answered.is_some());
        }
        if report.at != UNSETTLED {
            self.window.settle(report.at, report.class, answered, turn.grain);
        }
    }

    /// How many may leave, one at least, or when to ask again.
    fn decide(&self, class: QuotaClass, wanted: u32, turn: &TurnContext) -> Result<u32, Micros> {
        let even_places = self.even_places(turn)?;
        let bulk = if class.is_bulk() { self.bulk_places(turn)? } else { u32::MAX };
        let places = self.places(class, turn);
        if class == QuotaClass::Unconfirmed && places == 0 && self.idle_half(turn) == 0 {
            return Err(self.classes[class as usize].floor_from + turn.terms.floor_spacing(class, turn.most));
        }
        let used = self.window.used();
        let Some(free) = turn.most.checked_sub(used).filter(|free| *free > 0) else {
            return Err(self.window.leaves(used - turn.most + 1, self.time, turn.grain, |_| true));
        };
        // What is scarce is what the floors divide.
        let free = free.min(even_places);
        let kept = self.kept_from(class, turn);
        let by_floor = wanted.min(places).min(free.saturating_sub(kept.before)).min(bulk);
        let by_order = match kept.is_behind {
            true => 0,
            false => {
                let (left, bulk_left) = (free - by_floor, bulk - by_floor);
                let idle = if class == QuotaClass::Unconfirmed { self.idle_half(turn) } else { u32::MAX };
                let left = left.saturating_sub(kept.all).min(bulk_left.saturating_sub(kept.bulk));
                (wanted - by_floor).min(left).min(idle.saturating_sub(by_floor))
            }
        };
        match by_floor + by_order {
            // It is another's turn: who waits asks again soon, and so does this one.
            0 => Err(self.time + SOON),
            count => Ok(count),
        }
    }

    /// How many may leave at the even pace that holds after a refusal, or when the next one may.
    fn even_places(&self, turn: &TurnContext) -> Result<u32, Micros> {
        let Some(restraint) = &self.restraint else { return Ok(u32::MAX) };
        if let Some(until) = restraint.paused_until(self.time) {
            return Err(until);
        }
        if restraint.is_probing(self.time) {
            return Err(self.time + SOON);
        }
        let most = if restraint.is_open { u32::MAX } else { 1 };
        Ok(most.min(even(restraint.place, self.time, turn.spacing_after(restraint))?))
    }

    /// What is left of half of the budget, if what reconciliation and backfill use counts as idle.
    fn idle_half(&self, turn: &TurnContext) -> u32 {
        (turn.most / 2).saturating_sub(self.window.used_by(|class| !class.is_bulk()))
    }

    /// What the floors of the others keep from a class.
    fn kept_from(&self, class: QuotaClass, turn: &TurnContext) -> ReservedPlaces {
        let mut kept = ReservedPlaces::default();
        // An even place after a refusal is lost on bulk that waits for an even place of its own.
        let bulk = if self.restraint.is_some() { self.bulk_places(turn).unwrap_or(0) } else { u32::MAX };
        for other in QuotaClass::ALL.into_iter().filter(|other| *other != class) {
            let standing = &self.classes[other as usize];
            let waits = standing.waits_until > self.time;
            let places = match waits {
                true => self.places(other, turn),
                false if standing.kept_until > self.time => self.places(other, turn).min(standing.kept),
                false => continue,
            };
            let places = if other.is_bulk() { places.min(bulk) } else { places };
            let (theirs, ours) = (self.neglect(other, turn), self.neglect(class, turn));
            if theirs > ours || (theirs == ours && other < class) {
                kept.before = kept.before.saturating_add(places);
            }
            kept.all = kept.all.saturating_add(places);
            kept.bulk = kept.bulk.saturating_add(if other.is_bulk() { places } else { 0 });
            // Each of the two has an allowance of its own: their order does not count, their floors do.
            let is_apart = class == QuotaClass::Unconfirmed && other.is_bulk();
            kept.is_behind |= waits && other < class && !is_apart;
        }
        kept
    }

    /// How many even places reconciliation and backfill have together, or when the next one is.
    fn bulk_places(&self, turn: &TurnContext) -> Result<u32, Micros> {
        let share = turn.terms.bulk_most(turn.most);
        let used = self.window.used_by(QuotaClass::is_bulk);
        match share.checked_sub(used).filter(|room| *room > 0) {
            Some(room) => Ok(room.min(even(self.bulk_place, self.time, turn.bulk_spacing())?)),
            None => Err(self.window.leaves(used - share + 1, self.time, turn.grain, QuotaClass::is_bulk)),
        }
    }

    fn grant(&mut self, class: QuotaClass, count: u32, turn: &TurnContext) -> Micros {
        let now = self.time;
        let spacing = turn.terms.floor_spacing(class, turn.most).saturating_mul(u64::from(count));
        let floor_from = &mut self.classes[class as usize].floor_from;
        *floor_from = (*floor_from).max(now.saturating_sub(turn.gathered(class))).saturating_add(spacing).min(now);
        if class.is_bulk() {
            self.bulk_place = next_even(self.bulk_place, now, turn.bulk_spacing(), count);
        }
        if let Some(restraint) = &mut self.restraint {
            restraint.place = next_even(restraint.place, now, turn.spacing_after(restraint), count);
            restraint.granted(now);
        }
        self.window.grant(now, turn.grain, class, count)
    }

    /// For how long a class has gathered places of its floor.
    fn gathered(&self, class: QuotaClass, turn: &TurnContext) -> Micros {
        self.time.saturating_sub(self.classes[class as usize].floor_from).min(turn.gathered(class))
    }

    /// The places that it has gathered.
    fn places(&self, class: QuotaClass, turn: &TurnContext) -> u32 {
        u32::try_from(self.gathered(class, turn) / turn.terms.floor_spacing(class, turn.most)).unwrap_or(u32::MAX)
    }

    /// What part of all the places that it may gather a class has gathered, in thousandths: the more, the longer it has
    /// gone without.
    fn neglect(&self, class: QuotaClass, turn: &TurnContext) -> u64 {
        self.gathered(class, turn).saturating_mul(1000) / turn.gathered(class)
    }

    /// Until when a class that may ask again at `until` counts as waiting.
    fn waits_until(&self, until: Micros, turn: &TurnContext) -> Micros {
        let longest = ((turn.spacing() * LATE_PLACES) as Micros).clamp(WAITS_AT_LEAST, WAITS_AT_MOST);
        until.clamp(self.time + WAITS_AT_LEAST, self.time + longest) + micros(ASKED_AGAIN)
    }
}

/// What floors keep from a class, in places.
#[derive(Debug, Default)]
struct ReservedPlaces {
    /// For those that have gone without for longer.
    before: u32,
    /// For all others.
    all: u32,
    /// For other bulk.
    bulk: u32,
    /// Whether one waits that goes before it where no floor decides.
    is_behind: bool,
}

/// What holds for one turn.
struct TurnContext<'a> {
    terms: &'a Terms,
    grain: Grain,
    /// The most requests in a window for now.
    most: u32,
}

impl<'a> TurnContext<'a> {
    fn new(budget: &Budget, terms: &'a Terms) -> Self {
        let (limit, counted) = (terms.rate.limit, terms.counted());
        let most = budget.restraint.map_or(limit, |restraint| restraint.most(limit, counted, budget.time));
        Self { terms, grain: Grain::new(limit, counted), most }
    }

    /// The time between two requests that are spread evenly.
    fn spacing(&self) -> f64 {
        self.grain.counted as f64 / f64::from(self.most)
    }

    /// The same while this restraint holds.
    fn spacing_after(&self, restraint: &Restraint) -> f64 {
        restraint.spacing(self.spacing(), self.terms.rate.limit)
    }

    /// The same of those that reconciliation and backfill have.
    fn bulk_spacing(&self) -> f64 {
        self.grain.counted as f64 / f64::from(self.terms.bulk_most(self.most))
    }

    /// For so long a class gathers places: for a window, and for one place at least.
    fn gathered(&self, class: QuotaClass) -> Micros {
        self.grain.counted.max(self.terms.floor_spacing(class, self.most))
    }
}

/// How far behind an even place may be without being lost.
fn late(spacing: f64) -> Micros {
    (spacing * LATE_PLACES).max(LATE_AT_LEAST) as Micros
}

/// How many even places are there, from `place` on, or when the next one is.
fn even(place: Micros, now: Micros, spacing: f64) -> Result<u32, Micros> {
    let place = place.max(now.saturating_sub(late(spacing)));
    match now.checked_sub(place) {
        Some(since) => Ok(((since as f64 / spacing) as u32).saturating_add(1)),
        None => Err(place),
    }
}

/// The even place after so many are taken.
fn next_even(place: Micros, now: Micros, spacing: f64, count: u32) -> Micros {
    place.max(now.saturating_sub(late(spacing))) + (spacing * f64::from(count)) as Micros
}
