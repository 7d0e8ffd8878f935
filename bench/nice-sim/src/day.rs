//! The schedule: which calls there are, as a pure function of the seed, and how a call's parts are drawn.
//!
//! Instants are kept relative to the start of the simulation, so that one seed gives the same day whenever it begins.

use std::time::Duration;

use jiff::SignedDuration;

use crate::{
    call::{Call, CallSpec, Kind, Leg},
    chance::{Dice, derive, word},
    clock::{Millis, millis},
    config::{NotReady, RecordingSize, SimConfig},
    directory::Directory,
    recording::Recording,
};

/// Agents must be away from a call longer than their after-call work, or two legs of theirs would touch. Two seconds
/// more, because the recording platform cuts its instants to whole seconds.
const GAP_AFTER_ACW_SECS: u64 = 2;

/// A call of the schedule.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) kind: Kind,
    pub(crate) spec: CallSpec,
}

/// The calls of the day, in the order of their hang-ups.
pub(crate) fn plan(config: &SimConfig, directory: &Directory) -> Vec<Planned> {
    let day = &config.day;
    let mut dice = Dice::new(config.seed, "day");
    let inside: Vec<i64> = agents(directory, |id| directory.wanted(id, Millis::MIN));
    let outside: Vec<i64> = agents(directory, |id| !directory.wanted(id, Millis::MIN));
    let others = |share: f64| (day.calls as f64 * share).round() as usize;
    let kinds = std::iter::repeat_n(Kind::Voice, day.calls)
        .chain(std::iter::repeat_n(Kind::Abandoned, others(day.abandoned_share)))
        .chain(std::iter::repeat_n(Kind::Chat, others(day.chat_share)));

    let mut calls: Vec<Planned> = kinds
        .filter_map(|kind| {
            let agent = |dice: &mut Dice| {
                let pool = if dice.hits(day.out_of_group_share) { &outside } else { &inside };
                let pool = if pool.is_empty() { &outside } else { pool };
                let pool = if pool.is_empty() { &inside } else { pool };
                (!pool.is_empty()).then(|| *dice.pick(pool))
            };
            let mut ids = vec![agent(&mut dice)?];
            if kind == Kind::Voice && dice.hits(day.transfer_share) {
                ids.push(agent(&mut dice)?);
                match dice.between(0, 3) {
                    0 => ids.push(ids[0]),            // back to the first
                    1 => ids.push(agent(&mut dice)?), // on to a third
                    _ => {}
                }
                ids.dedup(); // nobody transfers to oneself
            }
            let span = millis(day.history) + millis(day.over);
            let offset = dice.between(0, span.max(0) as u64) as i64 - millis(day.history);
            let spec = CallSpec {
                hang_up_in: SignedDuration::from_millis(offset),
                outbound: dice.hits(day.outbound_share),
                never_recorded: dice.hits(day.never_recorded_share),
                elevated: kind == Kind::Voice && dice.hits(day.elevated_share),
                ..CallSpec::transferred(&ids)
            };
            Some(Planned { kind, spec })
        })
        .collect();
    calls.sort_by_key(|call| call.spec.hang_up_in);
    calls
}

fn agents(directory: &Directory, wanted: impl Fn(i64) -> bool) -> Vec<i64> {
    directory.agents.iter().map(|agent| agent.id).filter(|id| wanted(*id)).collect()
}

/// Draws what a specification leaves open. `now` is the instant its hang-up counts from, `index` the call's own number.
pub(crate) fn place(config: &SimConfig, planned: &Planned, index: u64, now: Millis) -> Call {
    let spec = &planned.spec;
    let mut dice = Dice::new(config.seed, &format!("call {index}"));
    let mut next_id = first_contact_id(config.seed) + index as i64 * 64;
    let acw = millis(spec.acw.unwrap_or(config.life.acw));
    let (lengths, hang_up_in) = lengths(config, spec, acw, &mut dice);
    let mut legs: Vec<Leg> = (spec.legs.iter().zip(lengths))
        .map(|(leg, (queue_secs, talk_secs))| {
            next_id += 1 + dice.between(0, 2) as i64;
            let size = draw_size(config, spec, &mut dice);
            Leg {
                contact_id: next_id,
                agent_id: leg.agent_id,
                segment_id: dice.uuid(),
                recording: Recording { seed: dice.bits(), size },
                started_at: 0,
                queue_secs,
                hung_up_at: (queue_secs + talk_secs) as i64 * 1000,
                acw,
                second_update_at: 0,
                third_update_at: 0,
                listed_at: 0,
            }
        })
        .collect();
    // The last leg ends at the hang-up; each one before it ends where the next one begins.
    let mut ends_at = now + hang_up_in;
    for leg in legs.iter_mut().rev() {
        let length = leg.hung_up_at - leg.started_at;
        (leg.started_at, leg.hung_up_at) = (ends_at - length, ends_at);
        leg.schedule(&config.life);
        leg.third_update_at = leg.acw_ended_at() + third_update_after(config.seed, leg.contact_id);
        ends_at = leg.started_at;
    }

    let (earliest, latest) = config.life.recording_delay;
    let drawn = dice.between(millis(earliest) as u64, millis(latest) as u64);
    let not_ready = match spec.not_ready.unwrap_or(config.playback.not_ready) {
        NotReady::Mixed => *dice.pick(&[NotReady::NotFound, NotReady::NoInteractions, NotReady::NoLink]),
        fixed => fixed,
    };
    let single = legs.len() == 1;
    Call {
        kind: planned.kind,
        master: legs.first().map_or(0, |leg| leg.contact_id),
        outbound: spec.outbound,
        customer: spec.customer.clone().unwrap_or_else(|| customer_number(&mut dice)),
        service_number: format!("1800555{:04}", dice.between(100, 199)),
        playback_id: dice.uuid(),
        recording: Recording {
            seed: dice.bits(),
            size: if single {
                draw_size(config, spec, &mut dice)
            } else {
                legs.iter().map(|leg| leg.recording.size).sum()
            },
        },
        recorded: !spec.never_recorded && planned.kind == Kind::Voice,
        not_ready,
        break_first: spec.break_first,
        elevated: spec.elevated,
        second_part_delay: spec.second_part_delay.map(millis),
        recording_delay: spec.recording_delay.map_or(drawn as i64, millis),
        legs,
    }
}

