//! The program's reports, day by day as an operator asks for them: each balances, and tells of every call what the oracle
//! sees of it.

use std::collections::{BTreeMap, BTreeSet};

use catalog::ConversationRow;
use jiff::{SignedDuration, Timestamp};
use model::{ContactId, ConversationKey, ConversationState, TenantId};
use nice_sim::TruthLeg;
use serde_json::Value;

use super::{Due, Evidence, Letters, TenantTruth, due, letters};

/// A report that an operator asked for.
pub struct Report {
    /// Of which tenant.
    pub tenant: TenantId,
    /// The first moment.
    pub from: Timestamp,
    /// The moment after the last.
    pub to: Timestamp,
    /// What was told; none where there was no answer.
    pub told: Option<Value>,
}

/// What a call of the group counts as; the rest are exceptions.
const WITHOUT_NAME: [&str; 2] = ["ready", "no_recording"];

/// Every class.
const CLASSES: [&str; 7] = ["ready", "no_recording", "dead", "in_flight", "excluded", "not_looked_for_yet", "missing"];

/// What of a leg a report may say.
struct Expected {
    id: i64,
    /// It must be counted; else it may be.
    is_certain: bool,
    /// As one of these.
    classes: BTreeSet<&'static str>,
    /// It is ready, and lacks recordings that NICE names.
    is_incomplete: bool,
}

/// Every promise that a report breaks, one line each.
pub async fn judge(evidence: &Evidence<'_>, reports: &[Report]) -> Vec<String> {
    let letters = match letters(evidence.catalog).await {
        Ok(letters) => letters,
        Err(error) => return vec![format!("the dead letters cannot be read: {error}")],
    };
    let mut broken = Vec::new();
    for report in reports {
        let name = format!("report of {} from {:.0}", report.tenant, report.from);
        let Some(told) = &report.told else {
            broken.push(format!("{name}: there is none"));
            continue;
        };
        let Some(tenant) = evidence.tenants.iter().find(|tenant| tenant.id == report.tenant) else { continue };
        let mut expected = Vec::new();
        for leg in tenant.legs.iter().filter(|leg| leg.ended_at >= report.from && leg.ended_at < report.to) {
            match expect(tenant, leg, evidence, &letters).await {
                Ok(leg) => expected.extend(leg),
                Err(error) => broken.push(format!("{}: a row cannot be read: {error}", report.tenant)),
            }
        }
        broken.extend(compare(told, &expected).into_iter().map(|what| format!("{name}: {what}")));
    }
    broken
}

/// What may be said of a leg; none where it is nobody's business.
async fn expect(
    tenant: &TenantTruth,
    leg: &TruthLeg,
    evidence: &Evidence<'_>,
    letters: &Letters,
) -> Result<Option<Expected>, String> {
    let due = due(tenant, leg, evidence);
    let erased = tenant.erased.get(&leg.contact_id);
    if due == Due::Nothing && erased.is_none() {
        return Ok(None);
    }
    let id = u64::try_from(leg.contact_id).ok().and_then(|id| ContactId::from_number(id).ok());
    let Some(external_id) = id else { return Ok(None) };
    let key = ConversationKey { tenant: tenant.id.clone(), external_id };
    let row = evidence.catalog.conversation(&key).await.map_err(|error| error.to_string())?;
    let has_letter = letters.contains_key(&(tenant.id.to_string(), leg.contact_id));
    let mut classes = BTreeSet::from([class(row.as_ref(), has_letter)]);
    // Time passes between the report and this look: what moves then may have stood elsewhere.
    if matches!(due, Due::UnderWay | Due::NeverGiven | Due::ReadyOrGone | Due::Either) {
        classes.extend(["in_flight", "not_looked_for_yet"]);
    }
    if due == Due::NeverGiven {
        classes.insert("dead");
    }
    match erased {
        Some(true) => classes = BTreeSet::from(["excluded"]),
        Some(false) => drop(classes.insert("excluded")),
        None => {}
    }
    let is_listed = leg.listed_at + SignedDuration::from_mins(30) < evidence.now;
    let is_certain = is_listed && due != Due::Either && leg.in_group_at_end && tenant.borders.is_empty();
    let is_incomplete = row.is_some_and(|row| row.recordings_missing > 0 && row.state == ConversationState::Ready);
    Ok(Some(Expected { id: leg.contact_id, is_certain, classes, is_incomplete }))
}

