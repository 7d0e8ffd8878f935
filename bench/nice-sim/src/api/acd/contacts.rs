//! The contacts of a date range, one contact, and its hierarchy.

use std::{collections::VecDeque, sync::Arc};

use serde_json::{Value, json};

use super::{
    Names,
    paging::{self, Page, Row, bad_request, instant},
    path_id, row,
};
use crate::{
    api::{ask::Ask, reply::Answer},
    call::{Call, Kind, Leg},
    chance::{derive, word},
    clock,
    memory::rows::Look,
    service::Service,
};

/// `contacts/completed`: legs whose after-call work is over, that the service has got round to listing and that began
/// within its reach.
pub(crate) fn completed(service: &Service, ask: &Ask, names: Names) -> Answer {
    let now = service.now();
    let earliest = service.config.acd.completed_reach.map_or(i64::MIN, |reach| now - clock::millis(reach));
    let fates = service.fates();
    let visible = |_: &Call, leg: &Leg| leg.started_at >= earliest && fates.row(leg).listed_at <= now;
    listing(service, ask, names, "completedContacts", visible)
}

/// `contacts`: everything that has begun, with its state.
pub(crate) fn all(service: &Service, ask: &Ask, names: Names) -> Answer {
    let now = service.now();
    listing(service, ask, names, "contacts", |_, leg| leg.started_at <= now)
}

fn listing(
    service: &Service,
    ask: &Ask,
    names: Names,
    key: &'static str,
    visible: impl Fn(&Call, &Leg) -> bool,
) -> Answer {
    let max = service.config.acd.contacts_page_max;
    let result = Page::read(ask, max, max).and_then(|page| {
        let mut rows = rows(service, ask, names, key == "contacts", visible)?;
        add_without_agent(service, &mut rows);
        page.sort(&mut rows)?;
        repeat(service, &mut rows, page.top());
        add_unreadable(service, &mut rows);
        add_hostile(service, &mut rows);
        if !page.sorted() && service.config.acd.unsorted_is_unstable && !rows.is_empty() {
            let turn = service.now() as usize % rows.len();
            rows.rotate_left(turn);
        }
        Ok(page.cut(service, ask, rows))
    });
    match result {
        Ok(listed) => paging::answer(key, listed),
        Err(refused) => refused,
    }
}

/// The rows that the request's filters leave.
fn rows(
    service: &Service,
    ask: &Ask,
    names: Names,
    with_state: bool,
    visible: impl Fn(&Call, &Leg) -> bool,
) -> Result<Vec<Arc<Row>>, Answer> {
    let now = service.now();
    let fates = service.fates();
    let skew = service.faults.current().clock_skew_millis;
    let (since, from, to) = (instant(ask, "updatedSince")?, instant(ask, "startDate")?, instant(ask, "endDate")?);
    if since.is_none() && (from.is_none() || to.is_none()) {
        return Err(bad_request("startDate and endDate, or updatedSince"));
    }
    let number = |name: &str| match ask.param(name).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => text.parse::<i64>().map(Some).map_err(|_| bad_request(&format!("{name} is not a number"))),
    };
    let (media, agent, team) = (number("mediaTypeId")?, number("agentId")?, number("teamId")?);
    let world = service.world();
    let legs = match (since, from.zip(to)) {
        // What is listed as completed has changed by now; of what is not over yet the last change lies ahead.
        (Some(since), _) if !with_state => world.changed(since.saturating_sub(skew)..=now),
        (_, Some((from, to))) => world.begun(from..to),
        _ => world.legs().collect(),
    };
    Ok(legs
        .into_iter()
        .filter(|(call, leg)| visible(call, leg))
        .filter(|(_, leg)| since.is_none_or(|since| fates.updated_at(leg, now) + skew >= since))
        .filter(|(_, leg)| from.is_none_or(|from| leg.started_at >= from))
        .filter(|(_, leg)| to.is_none_or(|to| leg.started_at < to))
        .filter(|(call, _)| {
            media.is_none_or(|media| (media == 3) == (call.kind == Kind::Chat) && (3..=4).contains(&media))
        })
        .map(|(call, leg)| {
            let fresh = || row::contact(service, &world.directory, call, leg, now);
            if with_state {
                return Arc::new(row::named(with_state_if(true, fresh(), leg, now), names));
            }
            let is_half = now < fates.row(leg).half_until;
            let look = Look { names, is_half, updated_at: fates.updated_at(leg, now), skew };
            service.rows.get(leg.contact_id, look, || {
                let row = if is_half { row::half(fresh()) } else { fresh() };
                row::named(row, names)
            })
        })
        .filter(|row| agent.is_none_or(|agent| row.get("agentId").and_then(Value::as_i64) == Some(agent)))
        .filter(|row| team.is_none_or(|team| row.get("teamId").and_then(Value::as_i64) == Some(team)))
        .collect())
}

