//! Lets one fault of a plan happen: it begins, lasts, and is over.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use jiff::{SignedDuration, Timestamp};
use nice_knovvu::embed::Service;
use nice_sim::{CallSpec, Faults};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use runtime::task;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::host::Host;
use crate::oracle::report::Report;
use crate::plan::{Act, Fault, Manner, Outage, Part, Plan, Reading, Server, Trouble};
use crate::standins::Condition;
use crate::world::{Tenant, World, after, lock};

mod machines;

/// A machine is tried for so long before an operator's wish is given up.
const PATIENCE: Duration = Duration::from_secs(1800);

/// Until a wish is done or given up, whatever the number of machines.
const LONGEST_WISH: SignedDuration = SignedDuration::from_mins(60);

/// So many members are left out of a group that is read by half.
const HALF: f64 = 0.5;

/// Between two looks at a machine that ends.
const A_MOMENT: Duration = Duration::from_secs(1);

/// Waits for the fault's time, lets it begin, and ends it.
pub async fn happen(world: Arc<World>, fault: Fault) {
    if !fault.at.is_zero() {
        sleep(fault.at).await;
    }
    world.journal.note(format_args!("begins: {:?}", fault.what));
    let mut dice = StdRng::seed_from_u64(world.plan.seed ^ fault.at.as_nanos() as u64);
    begin_and_end(&world, &fault, &mut dice).await;
    world.journal.note(format_args!("is over: {:?}", fault.what));
}

async fn begin_and_end(world: &Arc<World>, fault: &Fault, dice: &mut StdRng) {
    let lasts = fault.lasts;
    match &fault.what {
        Trouble::Server(server, manner, machine) => {
            let weather = match server {
                Server::Catalog => &world.room.database_weather,
                Server::Queue => &world.room.broker_weather,
                Server::Store => &world.room.store_weather,
                Server::Internet => &world.internet,
            };
            let spell = match machine {
                Some(machine) => weather.begin_for(*machine, condition(*manner)),
                None => weather.begin(condition(*manner)),
            };
            sleep(lasts).await;
            drop(spell);
        }
        Trouble::Kill(machine) => {
            let Some(host) = world.host(*machine) else { return };
            host.kill();
            sleep(lasts).await;
            start(&host);
        }
        Trouble::Stop(machine) => {
            let Some(host) = world.host(*machine) else { return };
            host.stop();
            sleep(lasts).await;
            start(&host);
        }
        Trouble::Pause(machine) => {
            let Some(host) = world.host(*machine) else { return };
            host.pause();
            sleep(lasts).await;
            host.resume();
        }
        Trouble::Clock(machine, secs) => {
            let Some(host) = world.host(*machine) else { return };
            host.skew.set(SignedDuration::from_secs(*secs));
            sleep(lasts).await;
            host.skew.set(SignedDuration::ZERO);
        }
        Trouble::Drift(machine, ppm) => {
            let Some(host) = world.host(*machine) else { return };
            host.skew.drift(*ppm);
            sleep(lasts).await;
            host.skew.drift(0);
            host.skew.set(SignedDuration::ZERO);
        }
        Trouble::Settings(setting) => machines::change(world, *setting, lasts).await,
        Trouble::Upgrade => machines::upgrade(world, lasts).await,
        Trouble::Double(tenant) => visit(world, Service::Producer, Some(*tenant), lasts).await,
        Trouble::Another => visit(world, Service::Consumer, None, lasts).await,
        Trouble::Operator(tenant, act) => operate(world, *tenant, *act, dice).await,
        of_nice => nice(world, of_nice, lasts, dice).await,
    }
}

fn condition(manner: Manner) -> Condition {
    match manner {
        Manner::Away => Condition::Away,
        Manner::Silent => Condition::Silent,
        Manner::Slow(by) => Condition::Slow(by),
        Manner::Refuses(share) => Condition::Refuses(share),
        Manner::Full => Condition::Full,
    }
}

/// Starts a machine that is off, or about to be; the run goes on by itself.
fn start(host: &Arc<Host>) {
    let host = host.clone();
    let starting = async move {
        // One that was suspended while it stopped ends once it goes on.
        while host.is_stopping() {
            sleep(A_MOMENT).await;
        }
        if !host.is_running() {
            host.run().await;
        }
    };
    drop(task::spawn("host", starting).detach());
}

/// A machine comes, and goes again in order.
async fn visit(world: &Arc<World>, service: Service, tenant: Option<usize>, lasts: Duration) {
    let host = world.add_host(world.next_number(), service, tenant);
    start(&host);
    sleep(lasts).await;
    host.stop();
}