fn class(row: Option<&ConversationRow>, has_letter: bool) -> &'static str {
    match row.map(|row| row.state) {
        Some(ConversationState::Ready) => "ready",
        Some(ConversationState::NoRecording) => "no_recording",
        _ if has_letter => "dead",
        _ => "in_flight",
    }
}

/// What a report tells, beside what it should.
fn compare(told: &Value, expected: &[Expected]) -> Vec<String> {
    let mut broken = balance(told);
    let total = &told["total"];
    let count = |class: &str| total[class].as_u64().unwrap_or_default() as usize;
    let number = |of: &dyn Fn(&&Expected) -> bool| expected.iter().filter(of).count();
    let (certain, all) = (number(&|leg| leg.is_certain), expected.len());
    if !(certain..=all).contains(&count("ended")) {
        broken.push(format!("{} calls ended, and {certain} to {all} did", count("ended")));
    }
    for class in CLASSES {
        let least = number(&|leg| leg.is_certain && leg.classes.len() == 1 && leg.classes.contains(class));
        let most = number(&|leg| leg.classes.contains(class));
        if !(least..=most).contains(&count(class)) {
            broken.push(format!("{} calls are {class}, and {least} to {most} are", count(class)));
        }
    }
    let exceptions: Vec<_> = told["exceptions"].as_array().into_iter().flatten().collect();
    let mut named = BTreeMap::new();
    for exception in exceptions {
        let id = match &exception["conversation_id"] {
            Value::String(id) => id.parse().unwrap_or_default(),
            id => id.as_i64().unwrap_or_default(),
        };
        let what = exception["what"].as_str().unwrap_or_default();
        if named.insert(id, what).is_some() {
            broken.push(format!("{id} is named twice"));
        }
        let Some(leg) = expected.iter().find(|leg| leg.id == id) else {
            broken.push(format!("{id} is named as {what}, and is none of these calls"));
            continue;
        };
        let is_right = if what == "recordings_missing" { leg.is_incomplete } else { leg.classes.contains(what) };
        if !is_right {
            broken.push(format!("{id} is named as {what}, and is {:?}", leg.classes));
        }
    }
    for leg in expected.iter().filter(|leg| leg.is_certain && !named.contains_key(&leg.id)) {
        if leg.is_incomplete || !leg.classes.iter().any(|class| WITHOUT_NAME.contains(class)) {
            broken.push(format!("{} is {:?}, and is not named", leg.id, leg.classes));
        }
    }
    broken
}

/// It adds up, nothing is missing, nothing is left out, and NICE's own list is believed: the world is well by now.
fn balance(told: &Value) -> Vec<String> {
    let total = &told["total"];
    let count = |name: &str| total[name].as_u64().unwrap_or_default();
    let mut broken = Vec::new();
    if CLASSES.into_iter().map(count).sum::<u64>() != count("ended") || count("missing") > 0 {
        broken.push(format!("it does not balance, or misses calls: {total}"));
    }
    for name in ["exceptions_left_out", "unreadable", "doubtful"] {
        if told[name].as_u64() != Some(0) {
            broken.push(format!("{name} is {}", told[name]));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn leg(id: i64, class: &'static str) -> Expected {
        Expected { id, is_certain: true, classes: BTreeSet::from([class]), is_incomplete: false }
    }

    fn told(ready: u64, dead: u64, exceptions: Value) -> Value {
        let total = json!({ "ended": ready + dead, "ready": ready, "dead": dead });
        json!({
            "total": total, "exceptions": exceptions, "exceptions_left_out": 0, "unreadable": 0, "doubtful": 0,
        })
    }

    #[test]
    fn a_report_that_tells_what_is_so_breaks_nothing() {
        let expected = [leg(1, "ready"), leg(2, "dead")];
        let right = told(1, 1, json!([{ "conversation_id": "2", "what": "dead" }]));
        assert_eq!(compare(&right, &expected), [""; 0]);
    }

    #[test]
    fn what_is_not_named_or_named_wrongly_is_found() {
        let expected = [leg(1, "ready"), leg(2, "dead")];
        for wrong in [
            told(2, 0, json!([])),
            told(1, 1, json!([])),
            told(1, 1, json!([{ "conversation_id": "2", "what": "excluded" }])),
            told(1, 1, json!([{ "conversation_id": "3", "what": "dead" }])),
            told(1, 0, json!([{ "conversation_id": "2", "what": "dead" }])),
        ] {
            assert!(!compare(&wrong, &expected).is_empty(), "{wrong}");
        }
    }
}
