//! What the client makes of NICE's answers, good and bad.

use std::io::Write;
use std::time::{Duration, Instant};

use flate2::{Compression, write::GzEncoder};
use model::{ApiFamily, ContactId, QuotaClass};
use nice::{CompletedFilter, CompletedQuery, GroupKind, GroupReading, NiceError};

use crate::fake::{Step, answer, head, json, status};
use crate::rig::{Rig, SECRET, is_not_ready, is_odd, is_permanent, is_refused, is_transient, short};

fn seven() -> ContactId {
    ContactId::from_number(7).unwrap()
}

fn query() -> CompletedQuery {
    let since = "2026-04-01T00:00:00Z".parse().unwrap();
    CompletedQuery { filter: CompletedFilter::UpdatedSince(since), top: 2, skip: 0, next: None }
}

#[tokio::test]
async fn each_status_says_what_now() {
    for (code, fits) in [
        (204, is_not_ready as fn(&Result<_, NiceError>) -> bool),
        (301, is_transient),
        (302, is_transient),
        (400, is_odd),
        (403, is_refused),
        (404, is_not_ready),
        (406, is_odd),
        (408, is_transient),
        (500, is_transient),
        (503, is_transient),
    ] {
        let rig = Rig::contact(answer(code, &[("Location", "http://127.0.0.1:1/")], "")).await;
        let outcome = rig.client.contact(seven()).await;
        assert!(fits(&outcome), "{code}: {outcome:?}");
        assert_eq!(rig.counted("contact", &code.to_string()), 1);
    }
}

#[tokio::test]
async fn a_wait_is_honoured_up_to_five_minutes_and_nonsense_is_absent() {
    for (header, expected) in [
        ("7", Some(7.0)),
        ("99999999999999999999999999", Some(300.0)),
        ("Fri, 31 Dec 2999 23:59:59 GMT", Some(300.0)),
        ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0.0)),
        ("22.5", Some(22.5)),
        ("120, 60", Some(120.0)),
        ("\"60\"", Some(60.0)),
        ("60\r\nRetry-After: 120", Some(120.0)),
        ("Sunday, 06-Nov-94 08:49:37 GMT", Some(0.0)),
        ("Sun Nov  6 08:49:37 1994", Some(0.0)),
        ("-5", None),
        ("30 s", None),
        ("soon", None),
        ("", None),
    ] {
        let rig = Rig::contact(answer(429, &[("Retry-After", header)], "")).await;
        let answer = rig.client.contact(seven()).await;
        let Err(NiceError::Quota { retry_after: Some(wait), .. }) = answer else { panic!("{answer:?}") };
        assert!(wait >= Duration::from_secs(1) && wait <= Duration::from_secs(60), "{header}: {wait:?}");
        let told = rig.quota.refusals.lock().unwrap().clone();
        assert_eq!(told, [expected.map(Duration::from_secs_f64)], "the budget learns of it: {header}");
    }
}