/// A draw that a row always gets, whatever list it stands in.
fn drawn(service: &Service, row: &Row, kind: &str) -> f64 {
    let contact_id = row.get("contactId").and_then(Value::as_i64).unwrap_or(0);
    word(derive(service.config.seed, kind), contact_id as u64) as f64 / u64::MAX as f64
}

/// Adds rows of contacts that nobody took.
fn add_without_agent(service: &Service, rows: &mut Vec<Arc<Row>>) {
    let share = service.faults.current().null_agents;
    let drawn = rows.iter().filter(|row| share > 0.0 && drawn(service, row, "null agent") < share);
    let added: Vec<Arc<Row>> = drawn.map(|row| Arc::new(row::without_agent(row))).collect();
    rows.extend(added);
}

/// Shows rows again, a page's length later where the list is that long: the repeat comes on another page.
fn repeat(service: &Service, rows: &mut Vec<Arc<Row>>, page: usize) {
    let share = service.faults.current().duplicate_rows;
    if share <= 0.0 {
        return;
    }
    let distance = page.min(rows.len() / 2) + 1;
    let mut repeats: VecDeque<(usize, Arc<Row>)> = VecDeque::new();
    let mut out = Vec::with_capacity(rows.len());
    for (index, row) in std::mem::take(rows).into_iter().enumerate() {
        while let Some((_, due)) = repeats.pop_front_if(|(due_at, _)| *due_at <= index) {
            out.push(due);
        }
        if drawn(service, &row, "duplicate") < share {
            repeats.push_back((index + distance, Arc::clone(&row)));
        }
        out.push(row);
    }
    out.extend(repeats.into_iter().map(|(_, row)| row));
    *rows = out;
}

/// Puts unreadable rows behind readable ones.
fn add_unreadable(service: &Service, rows: &mut Vec<Arc<Row>>) {
    let share = service.faults.current().unreadable_rows;
    if share > 0.0 {
        let with_spoiled = std::mem::take(rows).into_iter().flat_map(|row| {
            let spoiled = (drawn(service, &row, "unreadable") < share).then(|| Arc::new(row::unreadable(&row)));
            std::iter::once(row).chain(spoiled)
        });
        *rows = with_spoiled.collect();
    }
}

/// Puts rows in front whose ids no reader may let through.
fn add_hostile(service: &Service, rows: &mut Vec<Arc<Row>>) {
    if service.faults.strikes("hostile rows", |faults| faults.hostile_rows) {
        let hostile = rows.first().map(|row| row::hostile(row)).unwrap_or_default();
        rows.splice(0..0, hostile.into_iter().map(Arc::new));
    }
}

/// `contacts/{id}`.
pub(crate) fn one(service: &Service, ask: &Ask, names: Names) -> Answer {
    let now = service.now();
    let world = service.world();
    let Some((call, leg)) = world.leg(path_id(ask)).filter(|(_, leg)| leg.started_at <= now) else {
        return Answer::Status(404, "no such contact".into());
    };
    let mut row = row::contact(service, &world.directory, call, leg, now);
    let half_until = leg.acw_ended_at() + clock::millis(service.faults.current().half_record);
    let half_until = half_until.max(service.fates().row(leg).half_until);
    if now >= leg.acw_ended_at() && now < half_until {
        row = row::half(row);
    }
    let row = Value::Object(row::named(with_state_if(true, row, leg, now), names));
    Answer::Json(200, if service.config.acd.contact_nested { json!({ "contactId": row }) } else { row })
}

/// `contacts/{id}/hierarchy`: the same for every leg of a call.
pub(crate) fn hierarchy(service: &Service, ask: &Ask) -> Answer {
    let now = service.now();
    let world = service.world();
    let Some((call, _)) = world.leg(path_id(ask)).filter(|(_, leg)| leg.started_at <= now) else {
        return Answer::Status(404, "no such contact".into());
    };
    let children: Vec<Value> = (call.legs.iter())
        .filter(|leg| leg.started_at <= now)
        .filter(|leg| service.config.acd.hierarchy_includes_master || leg.contact_id != call.master)
        .map(|leg| {
            let ended = (now >= leg.acw_ended_at()).then(|| clock::write(leg.reported_end()));
            json!({ "contactId": leg.contact_id, "startTime": clock::write(leg.started_at), "endTime": ended })
        })
        .collect();
    Answer::Json(200, json!({ "masterContactId": call.master, "childContacts": children }))
}

fn with_state_if(with_state: bool, mut row: Row, leg: &Leg, now: i64) -> Row {
    if with_state {
        let over = now >= leg.acw_ended_at();
        let (state, name) = if over { (18, "EndContact") } else { (4, "Active") };
        for (key, value) in [
            ("isActive", json!(!over)),
            ("isWarehoused", json!(now >= leg.second_update_at)),
            ("stateId", json!(state)),
            ("stateName", json!(name)),
        ] {
            row.insert(key.to_owned(), value);
        }
    }
    row
}
