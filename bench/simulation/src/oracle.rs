//! What must be true at the end, whatever went wrong before: written from the contract and the world alone.
//!
//! It knows every call of the simulated NICEs and what lies in the servers; it asks the program nothing but its report.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use catalog::{Catalog, CatalogError, ConversationRow, RunKind, RunState};
use jiff::{SignedDuration, Timestamp};
use model::{ContactId, ConversationKey, ConversationState, DeadLetter, Hop, TenantId};
use nice_sim::TruthLeg;

use crate::standins::recording_store::StoredObject;

mod recordings;
pub mod report;

/// From a recording's being there to its call's being ready, in a world that is well again for an hour: the longest
/// delay of `not_ready_delays` and the time that a queue rounds it up by.
const FRESH: SignedDuration = SignedDuration::from_mins(75);

/// Backlogs are through, and calls are fresh again, so long after the last trouble.
const HEALS: SignedDuration = SignedDuration::from_hours(1);

/// The group is read every ten minutes, and soon again where that fails: in so long a calm it was read for certain.
const READ: SignedDuration = SignedDuration::from_mins(25);

/// A row that comes later is beyond the poll's overlap of half an hour, and is found by the comparison of the night.
const OVERLAP: SignedDuration = SignedDuration::from_mins(28);

/// A day.
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// Requests to media playback that a call needs, and as many for looks that come too early.
const REQUESTS: u32 = 4;

/// A system that is away for so long is not the fault of any call. What failed just before may rightly have cost its call
/// a delay of an hour, which is all that a call has in a short world.
const LONG_AWAY: SignedDuration = SignedDuration::from_mins(75);

/// One tenant, as the world knows it.
pub struct TenantTruth {
    /// Its id.
    pub id: TenantId,
    /// Every leg that an agent took.
    pub legs: Vec<TruthLeg>,
    /// The members of the group now.
    pub members: BTreeSet<i64>,
    /// When a wrong reading of the group may have been believed: calls of then may count or not.
    pub borders: Vec<(Timestamp, Timestamp)>,
    /// When a system was wholly away that every call of this tenant needs.
    pub away: Vec<(Timestamp, Timestamp)>,
    /// How far a consumer's clock was ahead at most: a row may say so much too late when it was ready.
    pub ahead: SignedDuration,
    /// Requests to media playback in five minutes.
    pub playback_limit: u32,
    /// When something went wrong that concerns this tenant.
    pub troubled: Vec<(Timestamp, Timestamp)>,
    /// What was erased on purpose, and whether that was done for certain.
    pub erased: BTreeMap<i64, bool>,
    /// Rules that the client broke.
    pub violations: Vec<String>,
    /// How far the deadline for recordings reaches.
    pub recording_deadline: Duration,
}

/// Everything that the oracle looks at.
pub struct Evidence<'a> {
    /// The database.
    pub catalog: &'a dyn Catalog,
    /// The recording store.
    pub objects: Vec<StoredObject>,
    /// The tenants.
    pub tenants: Vec<TenantTruth>,
    /// When the program began.
    pub began: Timestamp,
    /// When the last fault was over.
    pub healed: Timestamp,
    /// Now.
    pub now: Timestamp,
    /// When the nightly comparisons were due so far.
    pub nights: Vec<Timestamp>,
}

/// What of a call must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// Its recordings, stored and ready.
    Ready,
    /// A row that says that there is no recording.
    NoRecording,
    /// NICE names a recording for good and never gives it: no recording, or a letter, which may be on its way again.
    NeverGiven,
    /// The recordings, stored and ready; or none, or a letter, for they were gone before they could be taken.
    ReadyOrGone,
    /// It may be on its way still, or be through.
    UnderWay,
    /// Nothing.
    Nothing,
    /// It may be there or not.
    Either,
}

