//! What operators do on the page, in a real browser.

use std::time::Instant;

use nice_sim::{CallSpec, Faults};
use serde_json::Value;

use super::{ACT, PageBed, READ, browser::Browser};
use crate::harness::PATIENCE;

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_finds_replays_and_backfills_in_a_browser() {
    let mut page = PageBed::new(1501, 20).await;
    let base = page.url("");
    let browser = Browser::start(1280, 900).await;

    // Without a token there is only the form, and a wrong one is refused.
    browser.open(&page.url("/")).await;
    assert!(browser.address().await.ends_with("/login"));
    browser.sign_in(&base, "wrong").await;
    browser.says("no token of this daemon").await;

    // The read token sees, and may not act.
    browser.sign_in(&base, READ).await;
    browser.says("Dead letters wait for a decision: 2").await;
    browser.open(&page.url("/dead-letters")).await;
    browser.says("Sign in with the token that may act").await;
    assert_eq!(browser.run("return document.querySelectorAll('main form, main .button').length").await, 0);
    let refused = browser.run_to_end(&act_without_right()).await;
    assert_eq!(refused, 403, "acting with the read token");

    // The act token: the flow moves while it is looked at.
    browser.sign_in(&base, ACT).await;
    let ready = "return document.querySelector('.flow .wide').textContent";
    let before = browser.run(ready).await;
    let agent = page.bed.sim.group(1001)[0];
    for _ in 0..5 {
        page.bed.sim.add_call(CallSpec::new(agent));
    }
    let moved = format!("{ready} !== {before} && document.querySelector('.flow .moves') !== null");
    browser.until("the flow moves", &moved).await;
    assert_eq!(browser.run("return document.getElementById('live-state').textContent").await, "Live.");

    // A conversation is found by its id and by its time, and its timeline is drawn.
    browser.open(&page.url("/conversations")).await;
    let listed = format!("return document.querySelector('a[href=\"/conversations/{}\"]') !== null", page.ready);
    assert_eq!(browser.run(&listed).await, Value::Bool(true), "{}", browser.text().await);
    browser.type_into("input[name=id]", &page.ready.to_string()).await;
    browser.click("form[aria-label='Find by id'] button").await;
    browser.until("the conversation is shown", "return location.pathname.startsWith('/conversations/')").await;
    assert!(browser.run("return document.querySelectorAll('.hop .bar').length").await.as_u64().unwrap() >= 5);
    // The number is hidden until it is asked for.
    assert!(browser.text().await.contains("•••"));
    browser.click("form[action$='/number'] button").await;
    browser.until("the number is shown", "return !document.body.innerText.includes('•••')").await;

    // A recording is heard.
    browser.open(&page.url(&format!("/conversations/{}", page.ready))).await;
    browser.click("form[action$='/listen'] button").await;
    browser.until("the players are there", "return document.querySelector('audio') !== null").await;
    let range = "const done = arguments[arguments.length - 1]; fetch(document.querySelector('audio').src, \
                 { headers: { range: 'bytes=0-3' } }).then(async answer => done([answer.status, (await answer.arrayBuffer()).byteLength]))";
    assert_eq!(browser.run_to_end(range).await, serde_json::json!([206, 4]));

    // A dead letter goes back, after what will happen was said.
    browser.open(&page.url("/dead-letters")).await;
    browser.click("main .acts .button").await;
    browser.says("2 messages go back to the queue").await;
    // What was not shown stays: here the page has shown none.
    browser.run("document.querySelector('main input[name=last]').value = '0'").await;
    browser.click("main form button").await;
    browser.says("0 are back on the queue").await;
    browser.open(&page.url("/dead-letters")).await;
    browser.click("main .acts .button").await;
    browser.says("2 messages go back to the queue").await;
    browser.click("main form button").await;
    browser.says("2 are back on the queue").await;
    page.bed.ready(&mut page.daemon, &page.dead).await;

    // A backfill begins and is paused, resumed and cancelled.
    browser.open(&page.url("/backfills")).await;
    browser.click("button[value=plan]").await;
    browser.says("Backfill 1").await;
    reload_until(&browser, &page, "planned, not begun").await;
    browser.click("form[action$='/resume'] button").await;
    // Going elsewhere at once would take the form back.
    browser.until("it goes on", "return document.querySelector(\"form[action$='/resume']\") === null").await;
    reload_until(&browser, &page, "done").await;
    // Of one that is on its way, the operator stops the rest. NICE does not answer, so that it stays on its way.
    page.bed.sim.set_faults(Faults { server_errors: 1.0, ..Faults::none() });
    browser.click("button[value=begin]").await;
    browser.says("Backfill 2").await;
    browser.click("form[action='/backfills/2/pause'] button").await;
    browser.says("paused").await;
    browser.click("form[action='/backfills/2/cancel'] button").await;
    browser.says("cancelled").await;
    page.bed.sim.set_faults(Faults::none());

    browser.open(&page.url("/audit")).await;
    let audit = browser.text().await;
    for act in ["show number", "listen", "play recording", "replay dead letters", "plan backfill", "pause backfill"] {
        assert!(audit.contains(act), "{act}: {audit}");
    }
    assert!(!audit.contains(ACT) && !audit.contains(READ));

    let complaints = browser.complaints().await;
    assert!(complaints.is_empty(), "{complaints:?}");
    assert!(page.daemon.terminate().success());
}

/// Looks at the backfills until one of them stands so.
async fn reload_until(browser: &Browser, page: &PageBed, state: &str) {
    let begun = Instant::now();
    loop {
        browser.open(&page.url("/backfills")).await;
        let text = browser.text().await;
        if text.contains(state) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "never {state}: {text}");
    }
}

/// Sends a form of the page as somebody who may only read; the status of the answer.
fn act_without_right() -> String {
    "const done = arguments[arguments.length - 1]; const form = document.querySelector('form[action=\"/logout\"] \
     input').value; fetch('/dead-letters/1/drop', { method: 'POST', body: new URLSearchParams({ form }) })\
     .then(answer => done(answer.status))"
        .to_owned()
}
