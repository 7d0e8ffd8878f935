//! The task that asks a budget for all who wait at a gate, and hands out what it grants.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use model::{ApiFamily, QuotaClass, QuotaError};
use runtime::chance;
use tokio::{sync::mpsc, time::Instant};
use tracing::warn;

use super::permit::{GateMessage, GrantedPermit, Patience, PermitWaiter};
use super::request::{ASKED_AGAIN, CLASSES};
use super::{BudgetRequest, BudgetStore, GrantOutcome, GrantReport, Micros, Terms, Witness};
use crate::QuotaMetrics;

/// What was granted ahead is used within this time or given back.
const HELD_FOR: Duration = Duration::from_millis(100);

/// Above so many requests a second a process takes ahead what it needs for the time between two questions at this
/// rate, so that the store is not asked for each request.
const ASKED_A_SECOND: u32 = 50;

/// What has become of requests is told with the next question, and after this time at the latest.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// The store answers within this time, or it counts as away.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// After a failure nobody asks it for so long.
const FAILED_FOR: Duration = Duration::from_secs(1);

/// Nobody is sent away for longer: who comes again sees whether there is more room than expected.
const LONGEST_ABSENCE: Duration = Duration::from_secs(60);

/// Nor for less, unless there is room sooner.
const SHORTEST_ABSENCE: Duration = Duration::from_secs(1);

/// A bulk request is sent away for so many places at most, and within these bounds: its places are even, and one that
/// passes for want of a taker is lost.
const PLACES_AWAY: u32 = 20;
const SHORTEST_BULK_ABSENCE: Duration = Duration::from_secs(1);
const LONGEST_BULK_ABSENCE: Duration = Duration::from_secs(30);

/// For the same reason the first so many bulk requests wait in place for up to so long, whatever their patience.
const IN_FRONT: usize = 4;
const LONGEST_IN_FRONT: Duration = Duration::from_secs(10);

/// A request that was granted, and not handed out.
#[derive(Debug, Clone, Copy)]
struct UnusedGrant {
    asked_at: Instant,
    at: Micros,
    granted_at: Micros,
}

/// Asks the store for all who wait.
pub(super) struct Keeper {
    store: Arc<dyn BudgetStore>,
    family: ApiFamily,
    terms: Terms,
    /// Weak, so that nobody waits for a keeper that waits for itself.
    words: mpsc::WeakSender<GateMessage>,
    refusals: prometheus::IntCounter,
    begun: Instant,
    waiting: [VecDeque<PermitWaiter>; CLASSES],
    /// Granted, and not handed out.
    in_hand: [VecDeque<UnusedGrant>; CLASSES],
    /// Handed out since the last question.
    served: [u32; CLASSES],
    reports: Vec<GrantReport>,
    witness: Option<Witness>,
    /// When to ask for a class again; none at once.
    ask_at: [Option<Instant>; CLASSES],
    /// When the class may have room, as it was told last.
    room_at: [Option<Instant>; CLASSES],
    tell_at: Option<Instant>,
    limit_now: u32,
    /// The last turn told to one of each class.
    lines: [Option<Instant>; CLASSES],
}

impl Keeper {
    /// A keeper that has asked for nobody yet.
    pub(super) fn new(
        store: Arc<dyn BudgetStore>,
        family: ApiFamily,
        terms: Terms,
        words: mpsc::WeakSender<GateMessage>,
        metrics: &QuotaMetrics,
    ) -> Self {
        Self {
            store,
            family,
            terms,
            words,
            refusals: metrics.refusals.with_label_values(&[family.as_str()]),
            begun: Instant::now(),
            waiting: Default::default(),
            in_hand: Default::default(),
            served: [0; CLASSES],
            reports: Vec::new(),
            witness: None,
            ask_at: [None; CLASSES],
            room_at: [None; CLASSES],
            tell_at: None,
            limit_now: terms.rate.limit,
            lines: [None; CLASSES],
        }
    }

    /// Ends with the last sender of words.
    pub(super) async fn run(mut self, mut heard: mpsc::Receiver<GateMessage>) {
        loop {
            let word = match self.wakes_at() {
                Some(at) => tokio::time::timeout_at(at, heard.recv()).await,
                None => Ok(heard.recv().await),
            };
            match word {
                Ok(Some(word)) => self.hear(word),
                Ok(None) => return,
                Err(_) => {}
            }
            while let Ok(word) = heard.try_recv() {
                self.hear(word);
            }
            self.serve().await;
        }
    }

