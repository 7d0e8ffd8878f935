//! Data extraction: jobs that are refused, fail or stall, links that lead astray, and files that break.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::TryStreamExt;
use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use nice::{Auth, ExtractedLeg, ExtractedRow, Extraction, MediaHost, NiceClient, NiceError, NiceMetrics, Timeouts};
use nice_sim::{CallSpec, ExtractionOutcome, Faults, Sim, SimConfig};
use secrecy::SecretString;

use crate::fake::{Fake, Reply, Request, Step, answer, head, json, status};
use crate::rig::{
    Counting, Rig, SECRET, host, is_media, is_permanent, is_refused, is_transient, settings, short, token,
};

const JOBS: &str = "/data-extraction/v1/jobs";
const JOB: &str = "/data-extraction/v1/jobs/job-1";

const FILE: &str = "\u{feff}ACD Call ID,Start Date,Voice Recording Status,Agent 1 ACD ID,Agent 1 Name,\
                    Agent 1 Contact Number\r\n\
                    6,2026-02-01,Failed,5,\"canary, \"\"A\"\"\",7\r\n\
                    6,2026-02-01,Success,5,canary,7\r\n\
                    bad,2026-02-01,Success,5,canary,8\r\n\
                    6,2026-02-01,Success,5,canary,9\r\n\
                    6,2026-02-01,Success,5,canary,9\r\n";

fn day(text: &str) -> Date {
    text.parse().unwrap()
}

async fn extract(client: &NiceClient) -> Result<Extraction, NiceError> {
    client.extract(day("2026-02-01"), day("2026-02-14")).await
}

async fn rows(client: &NiceClient) -> Result<Vec<ExtractedRow>, NiceError> {
    extract(client).await?.into_rows().try_collect().await
}

fn begun() -> Reply {
    answer(202, &[("Content-Type", "application/json")], "\"job-1\"")
}