/// What goes wrong at a tenant's NICE.
async fn nice(world: &World, what: &Trouble, lasts: Duration, dice: &mut StdRng) {
    let Some(at) = what.tenant() else { return };
    let tenant = &world.tenants[at];
    let sim = &tenant.nice;
    // Who is left out of a reading that may be believed has left as far as anybody knows.
    let unknown_from = match what {
        Trouble::Group(_, Reading::Late(by)) => has_changed(world, at, *by, lasts).then(|| world.now()),
        Trouble::Group(_, Reading::Half) if is_small_loss(sim) => Some(world.now()),
        Trouble::Group(..) => believed_from(&world.plan, at, world.now(), lasts),
        _ => None,
    };
    lock(&tenant.borders).extend(unknown_from.map(|from| (from, after(world.now(), lasts))));
    match what {
        Trouble::Tokens(_) => return sim.revoke_tokens(),
        Trouble::Members(_) => return change_members(tenant, dice),
        Trouble::Limit(_, share) => {
            let limit = world.plan.tenants[at].playback_limit;
            sim.set_playback_limit((f64::from(limit) * share).ceil() as u32);
            sleep(lasts).await;
            return sim.set_playback_limit(limit);
        }
        Trouble::AcdLimit(_, limit, strangers) => {
            sim.set_acd_limit(Some((*limit, Duration::from_secs(60))));
            sim.change_faults(|faults| faults.strangers_acd = *strangers);
            sleep(lasts).await;
            sim.change_faults(|faults| faults.strangers_acd = 0.0);
            return sim.set_acd_limit(None);
        }
        Trouble::Webhook(_, telling) => {
            lock(&tenant.telling).push(*telling);
            sleep(lasts).await;
            let mut tellings = lock(&tenant.telling);
            if let Some(place) = tellings.iter().position(|other| other == telling) {
                tellings.remove(place);
            }
            return;
        }
        _ => {}
    }
    sim.change_faults(|faults| switch(faults, what, world.plan.seed, true));
    sleep(lasts).await;
    sim.change_faults(|faults| switch(faults, what, world.plan.seed, false));
}

/// From when on the program may follow a wrong reading of the group: one that lasts for a day, or that an operator
/// accepts.
fn believed_from(plan: &Plan, tenant: usize, began: Timestamp, lasts: Duration) -> Option<Timestamp> {
    if lasts > Duration::from_secs(23 * 3600) {
        return Some(after(began, Duration::from_secs(23 * 3600)));
    }
    let world_began: Timestamp = crate::world::BEGAN.parse().unwrap_or_default();
    let accepted = plan.faults.iter().filter(|fault| fault.what == Trouble::Operator(tenant, Act::AcceptAgents));
    let accepted = accepted.map(|fault| after(world_began, fault.at));
    accepted.filter(|at| *at + LONGEST_WISH > began && *at < after(began, lasts)).min()
}

/// Whether so few agents are left out of a reading by half that it is believed at once: it is held where it loses more than
/// both a number and a share of them.
fn is_small_loss(sim: &nice_sim::Sim) -> bool {
    let group = sim.config().directory.wanted_group;
    let (lost, all) = (sim.left_out(group, HALF).len(), sim.group(group).len());
    lost <= 5 || lost as f64 <= 0.2 * all as f64
}

/// Whether a reading that is so old, for so long from now on, is another one than the true one at any time.
fn has_changed(world: &World, tenant: usize, age: Duration, lasts: Duration) -> bool {
    let began = crate::world::BEGAN.parse().unwrap_or_default();
    let (from, to) = (world.now() - SignedDuration::try_from(age).unwrap_or_default(), after(world.now(), lasts));
    let changes = world.plan.faults.iter().filter(|fault| fault.what == Trouble::Members(tenant));
    changes.map(|fault| after(began, fault.at)).any(|at| at >= from && at <= to)
}

