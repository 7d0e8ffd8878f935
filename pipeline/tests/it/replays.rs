//! The nightly comparison, backfills and the report: what NICE lists and nobody told of is found, exactly once.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use nice_sim::{CallSpec, Faults, LegSpec};
use serde_json::Value;
use state::{State, StateOptions};

use crate::harness::{Bed, Daemon, Ended, hurried, post_event, tail};
use crate::history::{backfill, balances, found, history, legs, number, until, untold};

/// Messages that a daemon has published since its start.
async fn published(daemon: &mut Daemon) -> u64 {
    let status = daemon.status().await;
    let stages = status["stages"].as_array().unwrap();
    number(stages.iter().find(|stage| stage["stage"] == "enqueue").unwrap(), "/outcomes/ok")
}

/// Runs a command meanwhile.
fn meanwhile(bed: &Bed, arguments: &[&str]) -> tokio::task::JoinHandle<Ended> {
    let command = bed.command(arguments);
    tokio::task::spawn_blocking(move || Ended::of(command))
}

#[tokio::test(flavor = "multi_thread")]
async fn reconcile_finds_what_was_lost_once_with_and_without_a_daemon() {
    let bed = untold(history(601, 80)).await;
    let lost = legs(&bed).len() as u64;
    let run = bed.json(&["reconcile", "--json"]);
    assert_eq!((run["state"].as_str(), found(&run)), (Some("done"), (lost, lost, lost)), "{run:#}");
    let again = bed.json(&["reconcile", "--json"]);
    assert_eq!((found(&again), number(&again, "/found/in_flight")), ((lost, 0, 0), lost), "{again:#}");

    let mut daemon = bed.start();
    bed.settled(&mut daemon).await;
    let ended = bed.ended(&["reconcile"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.starts_with(&format!("{lost} calls of the group ended from ")), "{ended:?}");
    assert!(ended.stdout.ends_with("nothing was missing\n"), "{ended:?}");
    assert_eq!(published(&mut daemon).await, 0, "the calls were on the queue already");

    let agents = bed.sim.group(1001);
    let added: Vec<i64> =
        (0..12).map(|number| bed.sim.add_call(CallSpec::new(agents[number])).contact_ids[0]).collect();
    let mut replayed = 0;
    // NICE lists a call a moment after it has ended.
    until(&bed, async || {
        let run = bed.json(&["reconcile", "--window", "2h", "--json"]);
        replayed += number(&run, "/found/replayed");
        if replayed >= 12 { Ok(()) } else { Err(format!("{replayed} replayed: {run:#}")) }
    })
    .await;
    bed.ready(&mut daemon, &added).await;
    let run = bed.json(&["reconcile", "--json"]);
    assert_eq!(found(&run), (lost + 12, 0, 0), "{run:#}");
    assert_eq!(number(&run, "/found/ready") + number(&run, "/found/no_recording"), lost + 12, "{run:#}");
    assert_eq!((replayed, published(&mut daemon).await), (12, 12), "each exactly once");
    assert!(bed.json(&["status", "--json"])["last_reconciliation"].is_string());
    balances(&bed, daemon).await;
}

/// As if a daemon of an earlier version had worked here so long ago for the first time.
async fn worked_since(bed: &Bed, ago: SignedDuration) {
    let opened = State::open(&bed.data(), StateOptions::default()).expect("the state opens");
    let earlier = opened.state.store().tree("watermarks").unwrap();
    earlier.insert("reconciliation", (Timestamp::now() - ago).as_nanosecond().to_be_bytes().as_slice()).unwrap();
    drop(earlier);
    opened.state.store().close().await.unwrap();
}

/// Lets the nightly comparison be due at this moment, as the clocks of a zone tell it.
fn due_at(bed: &mut Bed, at: Timestamp, zone: &str) {
    bed.set("RECONCILIATION__TIMEZONE", zone);
    bed.set("RECONCILIATION__AT", at.to_zoned(TimeZone::get(zone).unwrap()).strftime("%H:%M").to_string());
}

/// Waits for the end of a comparison that nobody asked for.
async fn compared(bed: &Bed) {
    until(bed, async || match bed.json(&["status", "--json"])["last_reconciliation"].as_str() {
        Some(_) => Ok(()),
        None => Err("no comparison was done".to_owned()),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_was_down_over_the_hour_makes_up_for_it_at_its_start_and_once() {
    let mut bed = untold(history(602, 40)).await;
    worked_since(&bed, SignedDuration::from_hours(30)).await;
    due_at(&mut bed, Timestamp::now() - SignedDuration::from_mins(20), "Asia/Kathmandu");
    let mut daemon = bed.start();
    compared(&bed).await;
    bed.settled(&mut daemon).await;
    daemon.kill();
    let mut daemon = bed.start();
    daemon.ready().await;
    // What it was asked for comes after what is due.
    let run = bed.json(&["reconcile", "--json"]);
    assert_eq!(found(&run), (legs(&bed).len() as u64, 0, 0), "{run:#}");
    assert_eq!(bed.logged().matches("the nightly comparison begins").count(), 1, "{}", tail(&bed.log()));
    balances(&bed, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_comparison_comes_by_itself_at_its_hour_and_not_before_the_first_night() {
    let mut bed = untold(history(603, 40)).await;
    // An hour that has passed is nothing to a daemon that was not there yet.
    due_at(&mut bed, Timestamp::now() - SignedDuration::from_mins(5), "UTC");
    let mut daemon = bed.start();
    daemon.ready().await;
    let (from, to) = (Timestamp::now() - SignedDuration::from_hours(1), Timestamp::now());
    let plan = ["backfill", "--dry-run", "--from", &from.to_string(), "--to", &to.to_string()];
    assert_eq!(bed.ended(&plan).code, Some(0));
    assert!(daemon.terminate().success());
    assert!(!bed.logged().contains("the nightly comparison begins"), "{}", tail(&bed.log()));

    // The next minute that has not begun.
    due_at(&mut bed, Timestamp::now() + SignedDuration::from_secs(60), "UTC");
    let daemon = bed.start();
    compared(&bed).await;
    assert_eq!(daemon.logged().matches("the nightly comparison begins").count(), 1, "{}", tail(&bed.log()));
    balances(&bed, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_plans_first_and_imports_what_is_missing_once() {
    let bed = untold(history(604, 90)).await;
    let mut starts: Vec<Timestamp> = legs(&bed).iter().map(|leg| leg.started_at).collect();
    starts.sort_unstable();
    // Half open: the first of these is in it, the last is not.
    let (from, to) = (starts[10], starts[starts.len() - 10]);
    let planned = starts.iter().filter(|start| (from..to).contains(*start)).count() as u64;
    let range = ["--from", &from.to_string(), "--to", &to.to_string()];
    let mut daemon = bed.start();
    daemon.ready().await;
    let plan = bed.ended(&[&["backfill", "--dry-run"][..], &range].concat());
    assert_eq!(plan.code, Some(0), "{plan:?}");
    for line in [
        format!("plan of backfill 1: calls that began from {from} to {to}"),
        format!("calls           {planned}"),
        "already there   0 (0 ready, 0 without a recording, 0 dead, 0 excluded, 0 in flight)".to_owned(),
        format!("missing         {planned}"),
        "nothing is published; `nice-knovvu backfill resume 1` imports what is missing".to_owned(),
    ] {
        assert!(plan.stdout.lines().any(|said| said == line), "{line}: {plan:?}");
    }
    for begin in [format!("API requests    {planned} for recordings, "), "time            ".to_owned()] {
        assert!(plan.stdout.lines().any(|said| said.starts_with(&begin)), "{begin}: {plan:?}");
    }
    let status = backfill(&bed, 1, |_| true).await;
    assert_eq!((status["state"].as_str(), number(&status, "/plan/missing")), (Some("planned"), planned));
    assert_eq!((number(&status, "/requests/media_playback"), number(&status, "/found/replayed")), (planned, 0));
    assert!(status["planned_seconds"].as_f64().unwrap() > 0.0, "{status:#}");
    assert_eq!(published(&mut daemon).await, 0);
    assert_eq!(bed.json(&["status", "--json"])["conversations"]["ready"], 0);

    let resumed = bed.ended(&["backfill", "resume", "1"]);
    assert_eq!(resumed.code, Some(0), "{resumed:?}");
    let done = backfill(&bed, 1, |run| run["state"] == "done" && run["remaining"] == 0).await;
    assert_eq!((found(&done), number(&done, "/imported")), ((planned, planned, planned), planned), "{done:#}");
    assert_eq!(published(&mut daemon).await, planned);

    // Up to a moment to come: nothing is listed beyond the present.
    let future = (Timestamp::now() + SignedDuration::from_hours(48)).to_string();
    let begin = (Timestamp::now() - SignedDuration::from_hours(48)).to_string();
    let all = bed.json(&["backfill", "--from", &begin, "--to", &future, "--json"]);
    let cut: Timestamp = all["to"].as_str().unwrap().parse().unwrap();
    assert!(cut <= Timestamp::now(), "{all:#}");
    assert_eq!(number(&all, "/plan/missing"), starts.len() as u64 - planned, "{all:#}");
    bed.settled(&mut daemon).await;
    let again = bed.ended(&["backfill", "--from", &begin, "--to", &future]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.stdout.ends_with("backfill 3 is done: nothing was missing\n"), "{again:?}");
    assert_eq!(published(&mut daemon).await, starts.len() as u64, "each exactly once");
    let table = bed.ended(&["backfill", "status"]);
    let done = table.stdout.lines().filter(|line| line.contains("  done  "));
    assert_eq!(done.count(), 3, "{table:?}");
    balances(&bed, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_installation_imports_the_history_of_todays_members_when_it_is_asked_for() {
    let mut bed = untold(history(620, 40)).await;
    bed.set("EVENTS__IMPORT_SINCE", "1h");
    let daemon = bed.start();
    bed.says("agents in step").await;
    let all = legs(&bed).len() as u64;
    let now = Timestamp::now();
    let (from, to) = ((now - SignedDuration::from_hours(24)).to_string(), now.to_string());
    let plan = |members: &str| bed.json(&["backfill", "--from", &from, "--to", &to, "--dry-run", "--json", members]);
    let (then, today) = (plan("--members-then"), plan("--members-now"));
    assert_eq!((&then["members"], &today["members"]), (&"then".into(), &"now".into()), "{then:#}");
    let young = number(&then, "/plan/missing");
    assert!(young < all / 2, "{young} of {all} ended within the hour");
    assert_eq!(number(&today, "/plan/missing"), all);
    let night = bed.json(&["reconcile", "--json"]);
    assert_eq!(number(&night, "/found/missing"), young, "what ended before the agents count is not missing");
    let text = bed.ended(&["backfill", "--from", &from, "--to", &to, "--members-now"]);
    assert!(text.code == Some(0) && text.stdout.contains("--members-now"), "{text:?}");
    balances(&bed, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_is_paused_resumed_and_cancelled_by_its_number() {
    let bed = untold(history(605, 40)).await;
    let mut daemon = bed.start();
    daemon.ready().await;
    until(&bed, async || match bed.json(&["status", "--json"])["agents_active"].as_u64() {
        Some(1..) => Ok(()),
        _ => Err("the group is not read".to_owned()),
    })
    .await;
    let (from, to) = ((Timestamp::now() - SignedDuration::from_hours(22)).to_string(), Timestamp::now().to_string());
    let ask = ["backfill", "--from", &from, "--to", &to];
    // NICE is in trouble, and so no backfill comes to its end by itself.
    bed.sim.set_faults(Faults { server_errors: 1.0, burst_length: 1_000_000, ..Faults::none() });
    for (id, change, state) in [(1, "pause", "paused"), (2, "cancel", "cancelled")] {
        let asking = meanwhile(&bed, &ask);
        let status = until(&bed, async || {
            let all = bed.json(&["backfill", "status", "--json"]);
            let run = all.as_array().unwrap().iter().find(|run| run["id"] == id).cloned();
            run.filter(|run| run["reason"].is_string()).ok_or_else(|| format!("{all:#}"))
        })
        .await;
        assert_eq!(status["state"], "planning", "{status:#}");
        let changed = bed.ended(&["backfill", change, &id.to_string()]);
        assert_eq!(changed.code, Some(0), "{changed:?}");
        assert_eq!(changed.stdout, format!("backfill {id} is {state}: 0 of 0 calls on the queue\n"));
        // Once more says the same, and who waits for it is told.
        assert_eq!(bed.ended(&["backfill", change, &id.to_string()]).stdout, changed.stdout);
        let asked = asking.await.unwrap();
        assert_eq!(asked.code, Some(1), "{asked:?}");
        assert!(asked.stderr.ends_with(&format!("nice-knovvu: backfill {id} is {state}\n")), "{asked:?}");
    }
    let refused = [
        (["resume", "2"], "backfill 2 is cancelled"),
        (["pause", "2"], "backfill 2 is cancelled"),
        (["pause", "99"], "there is no backfill 99"),
        (["resume", "99"], "there is no backfill 99"),
        (["cancel", "99"], "there is no backfill 99"),
        (["status", "99"], "there is no backfill 99"),
    ];
    let refuses = |refused: &[([&str; 2], &str)]| {
        for (arguments, why) in refused {
            let ended = bed.ended(&["backfill", arguments[0], arguments[1]]);
            assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
            assert!(ended.stderr.ends_with(&format!("nice-knovvu: {why}\n")), "{ended:?}");
        }
    };
    refuses(&refused);
    // Paused is paused, also over a restart and when NICE is well again.
    bed.sim.set_faults(Faults::none());
    daemon.kill();
    refuses(&refused);
    let mut daemon = bed.start();
    daemon.ready().await;
    let run = bed.json(&["reconcile", "--window", "1s", "--json"]);
    assert_eq!(run["state"], "done");
    assert_eq!(backfill(&bed, 1, |_| true).await["state"], "paused");
    assert_eq!(bed.ended(&["backfill", "resume", "1"]).code, Some(0));
    backfill(&bed, 1, |run| run["state"] == "done" && run["remaining"] == 0).await;
    refuses(&[(["pause", "1"], "backfill 1 is done"), (["cancel", "1"], "backfill 1 is done")]);
    balances(&bed, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backfills_over_overlapping_ranges_at_once_import_each_call_once() {
    let bed = untold(history(606, 150)).await;
    let all = legs(&bed).len() as u64;
    let mut daemon = bed.start();
    daemon.ready().await;
    let ago = |hours| (Timestamp::now() - SignedDuration::from_hours(hours)).to_string();
    // More than are worked on at a time.
    let ranges = [(22, 0), (22, 8), (15, 3), (12, 0), (22, 1), (9, 0)].map(|(from, to)| (ago(from), ago(to)));
    let asking: Vec<_> = ranges
        .iter()
        .map(|(from, to)| meanwhile(&bed, &["backfill", "--from", from, "--to", to, "--json"]))
        .chain([meanwhile(&bed, &["reconcile", "--json"])])
        .collect();
    for asked in asking {
        let asked = asked.await.unwrap();
        assert_eq!(asked.code, Some(0), "{asked:?}");
    }
    assert_eq!(bed.json(&["backfill", "status", "--json"]).as_array().unwrap().len(), ranges.len());
    bed.settled(&mut daemon).await;
    assert_eq!(published(&mut daemon).await, all);
    balances(&bed, daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_that_shifts_and_repeats_rows_while_it_is_paged_loses_and_doubles_nothing() {
    for faults in [
        Faults { rows_inserted: 1.0, duplicate_rows: 0.3, ..Faults::none() },
        Faults { rows_vanish: 1.0, ..Faults::none() },
        Faults { rows_vanish: 0.5, rows_inserted: 0.3, duplicate_rows: 0.2, null_agents: 0.2, ..Faults::none() },
    ] {
        let mut config = history(608, 60);
        config.acd.contacts_page_max = 20;
        config.faults = Faults { seed: 608, ..faults };
        let mut bed = untold(config).await;
        // A crowd whose calls begin in one second: only that is ever paged.
        let agents = bed.sim.group(1001);
        for agent in agents.iter().cycle().take(90) {
            let leg = LegSpec { agent_id: *agent, talk_secs: Some(5), queue_secs: Some(0) };
            let spec = CallSpec { legs: vec![leg], ..CallSpec::default() };
            bed.sim.add_call(spec.hang_up_in(SignedDuration::from_hours(-2)));
        }
        bed.set("RETRY__RECORDING_DEADLINE", "60s");
        let all = legs(&bed).len() as u64;
        let mut daemon = bed.start();
        daemon.ready().await;
        let from = (Timestamp::now() - SignedDuration::from_hours(22)).to_string();
        let range = ["--from", &from, "--to", &Timestamp::now().to_string()];
        let plan = bed.json(&[&["backfill", "--dry-run", "--json"][..], &range].concat());
        assert_eq!((number(&plan, "/plan/listed"), number(&plan, "/plan/missing")), (all, all), "{plan:#}");
        let run = bed.json(&["reconcile", "--json"]);
        assert_eq!(found(&run), (all, all, all), "{run:#}");
        bed.settled(&mut daemon).await;
        let report = bed.json(&[&["report", "--json"][..], &range].concat());
        assert_eq!((number(&report, "/total/ended"), number(&report, "/total/missing")), (all, 0), "{report:#}");
        assert_eq!(published(&mut daemon).await, all);
        balances(&bed, daemon).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_before_anything_is_touched() {
    let bed = untold(hurried(609, 0)).await;
    let write = "write a date such as 2026-04-01 (its first moment in UTC), or RFC 3339 such as 2026-04-01T08:00:00Z or \
                 2026-04-01T10:00:00+02:00";
    let clap = |value: &str, option: &str, why: &str| {
        format!("error: invalid value '{value}' for '{option}': {why}\n\nFor more information, try '--help'.\n")
    };
    let remedy = "--to is the moment after the last, so of one day it is the next day";
    let ranges = [
        (
            ["2026-04-02", "2026-04-01"],
            format!("nice-knovvu: --to: 2026-04-01T00:00:00Z is not after --from 2026-04-02T00:00:00Z; {remedy}\n"),
        ),
        (
            ["2026-04-01", "2026-04-01T02:00:00+02:00"],
            format!("nice-knovvu: --to: 2026-04-01T00:00:00Z is not after --from 2026-04-01T00:00:00Z; {remedy}\n"),
        ),
        (
            ["2100-01-01", "2100-01-02"],
            "nice-knovvu: --from: 2100-01-01T00:00:00Z lies in the future; give a moment that has passed\n".to_owned(),
        ),
        (
            ["2026-04-01T10:00:00", "2026-04-02"],
            clap(
                "2026-04-01T10:00:00",
                "--from <TIME>",
                &format!("without an offset nobody knows which moment it is; {write}"),
            ),
        ),
        (
            ["2026-04-01", "2026-04-02T10:00:00[Europe/Berlin]"],
            clap(
                "2026-04-02T10:00:00[Europe/Berlin]",
                "--to <TIME>",
                &format!("an offset says where the clock stood, a zone's name does not; {write}"),
            ),
        ),
        (
            ["2026-02-30", "2026-03-02"],
            clap("2026-02-30", "--from <TIME>", &format!("not a day of the calendar; {write}")),
        ),
    ];
    let refused = |arguments: &[&str]| {
        let ended = bed.ended(arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{arguments:?}: {ended:?}");
        assert!(!bed.data().exists(), "{arguments:?} touched the state");
        assert!(bed.sim.requests().is_empty(), "{arguments:?} asked NICE");
        ended.stderr
    };
    for (range, says) in &ranges {
        let range = ["--from", range[0], "--to", range[1]];
        for command in [&["backfill"][..], &["backfill", "--dry-run"], &["report", "--json"]] {
            assert_eq!(refused(&[command, &range].concat()), *says);
        }
    }
    let says = refused(&["report", "--from", "2020-01-01", "--to", "2020-01-02"]);
    let begin = "nice-knovvu: --from: 2020-01-01T00:00:00Z lies beyond the 30 days that NICE lists; begin at 20";
    assert!(says.starts_with(begin) && says.ends_with("Z or later\n"), "{says}");
    for (window, why) in [
        ("0s", "must be longer than zero"),
        ("2", "a bare number has no unit; write \"2s\" if seconds are meant"),
        ("2 hours", "the unit is not one of ms, s, m, h, d"),
        ("", "a duration is a number with its unit"),
    ] {
        let says = refused(&["reconcile", "--window", window]);
        assert_eq!(says, clap(window, "--window <SPAN>", why));
    }
    let says = refused(&["reconcile", "--window", "31d"]);
    assert!(says.starts_with("nice-knovvu: --window: 20") && says.contains(" lies beyond the 30 days"), "{says}");
    for arguments in [
        &["backfill"][..],
        &["backfill", "--from", "2026-04-01"],
        &["backfill", "--to", "2026-04-01"],
        &["backfill", "pause"],
        &["backfill", "resume", "one"],
        &["backfill", "cancel", "-1"],
        &["report", "--from", "2026-04-01"],
    ] {
        assert!(refused(arguments).starts_with("error: "), "{arguments:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_nice_must_be_reachable() {
    let mut bed = untold(history(610, 10)).await;
    let from = (Timestamp::now() - SignedDuration::from_hours(22)).to_string();
    let range = ["--from", &from, "--to", &Timestamp::now().to_string()];
    let asks = [&["reconcile"][..], &[&["backfill"][..], &range].concat(), &[&["report"][..], &range].concat()];
    // Whose calls they are is not known before the group was read once.
    let ended = bed.ended(asks[2]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
    assert!(ended.stderr.contains("run `nice-knovvu agents sync`"), "{ended:?}");
    assert_eq!(bed.ended(&["agents", "sync"]).code, Some(0));
    let reachable = bed.sim.base_url().to_owned();
    for key in ["ISSUER", "ACD_URL", "FACADE_URL", "AUTH_URL"] {
        bed.set(&format!("NICE__{key}"), "http://127.0.0.1:1");
    }
    for arguments in &asks {
        let ended = bed.ended(arguments);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(3), ""), "{arguments:?}: {ended:?}");
        assert!(ended.stderr.contains("cannot be reached"), "{arguments:?}: {ended:?}");
    }
    assert_eq!(bed.json(&["backfill", "status", "--json"]), Value::Array(Vec::new()), "nothing was begun");
    for key in ["ISSUER", "ACD_URL", "FACADE_URL", "AUTH_URL"] {
        bed.set(&format!("NICE__{key}"), reachable.clone());
    }
    let ended = bed.ended(&[&["backfill"][..], &range].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    balances(&bed, bed.start()).await;
}

/// The report's word for a conversation, by its id; conversations that are in order are left out.
type Exceptions = BTreeMap<i64, &'static str>;

/// What `report` must say of each day: the counts in the order of [`COUNTS`].
fn expected_days(bed: &Bed, exceptions: &Exceptions) -> BTreeMap<Date, [u64; 7]> {
    let mut days: BTreeMap<Date, [u64; 7]> = BTreeMap::new();
    for leg in legs(bed) {
        let word = match exceptions.get(&leg.contact_id) {
            Some(word) => word,
            None if leg.recordings.is_empty() => "no_recording",
            None => "ready",
        };
        let counts = days.entry(leg.ended_at.to_zoned(TimeZone::UTC).date()).or_default();
        counts[0] += 1;
        counts[COUNTS.iter().position(|count| *count == word).unwrap()] += 1;
    }
    days
}

const COUNTS: [&str; 7] = ["ended", "ready", "no_recording", "dead", "in_flight", "excluded", "missing"];

/// Compares a report with the truth: each day, the total, and every exception by name.
fn check_report(bed: &Bed, report: &Value, exceptions: &Exceptions) -> Result<(), String> {
    let counts = |value: &Value| COUNTS.map(|name| number(value, &format!("/{name}")));
    let days: BTreeMap<Date, [u64; 7]> = report["days"]
        .as_array()
        .unwrap()
        .iter()
        .map(|day| (day["day"].as_str().unwrap().parse().unwrap(), counts(day)))
        .collect();
    let expected = expected_days(bed, exceptions);
    if days != expected {
        return Err(format!("{expected:?} expected of {COUNTS:?}: {report:#}"));
    }
    let total = days.values().fold([0; 7], |total, day| std::array::from_fn(|place| total[place] + day[place]));
    assert_eq!(counts(&report["total"]), total, "{report:#}");
    for counts in days.values().chain([&total]) {
        assert_eq!(counts[0], counts[1..].iter().sum::<u64>(), "it does not balance: {report:#}");
    }
    let named: BTreeMap<i64, &str> = report["exceptions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|exception| {
            let id = &exception["conversation_id"];
            let id = id.as_i64().unwrap_or_else(|| id.as_str().unwrap().parse().unwrap());
            assert!(!exception["reason"].as_str().unwrap().is_empty(), "{exception:#}");
            (id, exception["what"].as_str().unwrap())
        })
        .collect();
    assert_eq!(named, *exceptions, "{report:#}");
    assert_eq!((number(report, "/exceptions_left_out"), number(report, "/unreadable")), (0, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_balances_with_the_truth_with_and_without_a_daemon() {
    let mut bed = Bed::new(hurried(611, 0)).await;
    let receiver = bed.with_webhook();
    bed.set("EVENTS__POLL", "false");
    bed.set("RETRY__RECORDING_DEADLINE", "45m");
    bed.set("EVENTS__IMPORT_SINCE", "90d");
    let agents = bed.sim.group(1001);
    let call = |number: usize| CallSpec::new(agents[number % agents.len()]);
    // More than a day: two or three by the calendar.
    for number in 0..60_usize {
        let spec = CallSpec { never_recorded: number.is_multiple_of(7), ..call(number) };
        bed.sim.add_call(spec.hang_up_in(SignedDuration::from_mins(-(60 + 31 * number as i64))));
    }
    let mut daemon = bed.start();
    daemon.ready().await;
    let run = bed.json(&["reconcile", "--window", "40h", "--json"]);
    assert_eq!(number(&run, "/found/replayed"), 60, "{run:#}");
    bed.settled(&mut daemon).await;

    let tell = async |id: i64| post_event(receiver, format!(r#"{{"contactId":"{id}"}}"#)).await;
    bed.sim.set_faults(Faults { foreign_media_link: 1.0, ..Faults::none() });
    let dead: Vec<i64> = (0..3).map(|number| bed.sim.add_call(call(number)).contact_ids[0]).collect();
    for id in &dead {
        assert_eq!(tell(*id).await, Some(202));
    }
    assert_eq!(bed.final_states(&mut daemon, &dead).await, ["dead_letter"; 3]);
    bed.sim.set_faults(Faults::none());
    let letters = bed.json(&["dead-letters", "list", "--json"]);
    let dropped = &letters[0];
    assert_eq!(bed.ended(&["dead-letters", "drop", &dropped["id"].to_string()]).code, Some(0));
    let dropped: i64 = dropped["conversation_id"].as_str().unwrap().parse().unwrap();
    let waiting = bed.sim.add_call(CallSpec { never_recorded: true, ..call(4) }).contact_ids[0];
    assert_eq!(tell(waiting).await, Some(202));
    let lost: Vec<i64> = (5..8).map(|number| bed.sim.add_call(call(number)).contact_ids[0]).collect();
    let mut exceptions: Exceptions = dead.iter().map(|id| (*id, "dead")).collect();
    exceptions.insert(dropped, "excluded");
    exceptions.insert(waiting, "in_flight");
    exceptions.extend(lost.iter().map(|id| (*id, "missing")));

    let now = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let (from, to) = (now.saturating_sub(jiff::Span::new().days(3)), now.tomorrow().unwrap());
    let range = ["report", "--from", &from.to_string(), "--to", &to.to_string()];
    let json = [&range[..], &["--json"]].concat();
    // NICE lists a call a moment after it has ended.
    let running = until(&bed, async || {
        let report = bed.json(&json);
        check_report(&bed, &report, &exceptions).map(|()| report)
    })
    .await;
    let text = bed.ended(&range);
    assert_eq!((text.code, text.stderr.as_str()), (Some(4), "nice-knovvu: 3 calls are missing\n"), "{text:?}");
    for says in ["day (UTC)", "total", "3 missing: `nice-knovvu reconcile` or `nice-knovvu backfill` replays them"] {
        assert!(text.stdout.contains(says), "{says}: {text:?}");
    }
    for (id, word) in &exceptions {
        let line = text.stdout.lines().find(|line| line.starts_with(&id.to_string()));
        assert!(line.is_some_and(|line| line.contains(word)), "{id} {word}: {text:?}");
    }

    assert!(daemon.terminate().success());
    let mut stopped = bed.json(&json);
    check_report(&bed, &stopped, &exceptions).unwrap();
    // But for the time, and for what a call on its way did last.
    let mut running = running;
    for report in [&mut running, &mut stopped] {
        report.as_object_mut().unwrap().retain(|key, _| !["at", "to"].contains(&key.as_str()));
        for exception in report["exceptions"].as_array_mut().unwrap().iter_mut() {
            if exception["what"] == "in_flight" {
                exception["reason"].take();
            }
        }
    }
    assert_eq!(running, stopped);

    // A letter that is replayed is on its way, and not dropped.
    let replayed = *dead.iter().find(|id| **id != dropped).unwrap();
    let letters = bed.json(&["dead-letters", "list", "--json"]);
    let (mut letters, name) = (letters.as_array().unwrap().iter(), replayed.to_string());
    let letter = letters.find(|letter| letter["conversation_id"] == name.as_str()).unwrap();
    assert_eq!(bed.ended(&["dead-letters", "replay", &letter["id"].to_string()]).code, Some(0));
    exceptions.insert(replayed, "in_flight");
    check_report(&bed, &bed.json(&json), &exceptions).unwrap();
    // What is missing is replayed, and is on its way then.
    assert_eq!(number(&bed.json(&["reconcile", "--json"]), "/found/replayed"), 3);
    exceptions.extend(lost.iter().map(|id| (*id, "in_flight")));
    check_report(&bed, &bed.json(&json), &exceptions).unwrap();
    let mut daemon = bed.start();
    daemon.ready().await;
    bed.ready(&mut daemon, &[&lost[..], &[replayed]].concat()).await;
    exceptions.retain(|id, _| !lost.contains(id) && *id != replayed);
    check_report(&bed, &bed.json(&json), &exceptions).unwrap();
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn days_beyond_nices_reach_are_imported_by_data_extraction() {
    let mut config = hurried(620, 60);
    config.day.over = Duration::from_secs(1);
    config.day.history = Duration::from_secs(40 * 86_400);
    let mut bed = Bed::new(config).await;
    bed.set("EVENTS__POLL", "false");
    bed.with_webhook();
    let mut daemon = bed.start();
    daemon.ready().await;
    let day = Timestamp::now() - SignedDuration::from_hours(36 * 24);
    let day = day.to_zoned(jiff::tz::TimeZone::UTC).date();
    let (from, to) = (day.to_string(), day.tomorrow().unwrap().to_string());
    let ended = bed.ended(&["backfill", "--from", &from, "--to", &to, "--members-now", "--json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("read by data extraction"), "{ended:?}");
    let run: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert!(run["found"]["missing"].as_u64().unwrap() > 0, "{run:#}");
    assert_eq!(run["found"]["missing"], run["found"]["replayed"], "{run:#}");
    let imported = until(&bed, async || {
        let status = bed.json(&["backfill", "status", "--json"]);
        let run = status[0].clone();
        let through = run["remaining"] == 0 || bed.json(&["status", "--json"])["backlog"]["backfill"] == 0;
        if through { Ok(run) } else { Err(format!("{status:#}")) }
    })
    .await;
    assert_eq!(imported["found"]["replayed"], run["found"]["replayed"]);
    assert!(daemon.terminate().success());
}