    fn hear(&mut self, word: GateMessage) {
        match word {
            GateMessage::Wait(waiter) => self.waiting[waiter.class as usize].push_back(waiter),
            GateMessage::Report(report) => {
                let within = if is_refusal(&report) { Duration::ZERO } else { TOLD_WITHIN };
                let at = Instant::now() + within;
                self.tell_at = Some(self.tell_at.map_or(at, |tell_at| tell_at.min(at)));
                self.reports.push(report);
            }
        }
    }

    async fn serve(&mut self) {
        let now = Instant::now();
        let is_refused = self.reports.iter().any(is_refusal);
        for class in QuotaClass::ALL {
            let index = class as usize;
            self.waiting[index].retain(|waiter| !waiter.reply.is_closed());
            let gone = |held: &mut UnusedGrant| is_refused || now >= held.asked_at + HELD_FOR;
            while let Some(held) = self.in_hand[index].pop_front_if(gone) {
                self.reports.push(held.report(class));
                self.tell_at = Some(self.tell_at.map_or(now, |tell_at| tell_at.min(now)));
            }
        }
        self.hand_out();
        let must_tell = self.tell_at.is_some_and(|at| at <= now);
        let must_ask = |class: QuotaClass| {
            !self.waiting[class as usize].is_empty() && self.ask_at[class as usize].is_none_or(|at| at <= now)
        };
        if must_tell || QuotaClass::ALL.into_iter().any(must_ask) {
            self.ask(is_refused).await;
            self.hand_out();
        }
        self.send_away();
    }

    async fn ask(&mut self, is_refused: bool) {
        let asked_at = Instant::now();
        let wanted = QuotaClass::ALL.map(|class| self.wanted(class));
        self.served = [0; CLASSES];
        let request = BudgetRequest {
            terms: self.terms,
            witness: self.witness,
            reports: std::mem::take(&mut self.reports),
            wanted,
        };
        let begun = self.begun;
        let age = move || begun.elapsed();
        let decision = match tokio::time::timeout(ANSWER_TIMEOUT, self.store.turn(&request, &age)).await {
            Ok(Ok(decision)) => decision,
            Ok(Err(error)) => return self.failed(request, error.to_string(), error.may_be_saved),
            Err(_) => return self.failed(request, "rate budget: no answer in time".to_owned(), true),
        };
        self.tell_at = None;
        let (seen, withheld) = (decision.now, decision.withheld);
        self.witness = Some(Witness { seen, withheld, began: asked_at - begun, ended: begun.elapsed() });
        self.limit_now = decision.limit_now;
        if is_refused {
            let (family, limit, limit_now) = (self.family.as_str(), self.terms.rate.limit, decision.limit_now);
            warn!(family, limit, limit_now, "NICE refused a request that is within the limit, the budget pauses");
        }
        for grant in &decision.grants {
            let held = UnusedGrant { asked_at, at: grant.at, granted_at: decision.now };
            self.in_hand[grant.class as usize].extend(std::iter::repeat_n(held, grant.count as usize));
        }
        let (now, least) = (Instant::now(), self.least_gap());
        for (class, wait) in decision.not_before.iter().enumerate() {
            self.ask_at[class] = wait.map(|wait| now + wait.clamp(least, ASKED_AGAIN));
            self.room_at[class] = wait.map(|wait| now + wait);
        }
    }

    /// The store did not answer: who waits learns it now, and what was told is told again if that does no harm.
    fn failed(&mut self, request: BudgetRequest, what: String, may_be_saved: bool) {
        self.reports = if may_be_saved { request.once_more().reports } else { request.reports };
        let again = Instant::now() + FAILED_FOR;
        self.tell_at = (!self.reports.is_empty()).then_some(again);
        self.ask_at = [Some(again); CLASSES];
        for waiter in self.waiting.iter_mut().flat_map(std::mem::take) {
            waiter.answer(Err(QuotaError { what: what.clone(), retry_after: None }));
        }
    }

    /// How many of a class to ask for: those that wait, and at a high rate some ahead.
    fn wanted(&self, class: QuotaClass) -> u32 {
        let waiting = u32::try_from(self.waiting[class as usize].len()).unwrap_or(u32::MAX);
        let a_second = f64::from(self.terms.rate.limit) / self.terms.rate.window.as_secs_f64();
        let ahead = (a_second / f64::from(ASKED_A_SECOND)) as u32;
        match waiting {
            0 => 0,
            // Who has time takes nothing ahead: it would be lost to the even pace.
            _ if class.is_bulk() => waiting,
            // Twice what was wanted since the last question, so that what is given back is little.
            _ => {
                let lately = waiting.saturating_add(self.served[class as usize]).saturating_mul(2);
                waiting.saturating_add(ahead.min(self.terms.rate.limit / 8).min(lately))
            }
        }
    }

