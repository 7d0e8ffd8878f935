//! What a bad day has: each fault that can be drawn with a start and an end, put in force and taken back while it runs.

use std::{collections::BTreeSet, time::Duration};

use nice_sim::{Away, CallSpec, Faults, Outage, QuotaCount, Refused, SimConfig, TruthLeg};
use serde_json::Value;

use crate::{
    client::{EVER, numbers, sha256},
    in_memory::{Memory, sleep, small},
};

const MEMBERS: &str = "groups/1001/agents";
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// Everything that has completed, by contact id.
fn completed() -> String {
    format!("contacts/completed?{EVER}&orderBy=contactId%20asc")
}

async fn listed(memory: &Memory) -> anyhow::Result<Vec<i64>> {
    Ok(numbers(&memory.acd(&completed()).await?.1["completedContacts"], "contactId"))
}

async fn members(memory: &Memory) -> anyhow::Result<Vec<i64>> {
    Ok(numbers(&memory.acd(MEMBERS).await?.1["agents"], "agentId"))
}

/// A simulation in which so many calls of one leg have just ended.
async fn with_calls(calls: usize, faults: Faults) -> anyhow::Result<Memory> {
    let mut config = SimConfig { faults, ..small() };
    config.playback.limit = 100_000;
    let memory = Memory::start(config).await?;
    let agents = memory.sim.agents();
    for turn in 0..calls {
        memory.sim.add_call(CallSpec::new(agents[turn % agents.len()]));
    }
    sleep(60).await;
    Ok(memory)
}

/// What a client gets of all the media of a leg.
async fn download(memory: &Memory, leg: &TruthLeg) -> anyhow::Result<Vec<String>> {
    let mut hashes = Vec::new();
    for link in memory.links(leg.master_contact_id).await? {
        let (status, medium) = memory.medium(&link).await?;
        anyhow::ensure!(status == 200, "{status}");
        hashes.push(sha256(&medium?));
    }
    Ok(hashes)
}