#[tokio::test]
async fn many_headers_are_no_outage() {
    let names: Vec<_> = (0..900).map(|n| format!("X-Proxy-{n}")).collect();
    let headers: Vec<_> = names.iter().map(|name| (name.as_str(), "via")).collect();
    let rig = Rig::contact(answer(200, &headers, r#"{"contactId":7}"#)).await;
    rig.client.contact(seven()).await.expect("an answer with many headers is an answer");
}

#[tokio::test]
async fn a_header_that_is_none_costs_itself_and_not_the_answer() {
    let odd = [("X-Trace ", "a"), ("X-Long", "a\r\n b"), ("X[odd]", "a"), ("X-Bytes", "\u{1}"), ("Retry-After ", "30")];
    let rig = Rig::contact(answer(200, &odd, r#"{"contactId":7}"#)).await;
    rig.client.contact(seven()).await.expect("an answer with odd headers is an answer");
    let rig = Rig::contact(answer(503, &odd, "")).await;
    let Err(NiceError::Transient { retry_after, .. }) = rig.client.contact(seven()).await else { panic!("no 503") };
    assert_eq!(retry_after, Some(Duration::from_secs(30)));
}

#[tokio::test]
async fn an_answer_may_have_a_mark_in_front_and_words_for_no_number() {
    let rig = Rig::contact(json(b"\xef\xbb\xbf{\"contactId\":7,\"agentId\":5,\"holdSeconds\":NaN}\0")).await;
    let contact = rig.client.contact(seven()).await.unwrap();
    assert_eq!(contact.agent_id.map(model::AgentId::get), Some(5));
}

#[tokio::test]
async fn each_request_goes_on_the_account_of_its_clients_class() {
    let rig = Rig::contact(json(r#"{"contactId":7}"#)).await;
    for class in QuotaClass::ALL {
        rig.client.for_class(class).contact(seven()).await.unwrap();
    }
    rig.client.contact(seven()).await.unwrap();
    let classes = QuotaClass::ALL.into_iter().chain([QuotaClass::Live]);
    let expected: Vec<_> = classes.map(|class| (ApiFamily::Acd, class)).collect();
    assert_eq!(*rig.quota.admitted.lock().unwrap(), expected);
    assert!(
        rig.quota
            .accounts
            .lock()
            .unwrap()
            .iter()
            .all(|account| account.as_deref().is_some_and(|account| account.ends_with("/11ee-tenant")))
    );
}

#[tokio::test]
async fn what_is_no_json_is_transient_and_named() {
    for (body, expected) in [
        ("<html><body>Maintenance</body></html>", "HTML instead of JSON"),
        ("{\"contactId\":7,", "not JSON"),
        ("", "empty body"),
        ("{}", "unknown shape"),
    ] {
        let rig = Rig::contact(answer(200, &[("Content-Type", "text/html")], body)).await;
        let Err(NiceError::Transient { what, .. }) = rig.client.contact(seven()).await else { panic!("{body}") };
        assert!(what.contains(expected), "{what}");
    }
    let cut = vec![Step::Send([head(200, &[("Content-Length", "100")]), b"{\"contactId\":7}".to_vec()].concat())];
    let rig = Rig::contact(cut).await;
    assert!(is_transient(&rig.client.contact(seven()).await));
    assert_eq!(rig.counted("contact", "broken"), 1);
    let another = Rig::contact(json("{\"contactId\":8}")).await;
    assert!(is_transient(&another.client.contact(seven()).await));
    let odd = Rig::contact(json("{\"contactId\":\"../7\"}")).await;
    assert!(is_permanent(&odd.client.contact(seven()).await));
}

#[tokio::test]
async fn an_endless_body_is_cut_at_the_cap() {
    let mut chunk = vec![b' '; 64 * 1024];
    chunk[0] = b'[';
    let framed = [format!("{:x}\r\n", chunk.len()).into_bytes(), chunk, b"\r\n".to_vec()].concat();
    let endless = vec![Step::Send(head(200, &[("Transfer-Encoding", "chunked")])), Step::Endless(framed)];
    let rig = Rig::contact(endless).await;
    assert!(is_odd(&rig.client.contact(seven()).await));
    assert!(is_too_much(&rig.client.completed(&query()).await));
    // The caps of both endpoints, and what the two sockets hold.
    assert!(rig.api.sent() < (1 + 32 + 32) << 20, "{} bytes were taken", rig.api.sent());
    let announced = vec![Step::Send(head(200, &[("Content-Length", "1000000000")])), Step::Stall];
    let rig = Rig::contact(announced).await;
    assert!(is_odd(&rig.client.contact(seven()).await), "refused by its length alone");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn gzip_is_unpacked_and_a_bomb_is_not() {
    let packed = |body: &[u8]| answer(200, &[("Content-Encoding", "gzip")], gzip(body));
    let rig = Rig::contact(packed(b"{\"contactId\":7}")).await;
    assert_eq!(rig.client.contact(seven()).await.unwrap().contact_id, seven());
    assert_eq!(rig.api.seen()[1].header("accept-encoding"), "gzip");
    let bomb = Rig::contact(packed(&vec![b' '; 200 << 20])).await;
    assert!(is_too_much(&bomb.client.completed(&query()).await));
    assert!(is_odd(&bomb.client.contact(seven()).await));
    let cut = gzip(b"{\"contactId\":7}");
    let damaged = Rig::contact(answer(200, &[("Content-Encoding", "gzip")], &cut[..cut.len() - 1])).await;
    assert!(is_transient(&damaged.client.contact(seven()).await));
    // A proxy that packs or unpacks, and leaves the header as it was.
    let mut plain = Rig::contact(answer(200, &[("Content-Encoding", "gzip")], "{\"contactId\":7}")).await;
    plain.client.contact(seven()).await.unwrap();
    plain = Rig::contact(answer(200, &[], gzip(b"{\"contactId\":7}"))).await;
    plain.client.contact(seven()).await.unwrap();
    let other = Rig::contact(answer(200, &[("Content-Encoding", "br")], "{\"contactId\":7}")).await;
    assert!(is_transient(&other.client.contact(seven()).await));
}

#[tokio::test]
async fn silence_ends_in_time() {
    for silent in [vec![Step::Stall], vec![Step::Send(head(200, &[("Content-Length", "9")])), Step::Stall]] {
        let mut timeouts = short();
        timeouts.api = Duration::from_millis(200);
        let handler = move |_: &_| silent.clone();
        let rig = Rig::with(handler, &[], |_| {}, timeouts).await;
        let began = Instant::now();
        assert!(is_transient(&rig.client.contact(seven()).await));
        assert!(began.elapsed() < Duration::from_secs(15));
        assert_eq!(rig.counted("contact", "timeout"), 1);
    }
}

#[tokio::test]
async fn completed_contacts_come_in_pages() {
    let rig = Rig::new(|request| {
        if request.path.contains("skip=2") {
            return status(204);
        }
        let next =
            format!("http://{}/inContactAPI/services/v33.0/contacts/completed?skip=2&x=1", request.header("host"));
        json(format!(
            r#"{{"totalRecords":3,"lastPollTime":"2026-04-01T01:00:00Z","_links":{{"next":"{next}"}},
               "completedContacts":[{{"contactId":7,"contactStartDate":"2026-04-01T00:00:00Z"}},{{"contactId":"x"}}]}}"#
        ))
    })
    .await;
    let page = rig.client.completed(&query()).await.unwrap();
    assert_eq!((page.contacts.len(), page.total, page.refused_next), (2, Some(3), false));
    assert!(page.contacts[0].is_ok() && page.contacts[1].is_err());
    let last = rig.client.completed(&CompletedQuery { next: page.next, ..query() }).await.unwrap();
    assert!(last.contacts.is_empty() && last.next.is_none() && !last.refused_next);
    let paths = rig.api.seen().into_iter().map(|request| request.path).collect::<Vec<_>>();
    assert!(paths[1].contains("updatedSince=2026-04-01T00%3A00%3A00Z&mediaTypeId=4&"), "{}", paths[1]);
    assert!(paths.iter().any(|path| path.ends_with("?skip=2&x=1")), "followed as it was sent");
}

fn is_too_much<T>(answer: &Result<T, NiceError>) -> bool {
    matches!(answer, Err(NiceError::TooMuch { .. }))
}

#[tokio::test]
async fn whole_rows_are_asked_for_where_chosen_fields_are_refused_or_of_no_use() {
    const ROW: &str = r#"{"contactId":7,"contactStartDate":"2026-04-01T00:00:00Z","holdCount":0}"#;
    for of_chosen in [status(400), json(r#"{"completedContacts":[{},{}]}"#)] {
        let rig = Rig::new(move |request| match request.path.contains("fields=") {
            true => of_chosen.clone(),
            false => json(format!(r#"{{"completedContacts":[{ROW}]}}"#)),
        })
        .await;
        for _ in 0..3 {
            assert_eq!(rig.client.completed(&query()).await.unwrap().contacts.len(), 1);
        }
        let asked = rig.api.seen().into_iter().filter(|request| request.path.contains("fields=")).count();
        assert_eq!(asked, 1, "it is learned");
    }
    // What is refused either way says nothing of the fields.
    let rig = Rig::new(|_| status(400)).await;
    assert!(is_too_much(&rig.client.completed(&query()).await));
}

#[tokio::test]
async fn the_choice_of_fields_is_taken_only_once_nothing_is_missing_of_it() {
    const WHOLE: &str = r#"{"contactId":7,"contactStartDate":"2026-04-01T00:00:00Z","totalDurationSeconds":60,
        "agentId":9,"lastUpdateTime":"2026-04-01T00:02:00Z"}"#;
    let without_agent = WHOLE.replace("\"agentId\":9,", "");
    // What is missing either way proves nothing; what only the choice leaves out, proves enough.
    for (chosen, whole, takes_fields) in [
        (WHOLE.to_owned(), WHOLE.to_owned(), vec![true, true, true]),
        (without_agent.clone(), WHOLE.to_owned(), vec![true, false, false]),
        (without_agent.clone(), without_agent, vec![true, true, true]),
    ] {
        let given = whole.clone();
        let rig = Rig::new(move |request| {
            let row = if request.path.contains("fields=") { &chosen } else { &whole };
            json(format!(r#"{{"completedContacts":[{row}]}}"#))
        })
        .await;
        for asks in takes_fields {
            let before = rig.api.seen().len();
            let page = rig.client.completed(&query()).await.unwrap();
            assert_eq!(page.contacts[0].as_ref().unwrap().agent_id.is_some(), given.contains("agentId"));
            let asked = rig.api.seen()[before..].iter().any(|request| request.path.contains("fields="));
            assert_eq!(asked, asks, "{given}");
        }
    }
}

#[tokio::test]
async fn a_link_to_another_host_is_never_followed() {
    for link in [
        "http://evil.example/x",
        "http://127.0.0.1:1/x",
        "https://127.0.0.1/x",
        "http://user@HOST/x",
        "/inContactAPI/services/v33.0/contacts/completed?skip=2",
        "nonsense",
    ] {
        let rig = Rig::new(move |request| {
            let link = link.replace("HOST", request.header("host"));
            let row = r#"{"contactId":7,"contactStartDate":"2026-04-01T00:00:00Z"}"#;
            json(format!(r#"{{"_links":{{"next":"{link}"}},"completedContacts":[{row}]}}"#))
        })
        .await;
        let page = rig.client.completed(&query()).await.unwrap();
        assert!(page.refused_next && page.next.is_none(), "{link}");
        assert!(rig.counted("completed", "refused_next") > 0);
    }
}

#[tokio::test]
async fn a_recording_that_is_not_there_yet_is_not_ready() {
    for reply in [
        status(404),
        status(204),
        status(200),
        json("{}"),
        json(r#"{"contactId":"u","interactions":[]}"#),
        json(r#"{"interactions":[{"mediaType":"chat","data":{}}]}"#),
    ] {
        let rig = Rig::new(move |_| reply.clone()).await;
        assert!(is_not_ready(&rig.client.contact_playback(seven()).await));
        assert!(is_not_ready(&rig.client.segment_playback(&"s-1".parse().unwrap()).await));
    }
}

#[tokio::test]
async fn playback_is_asked_for_voice_alone() {
    let rig = Rig::new(|_| json(r#"{"interactions":[{"mediaType":"voice-only","data":{}}]}"#)).await;
    let playback = rig.client.contact_playback(seven()).await.unwrap();
    assert!(playback.interactions[0].link.is_none());
    rig.client.segment_playback(&"s-1".parse().unwrap()).await.unwrap();
    let paths = rig.api.seen().into_iter().map(|request| request.path).collect::<Vec<_>>();
    assert_eq!(
        paths[1],
        "/media-playback/v1/contacts?acd-call-id=7&media-type=voice-only&exclude-waveforms=true\
         &exclude-qm-categories=true&isDownload=false"
    );
    assert_eq!(
        paths[2],
        "/media-playback/v1/segments/s-1?media-type=voice-only&exclude-waveforms=true&exclude-qm-categories=true"
    );
}

#[tokio::test]
async fn legs_of_a_call() {
    let rig = Rig::contact(json(r#"{"masterContactId":6,"childContacts":[{"contactId":7}]}"#)).await;
    assert_eq!(rig.client.legs(seven()).await.unwrap().len(), 2);
    assert_eq!(rig.api.seen()[1].path, "/inContactAPI/services/v33.0/contacts/7/hierarchy");
    assert!(Rig::contact(status(204)).await.client.legs(seven()).await.unwrap().is_empty());
    assert!(is_not_ready(&Rig::contact(status(404)).await.client.legs(seven()).await));
}

const GROUPS: &str =
    r#"{"totalRecords":2,"groups":[{"groupId":11,"groupName":"Other"},{"groupId":12,"groupName":"Knovvu"}]}"#;

/// Agents `from..to` of a group of `total`.
fn agents(from: usize, to: usize, total: usize, next: &str) -> String {
    let rows = (from..to).map(|id| format!("{{\"agentId\":{}}}", id + 1)).collect::<Vec<_>>().join(",");
    format!("{{\"totalRecords\":{total},\"_links\":{{\"next\":{next}}},\"agents\":[{rows}]}}")
}

fn number(path: &str, name: &str) -> usize {
    let (_, rest) = path.split_once(&format!("{name}=")).unwrap();
    rest.split('&').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_group_is_read_to_its_end() {
    let by_skip = |request: &crate::fake::Request| {
        if request.path.contains("/agents") {
            let skip = number(&request.path, "skip");
            if skip >= 250 { status(204) } else { json(agents(skip, (skip + 100).min(250), 250, "null")) }
        } else {
            json(GROUPS)
        }
    };
    let rig = Rig::new(by_skip).await;
    let reading = rig.client.group_agents().await.unwrap();
    assert_eq!((reading.agents.len(), reading.group_id.as_str()), (250, "12"));
    let of_group = "/inContactAPI/services/v33.0/groups/12/agents?assigned=true";
    assert!(rig.api.seen().iter().any(|request| request.path.starts_with(of_group)));

    let total_of_page = |request: &crate::fake::Request| {
        if !request.path.contains("/agents") {
            return json(GROUPS);
        }
        let skip = number(&request.path, "skip");
        if skip >= 250 { status(204) } else { json(agents(skip, (skip + 100).min(250), 100, "null")) }
    };
    assert_eq!(Rig::new(total_of_page).await.client.group_agents().await.unwrap().agents.len(), 250);

    let by_link = |request: &crate::fake::Request| {
        if !request.path.contains("/agents") {
            return json(GROUPS);
        }
        let page = request.path.split_once("page=").map_or(0, |(_, page)| page.parse::<usize>().unwrap());
        let next = format!("\"http://{}/x/agents?page={}\"", request.header("host"), page + 1);
        // A total that counts one page only does not end the list while there is a link.
        json(agents(page * 2, page * 2 + 2, 2, if page == 2 { "null" } else { &next }))
    };
    assert_eq!(Rig::new(by_link).await.client.group_agents().await.unwrap().agents.len(), 6);

    let elsewhere = |request: &crate::fake::Request| {
        if request.path.contains("/agents") {
            let skip = number(&request.path, "skip");
            json(agents(skip, (skip + 2).min(6), 6, "\"http://evil.example/\""))
        } else {
            json(GROUPS)
        }
    };
    let rig = Rig::new(elsewhere).await;
    assert_eq!(rig.client.group_agents().await.unwrap().agents.len(), 6, "paged on by skip");
    rig.client.check().await.unwrap();
}

async fn whole_reading_of(agents: crate::fake::Reply) -> Result<GroupReading, NiceError> {
    let rig =
        Rig::new(move |request| if request.path.contains("/agents") { agents.clone() } else { json(GROUPS) }).await;
    rig.client.group_agents().await
}

async fn reading_of(agents: crate::fake::Reply) -> Result<usize, NiceError> {
    whole_reading_of(agents).await.map(|reading| reading.agents.len())
}

#[tokio::test]
async fn agents_whom_nice_hides_or_counts_and_does_not_name_are_told() {
    let told = async |agents| {
        let reading = whole_reading_of(agents).await.unwrap();
        (reading.agents.len(), reading.hidden, reading.no_content)
    };
    assert_eq!(told(json(agents(0, 2, 2, "null"))).await, (2, 0, false));
    assert_eq!(told(json(r#"{"agents":[{"agentId":1}],"totalRecords":1,"hiddenAgents":5}"#)).await, (1, 5, false));
    assert_eq!(told(json(r#"{"agents":[],"totalRecords":5,"hiddenAgents":5}"#)).await, (0, 5, false));
    assert_eq!(told(json(r#"{"agents":[],"hiddenAgents":"7"}"#)).await, (0, 7, false));
    assert_eq!(told(json(r#"{"agents":[],"hiddenAgents":-7}"#)).await, (0, 0, false));
    assert_eq!(told(status(204)).await, (0, 0, true));

    let above = |request: &crate::fake::Request| match request.path.contains("/agents") {
        true if number(&request.path, "skip") > 0 => status(204),
        true => json(agents(0, 2, 5, "null").replacen('{', "{\"hiddenAgents\":1,", 1)),
        false => json(GROUPS),
    };
    let reading = Rig::new(above).await.client.group_agents().await.unwrap();
    assert_eq!((reading.agents.len(), reading.hidden, reading.missing), (2, 1, 2));
}

#[tokio::test]
async fn a_broken_list_is_an_error_and_an_empty_group_is_not() {
    assert_eq!(reading_of(status(204)).await, Ok(0));
    assert_eq!(reading_of(json(agents(0, 0, 0, "null"))).await, Ok(0));
    assert_eq!(reading_of(json("{\"agents\":[{\"agentId\":1}]}")).await, Ok(1), "a server that ignores paging");
    assert!(is_transient(&reading_of(json(agents(0, 2, 3, "null"))).await), "and that has more than it gives");
    assert!(is_transient(&reading_of(json("{}")).await));
    assert!(is_permanent(&reading_of(json("{\"agents\":[{\"agentId\":\"a/b\"}]}")).await));
    assert!(is_transient(&reading_of(json("<html>")).await));
    assert!(is_transient(&reading_of(status(500)).await));
    assert!(is_permanent(&reading_of(status(404)).await));
}

#[tokio::test]
async fn pages_that_go_in_a_circle_end() {
    let circle = |request: &crate::fake::Request| {
        if request.path.contains("/agents") {
            let next = format!("\"http://{}{}\"", request.header("host"), request.path.replace('&', "\\u0026"));
            json(format!("{{\"agents\":[{{\"agentId\":1}}],\"_links\":{{\"next\":{next}}}}}"))
        } else {
            json(GROUPS)
        }
    };
    let rig = Rig::new(circle).await;
    assert!(is_transient(&rig.client.group_agents().await));
    let endless = |request: &crate::fake::Request| {
        if !request.path.contains("/agents") {
            return json(GROUPS);
        }
        let skip = number(&request.path, "skip");
        json(agents(skip, skip + 1, usize::from(u16::MAX), "null"))
    };
    let rig = Rig::new(endless).await;
    assert!(is_transient(&rig.client.group_agents().await));
    assert_eq!(rig.api.count("/inContactAPI/services/v33.0/groups/12/agents"), 1_000);
}

#[tokio::test]
async fn an_unknown_group_is_an_error() {
    let rig = Rig::new(|_| status(204)).await;
    assert!(is_permanent(&rig.client.group_agents().await));
}

#[tokio::test]
async fn a_team_is_read_from_its_nest() {
    let handler = |request: &crate::fake::Request| {
        if !request.path.contains("/agents") {
            return json(r#"{"totalRecords":1,"teams":[{"teamId":5,"teamName":"Knovvu"}]}"#);
        }
        let skip = number(&request.path, "skip");
        let rows = (skip..(skip + 50).min(120)).map(|id| format!("{{\"agentId\":\"{}\"}}", id + 1)).collect::<Vec<_>>();
        json(format!(r#"{{"totalRecords":1,"teams":[{{"teamId":5,"agents":[{}]}}]}}"#, rows.join(",")))
    };
    let rig = Rig::with(handler, &[], |settings| settings.group.kind = GroupKind::Team, short()).await;
    let reading = rig.client.group_agents().await.unwrap();
    assert_eq!((reading.agents.len(), reading.group_id.as_str()), (120, "5"));
}

#[tokio::test]
async fn nothing_that_is_secret_is_told() {
    for code in [400, 401, 403, 404, 429, 500, 302, 200] {
        let rig = Rig::contact(answer(code, &[("icStatusDescription", SECRET), ("Location", SECRET)], SECRET)).await;
        let error = rig.client.contact(seven()).await.unwrap_err();
        let told = format!("{error} {error:?} {:?} {}", rig.client, rig.page.render());
        assert!(!told.contains(SECRET), "{told}");
        assert!(!told.contains(&crate::rig::token(1)), "{told}");
    }
}
