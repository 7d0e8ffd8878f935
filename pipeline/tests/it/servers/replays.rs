//! Comparison and backfill where producers take turns, the catalog is shared, and consumers are others.

use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use nice_sim::{CallSpec, RecordingSize, SimConfig, TruthLeg};
use serde_json::{Value, json};
use stages::source::replay::LEAD;

use super::bed::{Role, ServerBed, terminate};
use super::calls::small;
use super::{oracle, sized};
use crate::harness::{Daemon, Ended, PATIENCE};

/// Calls of the last twenty hours.
fn history(seed: u64, calls: usize) -> SimConfig {
    let mut config = small(seed, calls);
    config.day.history = Duration::from_secs(20 * 3600);
    config.day.over = Duration::ZERO;
    config.day.recording_size = RecordingSize::Fixed(700);
    config
}

/// A bed whose producers learn of calls by their webhooks only, and nobody calls those.
async fn untold(config: SimConfig) -> ServerBed {
    let mut bed = ServerBed::new(config).await;
    bed.with_webhook();
    // Each has a port of its own.
    bed.set("EVENTS__WEBHOOK_LISTEN", "127.0.0.1:0");
    bed.set("EVENTS__POLL", "false");
    // The agents count as members of the group in all of that history.
    bed.set("EVENTS__IMPORT_SINCE", "90d");
    bed
}

/// The conversations that an importer must end with.
fn legs(bed: &ServerBed) -> Vec<TruthLeg> {
    bed.sim().truth().into_iter().filter(|leg| leg.in_group).collect()
}

/// A number deep in an answer.
fn number(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path}: {value:#}"))
}

/// Messages that a producer has published since its start.
async fn published(producer: &mut Daemon) -> u64 {
    // By its metrics: `status` tells of all services.
    let (_, page) = producer.get("/metrics").await.expect("it lives");
    let series = "nice_knovvu_stage_items_total{outcome=\"ok\",stage=\"enqueue\"} ";
    page.lines().find_map(|line| line.strip_prefix(series)?.parse().ok()).expect("the stage is counted")
}