/// Every promise that was broken, one line each.
pub async fn judge(evidence: &Evidence<'_>) -> Vec<String> {
    let mut broken = Vec::new();
    let objects: BTreeMap<&str, &StoredObject> =
        evidence.objects.iter().map(|object| (object.key.as_str(), object)).collect();
    let analysis = match analysis(evidence.catalog).await {
        Ok(analysis) => analysis,
        Err(error) => return vec![format!("the analysis queue cannot be read: {error}")],
    };
    let letters = match letters(evidence.catalog).await {
        Ok(letters) => letters,
        Err(error) => return vec![format!("the dead letters cannot be read: {error}")],
    };
    let (mut referenced, mut left_behind) = (BTreeSet::new(), BTreeSet::new());
    for tenant in &evidence.tenants {
        for leg in &tenant.legs {
            let Some(id) = u64::try_from(leg.contact_id).ok().and_then(|id| ContactId::from_number(id).ok()) else {
                continue;
            };
            let key = ConversationKey { tenant: tenant.id.clone(), external_id: id };
            let row = match evidence.catalog.conversation(&key).await {
                Ok(row) => row,
                Err(error) => {
                    broken.push(format!("{} {id}: its row cannot be read: {error}", tenant.id));
                    continue;
                }
            };
            let hops = match evidence.catalog.hops(&key).await {
                Ok(hops) => hops,
                Err(error) => {
                    broken.push(format!("{} {id}: its timeline cannot be read: {error}", tenant.id));
                    continue;
                }
            };
            let entries = analysis.get(&(tenant.id.to_string(), leg.contact_id)).copied().unwrap_or_default();
            let letter = letters.get(&(tenant.id.to_string(), leg.contact_id));
            if let Some(row) = &row {
                referenced.extend(row.recordings.iter().map(|recording| recording.object_key.clone()));
            }
            let call = Call { tenant, leg, row: row.as_ref(), hops: &hops, entries, letter, objects: &objects };
            let due = due(tenant, leg, evidence);
            if due == Due::ReadyOrGone {
                left_behind.insert(format!("{}/{id}", tenant.id));
            }
            broken.extend(call.judge(due, evidence).into_iter().map(|what| {
                let (id, ended) = (leg.contact_id, leg.ended_at);
                format!("{} {id} (ended {ended:.0}, due {due:?}): {what}", tenant.id)
            }));
        }
        match judge_tenant(tenant, evidence).await {
            Ok(wrong) => broken.extend(wrong),
            Err(error) => broken.push(format!("{}: the catalog cannot be read: {error}", tenant.id)),
        }
        broken.extend(tenant.violations.iter().map(|what| format!("{}: the client {what}", tenant.id)));
    }
    for object in &evidence.objects {
        if !referenced.contains(&object.key) && !left_behind.contains(&recordings::call_of(&object.key)) {
            broken.push(format!("object {}: no row names it", object.key));
        }
    }
    broken
}

/// What must be there of a call.
fn due(tenant: &TenantTruth, leg: &TruthLeg, evidence: &Evidence<'_>) -> Due {
    match tenant.erased.get(&leg.contact_id) {
        Some(true) => return Due::Nothing,
        Some(false) => return Due::Either,
        None => {}
    }
    let reach = evidence.began - SignedDuration::from_hours(2);
    match tenant.counts(leg, evidence) {
        Some(true) if leg.ended_at >= evidence.began => {}
        Some(true) if leg.ended_at > reach => return Due::Either,
        None => return Due::Either,
        Some(_) => return Due::Nothing,
    }
    recordings::due(tenant, leg, evidence)
}

impl TenantTruth {
    /// Whether a leg counts as the group's; none where nobody could know. An agent is a member at the end of its call, and
    /// stood in a reading of that membership. Who joins counts from the reading before, who leaves to the one after: what
    /// is beside a membership may count too.
    fn counts(&self, leg: &TruthLeg, evidence: &Evidence<'_>) -> Option<bool> {
        let is_near = |(from, to): &(Timestamp, Timestamp)| {
            leg.ended_at > *from - READ && leg.ended_at < self.calm(*to, READ) + READ
        };
        if self.borders.iter().any(is_near) {
            return None;
        }
        let is_read = |from: Timestamp, to: Timestamp| self.calm(from, READ) + READ <= to;
        let since = leg.last_membership_change.unwrap_or(evidence.began).max(evidence.began);
        match leg.in_group_at_end {
            true => is_read(since, leg.next_membership_change.unwrap_or(evidence.now)).then_some(true),
            false => {
                let has_left = leg.last_membership_change.is_none_or(|left| is_read(left, leg.ended_at));
                let comes_late = leg.next_membership_change.is_none_or(|comes| is_read(leg.ended_at, comes));
                (has_left && comes_late).then_some(false)
            }
        }
    }

    /// The first moment from which on nothing is wrong for so long.
    fn calm(&self, from: Timestamp, lasting: SignedDuration) -> Timestamp {
        self.quiet_since(from, SignedDuration::ZERO, lasting)
    }

    /// The first moment from which on nothing is wrong for so long, and before which nothing was for as long as `after`.
    fn quiet_since(&self, from: Timestamp, after: SignedDuration, lasting: SignedDuration) -> Timestamp {
        let mut at = from;
        // Each is passed once at most: they need not be in order.
        for _ in 0..=self.troubled.len() {
            let hit = self.troubled.iter().filter(|(begin, end)| *begin < at + lasting && *end + after > at);
            match hit.map(|(_, end)| *end + after).max() {
                Some(end) if end > at => at = end,
                _ => break,
            }
        }
        at
    }

