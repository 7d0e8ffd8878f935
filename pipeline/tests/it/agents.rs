//! The group changes while calls come in: joiners, leavers, new names; and a group that cannot be read.

use std::time::{Duration, Instant};

use nice_sim::{CallSpec, Faults};
use serde_json::Value;

use crate::harness::{Bed, Daemon, PATIENCE, hurried, post_event, tail};
use crate::oracle;

const GROUP: i64 = 1001;

/// A bed in which agents are read at the start and when an operator asks, and its daemon.
async fn calm(seed: u64) -> (Bed, Daemon) {
    let mut bed = Bed::new(hurried(seed, 0)).await;
    bed.set("AGENTS__SYNC_INTERVAL", "1h");
    let mut daemon = bed.start();
    daemon.ready().await;
    bed.says("agents in step").await;
    (bed, daemon)
}

fn sync(bed: &Bed) -> Value {
    bed.json(&["agents", "sync", "--json"])
}

fn agents(bed: &Bed) -> Vec<Value> {
    bed.json(&["agents", "list", "--json"]).as_array().unwrap().clone()
}

fn agent(bed: &Bed, id: i64) -> Value {
    let found =
        agents(bed).into_iter().find(|agent| agent["external_id"].to_string().trim_matches('"') == id.to_string());
    found.unwrap_or_else(|| panic!("agent {id} is not listed"))
}

fn active(bed: &Bed) -> usize {
    agents(bed).iter().filter(|agent| agent["is_active"] == true).count()
}

fn call(bed: &Bed, agent: i64) -> i64 {
    bed.sim.add_call(CallSpec::new(agent)).contact_ids[0]
}