/// A backfill as this producer tells of it, once it is as it shall be.
async fn backfill(bed: &ServerBed, producer: &Daemon, id: u64, is_so: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let answer = producer.get(&format!("/api/v1/backfills/{id}")).await;
        if let Some((200, body)) = &answer {
            let backfill: Value = serde_json::from_str(body).unwrap();
            if is_so(&backfill) {
                return backfill;
            }
        }
        assert!(begun.elapsed() < PATIENCE, "{answer:?}\n{}", bed.tails());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Another program has written the row of a call that was not recorded.
async fn write_row(bed: &ServerBed, leg: &TruthLeg) {
    let TruthLeg { contact_id, master_contact_id, agent_id, started_at, ended_at, customer_number, .. } = leg;
    bed.psql(&format!(
        "insert into conversations (tenant_id, integration_type, external_id, master_external_id, agent_external_id,
            started_at, ended_at, direction, customer_number, metadata, state, source)
         values ('acme', 'nice-cxone', '{contact_id}', '{master_contact_id}', '{agent_id}',
            '{started_at}', '{ended_at}', 'inbound', '{customer_number}', '{{}}', 'no_recording', 'backfill')"
    ))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reconcile_heals_what_database_and_memory_do_not_have_in_common() {
    let mut bed = untold(history(1801, 50)).await;
    bed.set("RECONCILIATION__SETTLE", "1s");
    let agents = bed.sim().group(1001);
    let strange: Vec<i64> = (0..3)
        .map(|hours| {
            let spec = CallSpec { never_recorded: true, ..CallSpec::new(agents[0]) };
            bed.sim().add_call(spec.hang_up_in(SignedDuration::from_hours(-1 - hours))).contact_ids[0]
        })
        .collect();
    let all = legs(&bed);
    let mut producer = bed.producer();
    producer.ready().await;
    let second = bed.start(Role::Producer, "second", &[]);
    second.says("another producer has the tenant, waiting").await;
    let consumers = bed.consumers(2);
    // After the producer has taken over what the database knows.
    for leg in all.iter().filter(|leg| strange.contains(&leg.contact_id)) {
        write_row(&bed, leg).await;
    }

    let missing = (all.len() - strange.len()) as u64;
    let run = bed.json(&["reconcile", "--json"]);
    for (path, expected) in [
        ("/found/listed", all.len() as u64),
        ("/found/no_recording", 3),
        ("/found/marked", 3),
        ("/found/missing", missing),
        ("/found/replayed", missing),
    ] {
        assert_eq!(number(&run, path), expected, "{path}: {run:#}");
    }
    let (_, trace) = producer.get(&format!("/api/v1/trace/{}", strange[0])).await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&trace).unwrap()["processed"], true, "{trace}");
    bed.quiet().await;

    // Rows vanish, and the memory of the dedupe is wrong.
    let gone = "select id from conversations where state = 'ready' order by external_id limit 7";
    bed.psql(&format!("delete from conversations where id in ({gone})")).await;
    assert_eq!(bed.unfinished("acme").await.len(), 7);
    let begun = Instant::now();
    let mut healed = 0;
    // Not before they are older than any work in flight.
    while healed < 7 {
        let run = bed.json(&["reconcile", "--json"]);
        assert_eq!(number(&run, "/found/missing"), number(&run, "/found/replayed"), "{run:#}");
        healed += number(&run, "/found/replayed");
        assert!(begun.elapsed() < PATIENCE, "{run:#}\n{}", bed.tails());
    }
    bed.quiet().await;
    let run = bed.json(&["reconcile", "--json"]);
    assert_eq!((number(&run, "/found/missing"), number(&run, "/found/marked")), (0, 0), "{run:#}");
    assert_eq!((healed, published(&mut producer).await), (7, missing + 7), "no other is doubled");

    let rows = "select listed, missing, replayed, finished_at >= started_at,
                       extract(epoch from window_to - window_from)::bigint
                from reconciliation_runs where tenant_id = 'acme' order by id";
    let rows = bed.sql().await.query(rows, &[]).await.unwrap();
    let (listed, missing) = (all.len() as i64, missing as i64);
    assert_eq!((rows[0].get(0), rows[0].get(1), rows[0].get(2)), (listed, missing, missing));
    assert!(rows.iter().all(|row| row.get(3) && row.get::<_, i64>(4) == 24 * 3600));
    assert_eq!(rows.iter().map(|row| row.get::<_, i64>(2)).sum::<i64>(), missing + 7);
    terminate(consumers.into_iter().chain([producer, second]));
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.strange), (0, 0), "{}", bed.tails());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_producer_goes_on_with_the_backfill_of_one_that_was_killed() {
    let mut config = history(1802, sized(500, 5_000));
    config.acd.contacts_page_max = 30;
    config.latency = Duration::from_millis(15);
    let bed = untold(config).await;
    let mut first = bed.producer();
    first.ready().await;
    let second = bed.start(Role::Producer, "second", &[]);
    second.says("another producer has the tenant, waiting").await;
    let (from, to) = (Timestamp::now() - SignedDuration::from_hours(22), Timestamp::now());
    let asking = bed.command(Role::Both, &["backfill", "--from", &from.to_string(), "--to", &to.to_string()]);
    let asking = tokio::task::spawn_blocking(move || Ended::of(asking));
    let middle = backfill(&bed, &first, 1, |run| number(run, "/found/replayed") > 40).await;
    first.kill();
    let left = bed.psql("select state || ' ' || replayed from backfills").await;
    println!("killed at {} of {}: {left}", number(&middle, "/found/replayed"), number(&middle, "/plan/missing"));
    assert!(left.contains("running"), "{left}");
    let asked = asking.await.unwrap();
    assert_ne!(asked.code, Some(0), "its daemon was killed: {asked:?}");

    let consumers = bed.consumers(2);
    let missing = legs(&bed).len() as u64;
    let done = backfill(&bed, &second, 1, |run| run["state"] == "done" && run["remaining"] == 0).await;
    assert_eq!((number(&done, "/plan/missing"), number(&done, "/found/listed")), (missing, missing), "{done:#}");
    bed.quiet().await;
    terminate(consumers.into_iter().chain([second]));
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.strange), (0, 0), "{}", bed.tails());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_runs_no_further_ahead_of_the_consumers_than_its_lead_and_a_pause_holds_it_there() {
    let bed = untold(history(1805, 900)).await;
    let mut producer = bed.producer();
    producer.ready().await;
    let (from, to) = (Timestamp::now() - SignedDuration::from_hours(22), Timestamp::now());
    let range = json!({ "from": from, "to": to });
    let (code, answer) = producer.post("/api/v1/backfills", &range).await.unwrap();
    assert_eq!(code, 200, "{answer}");
    // Nobody takes from the queue.
    let begun = Instant::now();
    while published(&mut producer).await < LEAD {
        assert!(begun.elapsed() < PATIENCE, "{}", bed.tails());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (code, answer) = producer.post("/api/v1/backfills/1/pause", &json!({})).await.unwrap();
    assert_eq!(code, 200, "{answer}");
    // A comparison asks the same producer after it, and is not held up.
    let run = bed.json(&["reconcile", "--window", "1s", "--json"]);
    assert_eq!(run["state"], "done");
    let ahead = published(&mut producer).await;
    println!("{ahead} published, where {LEAD} may wait");
    assert!(ahead <= LEAD, "{ahead}");

    let consumers = bed.consumers(2);
    let (code, answer) = producer.post("/api/v1/backfills/1/resume", &json!({})).await.unwrap();
    assert_eq!(code, 200, "{answer}");
    let done = backfill(&bed, &producer, 1, |run| run["state"] == "done" && run["remaining"] == 0).await;
    bed.quiet().await;
    assert_eq!(published(&mut producer).await, legs(&bed).len() as u64, "each exactly once: {done:#}");
    terminate(consumers.into_iter().chain([producer]));
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.strange), (0, 0), "{}", bed.tails());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_that_is_asked_for_elsewhere_is_done_by_who_has_the_tenant() {
    let mut bed = untold(history(1803, 40)).await;
    bed.set("AGENTS__SYNC_INTERVAL", "1h");
    let mut producer = bed.producer();
    producer.ready().await;
    let consumers = bed.consumers(1);
    let (from, to) = (Timestamp::now() - SignedDuration::from_hours(22), Timestamp::now());
    let range = ["--from", &from.to_string(), "--to", &to.to_string()];
    let elsewhere = |arguments: &[&str]| {
        let mut command = bed.command(Role::Both, arguments);
        command.env("NICE_KNOVVU_STATE__DIR", bed.path("elsewhere"));
        Ended::of(command)
    };
    producer.says("agents in step").await;
    let read_at = "select read_at from agents_read";
    let read = bed.psql(read_at).await;
    let missing = legs(&bed).len() as u64;
    let ended = elsewhere(&[&["backfill", "--json"][..], &range].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}\n{}", bed.tails());
    let done: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((done["state"].as_str(), number(&done, "/found/replayed")), (Some("done"), missing), "{done:#}");
    assert_eq!(published(&mut producer).await, missing, "by the one that has the tenant");
    // Who joins is the business of the producer whose poll goes back for it.
    assert_eq!(bed.psql(read_at).await, read, "the group was read elsewhere");
    let ended = elsewhere(&["reconcile"]);
    assert_eq!(ended.code, Some(0), "{ended:?}\n{}", bed.tails());
    bed.quiet().await;
    let ended = elsewhere(&[&["report", "--json"][..], &range].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((number(&report, "/total/ended"), number(&report, "/total/missing")), (missing, 0), "{report:#}");
    for arguments in [["backfill", "status", "99"], ["backfill", "pause", "99"]] {
        let ended = elsewhere(&arguments);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.ends_with("nice-knovvu: there is no backfill 99\n"), "{ended:?}");
    }
    // A tenant that nobody has set up.
    for arguments in [&["reconcile"][..], &[&["backfill"][..], &range].concat(), &[&["report"][..], &range].concat()] {
        let mut command = bed.command(Role::Both, arguments);
        command.envs([
            ("NICE_KNOVVU_STATE__DIR", bed.path("nowhere").into_os_string()),
            ("NICE_KNOVVU_TENANT__ID", "nobody".into()),
        ]);
        let ended = Ended::of(command);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
        let why = ["unknown tenant: no NICE settings are known for it", "run `nice-knovvu agents sync`"];
        assert!(why.iter().any(|why| ended.stderr.contains(why)), "{ended:?}");
    }
    terminate(consumers.into_iter().chain([producer]));
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.strange), (0, 0), "{}", bed.tails());
}

