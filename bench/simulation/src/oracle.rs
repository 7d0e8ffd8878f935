//! What must be true at the end, whatever went wrong before: written from the contract and the world alone.
//!
//! It knows every call of the simulated NICEs and what lies in the servers; it asks the program nothing but its report.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use model::{ContactId, ConversationKey, ConversationState, TenantId};
use nice_sim::TruthLeg;
use stages::clients::catalog::{Catalog, ConversationRow, DeadLetter};

use crate::standins::recording_store::StoredObject;

mod recordings;
pub mod report;

/// From a recording's being there to its call's being ready, in a world that is well again for an hour: the longest
/// delay of `not_ready_delays` and the time that a queue rounds it up by.
const FRESH: SignedDuration = SignedDuration::from_mins(75);

/// The group is read every ten minutes: around a change of an agent's membership a call may count or not.
const BORDER: SignedDuration = SignedDuration::from_mins(30);

/// One tenant, as the world knows it.
pub struct TenantTruth {
    /// Its id.
    pub id: TenantId,
    /// Every leg that an agent took.
    pub legs: Vec<TruthLeg>,
    /// When the members or the readings of the group changed: calls of around then may count or not.
    pub borders: Vec<(Timestamp, Timestamp)>,
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
    /// A call that ended so short a time ago may still be on its way.
    pub under_way: Duration,
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
            let entries = analysis.get(&(tenant.id.to_string(), leg.contact_id)).copied().unwrap_or_default();
            let letter = letters.get(&(tenant.id.to_string(), leg.contact_id));
            if let Some(row) = &row {
                referenced.extend(row.recordings.iter().map(|recording| recording.object_key.clone()));
            }
            let call = Call { tenant, leg, row: row.as_ref(), entries, letter, objects: &objects };
            let due = due(tenant, leg, evidence);
            if due == Due::ReadyOrGone {
                left_behind.insert(format!("{}/{id}", tenant.id));
            }
            broken.extend(call.judge(due).into_iter().map(|what| {
                let (id, ended) = (leg.contact_id, leg.ended_at);
                format!("{} {id} (ended {ended:.0}, due {due:?}): {what}", tenant.id)
            }));
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
    let reach = evidence.began - SignedDuration::from_hours(2);
    let near = |at: Timestamp, from: Timestamp, to: Timestamp| at > from - BORDER && at < to + BORDER;
    let is_border = tenant.borders.iter().any(|(from, to)| {
        near(leg.ended_at, *from, *to) || near(leg.hung_up_at, *from, *to) || near(leg.started_at, *from, *to)
    });
    match tenant.erased.get(&leg.contact_id) {
        Some(true) => return Due::Nothing,
        Some(false) => return Due::Either,
        None => {}
    }
    let is_border = is_border || leg.in_group != leg.in_group_at_end;
    if is_border || (leg.ended_at < evidence.began && leg.ended_at > reach) {
        return Due::Either;
    }
    if !leg.in_group_at_end || leg.ended_at < evidence.began {
        return Due::Nothing;
    }
    recordings::due(tenant, leg, evidence)
}

/// A call and all that there is of it.
struct Call<'a> {
    tenant: &'a TenantTruth,
    leg: &'a TruthLeg,
    row: Option<&'a ConversationRow>,
    entries: u64,
    letter: Option<&'a DeadLetter>,
    objects: &'a BTreeMap<&'a str, &'a StoredObject>,
}

impl Call<'_> {
    fn judge(&self, due: Due) -> Vec<String> {
        let mut broken = Vec::new();
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
            broken.extend(self.judge_freshness(row));
        }
        broken
    }

    /// A call is ready soon after its recording is there, where nothing was wrong that concerns its tenant: neither
    /// what is over for an hour nor what is wrong with another tenant may be felt.
    fn judge_freshness(&self, row: &ConversationRow) -> Option<String> {
        let there = self.leg.recording_at.max(self.leg.ended_at).max(self.leg.listed_at);
        if recordings::is_troubled(self.tenant, self.leg.started_at, there + FRESH) {
            return None;
        }
        let late = row.enqueued_at?.duration_since(there);
        (late > FRESH).then(|| format!("was ready {} minutes after its recording was there", late.as_mins()))
    }
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
