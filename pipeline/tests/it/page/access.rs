//! Who may read and who may act, by plain requests.

use reqwest::{Method, StatusCode, header};

use super::{ACT, PageBed, READ};
use crate::harness::{Bed, Daemon, http_client, hurried};

/// One request, as a browser or a program sends it.
async fn ask(url: &str, method: Method, headers: &[(&str, &str)], body: &str) -> reqwest::Response {
    let client = http_client().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let mut request = client.request(method, url).body(body.to_owned());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.unwrap()
}

async fn get(url: &str, headers: &[(&str, &str)]) -> StatusCode {
    ask(url, Method::GET, headers, "").await.status()
}

/// Signs in; the cookie of the session.
async fn sign_in(base: &str, token: &str) -> Option<String> {
    let own = [("sec-fetch-site", "same-origin")];
    let answer = ask(&format!("{base}/login"), Method::POST, &own, &format!("token={token}")).await;
    let cookie = answer.headers().get(header::SET_COOKIE)?.to_str().unwrap();
    Some(cookie.split(';').next().unwrap().to_owned())
}

/// The token that the forms of a session carry.
async fn form_token(base: &str, cookie: &str) -> String {
    let page = ask(&format!("{base}/quota"), Method::GET, &[("cookie", cookie)], "").await.text().await.unwrap();
    let (_, rest) = page.split_once("name=\"form\" value=\"").expect("the head has a form");
    rest.split('"').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_and_acting_ask_for_their_tokens() {
    let mut page = PageBed::new(1503, 0).await;
    let base = page.url("");
    let html = ("accept", "text/html");

    let answer = ask(&page.url("/"), Method::GET, &[html], "").await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER, "to the login");
    assert_eq!(get(&page.url("/live/now"), &[]).await, StatusCode::UNAUTHORIZED);
    for path in ["/livez", "/readyz", "/metrics", "/login"] {
        assert_eq!(get(&page.url(path), &[]).await, StatusCode::OK, "{path}");
    }

    // Headers that bound what a browser does, on every view.
    let answer = ask(&page.url("/login"), Method::GET, &[], "").await;
    let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    for (name, value) in
        [("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer"), ("cache-control", "no-store")]
    {
        assert_eq!(answer.headers()[name], value);
    }

    // Also on the runbooks, which anybody may see.
    let runbooks = ask(&page.url("/runbooks"), Method::GET, &[], "").await;
    assert_eq!(runbooks.headers()["content-security-policy"].to_str().unwrap(), policy);

    // Programs: the read token reads, and only the act token acts.
    let bearer = |token: &str| format!("Bearer {token}");
    let drop = page.url("/api/v1/dead-letters/1");
    for (token, reads, acts) in [
        ("wrong", StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED),
        (READ, StatusCode::OK, StatusCode::FORBIDDEN),
        (ACT, StatusCode::OK, StatusCode::OK),
    ] {
        let shown = bearer(token);
        assert_eq!(get(&page.url("/api/v1/status"), &[("authorization", &shown)]).await, reads, "{token}");
        let acted = ask(&drop, Method::DELETE, &[("authorization", &shown)], "").await;
        assert_eq!(acted.status(), acts, "{token}");
    }

    // Browsers: no session without a token, and none from a form of another page.
    assert_eq!(sign_in(&base, "wrong").await, None);
    let foreign = [("sec-fetch-site", "cross-site")];
    let answer = ask(&page.url("/login"), Method::POST, &foreign, &format!("token={ACT}")).await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);

    // A session that may act does so only with the token of its own forms, sent by its own page.
    let cookie = sign_in(&base, ACT).await.unwrap();
    let form = format!("form={}", form_token(&base, &cookie).await);
    let replay = page.url("/dead-letters/2/replay");
    let own = ("sec-fetch-site", "same-origin");
    let with = |extra: &'static str| [("cookie", cookie.as_str()), ("sec-fetch-site", extra)];
    for (headers, body) in [
        (with("same-origin"), "form=guessed".to_owned()),
        (with("same-origin"), String::new()),
        (with("cross-site"), form.clone()),
        (with("none"), form.clone()),
    ] {
        let answer = ask(&replay, Method::POST, &headers, &body).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{headers:?} {body}");
    }
    let reading = sign_in(&base, READ).await.unwrap();
    let reading_form = format!("form={}", form_token(&base, &reading).await);
    let answer = ask(&replay, Method::POST, &[("cookie", &reading), own], &reading_form).await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN, "the read token");
    let answer = ask(&replay, Method::POST, &with("same-origin"), &form).await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{}", answer.text().await.unwrap());

    // All of it is in the audit, and no token is.
    let audit = ask(&page.url("/api/v1/audit"), Method::GET, &[("authorization", &bearer(READ))], "").await;
    let audit = audit.text().await.unwrap();
    assert!(audit.contains("DELETE /api/v1/dead-letters/1") && audit.contains("replay dead letter"), "{audit}");
    let log = page.bed.logged();
    for secret in [READ, ACT, &cookie, &form] {
        assert!(!audit.contains(secret) && !log.contains(secret));
    }

    // Signing out ends it.
    ask(&page.url("/logout"), Method::POST, &with("same-origin"), &form).await;
    assert_eq!(get(&page.url("/quota"), &[("cookie", &cookie)]).await, StatusCode::UNAUTHORIZED);
    assert!(page.daemon.terminate().success());
}

async fn started(listen: &str, settings: &[(&str, &str)]) -> (Bed, Daemon) {
    let mut bed = Bed::new(hurried(1504, 0)).await;
    bed.set("ADMIN__LISTEN", listen);
    for (key, value) in settings {
        bed.set(key, *value);
    }
    let mut daemon = bed.start();
    daemon.ready().await;
    (bed, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_loopback_address_anybody_here_reads_and_a_foreign_name_does_not() {
    let (_bed, mut daemon) = started("127.0.0.1:0", &[("ADMIN__HOSTS", "ops.example.com")]).await;
    let url = format!("http://{}/", daemon.admin_address());
    assert_eq!(get(&url, &[]).await, StatusCode::OK);
    assert_eq!(get(&url, &[("host", "ops.example.com")]).await, StatusCode::OK);
    assert_eq!(get(&url, &[("host", "evil.example")]).await, StatusCode::MISDIRECTED_REQUEST);
    let acted = ask(&format!("{url}backfills"), Method::POST, &[("sec-fetch-site", "same-origin")], "act=plan").await;
    assert_eq!(acted.status(), StatusCode::FORBIDDEN, "acting asks for a token here as well");
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_this_machine_the_page_is_closed_until_tokens_are_set() {
    let (_bed, mut daemon) = started("0.0.0.0:0", &[]).await;
    let url = format!("http://{}/", daemon.admin_address());
    let answer = ask(&url, Method::GET, &[], "").await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    assert!(answer.text().await.unwrap().contains("read_token_file"), "it says what to do");
    assert_eq!(get(&format!("{url}metrics"), &[]).await, StatusCode::OK);
    assert!(daemon.terminate().success());
}