#[tokio::test(flavor = "multi_thread")]
async fn live_calls_become_ready_while_a_backfill_uses_the_quota() {
    // Ten requests in a second, in windows of a minute where time is no matter.
    let (calls, quota) = (sized(150, 6_000), ["50/5s", "600/1m"][sized(0, 1)]);
    let mut bed = ServerBed::new(small(1804, 0)).await;
    bed.set("LIMITS__MEDIA_PLAYBACK", quota);
    bed.set("RETRY__FIRST_LOOK", "0");
    bed.set("RETRY__RECORDING_DEADLINE", "48h");
    let agents = bed.sim().group(1001);
    let call = |number: usize| {
        let delay = Some(Duration::ZERO);
        CallSpec { recording_delay: delay, size: Some(700), ..CallSpec::new(agents[number % agents.len()]) }
    };
    // Further back than the poll looks.
    for number in 0..calls {
        let back = SignedDuration::from_hours(120) + SignedDuration::from_secs(40 * number as i64);
        bed.sim().add_call(call(number).hang_up_in(-back));
    }
    let producer = bed.producer();
    let consumers = bed.consumers(2);
    for service in consumers.iter().chain([&producer]) {
        service.says("running").await;
    }
    let ago = |days: i64| (Timestamp::now() - SignedDuration::from_hours(24 * days)).to_string();
    let plan = bed.json(&["backfill", "--members-now", "--dry-run", "--json", "--from", &ago(12), "--to", &ago(4)]);
    let (missing, promised) = (number(&plan, "/plan/missing"), plan["planned_seconds"].as_f64().unwrap());
    assert_eq!(missing, calls as u64, "{plan:#}");
    let begun = Instant::now();
    assert_eq!(bed.ended(Role::Both, &["backfill", "resume", "1"]).code, Some(0));

    let sql = bed.sql().await;
    let (mut placed, mut waits, mut next, mut took) = (Vec::new(), Vec::new(), 0, None);
    let mut at_first_live = None;
    while took.is_none() {
        assert!(begun.elapsed().as_secs_f64() < PATIENCE.as_secs_f64() + 10.0 * promised, "{}", bed.tails());
        if begun.elapsed() > Duration::from_millis(400) * next as u32 {
            placed.push((bed.sim().add_call(call(next)).contact_ids[0].to_string(), Instant::now()));
            next += 1;
        }
        let ids: Vec<&str> = placed.iter().map(|(id, _)| id.as_str()).collect();
        let ready = "select external_id from conversations where external_id = any($1) and state = 'ready'";
        let ready: Vec<String> = sql.query(ready, &[&ids]).await.unwrap().iter().map(|row| row.get(0)).collect();
        placed.retain(|(id, since)| {
            let is_ready = ready.contains(id);
            if is_ready {
                waits.push(since.elapsed());
            }
            !is_ready
        });
        let imported =
            "select count(*) from conversations where ended_at < now() - interval '4 days' and state = 'ready'";
        let imported: i64 = sql.query_one(imported, &[]).await.unwrap().get(0);
        if !waits.is_empty() {
            at_first_live.get_or_insert(imported);
        }
        if imported as usize == calls {
            took = Some(begun.elapsed().as_secs_f64());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bed.quiet().await;
    waits.sort_unstable();
    let took = took.unwrap_or_default();
    let part = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64();
    println!(
        "{calls} calls at {quota}: promised {promised:.1} s, took {took:.1} s; {} live calls ready meanwhile, {} not: from \
         hang-up to ready p50 {:.2} s, p99 {:.2} s, longest {:.2} s",
        waits.len(),
        placed.len(),
        part(0.5),
        part(0.99),
        part(1.0)
    );
    assert!(waits.len() > placed.len(), "live calls wait for the backfill to end");
    assert!(at_first_live.is_some_and(|imported| imported < calls as i64), "{at_first_live:?} of {calls}");
    terminate(consumers.into_iter().chain([producer]));
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.dead, verdict.strange), (0, 0), "{}", bed.tails());
}