    /// Until when a call must be ready; none where the night has not come that must find it.
    fn ready_by(&self, leg: &TruthLeg, evidence: &Evidence<'_>) -> Option<Timestamp> {
        let available = leg.media.iter().map(|medium| medium.available_at).max();
        let there = available.unwrap_or(leg.recording_at).max(leg.ended_at).max(leg.listed_at);
        let found = match leg.listed_at.duration_since(leg.ended_at) {
            late if late < OVERLAP => leg.listed_at,
            _ => evidence.nights.iter().copied().find(|night| *night >= leg.listed_at)?,
        };
        // A recording that is late is looked for again after half of the call's age, and a tenth of that for slack.
        let age = SignedDuration::from_secs_f64(there.duration_since(leg.ended_at).as_secs_f64() * 0.6);
        let fresh = FRESH.max(age + SignedDuration::from_mins(15));
        let healed = self.quiet_since(found.max(there), HEALS, fresh);
        // What has waited is through when the quota has let it through.
        let is_waiting = |other: &&TruthLeg| other.ended_at < healed && other.ended_at > leg.ended_at - HEALS;
        let waiting = match healed > found.max(there) || found > there {
            true => self.legs.iter().filter(is_waiting).count(),
            false => 0,
        };
        // For half of the time that calls have to become fresh again, nobody has to wait for it.
        let windows = waiting as f64 * f64::from(REQUESTS) / f64::from(self.playback_limit.max(1));
        let drains = SignedDuration::from_secs((windows * 300.0) as i64) - HEALS / 2;
        Some(healed + fresh + drains.max(SignedDuration::ZERO))
    }

    /// Whether a system had been away for long when a call was set aside, or had been until a moment before.
    fn was_away(&self, at: Timestamp) -> bool {
        let moment = SignedDuration::from_mins(10);
        self.away.iter().any(|(from, to)| at > *from + LONG_AWAY && at < *to + moment)
    }
}

/// A call and all that there is of it.
struct Call<'a> {
    tenant: &'a TenantTruth,
    leg: &'a TruthLeg,
    row: Option<&'a ConversationRow>,
    hops: &'a [Hop],
    entries: u64,
    letter: Option<&'a DeadLetter>,
    objects: &'a BTreeMap<&'a str, &'a StoredObject>,
}

impl Call<'_> {
    fn judge(&self, due: Due, evidence: &Evidence<'_>) -> Vec<String> {
        let mut broken = Vec::new();
        if matches!(due, Due::Ready | Due::NoRecording | Due::UnderWay) {
            broken.extend(self.judge_hops(self.hops));
        }
        let may_be_set_aside = matches!(due, Due::Either | Due::NeverGiven | Due::ReadyOrGone);
        if let (Some(letter), false) = (self.letter, may_be_set_aside) {
            broken.push(format!("set aside by {}: {}", letter.stage, letter.reason));
        }
        let state = self.row.map(|row| row.state);
        match (due, state) {
            (Due::Ready | Due::ReadyOrGone, Some(ConversationState::Ready))
            | (Due::NoRecording | Due::ReadyOrGone, Some(ConversationState::NoRecording)) => {}
            (Due::NeverGiven, Some(ConversationState::Ready)) => {
                broken.push("is ready, and NICE never gave a recording of it".to_owned());
            }
            (Due::Ready | Due::NoRecording | Due::ReadyOrGone, state) if self.letter.is_none() => {
                broken.push(format!("stands as {}", state.map_or("nothing", ConversationState::as_str)));
            }
            (Due::Nothing, Some(state)) => broken.push(format!("nobody's business, and stands as {}", state.as_str())),
            _ => {}
        }
        let is_ready = state == Some(ConversationState::Ready);
        if self.entries != u64::from(is_ready) {
            broken.push(format!("has {} analysis entries", self.entries));
        }
        if let Some(row) = self.row.filter(|_| is_ready) {
            broken.extend(recordings::judge(self.leg, row, self.objects));
            broken.extend(self.judge_freshness(row, evidence).filter(|_| due == Due::Ready));
        }
        broken
    }

    /// A call is ready soon after it is listed and its recording is there; where something was wrong, soon after that is
    /// over. What is wrong with another tenant may not be felt.
    fn judge_freshness(&self, row: &ConversationRow, evidence: &Evidence<'_>) -> Option<String> {
        let by = self.tenant.ready_by(self.leg, evidence)?;
        let late = row.enqueued_at?.duration_since(by) - self.tenant.ahead;
        (late > SignedDuration::ZERO).then(|| format!("was ready {} minutes after it was due", late.as_mins()))
    }

    /// Nobody is set aside for what fails for all.
    fn judge_hops(&self, hops: &[Hop]) -> Option<String> {
        let letters = hops.iter().filter(|hop| hop.outcome == "dead_letter");
        let mut wrong = letters.filter(|hop| self.tenant.was_away(hop.at));
        let Hop { at, stage, detail, .. } = wrong.next()?;
        Some(format!("was set aside at {at:.0} by {stage}, while a system was away: {detail:?}"))
    }
}

