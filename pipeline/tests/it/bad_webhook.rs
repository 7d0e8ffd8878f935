//! Hostile and clumsy senders at the webhook: refused by the book, and never in the way of a good one.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use nice_sim::{CallSpec, Faults};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Bed, Daemon, PATIENCE, WEBHOOK_SECRET, http_client, hurried, post_event, tail};
use crate::oracle;

const KIB: usize = 1024;

/// A bed whose calls are known to the webhook alone, and its daemon.
async fn listening(seed: u64) -> (Bed, SocketAddr, Daemon) {
    let mut bed = Bed::new(hurried(seed, 0)).await;
    let receiver = bed.with_webhook();
    bed.set("EVENTS__POLL", "false");
    let mut daemon = bed.start();
    daemon.ready().await;
    (bed, receiver, daemon)
}

/// A call that ends now, as a body.
fn call(bed: &Bed) -> (i64, String) {
    let id = bed.sim.add_call(CallSpec::new(bed.sim.group(1001)[0])).contact_ids[0];
    (id, format!(r#"{{"contactId":"{id}"}}"#))
}

/// A post with these headers, byte for byte; the status, if there is an answer.
async fn raw(receiver: SocketAddr, head: &str, body: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(receiver).await.ok()?;
    stream.write_all(head.as_bytes()).await.ok()?;
    // The answer may come, and the connection end, before the body is through.
    drop(stream.write_all(body).await);
    status(&mut stream).await
}

async fn status(stream: &mut TcpStream) -> Option<u16> {
    let mut answer = Vec::new();
    let reading = async {
        let mut piece = [0; 512];
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read(&mut piece).await {
                Ok(0) | Err(_) => break,
                Ok(length) => answer.extend_from_slice(&piece[..length]),
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("an answer, or the end of the connection");
    String::from_utf8_lossy(&answer).split(' ').nth(1)?.parse().ok()
}

fn head(authorization: &str, length: usize) -> String {
    format!("POST /nice/events/contact-ended HTTP/1.1\r\nhost: x\r\n{authorization}content-length: {length}\r\n\r\n")
}

fn bearer(secret: &str) -> String {
    format!("authorization: Bearer {secret}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_post_has_its_answer_and_leaves_nothing() {
    let (bed, receiver, mut daemon) = listening(101).await;
    let padded = |length: usize| {
        let (open, close) = (r#"{"contactId":0,"pad":""#, r#""}"#);
        format!("{open}{}{close}", "x".repeat(length - open.len() - close.len()))
    };
    let id = |value: &str| format!(r#"{{"contactId":{value}}}"#);
    let malformed = [
        String::new(),
        "{".to_owned(),
        r#"{"contactId":1"#.to_owned(),
        "<html><body>maintenance</body></html>".to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        "698800000001".to_owned(),
        id("null"),
        id("true"),
        id("[1]"),
        id("0"),
        id("-1"),
        id("1.5"),
        id("1e3"),
        id("12345678901234567890"),
        id("1234567890123456789012345678901234567890"),
        id(r#""""#),
        id(r#""../x""#),
        id(r#"" 1""#),
        id(r#""+1""#),
        id(r#""0""#),
        id(r#""-1""#),
        id(r#""1.5""#),
        id(r#""12345678901234567890""#),
        id(r#""1\u0000""#),
        id("\"1\0\""),
        id(r#""١٢٣""#),
        r#"{"contactId":1,"contactId":2}"#.to_owned(),
        r#"{"contactid":1}"#.to_owned(),
        r#"{"contactId":1} {"contactId":2}"#.to_owned(),
        r#"{"contactId":1,"agentId":"x"}"#.to_owned(),
        r#"{"contactId":1,"endedAt":"yesterday"}"#.to_owned(),
        format!(r#"{{"contactId":1,"deep":{}"#, "[".repeat(16 * KIB)),
        id(&format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000))),
        id(&r#"{"a":"#.repeat(5_000)),
        padded(32 * KIB),
    ];
    for body in &malformed {
        let answer = post_event(receiver, body.clone()).await;
        assert_eq!(answer, Some(400), "{:.100}", body.escape_debug().to_string());
    }
    assert_eq!(post_event(receiver, vec![0xff, 0xfe, 0]).await, Some(400));
    assert_eq!(post_event(receiver, padded(32 * KIB + 1)).await, Some(413));
    assert_eq!(post_event(receiver, padded(33 * KIB)).await, Some(413));

    let (unseen, body) = call(&bed);
    let longer = format!("{WEBHOOK_SECRET}x");
    let equal = "x".repeat(WEBHOOK_SECRET.len());
    for authorization in [
        String::new(),
        "authorization: Bearer\r\n".to_owned(),
        "authorization: Bearer \r\n".to_owned(),
        format!("authorization: Basic {WEBHOOK_SECRET}\r\n"),
        format!("authorization: {WEBHOOK_SECRET}\r\n"),
        bearer("x"),
        bearer(&equal),
        bearer(&longer),
        bearer(&WEBHOOK_SECRET[1..]),
        bearer(&WEBHOOK_SECRET.to_uppercase()),
        "authorization: Bearer \u{fc}\r\n".to_owned(),
    ] {
        let answer = raw(receiver, &head(&authorization, body.len()), body.as_bytes()).await;
        assert_eq!(answer, Some(401), "{authorization}");
    }
    // A stranger's body is not even read.
    assert_eq!(raw(receiver, &head("", 1 << 40), b"").await, Some(401));
    assert_eq!(raw(receiver, &head(&bearer(WEBHOOK_SECRET), 1 << 40), b"").await, Some(413));
    let chunked = format!(
        "POST /nice/events/contact-ended HTTP/1.1\r\nhost: x\r\n{}transfer-encoding: chunked\r\n\r\n",
        bearer(WEBHOOK_SECRET)
    );
    let endless = format!("10000\r\n{}\r\n", "x".repeat(64 * KIB));
    assert_eq!(raw(receiver, &chunked, endless.as_bytes()).await, Some(413));
    for method in ["GET", "PUT", "DELETE"] {
        let request = format!("{method} /nice/events/contact-ended HTTP/1.1\r\nhost: x\r\n\r\n");
        assert_eq!(raw(receiver, &request, b"").await, Some(405), "{method}");
    }
    for path in ["/", "/metrics", "/api/v1/status", "/nice/events/contact-ended/../x"] {
        let request = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(raw(receiver, &request, b"").await, Some(404), "{path}");
    }

    let (first, body) = call(&bed);
    let mut most = format!(r#"{{"contactId":{first},"new":[{{"x":null}}],"agentId":"","endedAt":"","pad":""#);
    most.truncate(most.len() - r#","pad":""#.len());
    most.push_str(&format!(r#","deep":{}{},"pad":""#, "[".repeat(5_000), "]".repeat(5_000)));
    most.push_str(&"y".repeat(32 * KIB - most.len() - 2));
    most.push_str("\"}");
    assert_eq!(most.len(), 32 * KIB);
    assert_eq!(post_event(receiver, most).await, Some(202), "exactly 32 KiB, with unknown fields");
    assert_eq!(post_event(receiver, body).await, Some(202), "the same again");
    bed.ready(&mut daemon, &[first]).await;
    let status = daemon.status().await;
    assert_eq!(status["conversations"]["ready"], 1, "{status:#}");
    assert_eq!(status["conversations"]["dead_letters"], 0, "{status:#}");
    assert_eq!(daemon.state_of(unseen).await, "unknown");
    assert!(!bed.logged().contains("panicked"), "{}", bed.logged());
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_and_idle_senders_are_cut_off_and_stop_nobody() {
    let (bed, receiver, mut daemon) = listening(102).await;
    // Promises a body and sends a byte now and then.
    let slow = tokio::spawn(async move {
        let (mut reader, mut writer) = TcpStream::connect(receiver).await.unwrap().into_split();
        writer.write_all(head(&bearer(WEBHOOK_SECRET), 1000).as_bytes()).await.unwrap();
        let dribble = tokio::spawn(async move {
            while writer.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        let mut answer = Vec::new();
        drop(tokio::time::timeout(PATIENCE, reader.read_to_end(&mut answer)).await.expect("it is cut off"));
        dribble.abort();
        String::from_utf8_lossy(&answer).into_owned()
    });
    // Never gets to the end of its headers.
    let half = tokio::spawn(async move {
        let mut stream = TcpStream::connect(receiver).await.unwrap();
        stream.write_all(b"POST /nice/events/contact-ended HTTP/1.1\r\nhost: x\r\nx-half: ").await.unwrap();
        let mut answer = Vec::new();
        drop(tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it is cut off"));
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut idle = Vec::new();
    for _ in 0..600 {
        idle.push(TcpStream::connect(receiver).await.expect("a connection"));
    }
    let (id, body) = call(&bed);
    let begun = Instant::now();
    assert_eq!(post_event(receiver, body).await, Some(202), "{}", tail(&bed.log()));
    println!("behind 600 idle connections: {:?}", begun.elapsed());
    bed.ready(&mut daemon, &[id]).await;
    let answer = slow.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    half.await.unwrap();
    drop(idle);
    let (id, body) = call(&bed);
    assert_eq!(post_event(receiver, body).await, Some(202));
    bed.ready(&mut daemon, &[id]).await;
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_bad_posts_costs_no_memory() {
    let (bed, receiver, mut daemon) = listening(103).await;
    let before = daemon.memory_kib("VmRSS");
    let client = http_client().build().unwrap();
    let floods = (0..32_u32).map(|flood| {
        let client = client.clone();
        let url = format!("http://{receiver}/nice/events/contact-ended");
        tokio::spawn(async move {
            for round in 0..60_u32 {
                let body = match (flood + round) % 4 {
                    0 => "[".repeat(32 * KIB),
                    1 => format!(r#"{{"contactId":"{}"}}"#, "9".repeat(31 * KIB)),
                    2 => "x".repeat(256 * KIB),
                    _ => format!(r#"{{"contactId":-{round},"x":"{}"}}"#, "\u{1f4a3}".repeat(7 * KIB)),
                };
                let secret = if round % 5 == 0 { "wrong" } else { WEBHOOK_SECRET };
                // A refusal may end the connection while the body is still under way.
                if let Ok(answer) = client.post(&url).bearer_auth(secret).body(body).send().await {
                    assert!([400, 401, 413].contains(&answer.status().as_u16()), "{}", answer.status());
                }
            }
        })
    });
    for flood in floods.collect::<Vec<_>>() {
        flood.await.unwrap();
    }
    let (id, body) = call(&bed);
    assert_eq!(post_event(receiver, body).await, Some(202));
    bed.ready(&mut daemon, &[id]).await;
    let grown = daemon.memory_kib("VmHWM").saturating_sub(before);
    println!("{before} KiB before the flood, {grown} KiB more at most");
    assert!(grown < 64 * KIB as u64, "{grown} KiB");
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_202_survives_kill_and_termination() {
    let (bed, receiver, mut daemon) = listening(104).await;
    let mut taken = Vec::new();
    for _ in 0..4 {
        let (id, body) = call(&bed);
        assert_eq!(post_event(receiver, body).await, Some(202));
        daemon.kill();
        taken.push(id);
        daemon = bed.start();
        daemon.ready().await;
    }
    // Senders that do not know that the end is near.
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let calls: Vec<_> = (0..200).map(|_| call(&bed)).collect();
            tokio::spawn(async move {
                let mut taken = Vec::new();
                for (id, body) in calls {
                    match post_event(receiver, body).await {
                        Some(202) => taken.push(id),
                        Some(503) | None => break,
                        Some(other) => panic!("{other}"),
                    }
                }
                taken
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let status = daemon.terminate();
    assert!(status.success(), "{status} {:?}", status.signal());
    for sender in senders {
        taken.extend(sender.await.unwrap());
    }
    println!("{} events were answered 202", taken.len());
    let mut daemon = bed.start();
    daemon.ready().await;
    bed.ready(&mut daemon, &taken).await;
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_loses_no_202() {
    let mut bed = Bed::new(hurried(105, 0)).await;
    let receiver = bed.with_webhook();
    bed.set("EVENTS__POLL", "false");
    // The log is a file as well, and has to stay below the limit.
    bed.set("LOG__FILTER", "warn");
    let mut daemon = bed.start();
    let (first, body) = {
        daemon.ready().await;
        call(&bed)
    };
    assert_eq!(post_event(receiver, body).await, Some(202));
    bed.ready(&mut daemon, &[first]).await;
    assert!(daemon.terminate().success());
    let largest = largest_file(&bed.data().join("sled"));

    // A file may grow by this much and no further, as if the disk were full: writes fail, and no signal comes.
    let blocks = (largest + 512 * KIB as u64) / 512;
    let script = format!(r#"trap "" XFSZ; ulimit -f {blocks}; exec "$0" run"#);
    let known = bed.command(&["run"]);
    let mut limited = std::process::Command::new("sh");
    limited.arg("-c").arg(script).arg(known.get_program()).current_dir(bed.dir.path());
    for (key, value) in known.get_envs() {
        match value {
            Some(value) => limited.env(key, value),
            None => limited.env_remove(key),
        };
    }
    let mut daemon = bed.start_command(limited);
    daemon.ready().await;
    // Nothing gets done, so that nothing gives its place on the disk back.
    bed.sim.set_faults(Faults { server_errors: 1.0, ..Faults::none() });
    let mut taken = Vec::new();
    let mut refused = 0;
    let begun = Instant::now();
    while daemon.child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < PATIENCE, "the disk does not get full\n{}", tail(&bed.log()));
        let (id, body) = call(&bed);
        let body = format!(r#"{},"pad":"{}"}}"#, &body[..body.len() - 1], "x".repeat(30 * KIB));
        match post_event(receiver, body).await {
            Some(202) => taken.push(id),
            // The process may be gone before it has refused anything.
            Some(503) => refused += 1,
            None => {}
            Some(other) => panic!("{other}"),
        }
    }
    let status = daemon.wait();
    bed.sim.set_faults(Faults::none());
    println!("{} taken, {refused} refused, then {status}", taken.len());
    assert_eq!(status.code(), Some(1), "{}", tail(&bed.log()));
    let last = bed.logged().lines().last().unwrap_or_default().to_owned();
    assert!(last.contains("check the disk"), "{last}");

    let mut daemon = bed.start();
    daemon.ready().await;
    bed.ready(&mut daemon, &taken).await;
    assert!(daemon.terminate().success());
}

fn largest_file(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let sizes = entries.map(|path| if path.is_dir() { largest_file(&path) } else { path.metadata().unwrap().len() });
    sizes.max().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_and_its_conversation_agree_with_the_stores() {
    let (bed, receiver, mut daemon) = listening(106).await;
    let outsider = *bed.sim.agents().iter().find(|agent| !bed.sim.group(1001).contains(agent)).unwrap();
    let foreign = bed.sim.add_call(CallSpec::new(outsider)).contact_ids[0];
    let insider = bed.sim.group(1001)[0];
    // The sender lies about who took the call: NICE's word counts.
    let lie = format!(r#"{{"contactId":{foreign},"agentId":{insider},"endedAt":"2000-01-01T00:00:00Z"}}"#);
    assert_eq!(post_event(receiver, lie).await, Some(202));
    let (id, _) = call(&bed);
    let lie = format!(r#"{{"contactId":{id},"agentId":{outsider},"masterContactId":1}}"#);
    assert_eq!(post_event(receiver, lie).await, Some(202));
    bed.ready(&mut daemon, &[id]).await;
    let begun = Instant::now();
    while !daemon
        .get("/metrics")
        .await
        .unwrap()
        .1
        .contains(r#"nice_knovvu_conversations_done_total{reason="not_in_group"} 1"#)
    {
        assert!(begun.elapsed() < PATIENCE, "the call of an outsider is not dropped\n{}", tail(&bed.log()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(daemon.terminate().success());
    let verdict = oracle::verify(&bed).await;
    assert_eq!((verdict.ready, verdict.dead), (1, 0));
}