/// When a row changes once more: one to 24 hours after the end. Drawn apart, so that it moves no other draw.
fn third_update_after(seed: u64, contact_id: i64) -> Millis {
    const HOUR: u64 = 3_600_000;
    (HOUR + word(derive(seed, "third update"), contact_id as u64) % (23 * HOUR)) as Millis
}

/// How long each leg queues and talks, in seconds, and when the call hangs up, in milliseconds from now.
fn lengths(config: &SimConfig, spec: &CallSpec, acw: Millis, dice: &mut Dice) -> (Vec<(u64, u64)>, Millis) {
    let (shortest, longest) = config.day.talk_secs;
    let hang_up_in = spec.hang_up_in.as_millis() as i64;
    let last = spec.legs.len().saturating_sub(1);
    let least = |position: usize| if position == last { 1 } else { acw as u64 / 1000 + GAP_AFTER_ACW_SECS };
    let later = || spec.legs.iter().enumerate().skip(1);

    // What the legs after the first need at least, and what they may take beyond that without beginning before now.
    let open = later().filter(|(_, leg)| leg.talk_secs.is_none()).count();
    let needed: u64 =
        later().map(|(position, leg)| leg.talk_secs.unwrap_or(least(position)) + leg.queue_secs.unwrap_or(0)).sum();
    let ahead = hang_up_in >= 0 && open > 0;
    let hang_up_in = if ahead { hang_up_in.max(needed as i64 * 1000) } else { hang_up_in };
    let mut spare = (hang_up_in / 1000).unsigned_abs().saturating_sub(needed);

    let lengths = (spec.legs.iter().enumerate())
        .map(|(position, leg)| {
            let drawn_queue = if position == 0 && !spec.outbound { dice.between(0, 25) } else { 0 };
            let drawn_talk = dice.between(shortest, longest);
            let talk = match position {
                0 => drawn_talk,
                _ if ahead => {
                    let more = dice.between(0, spare.min(longest));
                    spare -= if leg.talk_secs.is_none() { more } else { 0 };
                    least(position) + more
                }
                _ if position == last => drawn_talk,
                _ => drawn_talk.max(least(position)),
            };
            (leg.queue_secs.unwrap_or(drawn_queue), leg.talk_secs.unwrap_or(talk))
        })
        .collect();
    (lengths, hang_up_in)
}

fn draw_size(config: &SimConfig, spec: &CallSpec, dice: &mut Dice) -> u64 {
    match (spec.size, config.day.recording_size) {
        (Some(size), _) | (None, RecordingSize::Fixed(size)) => size,
        (None, RecordingSize::Between(smallest, largest)) => dice.between(smallest, largest),
    }
}

/// Where the tenant's contact ids begin: twelve digits, more than 32 bits hold.
fn first_contact_id(seed: u64) -> i64 {
    698_800_000_000 + (Dice::new(seed, "first contact id").between(0, 9_999) as i64) * 1_000_000
}

/// Numbers without one format: with and without a plus, of several lengths.
fn customer_number(dice: &mut Dice) -> String {
    let line = dice.between(100, 9_999);
    match dice.between(0, 3) {
        0 => format!("+90555{line:07}"),
        1 => format!("1555{line:07}"),
        _ => format!("555555{line:04}"),
    }
}

/// How long after its hang-up the last thing can happen to a call.
pub(crate) fn longest_tail(config: &SimConfig) -> Duration {
    let life = &config.life;
    life.acw + life.completed_delay.max(life.second_update_delay).max(life.recording_delay.1)
}