/// The agents follow the group, and each night was compared.
async fn judge_tenant(tenant: &TenantTruth, evidence: &Evidence<'_>) -> Result<Vec<String>, CatalogError> {
    let mut broken = Vec::new();
    if tenant.calm(evidence.now - READ, READ) <= evidence.now - READ {
        let agents = evidence.catalog.agents(&tenant.id).await?;
        let active = agents.iter().filter(|agent| agent.is_active());
        let active: BTreeSet<i64> = active.filter_map(|agent| i64::try_from(agent.external_id.get()).ok()).collect();
        if active != tenant.members {
            let differ = active.symmetric_difference(&tenant.members).count();
            broken.push(format!("{}: {differ} agents are not as the group has them", tenant.id));
        }
    }
    let runs = evidence.catalog.runs(&tenant.id, RunKind::Reconciliation, 10_000).await?;
    let done: Vec<_> = runs.iter().filter(|run| run.state == RunState::Done).collect();
    for run in done.iter().filter(|run| run.to > evidence.now) {
        broken.push(format!("{}: calls are compared up to {}, which is to come", tenant.id, run.to));
    }
    for night in &evidence.nights {
        let by = tenant.quiet_since(*night, HEALS, FRESH) + FRESH;
        // A comparison at any time after it does the night's work.
        let is_done = done.iter().any(|run| run.to >= *night && run.from <= evidence.began.max(*night - DAY));
        if by < evidence.now && !is_done {
            broken.push(format!("{}: the night of {night:.0} was not compared", tenant.id));
        }
    }
    Ok(broken)
}

type Letters = BTreeMap<(String, i64), DeadLetter>;

async fn letters(catalog: &dyn Catalog) -> Result<Letters, String> {
    let (mut letters, mut after) = (Letters::new(), 0);
    loop {
        let page = catalog.dead_letters(after, 500).await.map_err(|error| error.to_string())?;
        let Some(last) = page.last() else { return Ok(letters) };
        after = last.id;
        for letter in page {
            let id = letter.conversation_id.as_deref().and_then(|id| id.parse().ok());
            if let (Some(tenant), Some(id)) = (letter.tenant_id.clone(), id) {
                letters.insert((tenant, id), letter);
            }
        }
    }
}

async fn analysis(catalog: &dyn Catalog) -> Result<BTreeMap<(String, i64), u64>, String> {
    let (mut entries, mut skip) = (BTreeMap::new(), 0);
    loop {
        let page = catalog.analysis_queue(skip, 1000).await.map_err(|error| error.to_string())?;
        if page.is_empty() {
            return Ok(entries);
        }
        skip += page.len();
        for entry in page {
            let id = entry.key.external_id.to_string().parse().unwrap_or_default();
            *entries.entry((entry.key.tenant.to_string(), id)).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        "2026-01-05T06:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_mins(minutes)
    }

    fn tenant(troubled: &[(i64, i64)]) -> TenantTruth {
        TenantTruth {
            id: "acme".parse().unwrap(),
            legs: Vec::new(),
            members: BTreeSet::new(),
            borders: Vec::new(),
            away: vec![(at(0), at(100))],
            ahead: SignedDuration::ZERO,
            playback_limit: 10,
            troubled: troubled.iter().map(|(from, to)| (at(*from), at(*to))).collect(),
            erased: BTreeMap::new(),
            violations: Vec::new(),
            recording_deadline: Duration::from_secs(3600),
        }
    }

    #[test]
    fn a_call_is_due_after_all_troubles_that_leave_no_hour_between_them() {
        let tenant = tenant(&[(300, 310), (10, 20), (70, 90)]);
        assert_eq!(
            tenant.quiet_since(at(15), HEALS, FRESH),
            at(150),
            "the second begins before the first is forgotten"
        );
        assert_eq!(tenant.quiet_since(at(155), HEALS, FRESH), at(155));
        assert_eq!(tenant.quiet_since(at(230), HEALS, FRESH), at(370), "what comes before it is due is felt, too");
    }

    #[test]
    fn the_group_is_read_in_a_calm_and_in_no_other_time() {
        let tenant = tenant(&[(10, 20), (40, 60)]);
        assert_eq!(tenant.calm(at(0), READ), at(60), "twenty minutes are not enough");
        assert_eq!(tenant.calm(at(61), READ), at(61));
    }

    #[test]
    fn nobody_is_set_aside_for_what_is_long_away() {
        let tenant = tenant(&[]);
        let was_away: Vec<_> = [30, 74, 76, 105, 120].map(|minutes| tenant.was_away(at(minutes))).to_vec();
        assert_eq!(was_away, [false, false, true, true, false]);
    }
}