/// The changes of a sync, in the order joined, left, deactivated, renamed.
fn changes(report: &Value) -> [u64; 4] {
    ["joined", "left", "deactivated", "renamed"].map(|name| report[name].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_follows_the_group_with_and_without_a_daemon() {
    let (bed, daemon) = calm(301).await;
    let mut daemon = Some(daemon);
    let members = bed.sim.group(GROUP);
    assert_eq!(changes(&sync(&bed)), [0; 4], "nothing has changed");
    let before = agents(&bed);
    assert_eq!(before.len(), members.len());

    for round in 0..2 {
        let joiner = bed.sim.add_agent("Nadja", "O'Hara-Çelik", 501);
        let [leaver, deactivated, renamed] = [members[3 * round], members[3 * round + 1], members[3 * round + 2]];
        let mut now = bed.sim.group(GROUP);
        now.retain(|id| *id != leaver);
        now.push(joiner);
        bed.sim.set_group(GROUP, now);
        bed.sim.set_agent_active(deactivated, false);
        bed.sim.rename_agent(renamed, "Neu", "Nöm\u{0}");
        let report = sync(&bed);
        assert_eq!(changes(&report), [1, 1, 1, 1], "round {round}: {report:#}");
        assert_eq!(changes(&sync(&bed)), [0; 4], "a second reading changes nothing");

        let joined = agent(&bed, joiner);
        assert_eq!((joined["is_active"].as_bool(), joined["last_name"].as_str()), (Some(true), Some("O'Hara-Çelik")));
        assert_eq!(joined["member_until"], Value::Null);
        for gone in [leaver, deactivated] {
            let gone = agent(&bed, gone);
            assert_eq!(gone["is_active"], false, "{gone:#}");
            assert!(gone["member_until"].is_string(), "{gone:#}");
        }
        let renamed = agent(&bed, renamed);
        assert_eq!((renamed["first_name"].as_str(), renamed["last_name"].as_str()), (Some("Neu"), Some("Nöm")));

        // The second round is an operator's alone.
        if let Some(mut daemon) = daemon.take() {
            assert!(daemon.terminate().success());
        }
    }
    // Back in the group, and active again.
    bed.sim.set_agent_active(members[1], true);
    let mut now = bed.sim.group(GROUP);
    now.push(members[0]);
    bed.sim.set_group(GROUP, now);
    assert_eq!(changes(&sync(&bed)), [2, 0, 0, 0]);
    assert_eq!(agent(&bed, members[0])["member_until"], Value::Null);

    let table = bed.ended(&["agents", "list"]);
    assert!(table.stdout.contains("O'Hara-Çelik") && table.stdout.contains("Neu"), "{}", table.stdout);
    assert!(bed.ended(&["agents", "sync"]).stdout.contains("0 joined"));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_imported_by_the_time_in_the_group() {
    let (bed, mut daemon) = calm(302).await;
    let members = bed.sim.group(GROUP);
    let outsiders: Vec<_> = bed.sim.agents().into_iter().filter(|agent| !members.contains(agent)).collect();
    let (joiner, outsider, leaver, fired) = (outsiders[0], outsiders[1], members[0], members[1]);

    // Ended before the sync that learns of the joiner, listed and passed over meanwhile.
    let with = |ids: &[i64]| ids.iter().chain(&[joiner]).copied().collect::<Vec<_>>();
    bed.sim.set_group(GROUP, with(&members));
    let early = call(&bed, joiner);
    let foreign = call(&bed, outsider);
    let known = call(&bed, members[2]);
    bed.ready(&mut daemon, &[known]).await;
    bed.asked("contacts-completed", 3).await;
    assert_eq!(daemon.state_of(early).await, "unknown", "the joiner is not known yet");
    assert_eq!(changes(&sync(&bed)), [1, 0, 0, 0]);
    bed.ready(&mut daemon, &[early]).await;
    let late = call(&bed, joiner);
    bed.ready(&mut daemon, &[late]).await;

    // The leaver's and the deactivated agent's last calls end before, and are listed after the sync.
    let last = [call(&bed, leaver), call(&bed, fired)];
    // Clocks have milliseconds: the calls end before the group changes, not with it.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let stay: Vec<_> = with(&members[1..]);
    bed.sim.set_group(GROUP, stay);
    bed.sim.set_agent_active(fired, false);
    assert_eq!(changes(&sync(&bed)), [0, 1, 1, 0]);
    bed.ready(&mut daemon, &last).await;
    // Their next ones are nobody's.
    let next = [call(&bed, leaver), call(&bed, fired)];
    let known = call(&bed, members[2]);
    bed.ready(&mut daemon, &[known]).await;
    bed.asked("contacts-completed", 3).await;
    for id in next.into_iter().chain([foreign]) {
        assert_eq!(daemon.state_of(id).await, "unknown", "{id}");
    }
    // Also after a restart, which reads the agents from the catalog.
    assert!(daemon.terminate().success());
    let mut daemon = bed.start();
    daemon.ready().await;
    bed.asked("contacts-completed", 3).await;
    assert!(daemon.terminate().success());
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.ready, verdict.dead), (6, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_cannot_be_read_changes_nothing() {
    let (mut bed, mut daemon) = calm(303).await;
    let members = bed.sim.group(GROUP);
    for faults in [
        Faults { server_errors: 1.0, ..Faults::none() },
        Faults { html: 1.0, ..Faults::none() },
        Faults { truncated_json: 1.0, ..Faults::none() },
    ] {
        bed.sim.set_faults(faults);
        let ended = bed.ended(&["agents", "sync"]);
        assert_eq!(ended.code, Some(3), "{ended:?}");
        assert!(ended.stderr.contains("the group could not be read: "), "{ended:?}");
        assert_eq!(active(&bed), members.len());
    }
    bed.sim.set_faults(Faults::none());
    let id = call(&bed, members[0]);
    bed.ready(&mut daemon, &[id]).await;
    assert!(daemon.terminate().success());

    // Without a daemon, and with a group that NICE does not have.
    for (kind, group) in [("acd_group", "Knowu"), ("acd_group", "77"), ("team", "Knovvu")] {
        bed.set("NICE__GROUP_KIND", kind);
        bed.set("NICE__GROUP", group);
        let ended = bed.ended(&["agents", "sync"]);
        assert_eq!(ended.code, Some(3), "{ended:?}");
        assert!(ended.stderr.contains("no such group"), "{ended:?}");
        assert_eq!(active(&bed), members.len());
    }
    // A daemon goes on with the agents of its last run.
    let mut daemon = bed.start();
    daemon.ready().await;
    bed.says("agents stay as they are").await;
    let id = call(&bed, members[1]);
    bed.ready(&mut daemon, &[id]).await;
    assert_eq!(active(&bed), members.len());
    assert!(daemon.terminate().success());

    // Every surface refuses: 403 by itself, and a NICE that is not there.
    let refusing = axum::Router::new().fallback(|| std::future::ready(axum::http::StatusCode::FORBIDDEN));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let root = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, refusing).await });
    for (root, says) in [(root.as_str(), "403"), ("http://127.0.0.1:1", "cannot be reached")] {
        bed.set("NICE__ACD_URL", root);
        let ended = bed.ended(&["agents", "sync"]);
        assert_eq!(ended.code, Some(3), "{ended:?}");
        assert!(ended.stderr.contains(says), "{ended:?}");
        assert_eq!(active(&bed), members.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_group_is_believed_after_a_second_look_only() {
    let (mut bed, mut daemon) = calm(304).await;
    assert!(daemon.terminate().success());
    // No more agents than may be lost at once, and NICE says that it hides nobody.
    bed.set("AGENTS__HOLD_COUNT", "100");
    bed.sim.hide_agents(GROUP, []);
    let mut daemon = bed.start();
    daemon.ready().await;
    let members = bed.sim.group(GROUP);
    let last = call(&bed, members[0]);

    // Empty at the first look, whole at the second.
    bed.sim.set_group(GROUP, []);
    let first = bed.sim.requests_to("group-agents");
    let begun = Instant::now();
    let operator = std::thread::scope(|scope| {
        let operator = scope.spawn(|| sync(&bed));
        while bed.sim.requests_to("group-agents") == first {
            assert!(begun.elapsed() < PATIENCE, "{}", tail(&bed.log()));
            std::thread::sleep(Duration::from_millis(5));
        }
        bed.sim.set_group(GROUP, members.clone());
        operator.join().unwrap()
    });
    assert_eq!(operator["members"], members.len(), "{operator:#}");
    assert_eq!(changes(&operator), [0; 4], "{operator:#}");

    // Really empty.
    bed.sim.set_group(GROUP, []);
    let first = bed.sim.requests_to("group-agents");
    let report = sync(&bed);
    assert_eq!((report["members"].as_u64(), report["left"].as_u64()), (Some(0), Some(members.len() as u64)));
    assert!(bed.sim.requests_to("group-agents") >= first + 2, "there was no second look");
    assert_eq!(active(&bed), 0);
    let next = call(&bed, members[0]);
    bed.ready(&mut daemon, &[last]).await;
    bed.asked("contacts-completed", 3).await;
    assert_eq!(daemon.state_of(next).await, "unknown");
    assert!(daemon.terminate().success());
    bed.sim.set_group(GROUP, members.clone());
    assert_eq!(sync(&bed)["joined"].as_u64(), Some(members.len() as u64), "they are back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_is_a_group_as_well() {
    let mut config = hurried(305, 0);
    config.acd.admin_page_max = 3;
    let mut bed = Bed::new(config).await;
    bed.set("NICE__GROUP_KIND", "team");
    bed.set("NICE__GROUP", "back office");
    let report = sync(&bed);
    assert_eq!(report["members"], 10, "{report:#}");
    let mut daemon = bed.start();
    daemon.ready().await;
    // Every second agent works there; the oracle's idea of the wanted group is another, so no verdict here.
    let (inside, outside) = (bed.sim.agents()[1], bed.sim.agents()[0]);
    let foreign = call(&bed, outside);
    let id = call(&bed, inside);
    bed.ready(&mut daemon, &[id]).await;
    bed.asked("contacts-completed", 2).await;
    assert_eq!(daemon.state_of(foreign).await, "unknown");
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_joiners_call_told_by_the_webhook_waits_for_the_next_reading_of_the_group() {
    let mut bed = Bed::new(hurried(306, 0)).await;
    let receiver = bed.with_webhook();
    bed.set("EVENTS__POLL", "false");
    bed.set("AGENTS__SYNC_INTERVAL", "4s");
    let mut daemon = bed.start();
    daemon.ready().await;
    let group = bed.sim.group(GROUP);
    let outsiders: Vec<i64> = bed.sim.agents().into_iter().filter(|agent| !group.contains(agent)).take(2).collect();
    let (joiner, stranger) = (outsiders[0], outsiders[1]);
    bed.sim.set_group(GROUP, group.into_iter().chain([joiner]));
    let joined = bed.sim.add_call(CallSpec::new(joiner)).contact_ids[0];
    let strange = bed.sim.add_call(CallSpec::new(stranger)).contact_ids[0];
    for id in [joined, strange] {
        let body = format!(r#"{{"contactId":{id}}}"#);
        assert_eq!(post_event(receiver, body).await, Some(202));
    }
    let states = bed.final_states(&mut daemon, &[joined]).await;
    assert_eq!(states, ["ready"], "{}", tail(&bed.log()));
    let begun = Instant::now();
    while daemon.state_of(strange).await != "dropped" {
        assert!(begun.elapsed() < PATIENCE, "the stranger's call is not dropped");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(daemon.terminate().success());
    assert_eq!(oracle::verify(&bed).await.ready, 1);
}

/// What `status --json` says of a held reading, and when the group was last read.
fn standing(bed: &Bed) -> (Value, Value) {
    let status = bed.json(&["status", "--json"]);
    (status["agents_held"].clone(), status["agents_last_sync"].clone())
}

/// A sync meets a reading that is held, and says so.
fn assert_held(bed: &Bed, agents: usize) {
    let (_, read_at) = standing(bed);
    let ended = bed.ended(&["agents", "sync", "--json"]);
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.stderr.contains("nice-knovvu agents sync --accept"), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((changes(&report), report["members"].as_u64()), ([0; 4], Some(agents as u64)), "{report:#}");
    assert_eq!(active(bed), agents);
    let (held, last_read) = standing(bed);
    assert!(held["since"].is_string() && last_read == read_at, "{held:#} {last_read} {read_at}");
    for text in [bed.ended(&["agents", "list"]).said(), bed.ended(&["status"]).said()] {
        assert!(text.contains("is held since") && text.contains("--accept"), "{text}");
    }
}

async fn gauge(daemon: &Daemon) -> String {
    let (_, page) = daemon.get("/metrics").await.unwrap();
    page.lines().find(|line| line.contains("agents_held") && !line.starts_with('#')).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_reads_empty_for_want_of_rights_is_held_and_loses_no_call() {
    let (bed, mut daemon) = calm(307).await;
    let members = bed.sim.group(GROUP);
    let all = members.len();
    bed.sim.hide_agents(GROUP, members.iter().copied());
    assert_held(&bed, all);
    assert!(gauge(&daemon).await.ends_with(&format!(" {all}")), "{}", gauge(&daemon).await);
    assert_eq!(bed.logged().matches("the reading of the group is held").count(), 1, "{}", tail(&bed.log()));
    let meanwhile: Vec<_> = members.iter().take(4).map(|agent| call(&bed, *agent)).collect();
    bed.ready(&mut daemon, &meanwhile).await;

    // It stands in the catalog: another process sees it, and goes on with the agents of before.
    assert!(daemon.terminate().success());
    assert_held(&bed, all);
    let mut daemon = bed.start();
    daemon.ready().await;
    daemon.says("the reading of the group is held").await;
    assert!(gauge(&daemon).await.ends_with(&format!(" {all}")));
    let later = call(&bed, members[5]);
    bed.ready(&mut daemon, &[later]).await;

    // A reading that is whole ends it. So does not one without a body.
    bed.sim.hide_agents(GROUP, []);
    assert_eq!(changes(&sync(&bed)), [0; 4]);
    assert_eq!((standing(&bed).0, gauge(&daemon).await.ends_with(" 0")), (Value::Null, true));
    bed.sim.set_faults(Faults { group_no_content: 1.0, ..Faults::none() });
    assert_held(&bed, all);
    bed.sim.set_faults(Faults::none());
    assert_eq!(changes(&sync(&bed)), [0; 4]);

    // One who leaves is no matter for anybody; one who is hidden is, until an operator has seen it.
    bed.sim.set_group(GROUP, members[1..].iter().copied());
    assert_eq!(changes(&sync(&bed)), [0, 1, 0, 0]);
    bed.sim.hide_agents(GROUP, [members[1]]);
    assert_held(&bed, all - 1);
    let accepted = bed.json(&["agents", "sync", "--accept", "--json"]);
    assert_eq!((changes(&accepted), &accepted["held"]), ([0, 1, 0, 0], &Value::Null), "{accepted:#}");
    assert_eq!(changes(&sync(&bed)), [0; 4], "what was accepted is not held again");
    bed.sim.hide_agents(GROUP, [members[1], members[2]]);
    assert_held(&bed, all - 2);
    assert!(daemon.terminate().success());
    // The hidden ones are members all the same: of what they did while it was held nothing is lost either.
    assert_eq!(oracle::verify(&bed).await.ready, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reading_that_stays_the_same_for_long_enough_is_taken_by_itself() {
    let mut bed = Bed::new(hurried(308, 0)).await;
    bed.set("AGENTS__HOLD_FOR", "8s");
    let mut daemon = bed.start();
    daemon.ready().await;
    bed.says("agents in step").await;
    let members = bed.sim.group(GROUP);
    bed.sim.set_group(GROUP, members[8..].iter().copied());
    bed.says("the reading of the group is held").await;
    assert_eq!(active(&bed), members.len());
    let begun = Instant::now();
    while active(&bed) != members.len() - 8 {
        assert!(begun.elapsed() < PATIENCE, "it is held for ever: {}", tail(&bed.log()));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(standing(&bed).0, Value::Null);
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_tells_of_a_call_before_its_record_is_whole_loses_nothing() {
    let mut bed = Bed::new(hurried(309, 0)).await;
    let receiver = bed.with_webhook();
    bed.set("EVENTS__POLL", "false");
    bed.sim.set_faults(Faults { half_record: Duration::from_secs(6), ..Faults::none() });
    let mut daemon = bed.start();
    daemon.ready().await;
    bed.says("agents in step").await;
    let id = call(&bed, bed.sim.group(GROUP)[0]);
    assert_eq!(post_event(receiver, format!(r#"{{"contactId":{id}}}"#)).await, Some(202));
    bed.asked("contact", 2).await;
    bed.ready(&mut daemon, &[id]).await;
    assert!(daemon.terminate().success());
    assert_eq!(oracle::verify(&bed).await.ready, 1);
}
