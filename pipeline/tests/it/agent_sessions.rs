//! The agents' event feeds as the third source.

use std::time::{Duration, Instant};

use nice_sim::{CallSpec, Faults, GroupConfig, SimConfig};

use crate::harness::{Bed, Daemon, PATIENCE, hurried, tail};
use crate::oracle;

/// A bed whose daemon knows of calls by the agents' sessions alone.
async fn listening(config: SimConfig) -> Bed {
    let mut bed = Bed::new(config).await;
    bed.set("EVENTS__POLL", "false");
    bed.set("EVENTS__AGENT_SESSIONS", "true");
    bed
}

/// How many agents are in a state, as the daemon's metrics have it.
async fn agents(daemon: &Daemon, state: &str) -> usize {
    let (_, page) = daemon.get("/metrics").await.unwrap_or_default();
    let series = format!("nice_knovvu_agent_sessions{{state=\"{state}\",tenant=\"acme\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or_default()
}

/// Waits until so many agents are listened to.
async fn joined(bed: &Bed, daemon: &Daemon, wanted: usize) {
    let begun = Instant::now();
    while agents(daemon, "joined").await != wanted {
        assert!(begun.elapsed() < PATIENCE, "not joined\n{}", tail(&bed.log()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_sessions_alone_bring_every_call_while_they_are_joined() {
    let bed = listening(hurried(35, 0)).await;
    let mut daemon = bed.start();
    daemon.ready().await;
    bed.says("[events] poll is off").await;
    let group = bed.sim.group(1001);
    joined(&bed, &daemon, group.len()).await;
    let stranger = *bed.sim.agents().iter().find(|agent| !group.contains(agent)).unwrap();
    bed.sim.add_call(CallSpec::new(stranger));
    for agent in group.iter().chain(&group) {
        bed.sim.add_call(CallSpec::new(*agent));
    }
    bed.settled(&mut daemon).await;
    // Who logs out is not listened to any more, and nobody minds.
    bed.sim.set_logged_in(group[0], false);
    joined(&bed, &daemon, group.len() - 1).await;
    assert_eq!(agents(&daemon, "absent").await, 1);
    // Who leaves the group is let go; who joins is listened to.
    bed.sim.set_group(1001, group[2..].iter().copied().chain([stranger]));
    bed.asked("session-join", 1).await;
    bed.sim.add_call(CallSpec::new(group[2]));
    bed.settled(&mut daemon).await;
    let status = daemon.status().await;
    assert!(daemon.terminate().success());
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.ready + verdict.no_recording, verdict.dead), (2 * group.len() + 1, 0));
    let failed = |stage: &&serde_json::Value| stage["stage"] == "source" && stage["outcomes"]["retry"] != 0;
    assert!(!status["stages"].as_array().unwrap().iter().any(|stage| failed(&stage)), "{status:#}");
    assert_eq!(bed.sim.violations(), Vec::<String>::new(), "no session was ended, nothing else was asked");
    assert_eq!(bed.sim.requests_to("session-end"), 0);
    assert_eq!(bed.sim.requests_to("contacts-completed"), 0, "the poll was off");
}

#[tokio::test(flavor = "multi_thread")]
async fn poll_and_agent_sessions_together_double_nothing_whatever_nice_does() {
    let mut config = hurried(36, 60);
    config.faults = Faults::all(36);
    config.acd.scalars_as_strings = true;
    config.acd.result_set_wrapper = true;
    config.day.over = Duration::from_secs(10);
    config.playback.media_link_ttl = Duration::from_secs(2);
    config.day.never_recorded_share = 0.0;
    let mut bed = Bed::new(config).await;
    bed.set("EVENTS__AGENT_SESSIONS", "true");
    let mut daemon = bed.start();
    bed.says("tells of a call that ended").await;
    bed.sim.revoke_tokens();
    bed.settled(&mut daemon).await;
    assert!(daemon.terminate().success());
    let verdict = oracle::verify(&bed).await;
    assert_eq!(verdict.dead, 0, "{}", tail(&bed.log()));
    assert_eq!(bed.sim.requests_to("session-end"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_agents_are_listened_to_by_one_process_in_bounded_memory() {
    const AGENTS: usize = 2_000;
    let mut config = hurried(37, 0);
    config.directory.agents = AGENTS;
    config.directory.groups = vec![GroupConfig { id: 1001, name: "Knovvu".into(), first_agent: 0, agents: AGENTS }];
    let mut bed = listening(config).await;
    bed.set("AGENTS__SYNC_INTERVAL", "1h");
    bed.set("EVENTS__AGENT_SESSIONS", "false");
    bed.set("EVENTS__POLL", "true");
    let mut daemon = bed.start();
    daemon.says("agents in step").await;
    bed.asked("contacts-completed", 10).await;
    let before = daemon.memory_kib("VmRSS");
    assert!(daemon.terminate().success());

    bed.set("EVENTS__AGENT_SESSIONS", "true");
    bed.set("EVENTS__POLL", "false");
    let mut daemon = bed.start();
    joined(&bed, &daemon, AGENTS).await;
    let grown = daemon.memory_kib("VmRSS").saturating_sub(before);
    println!("{AGENTS} listeners: {before} KiB without them, {grown} KiB more with them");
    assert!(grown < 64 * AGENTS as u64, "{grown} KiB more");
    for agent in bed.sim.agents().into_iter().step_by(20) {
        bed.sim.add_call(CallSpec::new(agent));
    }
    bed.settled(&mut daemon).await;
    assert!(daemon.terminate().success());
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.ready + verdict.no_recording, verdict.dead), (AGENTS / 20, 0));
    assert_eq!(bed.sim.requests_to("session-end"), 0);
}