fn hashes(leg: &TruthLeg) -> Vec<String> {
    leg.recordings.iter().map(|recording| recording.sha256.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn groups_read_empty_half_hidden_or_late() -> anyhow::Result<()> {
    let memory = Memory::start(small()).await?;
    let all = members(&memory).await?;
    assert_eq!(all.len(), 12);

    memory.sim.set_faults(Faults { group_no_content: 1.0, ..Faults::none() });
    assert_eq!(memory.acd(MEMBERS).await?.0, 204);
    memory.sim.set_faults(Faults { group_empty: 1.0, ..Faults::none() });
    let (status, body) = memory.acd(MEMBERS).await?;
    assert_eq!((status, body["agents"].as_array().map(Vec::len)), (200, Some(0)));

    memory.sim.set_faults(Faults { group_half: 0.5, ..Faults::none() });
    let (_, body) = memory.acd(MEMBERS).await?;
    let half = numbers(&body["agents"], "agentId");
    assert!((1..12).contains(&half.len()), "{half:?}");
    assert!(body["totalRecords"] == half.len() && body["hiddenAgents"].is_null(), "nothing tells of it");
    assert_eq!(members(&memory).await?, half, "the same members each time");

    memory.sim.set_faults(Faults { group_hidden: 0.5, ..Faults::none() });
    let (_, body) = memory.acd(MEMBERS).await?;
    let shown = numbers(&body["agents"], "agentId");
    assert_eq!(body["hiddenAgents"], 12 - shown.len());
    assert!((1..12).contains(&shown.len()), "{shown:?}");
    memory.sim.hide_agents(1001, shown.clone());
    assert_eq!(memory.acd(MEMBERS).await?.1["hiddenAgents"], 12);
    memory.sim.show_agents(1001);
    memory.sim.set_faults(Faults::none());
    assert!(memory.acd(MEMBERS).await?.1["hiddenAgents"].is_null());

    sleep(HOUR).await;
    memory.sim.change_faults(|faults| faults.group_late = Duration::from_secs(HOUR));
    let newcomer = memory.sim.agents()[15];
    memory.sim.set_group(1001, all[1..].iter().copied().chain([newcomer]));
    assert_eq!(members(&memory).await?, all);
    sleep(HOUR).await;
    let now = members(&memory).await?;
    assert!(now.contains(&newcomer) && !now.contains(&all[0]));
    assert_eq!(now.len(), 12);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn rows_come_late_and_stay_late_when_the_fault_is_over() -> anyhow::Result<()> {
    let memory = with_calls(60, Faults { late_rows: 0.5, ..Faults::none() }).await?;
    memory.sim.set_faults(Faults::none());
    let agent = memory.sim.agents()[0];
    let on_time: Vec<i64> = (0..20).flat_map(|_| memory.sim.add_call(CallSpec::new(agent)).contact_ids).collect();
    sleep(90).await;
    let early = listed(&memory).await?;
    assert!((30..70).contains(&early.len()), "{}", early.len());
    assert!(on_time.iter().all(|id| early.contains(id)), "what ends after the fault is on time");
    let mut waited = BTreeSet::new();
    for _ in 0..25 {
        sleep(HOUR).await;
        waited.insert(listed(&memory).await?.len());
    }
    assert!(waited.len() > 4, "they come one by one, over hours: {waited:?}");
    assert_eq!(listed(&memory).await?.len(), 80);
    for leg in memory.sim.truth() {
        let update = leg.ended_at.as_second();
        let delay = leg.listed_at.as_second() - update;
        assert!(early.contains(&leg.contact_id) || (165..=86_445).contains(&delay), "{delay}");
    }
    // They come with their old time of update: a poll that looks back an hour never sees them.
    let since = "updatedSince=2026-04-01T12:00:00Z";
    assert_eq!(memory.acd(&format!("contacts/completed?{since}")).await?.0, 204);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn rows_are_half_at_first_or_change_hours_later() -> anyhow::Result<()> {
    let half_rows_for = Duration::from_secs(2 * HOUR);
    let memory = with_calls(40, Faults { half_rows: 0.5, half_rows_for, changed_rows: 0.5, ..Faults::none() }).await?;
    memory.sim.set_faults(Faults::none());
    sleep(HOUR).await;
    let rows = memory.acd(&completed()).await?.1["completedContacts"].clone();
    let rows: Vec<Value> = rows.as_array().cloned().unwrap_or_default();
    let half = rows.iter().filter(|row| row["agentId"] == 0 && row["totalDurationSeconds"].is_null()).count();
    assert!((5..35).contains(&half), "{half}");
    let whole = numbers(&memory.acd(&completed()).await?.1["completedContacts"], "totalDurationSeconds").len();
    assert_eq!(whole, 40 - half);
    sleep(HOUR).await;
    let rows = memory.acd(&completed()).await?.1["completedContacts"].clone();
    assert_eq!(numbers(&rows, "totalDurationSeconds").len(), 40);

    sleep(DAY).await;
    let changed = memory.acd("contacts/completed?updatedSince=2026-04-01T00:30:00Z").await?.1;
    let changed = numbers(&changed["completedContacts"], "contactId").len();
    assert!((5..35).contains(&changed), "{changed}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn unreadable_rows_stand_between_good_ones() -> anyhow::Result<()> {
    let memory = with_calls(40, Faults::none()).await?;
    sleep(60).await;
    let good = listed(&memory).await?;
    memory.sim.set_faults(Faults { unreadable_rows: 0.4, ..Faults::none() });
    let (_, body) = memory.acd(&completed()).await?;
    let rows = body["completedContacts"].as_array().cloned().unwrap_or_default();
    assert!(rows.len() > 44, "{}", rows.len());
    assert!(rows.iter().position(|row| !row["contactId"].is_i64()).is_some_and(|place| place < rows.len() - 1));
    assert_eq!(numbers(&body["completedContacts"], "contactId"), good);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn totals_pages_and_links_lie() -> anyhow::Result<()> {
    let memory = with_calls(40, Faults::none()).await?;
    sleep(60).await;
    let good = listed(&memory).await?;
    let page = format!("{}&top=10", completed());

    memory.sim.set_faults(Faults { total_lies: 1.0, ..Faults::none() });
    let mut totals = BTreeSet::new();
    for _ in 0..40 {
        totals.insert(memory.acd(&page).await?.1["totalRecords"].as_i64());
    }
    assert_eq!(totals, BTreeSet::from([Some(0), Some(20), Some(41), Some(127)]));

    memory.sim.set_faults(Faults { short_pages: 1.0, ..Faults::none() });
    let (mut with_link, mut without) = (0, 0);
    for _ in 0..20 {
        let (_, body) = memory.acd(&page).await?;
        assert_eq!(numbers(&body["completedContacts"], "contactId"), good[..5]);
        match body["_links"]["next"].as_str() {
            None => without += 1,
            Some(next) => {
                with_link += 1;
                assert_eq!(numbers(&memory.json(next).await?.1["completedContacts"], "contactId"), good[5..10]);
            }
        }
    }
    assert!(with_link > 0 && without > 0, "{with_link} {without}");

    memory.sim.set_faults(Faults { next_repeats: 1.0, ..Faults::none() });
    let next = memory.acd(&page).await?.1["_links"]["next"].as_str().unwrap_or_default().to_owned();
    assert_eq!(numbers(&memory.json(&next).await?.1["completedContacts"], "contactId"), good[..10]);

    memory.sim.set_faults(Faults { next_nowhere: 1.0, ..Faults::none() });
    let mut statuses = BTreeSet::new();
    for _ in 0..20 {
        let next = memory.acd(&page).await?.1["_links"]["next"].as_str().unwrap_or_default().to_owned();
        statuses.insert(memory.json(&next).await?.0);
    }
    assert_eq!(statuses, BTreeSet::from([204, 404]));
    memory.sim.set_faults(Faults::none());
    assert_eq!(listed(&memory).await?, good);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn recordings_come_late_or_never() -> anyhow::Result<()> {
    let faults = Faults { recordings_late: 0.5, recordings_never: 0.3, ..Faults::none() };
    let memory = with_calls(60, faults).await?;
    memory.sim.set_faults(Faults::none());
    let count = async || {
        let mut there = 0;
        for leg in memory.sim.truth() {
            there += usize::from(!memory.links(leg.master_contact_id).await?.is_empty());
        }
        anyhow::Ok(there)
    };
    sleep(1900).await;
    let early = count().await?;
    sleep(DAY).await;
    let (late, truth) = (count().await?, memory.sim.truth());
    assert!((10..40).contains(&early) && late > early + 5 && late < 60, "{early} {late}");
    assert_eq!(truth.iter().filter(|leg| !leg.recordings.is_empty()).count(), late);
    let mut answers = BTreeSet::new();
    for leg in truth {
        let found = download(&memory, &leg).await?;
        assert_eq!(found, hashes(&leg));
        if found.is_empty() {
            let (status, body) = memory.playback(leg.master_contact_id).await?;
            let is_named = body["interactions"].as_array().is_some_and(|interactions| !interactions.is_empty());
            assert_eq!(leg.named_in_vain, is_named);
            answers.insert(status);
        }
    }
    assert_eq!(answers, BTreeSet::from([200, 404]), "for good as if it were not there yet");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn recordings_come_in_parts_of_which_some_are_not_even_listed() -> anyhow::Result<()> {
    let memory = with_calls(30, Faults { recordings_in_parts: 1.0, ..Faults::none() }).await?;
    memory.sim.set_faults(Faults::none());
    sleep(1900).await;
    let (mut named, mut unlisted) = (0, 0);
    for leg in memory.sim.truth() {
        assert_eq!((leg.recordings.len(), leg.media.len()), (2, 2));
        let (_, body) = memory.playback(leg.master_contact_id).await?;
        let interactions = body["interactions"].as_array().map_or(0, Vec::len);
        let links = memory.links(leg.master_contact_id).await?.len();
        let is_late = leg.media[1].available_at > leg.started_at + jiff::SignedDuration::from_hours(2);
        match (links, interactions) {
            (1, 1) if leg.media[1].unlisted_before => unlisted += 1,
            (1, 2) if !leg.media[1].unlisted_before => named += 1,
            (2, 2) if !is_late => {}
            other => anyhow::bail!("{other:?} of {:?}", leg.media[1]),
        }
    }
    assert!(named > 2 && unlisted > 2, "{named} {unlisted}");
    sleep(DAY).await;
    for leg in memory.sim.truth() {
        assert_eq!(download(&memory, &leg).await?, hashes(&leg));
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn recordings_change_and_the_truth_knows_what_was_confirmed_last() -> anyhow::Result<()> {
    let memory = with_calls(40, Faults { recordings_changed: 0.5, ..Faults::none() }).await?;
    memory.sim.set_faults(Faults::none());
    sleep(2000).await;
    let before = memory.sim.truth();
    let mut first = Vec::new();
    for leg in &before {
        first.push(download(&memory, leg).await?);
    }
    sleep(2 * DAY).await;
    let unasked = memory.sim.truth();
    for (leg, first) in unasked.iter().zip(&first) {
        assert_eq!(&hashes(leg), first, "nothing else was confirmed since");
        assert_eq!(leg.media[0].versions.len() == 2, leg.media[0].changed_at.is_some());
    }
    let changed = unasked.iter().filter(|leg| leg.media[0].served == Some(0) && leg.media[0].versions.len() == 2);
    assert!((3..30).contains(&changed.count()));
    let mut differ = 0;
    for (leg, first) in unasked.iter().zip(&first) {
        let again = download(&memory, leg).await?;
        differ += usize::from(again != *first);
        assert_eq!(again[0], leg.media[0].versions[leg.media[0].versions.len() - 1].sha256);
    }
    assert!(differ > 3, "{differ}");
    let both = memory.sim.truth().into_iter().filter(|leg| leg.media[0].handed_out == [0, 1]).count();
    assert_eq!(both, differ, "each version is remembered that somebody may have taken");
    for leg in memory.sim.truth() {
        assert_eq!(hashes(&leg), download(&memory, &leg).await?);
    }

    // A body that breaks, and a second link that is opened and not read, confirm nothing.
    let leg = memory.sim.truth().remove(0);
    let served_at = leg.media[0].served_at;
    sleep(10).await;
    memory.sim.set_faults(Faults { media_truncated: 1.0, ..Faults::none() });
    assert!(download(&memory, &leg).await.is_err());
    memory.sim.set_faults(Faults::none());
    let link = memory.links(leg.master_contact_id).await?.remove(0);
    drop(memory.get(&link).await?);
    assert_eq!(memory.sim.truth()[0].media[0].served_at, served_at);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn recordings_are_gone_after_a_while() -> anyhow::Result<()> {
    let memory = with_calls(30, Faults { recordings_gone: 0.5, ..Faults::none() }).await?;
    memory.sim.set_faults(Faults::none());
    sleep(2000).await;
    for leg in memory.sim.truth() {
        assert_eq!(memory.links(leg.master_contact_id).await?.len(), 1);
    }
    sleep(8 * DAY).await;
    let mut gone = 0;
    for leg in memory.sim.truth() {
        let status = memory.playback(leg.master_contact_id).await?.0;
        assert_eq!(status == 404, leg.media[0].gone_at.is_some());
        gone += usize::from(status == 404);
    }
    assert!((5..25).contains(&gone), "{gone}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn strangers_and_nice_itself_narrow_the_quota() -> anyhow::Result<()> {
    let mut config = small();
    config.playback.strict_window = true;
    config.acd.strict_window = true;
    let memory = Memory::start(config).await?;
    let granted = async |requests: usize| {
        let mut granted = 0;
        for _ in 0..requests {
            granted += usize::from(memory.playback(1).await?.0 == 404);
        }
        anyhow::Ok(granted)
    };
    memory.sim.set_faults(Faults { strangers_playback: 0.4, ..Faults::none() });
    sleep(300).await;
    assert_eq!(granted(140).await?, 90);
    memory.sim.set_faults(Faults::none());
    memory.sim.set_playback_limit(30);
    sleep(300).await;
    assert_eq!(granted(30).await?, 30);
    assert_eq!(memory.sim.quota_breaches(), [], "as many as the limit are not too many");
    assert_eq!(granted(10).await?, 0);
    memory.sim.set_playback_limit(150);
    assert_eq!(granted(40).await?, 40);
    assert_eq!(memory.sim.playback_peaks().granted_to_all, 150);
    granted(100).await?;
    let breaches = memory.sim.quota_breaches();
    let told: Vec<_> = breaches.iter().map(|breach| (breach.kind, breach.limit, breach.count)).collect();
    assert_eq!(told, [(QuotaCount::Asked, 30, 40), (QuotaCount::Asked, 150, 180)]);

    memory.sim.set_acd_limit(Some((2, Duration::from_secs(1))));
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(memory.acd("groups").await?.0);
    }
    memory.sim.set_acd_limit(None);
    statuses.push(memory.acd("groups").await?.0);
    assert_eq!(statuses, [200, 200, 429, 200]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_429_says_how_long_to_wait_or_talks_nonsense() -> anyhow::Result<()> {
    let memory = Memory::start(small()).await?;
    let header = async |path: &str| {
        let answer = memory.get(path).await?;
        assert_eq!(answer.status(), 429);
        anyhow::Ok(answer.headers().get("retry-after").and_then(|value| value.to_str().ok().map(str::to_owned)))
    };
    let paths = ["/media-playback/v1/contacts?acd-call-id=1", "/inContactAPI/services/v33.0/groups"];
    memory.sim.set_playback_limit(0);
    memory.sim.set_acd_limit(Some((0, Duration::from_secs(300))));
    for path in paths {
        assert_eq!(header(path).await?, None);
    }
    memory.sim.set_faults(Faults { retry_after: 1.0, ..Faults::none() });
    for path in paths {
        assert!(header(path).await?.is_some_and(|wait| wait.parse::<u64>().is_ok()));
    }
    memory.sim.set_faults(Faults { throttled: 1.0, retry_after_absurd: 1.0, ..Faults::none() });
    let mut seen = BTreeSet::new();
    for _ in 0..40 {
        seen.extend(header(paths[0]).await?);
    }
    assert!(seen.contains("-5") && seen.contains("soon") && seen.len() > 4, "{seen:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn keys_and_permissions_are_refused_for_a_while() -> anyhow::Result<()> {
    let memory = Memory::start(small()).await?;
    memory.sim.set_faults(Faults { keys_refused: 1.0, ..Faults::none() });
    assert_eq!(memory.new_token().await?.0, 401);
    assert_eq!(memory.acd("groups").await?.0, 200, "the old token is in force");
    memory.sim.revoke_tokens();
    assert_eq!(memory.acd("groups").await?.0, 401);
    memory.sim.set_faults(Faults::none());
    assert_eq!(memory.new_token().await?.0, 200);

    let memory = Memory::start(small()).await?;
    memory.sim.set_faults(Faults { playback_forbidden: 1.0, ..Faults::none() });
    assert_eq!(memory.playback(1).await?.0, 403);
    memory.sim.set_faults(Faults::none());
    assert_eq!(memory.playback(1).await?.0, 404);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_token_ends_by_the_clock_of_who_gave_it() -> anyhow::Result<()> {
    let mut memory = Memory::start(SimConfig::default()).await?;
    let minutes = |minutes: i64| Faults { token_clock_millis: minutes * 60_000, ..Faults::none() };
    memory.sim.set_faults(minutes(-50));
    memory.token = memory.new_token().await?.1["access_token"].as_str().unwrap_or_default().to_owned();
    assert_eq!(memory.acd("groups").await?.0, 200);
    sleep(601).await;
    assert_eq!(memory.acd("groups").await?.0, 401, "it says that it lives for an hour, and lives for ten minutes");
    memory.sim.set_faults(minutes(-61));
    memory.token = memory.new_token().await?.1["access_token"].as_str().unwrap_or_default().to_owned();
    assert_eq!(memory.acd("groups").await?.0, 401, "it was over before it was given");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn hosts_are_away_each_on_its_own() -> anyhow::Result<()> {
    let memory = with_calls(1, Faults::none()).await?;
    sleep(2000).await;
    let master = memory.sim.truth()[0].master_contact_id;
    let link = memory.links(master).await?.remove(0);
    let set = |api: Option<Outage>, tokens: Option<Outage>, media: Option<Outage>| {
        let [api_away, tokens_away, media_away] = [api, tokens, media].map(|how| how.map(Away::whole));
        memory.sim.set_faults(Faults { api_away, tokens_away, media_away, ..Faults::none() });
    };
    let statuses = async || {
        anyhow::Ok((memory.acd("groups").await?.0, memory.new_token().await?.0, memory.medium(&link).await?.0))
    };
    set(Some(Outage::Status(503)), None, None);
    assert_eq!(statuses().await?, (503, 200, 200));
    set(None, Some(Outage::Status(500)), None);
    assert_eq!(statuses().await?, (200, 500, 200));
    set(None, None, Some(Outage::Status(502)));
    assert_eq!(statuses().await?, (200, 200, 502));

    set(Some(Outage::Html), None, None);
    assert_eq!(memory.acd("groups").await?, (200, Value::Null));
    set(Some(Outage::Silent), None, None);
    let silence = tokio::time::timeout(Duration::from_secs(DAY), memory.acd("groups")).await;
    assert!(silence.is_err(), "an answer after all");
    set(Some(Outage::Refused), None, None);
    let refused = memory.get("/inContactAPI/services/v33.0/groups").await?;
    assert_eq!(refused.extensions().get::<Refused>(), Some(&Refused));

    let half = Away { how: Outage::Status(503), share: 0.5 };
    memory.sim.set_faults(Faults { api_away: Some(half), ..Faults::none() });
    let mut away = 0;
    for _ in 0..100 {
        away += usize::from(memory.get("/unknown").await?.status() == 503);
    }
    assert!((25..75).contains(&away), "{away}");
    Ok(())
}

#[tokio::test]
async fn a_refused_connection_has_no_answer_over_a_socket() -> anyhow::Result<()> {
    let client = crate::client::Client::start(small()).await?;
    client.sim.set_faults(Faults { api_away: Some(Away::whole(Outage::Refused)), ..Faults::none() });
    assert!(client.get("/inContactAPI/services/v33.0/groups").await.is_err());
    client.sim.set_faults(Faults::none());
    assert_eq!(client.acd_status("groups").await?, 200);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn answers_are_slow_for_a_while() -> anyhow::Result<()> {
    let memory = Memory::start(small()).await?;
    let took = async || {
        let begun = tokio::time::Instant::now();
        memory.acd("groups").await?;
        anyhow::Ok(begun.elapsed())
    };
    let second = Duration::from_secs(1);
    memory.sim.set_faults(Faults { latency: 5 * second, latency_spread: 10 * second, ..Faults::none() });
    let (first, other) = (took().await?, took().await?);
    assert!(first >= 5 * second && first <= 16 * second && first != other, "{first:?} {other:?}");
    memory.sim.set_faults(Faults::none());
    assert_eq!(took().await?, Duration::ZERO);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_truth_knows_memberships_near_the_end_of_a_call() -> anyhow::Result<()> {
    let memory = Memory::start(small()).await?;
    let agents = memory.sim.agents();
    sleep(HOUR).await;
    memory.sim.add_call(CallSpec::new(agents[0]).hang_up_in(jiff::SignedDuration::from_secs(0)));
    sleep(10).await;
    memory.sim.set_group(1001, []); // during after-call work
    sleep(HOUR).await;
    let left = memory.sim.truth()[0].clone();
    assert_eq!((left.in_group_at_start, left.in_group, left.in_group_at_end), (true, true, false));
    assert_eq!(left.last_membership_change, Some(left.hung_up_at + jiff::SignedDuration::from_secs(10)));
    assert_eq!(left.next_membership_change, None);
    memory.sim.set_group(1001, [agents[0]]);
    let back = memory.sim.truth()[0].clone();
    assert_eq!(back.next_membership_change, Some(left.hung_up_at + jiff::SignedDuration::from_secs(10 + HOUR as i64)));
    assert_eq!(back.last_membership_change, left.last_membership_change);
    Ok(())
}