/// Switches a trouble of NICE's on or off; the others stay as they are.
fn switch(faults: &mut Faults, what: &Trouble, seed: u64, on: bool) {
    let none = Faults::none();
    let share = |share: f64| if on { share } else { 0.0 };
    match what {
        Trouble::Nice(_, part, outage) => {
            let away = on.then(|| {
                nice_sim::Away::whole(match outage {
                    Outage::Refused => nice_sim::Outage::Refused,
                    Outage::Silent => nice_sim::Outage::Silent,
                    Outage::Status(status) | Outage::Odd(status, _) => nice_sim::Outage::Status(*status),
                    Outage::Html => nice_sim::Outage::Html,
                })
            });
            let away = away.map(|away| match outage {
                Outage::Odd(_, of_hundred) => nice_sim::Away { share: f64::from(*of_hundred) / 100.0, ..away },
                _ => away,
            });
            match part {
                Part::Api => faults.api_away = away,
                Part::Tokens => faults.tokens_away = away,
                Part::Media => faults.media_away = away,
            }
        }
        Trouble::Mistakes(_, intensity) => make_mistakes(faults, seed, if on { *intensity } else { 0.0 }),
        Trouble::SlowNice(_, by) => {
            faults.latency_spread = if on { *by } else { none.latency_spread };
        }
        Trouble::Strangers(_, part) => faults.strangers_playback = share(*part),
        Trouble::Keys(_) => faults.keys_refused = share(1.0),
        Trouble::TokenClock(_, secs) => faults.token_clock_millis = if on { secs * 1000 } else { 0 },
        Trouble::NeverRecorded(_, part) => faults.recordings_never = share(*part),
        Trouble::ChangedRecordings(_, part, by) => {
            (faults.recordings_changed, faults.recordings_changed_after) = (share(*part), *by);
        }
        Trouble::GoneRecordings(_, part, by) => {
            (faults.recordings_gone, faults.recordings_gone_after) = (share(*part), *by);
        }
        Trouble::SlowMedia(_, part, pause) => {
            faults.media_trickle = share(*part);
            faults.slow_pause = if on { *pause } else { none.slow_pause };
        }
        Trouble::Group(_, Reading::Late(by)) => faults.group_late = if on { *by } else { none.group_late },
        Trouble::Group(_, Reading::Empty) => faults.group_empty = share(1.0),
        Trouble::Group(_, Reading::Half) => faults.group_half = share(HALF),
        Trouble::Group(_, Reading::Hidden) => faults.group_hidden = share(0.5),
        Trouble::LateRows(_, by) => (faults.late_rows, faults.late_rows_by) = (share(0.5), *by),
        Trouble::LateRecordings(_, by) => (faults.recordings_late, faults.recordings_late_by) = (share(0.5), *by),
        _ => {}
    }
}

/// Every mistake that a repeated request or a repeated poll heals, in an intensity; none at 0.
fn make_mistakes(faults: &mut Faults, seed: u64, intensity: f64) {
    let (all, none) = (Faults::all(seed), Faults::none());
    let share = |share: f64| (share * intensity).min(0.4);
    faults.server_errors = share(all.server_errors);
    faults.throttled = share(0.01);
    faults.media_reset = share(all.media_reset);
    faults.media_truncated = share(all.media_truncated);
    faults.content_length_long = share(all.content_length_long);
    faults.token_revoked = share(all.token_revoked);
    faults.html = share(all.html);
    faults.truncated_json = share(all.truncated_json);
    faults.duplicate_rows = share(all.duplicate_rows);
    faults.rows_inserted = share(all.rows_inserted);
    faults.foreign_next_link = share(all.foreign_next_link);
    faults.ids_as_strings = share(all.ids_as_strings);
    faults.unknown_fields = share(all.unknown_fields);
    faults.null_agents = share(all.null_agents);
    faults.media_encoding = share(all.media_encoding);
    faults.media_redirect = share(all.media_redirect);
    faults.half_record = if intensity > 0.0 { Duration::from_secs(300) } else { none.half_record };
    faults.half_rows = share(0.1);
    faults.changed_rows = share(0.1);
    faults.unreadable_rows = share(0.05);
    faults.total_lies = share(0.1);
    faults.short_pages = share(0.05);
    faults.next_repeats = share(0.02);
    faults.next_nowhere = share(0.02);
    faults.recordings_in_parts = share(0.05);
    faults.retry_after_absurd = share(0.1);
    faults.clock_skew_millis = if intensity > 0.0 { all.clock_skew_millis } else { 0 };
}

/// Some agents join the group, or leave it.
fn change_members(tenant: &Tenant, dice: &mut StdRng) {
    let group = tenant.nice.config().directory.wanted_group;
    let mut members: BTreeSet<i64> = tenant.nice.group(group).into_iter().collect();
    let mut agents = tenant.nice.agents();
    agents.shuffle(dice);
    // So few at a time that the reading is believed.
    for agent in agents.into_iter().take(dice.random_range(1..=2)) {
        // Its call ended just before it left, or ends soon after it came.
        let ends_in = match members.remove(&agent) {
            true => -60,
            false => {
                members.insert(agent);
                dice.random_range(30..300)
            }
        };
        tenant.nice.add_call(CallSpec::new(agent).hang_up_in(SignedDuration::from_secs(ends_in)));
    }
    tenant.nice.set_group(group, members);
}

