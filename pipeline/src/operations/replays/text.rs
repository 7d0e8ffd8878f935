//! Comparisons and backfills, in words for a person.

use catalog::{ReplayRun, RunState};
use jiff::Timestamp;
use model::Members;

use super::BackfillProgress;
use crate::tables::{folded, time};

pub(crate) fn reconciliation(run: &ReplayRun) -> String {
    let found = &run.found;
    let mut lines = vec![format!(
        "{} calls of the group ended from {} to {}: {} ready, {} without a recording, {} dead, {} excluded, {} in flight, \
         {} missing",
        found.listed,
        time(Some(run.from)),
        time(Some(run.to)),
        found.ready,
        found.no_recording,
        found.dead,
        found.excluded,
        found.in_flight,
        found.missing
    )];
    lines.extend(doubt(run.doubtful, run.doubt.as_deref()));
    lines.push(match (run.state, found.missing) {
        (RunState::Done, 0) if run.doubtful > 0 => "nothing of what NICE listed was missing".to_owned(),
        (RunState::Done, 0) => "nothing was missing".to_owned(),
        (RunState::Done, _) => format!("{} are on the queue now", found.replayed),
        (state, _) => format!("reconciliation {} is {}", run.id, state.as_str()),
    });
    lines.join("\n")
}

pub(crate) fn plan(progress: &BackfillProgress) -> String {
    let run = &progress.run;
    let plan = run.plan.unwrap_or_default();
    let mut lines = vec![format!("plan of backfill {}: calls that began from {} to {}", run.id, run.from, run.to)];
    lines.push(format!("members         {}", members(run.members)));
    lines.push(format!("calls           {}", plan.listed));
    lines.push(format!(
        "already there   {} ({} ready, {} without a recording, {} dead, {} excluded, {} in flight)",
        plan.there(),
        plan.ready,
        plan.no_recording,
        plan.dead,
        plan.excluded,
        plan.in_flight
    ));
    lines.push(format!("missing         {}", plan.missing));
    if let (Some(requests), Some(seconds)) = (progress.requests, progress.planned_seconds) {
        lines.push(format!("API requests    {} for recordings, {} to the ACD", requests.media_playback, requests.acd));
        lines.push(format!("time            {} at the present quota", span(seconds)));
    }
    lines.join("\n")
}

pub(crate) fn outcome(progress: &BackfillProgress) -> String {
    let (run, state) = (&progress.run, progress.run.state);
    let id = run.id;
    match state {
        RunState::Planned => {
            format!("nothing is published; `nice-knovvu backfill resume {id}` imports what is missing")
        }
        RunState::Done if run.found.missing == 0 && run.doubtful > 0 => {
            let doubt = doubt(run.doubtful, run.doubt.as_deref()).unwrap_or_default();
            format!("backfill {id} is done: nothing of what NICE listed was missing\n{doubt}")
        }
        RunState::Done if run.found.missing == 0 => format!("backfill {id} is done: nothing was missing"),
        RunState::Done => {
            format!("backfill {id}: {} calls are on the queue; {}", run.found.replayed, eta(progress))
        }
        _ => format!("backfill {id} is {}: {} of {} calls on the queue", state.as_str(), run.published(), missing(run)),
    }
}

pub(crate) fn backfills(all: &[BackfillProgress]) -> String {
    if all.is_empty() {
        return "no backfills".to_owned();
    }
    let moment = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"));
    let lines = all.iter().map(|progress| {
        let run = &progress.run;
        let listed = run.plan.map_or(run.found.listed, |plan| plan.listed);
        let rate = progress.per_second.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.2}"));
        let head =
            format!("{:>5}  {}  {} to {}", run.id, run.state.as_str(), moment(Some(run.from)), moment(Some(run.to)));
        let figures = format!(
            "{listed} calls, {} missing, {} on the queue, {} imported, {rate} per second, done at {}",
            missing(run),
            run.published(),
            imported(progress),
            moment(progress.done_at)
        );
        let waits = run.reason.as_ref().map(|reason| format!("\n{}", folded("       ", &format!("waits: {reason}"))));
        format!("{head}\n{}{}", folded("       ", &figures), waits.unwrap_or_default())
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// That NICE's list does not add up, if it does not.
pub(crate) fn doubt(slices: u64, first: Option<&str>) -> Option<String> {
    let first = first.unwrap_or("it does not add up");
    let remedy = "calls may be missing from it; compare the number of calls with NICE's own reports";
    (slices > 0).then(|| format!("NICE's list is doubtful, in {slices} of its slices ({first}): {remedy}"))
}

/// How fast it goes, and when it ends.
pub(crate) fn eta(progress: &BackfillProgress) -> String {
    match (progress.per_second, progress.done_at) {
        (Some(rate), Some(at)) => format!(
            "{} of {} imported, {rate:.2} a second, the last one about {}",
            imported(progress),
            progress.imported + progress.remaining,
            time(Some(at))
        ),
        _ => format!("{} of {} imported", imported(progress), progress.imported + progress.remaining),
    }
}

/// How many are imported, or about how many.
fn imported(progress: &BackfillProgress) -> String {
    let about = if progress.imported_is_about { "about " } else { "" };
    format!("{about}{}", progress.imported)
}

fn members(members: Members) -> &'static str {
    match members {
        Members::Then => "those who were in the group when the call ended (--members-then)",
        Members::Now => "those who are in the group today (--members-now)",
    }
}

fn missing(run: &ReplayRun) -> u64 {
    run.plan.map_or(run.found.missing, |plan| plan.missing)
}

fn span(seconds: f64) -> String {
    let seconds = seconds.ceil().min(1e9) as i64;
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} days {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}