fn succeeded(link: &str) -> Reply {
    json(format!(r#"{{"jobStatus":{{"id":"job-1","status":"SUCCEEDED","result":{{"url":"{link}"}}}}}}"#))
}

fn running() -> Reply {
    json(r#"{"jobStatus":{"id":"job-1","status":"RUNNING"}}"#)
}

/// The answer to a request about a job; none leaves it to the usual one.
type Api = fn(&Request) -> Option<Reply>;

/// A client, the object store, and a NICE that lists the file there.
struct Desk {
    rig: Rig,
    store: Fake,
}

impl Desk {
    async fn new(store: impl Fn(&Request) -> Reply + Send + Sync + 'static, api: Api) -> Self {
        Self::with(store, api, short()).await
    }

    async fn with(store: impl Fn(&Request) -> Reply + Send + Sync + 'static, api: Api, timeouts: Timeouts) -> Self {
        let store = Fake::start(store).await;
        let address = store.address;
        let handler = move |request: &Request| {
            api(request).unwrap_or_else(|| match (request.method.as_str(), request.path.as_str()) {
                ("POST", JOBS) => begun(),
                ("GET", JOB) => succeeded(&format!("http://{address}/{}.csv?sig={SECRET}", request.nth)),
                _ => status(500),
            })
        };
        let rig = Rig::with(handler, &[host(&store)], |_| {}, timeouts).await;
        Self { rig, store }
    }

    async fn rows(&self) -> Result<Vec<ExtractedRow>, NiceError> {
        rows(&self.rig.client).await
    }
}

fn file() -> Reply {
    answer(200, &[("Content-Type", "text/csv")], FILE)
}

#[tokio::test]
async fn a_listing_is_asked_for_and_read_without_the_budgets() {
    let desk = Desk::new(|_| file(), |_| None).await;
    let rows = desk.rows().await.unwrap();
    assert_eq!(rows.len(), 5);
    assert_eq!(rows.iter().filter(|row| row.is_err()).count(), 1);
    let seen = desk.rig.api.seen();
    let asked = seen.iter().find(|request| request.path == JOBS).unwrap();
    assert_eq!(asked.header("authorization"), format!("Bearer {}", token(1)));
    assert_eq!((asked.header("accept"), asked.header("content-type")), ("application/json", "application/json"));
    let sent: serde_json::Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(sent["entityName"], "recording-interaction-metadata");
    assert_eq!((&sent["startDate"], &sent["endDate"]), (&"2026-02-01".into(), &"2026-02-14".into()));
    assert_eq!(desk.rig.quota.count(), 0);
    assert_eq!(desk.rig.counted("extraction_file", "200"), 1);
}

#[tokio::test]
async fn the_bearer_never_reaches_the_object_store() {
    let desk = Desk::new(|_| file(), |_| None).await;
    desk.rows().await.unwrap();
    let seen = desk.store.seen();
    assert_eq!(seen.len(), 1);
    for name in ["authorization", "cookie", "referer"] {
        assert_eq!(seen[0].header(name), "", "{name}");
    }
}

#[tokio::test]
async fn segments_of_a_leg_are_one_leg_that_has_voice_in_the_end() {
    let desk = Desk::new(|_| file(), |_| None).await;
    let legs: Vec<ExtractedRow> = extract(&desk.rig.client).await.unwrap().into_legs().try_collect().await.unwrap();
    let legs: Vec<_> = legs.into_iter().flatten().map(|leg| (leg.contact_id.get(), leg.has_voice)).collect();
    assert_eq!(legs, [(7, false), (7, true), (9, true)]);
}

#[tokio::test]
async fn a_refusal_that_passes_is_waited_out() {
    let desk = Desk::new(|_| file(), |request| (request.path == JOBS && request.nth < 3).then(|| status(403))).await;
    assert_eq!(desk.rows().await.unwrap().len(), 5);
    assert_eq!(desk.rig.counted("extraction_begin", "403"), 3);
}

#[tokio::test]
async fn a_refusal_that_stays_names_both_remedies() {
    let desk = Desk::new(|_| file(), |request| (request.path == JOBS).then(|| status(403))).await;
    let Err(NiceError::Refused { what }) = desk.rows().await else { panic!("refused") };
    assert!(what.contains("permission Extract Interaction Metadata") && what.contains("another extraction"), "{what}");
    assert_eq!(desk.rig.counted("extraction_begin", "403"), 5);
}

#[tokio::test]
async fn a_job_that_ends_without_a_file_is_transient() {
    for word in ["FAILED", "CANCELLED", "EXPIRED"] {
        let api: Api = match word {
            "FAILED" => |request| {
                let body = r#"{"jobStatus":{"status":"FAILED","result":{"errorMessage":"canary"}}}"#;
                (request.path == JOB).then(|| json(body))
            },
            "CANCELLED" => |request| (request.path == JOB).then(|| json(r#"{"jobStatus":{"status":"CANCELLED"}}"#)),
            _ => |request| (request.path == JOB).then(|| json(r#"{"jobStatus":{"status":"EXPIRED"}}"#)),
        };
        let desk = Desk::new(|_| file(), api).await;
        let Err(NiceError::Transient { what, .. }) = desk.rows().await else { panic!("{word}") };
        assert_eq!(what, format!("extraction: NICE ended the job as {word}"));
    }
}

#[tokio::test]
async fn trouble_on_the_way_does_not_lose_the_job() {
    let trouble = [status(404), status(503), json("<html>"), status(429), running(), json(r#"{"status":"QUEUED"}"#)];
    let desk = Desk::new(
        |_| file(),
        |request| {
            let replies =
                [status(404), status(503), json("<html>"), status(429), running(), json(r#"{"status":"QUEUED"}"#)];
            (request.path == JOB).then(|| replies.get(request.nth).cloned()).flatten()
        },
    )
    .await;
    assert_eq!(desk.rows().await.unwrap().len(), 5);
    assert_eq!(desk.rig.api.count(JOB), trouble.len() + 1);
    assert_eq!(desk.rig.counted("extraction_begin", "202"), 1);
}

#[tokio::test]
async fn a_job_that_never_ends_is_given_up() {
    let timeouts = Timeouts { extraction_total: Duration::from_millis(50), ..short() };
    let desk = Desk::with(|_| file(), |request| (request.path == JOB).then(running), timeouts).await;
    let Err(NiceError::Transient { what, .. }) = desk.rows().await else { panic!("transient") };
    assert!(what.contains("not over in time"), "{what}");
}

#[tokio::test]
async fn a_token_revoked_midway_is_renewed() {
    for path in [JOBS, JOB] {
        let api: Api = if path == JOBS {
            |request| (request.path == JOBS && request.nth == 0).then(|| status(401))
        } else {
            |request| (request.path == JOB && request.nth == 0).then(|| status(401))
        };
        let desk = Desk::new(|_| file(), api).await;
        assert_eq!(desk.rows().await.unwrap().len(), 5, "{path}");
        let seen = desk.rig.api.seen();
        let last = seen.iter().rfind(|request| request.path == path).unwrap();
        assert_eq!(last.header("authorization"), format!("Bearer {}", token(2)));
    }
}

#[tokio::test]
async fn a_link_that_has_expired_is_replaced_once() {
    let desk = Desk::new(|request| if request.is("/0.csv") { status(403) } else { file() }, |_| None).await;
    assert_eq!(desk.rows().await.unwrap().len(), 5);
    let desk = Desk::new(|_| status(403), |_| None).await;
    let outcome = desk.rows().await;
    assert!(is_transient(&outcome), "{outcome:?}");
    assert_eq!(desk.store.seen().len(), 2);
}

#[tokio::test]
async fn a_link_to_another_host_is_refused_and_a_redirect_too() {
    let stranger = Fake::start(|_| file()).await;
    let target = format!("http://{}/x?sig={SECRET}", stranger.address);
    let link = target.clone();
    let store = Fake::start(|_| file()).await;
    let api = move |request: &Request| if request.path == JOBS { begun() } else { succeeded(&link) };
    let rig = Rig::with(api, &[host(&store)], |_| {}, short()).await;
    let Err(NiceError::Refused { what }) = rows(&rig.client).await else { panic!("refused") };
    assert!(what.contains("127.0.0.1") && what.contains("media_hosts") && !what.contains(SECRET), "{what}");

    let desk = Desk::new(move |_| answer(302, &[("Location", &target)], ""), |_| None).await;
    assert!(is_permanent(&desk.rows().await));
    assert!(stranger.seen().is_empty() && store.seen().is_empty());
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_told() {
    let cut = vec![Step::Send([head(200, &[("Content-Length", "9999")]), FILE.as_bytes().to_vec()].concat())];
    let endless = vec![Step::Send([head(200, &[]), FILE.as_bytes().to_vec()].concat())];
    for (reply, transient) in [
        (cut, true),
        (endless, true),
        (answer(200, &[("Content-Encoding", "gzip")], FILE), true),
        (answer(200, &[], ""), true),
        (answer(200, &[("Content-Type", "text/html")], "<html>canary</html>"), true),
        (answer(503, &[], ""), true),
        (answer(200, &[], "ACD Call ID,Agent 1 ACD ID,canary\n1,2,3\n"), false),
        (answer(200, &[], format!("{FILE}\"{}", "x".repeat(1 << 20))), false),
    ] {
        let desk = Desk::new(move |_| reply.clone(), |_| None).await;
        let outcome = desk.rows().await;
        let passing = is_transient(&outcome) || is_media(&outcome);
        assert_eq!((passing, is_permanent(&outcome)), (transient, !transient), "{outcome:?}");
        let shown = format!("{outcome:?}");
        assert!(!shown.contains("canary") && !shown.contains(SECRET), "{shown}");
    }
}

#[tokio::test]
async fn a_file_that_stalls_is_given_up() {
    let timeouts = Timeouts { media_idle: Duration::from_millis(50), ..short() };
    let stalled = |_: &Request| {
        vec![Step::Send([head(200, &[("Content-Length", "9999")]), FILE.as_bytes().to_vec()].concat()), Step::Stall]
    };
    let desk = Desk::with(stalled, |_| None, timeouts).await;
    let mut rows = std::pin::pin!(extract(&desk.rig.client).await.unwrap().into_rows());
    for _ in 0..5 {
        rows.try_next().await.unwrap();
    }
    assert!(is_media(&rows.try_next().await));
    assert!(matches!(rows.try_next().await, Ok(None)), "nothing comes after an error");
}

#[tokio::test]
async fn an_endless_file_is_read_with_one_row_in_memory() {
    let chunk = b"10000\r\n".iter().copied().chain(std::iter::repeat_n(b'x', 65_536)).chain(*b"\r\n").collect();
    let start = Step::Send(head(200, &[("Transfer-Encoding", "chunked")]));
    let reply = vec![start, Step::Endless(chunk)];
    let desk = Desk::new(move |_| reply.clone(), |_| None).await;
    assert!(is_permanent(&desk.rows().await));
    assert!(desk.store.sent() < 64 << 20, "{} bytes", desk.store.sent());
}

#[tokio::test]
async fn a_range_that_is_too_long_or_reversed_sends_nothing() {
    let desk = Desk::new(|_| file(), |_| None).await;
    for (first, last) in [("2026-02-01", "2026-02-15"), ("2026-02-02", "2026-02-01")] {
        assert!(is_permanent(&desk.rig.client.extract(day(first), day(last)).await));
    }
    assert!(desk.rig.api.seen().is_empty());
}

#[tokio::test]
async fn a_missing_interface_is_a_matter_for_a_person() {
    let desk = Desk::new(|_| file(), |request| (request.path == JOBS).then(|| status(404))).await;
    assert!(is_refused(&desk.rows().await));
}

/// The pace of the simulations here, and of the clients that keep to it.
const PACE: Duration = Duration::from_millis(300);

fn quick(config: &mut SimConfig) {
    config.extraction.pace = PACE;
    config.extraction.job_time = Duration::from_millis(100);
}

async fn sim(change: impl FnOnce(&mut SimConfig)) -> Sim {
    let mut config = SimConfig::default();
    quick(&mut config);
    change(&mut config);
    Sim::start(config).await.unwrap()
}

/// A client of the simulation, with a pace of its own.
async fn client_of(sim: &Sim) -> NiceClient {
    let nowhere = Fake::start(|_| status(500)).await;
    let media: MediaHost = sim.host().parse().unwrap();
    let mut settings = settings(&nowhere, &[media]);
    let root: reqwest::Url = sim.base_url().parse().unwrap();
    settings.auth = Auth::AccessKey {
        access_key_id: sim.config().tenant.access_key_id.clone(),
        access_key_secret: SecretString::from(sim.config().tenant.access_key_secret.clone()),
    };
    (settings.issuer, settings.acd_url, settings.facade_url) = (root.clone(), Some(root.clone()), Some(root));
    let timeouts = Timeouts {
        extraction_pace: PACE,
        extraction_poll: Duration::from_millis(20),
        renewal_delay: Duration::from_millis(1),
        ..short()
    };
    let (quota, metrics) = (std::sync::Arc::new(Counting::default()), NiceMetrics::default());
    NiceClient::new(settings, nice::Network::Internet, quota, metrics, nice::NiceHealth::default(), timeouts).unwrap()
}

fn days_ago(days: i64) -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date().saturating_sub(SignedDuration::from_hours(24 * days))
}

/// The legs of calls of 50 to 40 days ago.
async fn old_legs(client: &NiceClient) -> Result<Vec<ExtractedLeg>, NiceError> {
    let legs: Vec<ExtractedRow> = client.extract(days_ago(51), days_ago(39)).await?.into_legs().try_collect().await?;
    Ok(legs.into_iter().map(Result::unwrap).collect())
}

fn old_calls(sim: &Sim) {
    let agents = sim.agents();
    for call in 0..60_i64 {
        let at = call as usize % (agents.len() - 2);
        let hours = -24 * 40 - call * 4;
        let spec = CallSpec::transferred(&agents[at..=at + call as usize % 3]);
        let never_recorded = call % 7 == 0;
        sim.add_call(CallSpec { never_recorded, ..spec.hang_up_in(SignedDuration::from_hours(hours)) });
    }
}

#[tokio::test]
async fn a_simulated_past_is_listed_whole() {
    for faults in [Faults::none(), Faults { server_errors: 0.1, token_revoked: 0.1, ..Faults::none() }] {
        let sim = sim(|config| config.faults = faults).await;
        old_calls(&sim);
        let client = client_of(&sim).await;
        let mut legs = old_legs(&client).await;
        while is_transient(&legs) || is_media(&legs) {
            legs = old_legs(&client).await;
        }
        let found: BTreeMap<i64, ExtractedLeg> =
            legs.unwrap().into_iter().map(|leg| (leg.contact_id.get() as i64, leg)).collect();
        let truth = sim.truth();
        assert_eq!(found.len(), truth.len());
        for leg in truth {
            let row = found[&leg.contact_id];
            assert_eq!(row.master_contact_id.get() as i64, leg.master_contact_id);
            assert_eq!(row.agent_id.unwrap().get() as i64, leg.agent_id);
            assert_eq!(row.has_voice, !leg.recordings.is_empty());
            assert!(
                (leg.started_at.as_second()..leg.ended_at.as_second()).contains(&row.started_at.unwrap().as_second())
            );
        }
        assert!(sim.violations().is_empty(), "{:?}", sim.violations());
    }
}

#[tokio::test]
async fn callers_of_one_client_are_never_refused() {
    let sim = sim(|_| {}).await;
    let client = client_of(&sim).await;
    let outcomes = futures::future::join_all((0..3).map(|_| old_legs(&client))).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(sim.requests()["extraction-begin"], BTreeMap::from([(202, 3)]));
}

#[tokio::test]
async fn two_clients_get_their_turn_one_after_the_other() {
    let sim = sim(|_| {}).await;
    let (one, other) = (client_of(&sim).await, client_of(&sim).await);
    let (one, other) = futures::future::join(old_legs(&one), old_legs(&other)).await;
    assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
    assert_eq!(sim.requests()["extraction-begin"][&202], 2);
}

#[tokio::test]
async fn a_simulated_failure_is_told_as_what_it_is() {
    let refused = sim(|config| config.extraction.permitted = false).await;
    assert!(is_refused(&old_legs(&client_of(&refused).await).await));
    let failed = sim(|config| config.extraction.outcome = ExtractionOutcome::Failed).await;
    assert!(is_transient(&old_legs(&client_of(&failed).await).await));
    let expired = sim(|config| config.extraction.link_ttl = Duration::ZERO).await;
    assert!(is_transient(&old_legs(&client_of(&expired).await).await));
    let foreign = sim(|config| config.faults = Faults { foreign_media_link: 1.0, ..Faults::none() }).await;
    assert!(is_refused(&old_legs(&client_of(&foreign).await).await));
    assert!(foreign.violations().is_empty(), "{:?}", foreign.violations());
}