/// What an operator does, at a machine that runs the tenant's producer.
async fn operate(world: &World, tenant: usize, act: Act, dice: &mut StdRng) {
    let began = world.now();
    let producers = world.tenants[tenant].producers.clone();
    let from = crate::world::BEGAN;
    match act {
        Act::Reconcile => wish(world, &producers, Method::POST, "/api/v1/reconciliations", json!({})).await,
        Act::Backfill => {
            let range = json!({ "from": from, "to": began.to_string() });
            wish(world, &producers, Method::POST, "/api/v1/backfills", range).await
        }
        Act::AcceptAgents => wish(world, &producers, Method::POST, "/api/v1/agents/accept", json!(null)).await,
        Act::ReplayLetters => {
            for (status, letters) in wish(world, &producers, Method::GET, "/api/v1/dead-letters", json!(null)).await {
                let letters: Vec<Value> = serde_json::from_str(&letters).unwrap_or_default();
                world.journal.note(format_args!("{status}: {} letters", letters.len()));
                for id in letters.iter().filter_map(|letter| letter["id"].as_u64()) {
                    let path = format!("/api/v1/dead-letters/{id}/replay");
                    wish(world, &producers, Method::POST, &path, json!(null)).await;
                }
            }
            Vec::new()
        }
        Act::Erase => {
            let ended: Vec<_> = world.tenants[tenant].nice.truth();
            let ended: Vec<_> = ended.iter().filter(|leg| leg.in_group && leg.ended_at < began).collect();
            if let Some(leg) = ended.choose(dice) {
                lock(&world.tenants[tenant].erased).insert(leg.contact_id, false);
                // Only a consumer has the recording store.
                let consumers: Vec<_> = world.hosts().iter().map(|host| host.number).collect();
                let path = format!("/api/v1/conversations/{}?yes_unknown=true", leg.contact_id);
                if !wish(world, &consumers, Method::DELETE, &path, json!(null)).await.is_empty() {
                    lock(&world.tenants[tenant].erased).insert(leg.contact_id, true);
                }
            }
            Vec::new()
        }
        Act::Look => {
            for path in ["/api/v1/status", "/api/v1/agents", "/readyz", "/metrics"] {
                wish(world, &producers, Method::GET, path, json!(null)).await;
            }
            Vec::new()
        }
    };
}

/// Asks one machine after the other until one does it, or patience is over.
async fn wish(world: &World, machines: &[u32], method: Method, path: &str, body: Value) -> Vec<(u16, String)> {
    for number in machines {
        let Some(host) = world.host(*number) else { continue };
        let asked = tokio::time::timeout(PATIENCE, host.ask(method.clone(), path, body.clone())).await;
        if let Ok(Some((status, answer))) = asked {
            world.journal.note(format_args!("{} {method} {path}: {}", host.name, status.as_u16()));
            if status.is_success() {
                return vec![(status.as_u16(), answer)];
            }
        }
    }
    Vec::new()
}

/// Asks for the program's reports as an operator does: of each UTC day up to now.
pub async fn reports(world: &World) -> Vec<Report> {
    let mut reports = Vec::new();
    let began: Timestamp = crate::world::BEGAN.parse().unwrap_or_default();
    for (at, tenant) in world.tenants.iter().enumerate() {
        let (mut from, now) = (midnight(began), world.now());
        while from < now {
            let to = from + SignedDuration::from_hours(24);
            let range = json!({ "from": from.to_string(), "to": to.to_string() });
            let answers = wish(world, &tenant.producers, Method::POST, "/api/v1/report", range).await;
            let told = answers.first().and_then(|(_, told)| serde_json::from_str::<Value>(told).ok());
            let total = told.as_ref().map(|told| told["total"].to_string()).unwrap_or_default();
            world.journal.note(format_args!("report of tenant {at} from {from}: {total}"));
            reports.push(Report { tenant: tenant.id.clone(), from, to, told });
            from = to;
        }
    }
    reports
}

/// When the UTC day of a moment began.
fn midnight(at: Timestamp) -> Timestamp {
    const DAY: i64 = 24 * 3600;
    Timestamp::from_second(at.as_second().div_euclid(DAY) * DAY).unwrap_or(at)
}