    fn hand_out(&mut self) {
        let Some(words) = self.words.upgrade() else { return };
        for class in QuotaClass::ALL {
            let (waiting, in_hand) = (&mut self.waiting[class as usize], &mut self.in_hand[class as usize]);
            for _ in 0..waiting.len().min(in_hand.len()) {
                let (Some(waiter), Some(held)) = (waiting.pop_front(), in_hand.pop_front()) else { break };
                self.served[class as usize] = self.served[class as usize].saturating_add(1);
                let (words, refusals) = (words.clone(), self.refusals.clone());
                let (report, asked_at) = (held.report(class), held.asked_at);
                let granted = GrantedPermit { words, report, begun: self.begun, asked_at, refusals };
                waiter.answer(Ok(Box::new(granted)));
            }
        }
    }

    /// Sends away whose patience does not last until there may be room.
    fn send_away(&mut self) {
        let now = Instant::now();
        for class in QuotaClass::ALL {
            let Some(room_at) = self.room_at[class as usize] else { continue };
            let spacing = self.spacing(class);
            let mut staying = VecDeque::new();
            for waiter in std::mem::take(&mut self.waiting[class as usize]) {
                let places = u32::try_from(staying.len()).unwrap_or(u32::MAX);
                let turn = room_at + spacing.saturating_mul(places).min(LONGEST_ABSENCE);
                let patience = match waiter.patience {
                    Patience::UpTo(longest) if class.is_bulk() && staying.len() < IN_FRONT && !longest.is_zero() => {
                        Patience::UpTo(longest.max((spacing * IN_FRONT as u32 + spacing / 2).min(LONGEST_IN_FRONT)))
                    }
                    patience => patience,
                };
                if patience.lasts(waiter.since, turn) {
                    staying.push_back(waiter);
                } else {
                    let wait = self.away(class, turn.max(now) - now, spacing, now);
                    let what = format!("the {} budget has no room", self.family.as_str());
                    waiter.answer(Err(QuotaError { what, retry_after: Some(wait) }));
                }
            }
            self.waiting[class as usize] = staying;
        }
    }

    /// When one that is sent away shall come again.
    fn away(&mut self, class: QuotaClass, room_in: Duration, spacing: Duration, now: Instant) -> Duration {
        let (longest, spread) = match class.is_bulk() {
            // Over all the steps that a queue has, or they would come in bursts.
            true => (spacing.saturating_mul(PLACES_AWAY).clamp(SHORTEST_BULK_ABSENCE, LONGEST_BULK_ABSENCE), 0.9),
            false => (LONGEST_ABSENCE, 0.5),
        };
        let end = &mut self.lines[class as usize];
        let turn = (now + room_in).max(end.map_or(now, |end| end + spacing));
        let wait = turn - now;
        // A queue may bring a message back as late as after the double of what it was asked for. Whoever comes early
        // asks again; whoever comes late has left its place unused.
        let early = if class.is_bulk() || room_in > longest { 1.0 } else { 0.5 };
        if wait > longest {
            return longest.mul_f64(chance::range(1.0 - spread..1.0) * early);
        }
        *end = Some(turn);
        wait.mul_f64(early).max(room_in.min(SHORTEST_ABSENCE))
    }

    /// The time between two requests of the class, if they are spread evenly.
    fn spacing(&self, class: QuotaClass) -> Duration {
        let most = if class.is_bulk() { self.terms.bulk_most(self.limit_now) } else { self.limit_now };
        self.terms.rate.counted_for() / most.max(1)
    }

    /// However soon there is room, the store is not asked again sooner: some twenty processes may ask.
    fn least_gap(&self) -> Duration {
        (self.terms.rate.window / 200).clamp(Duration::from_millis(5), Duration::from_millis(100))
    }

    fn wakes_at(&self) -> Option<Instant> {
        let now = Instant::now();
        let asks = QuotaClass::ALL.into_iter().filter(|class| !self.waiting[*class as usize].is_empty());
        let asks = asks.map(|class| self.ask_at[class as usize].unwrap_or(now));
        let held = self.in_hand.iter().filter_map(|held| held.front()).map(|held| held.asked_at + HELD_FOR);
        asks.chain(held).chain(self.tell_at).min()
    }
}

impl UnusedGrant {
    fn report(self, class: QuotaClass) -> GrantReport {
        GrantReport { at: self.at, granted_at: self.granted_at, class, outcome: GrantOutcome::Unsent }
    }
}

fn is_refusal(report: &GrantReport) -> bool {
    matches!(report.outcome, GrantOutcome::Refused(_))
}
