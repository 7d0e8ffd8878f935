//! Tokens and discovery.

use std::sync::atomic::Ordering;

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::future::join_all;
use model::ContactId;
use nice::{Auth, NiceError};
use secrecy::SecretString;

use crate::fake::{Request, answer, json, status};
use crate::rig::{Rig, SECRET, TOKEN_PATH, is_refused, is_transient, issue, short, token};

fn seven() -> ContactId {
    ContactId::from_number(7).unwrap()
}

const CONTACT: &str = r#"{"contactId":7,"agentId":5}"#;

#[tokio::test]
async fn a_hundred_callers_share_one_token_request() {
    let rig = Rig::contact(json(CONTACT)).await;
    let answers = join_all((0..100).map(|_| rig.client.contact(seven()))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(rig.api.count(TOKEN_PATH), 1);
    assert_eq!(rig.metrics.token_renewals.get(), 1);
    assert_eq!(rig.quota.count(), 100, "the token does not count");
}

#[tokio::test]
async fn a_token_revoked_midway_is_renewed_once_for_all() {
    let rig = Rig::new(|request| {
        let revoked = request.header("authorization") == format!("Bearer {}", token(1));
        if revoked && request.is("/inContactAPI/services/v33.0/contacts/7") && request.nth >= 3 {
            status(401)
        } else {
            json(CONTACT)
        }
    })
    .await;
    for _ in 0..3 {
        rig.client.contact(seven()).await.unwrap();
    }
    let answers = join_all((0..100).map(|_| rig.client.contact(seven()))).await;
    assert!(answers.iter().all(Result::is_ok), "{:?}", answers.iter().find(|answer| answer.is_err()));
    assert_eq!(rig.api.count(TOKEN_PATH), 2);
    let calls = rig.api.count("/inContactAPI/");
    assert_eq!(rig.quota.count(), calls, "every request is within the budget, retries included");
}

#[tokio::test]
async fn a_fresh_token_that_is_refused_is_the_last() {
    let rig = Rig::contact(status(401)).await;
    for _ in 0..20 {
        assert!(is_refused(&rig.client.contact(seven()).await));
    }
    assert_eq!(rig.api.count(TOKEN_PATH), 2);
    assert_eq!(rig.api.count("/inContactAPI/"), 21);
}

#[tokio::test]
async fn a_wrong_secret_is_not_hammered() {
    let rig =
        Rig::bare(|_| answer(401, &[], format!("{{\"error\":\"invalid_client {SECRET}\"}}")), &[], |_| {}, short())
            .await;
    let answers = join_all((0..50).map(|_| rig.client.contact(seven()))).await;
    for answer in answers {
        let Err(NiceError::Refused { what }) = answer else { panic!("{answer:?}") };
        assert_eq!(what, "token: NICE answered 401");
    }
    for _ in 0..50 {
        assert!(is_refused(&rig.client.contact(seven()).await));
    }
    assert_eq!(rig.api.seen().len(), 1);
    assert_eq!(rig.quota.count(), 0, "without a token no budget is spent");
}

#[tokio::test]
async fn a_token_service_in_trouble_condemns_nobody() {
    for (reply, refused) in [
        (status(400), true),
        (status(403), true),
        (status(404), true),
        (status(503), false),
        (status(302), false),
        (json("<html>"), false),
        (json("{}"), false),
        (json("{\"access_token\":\"a\\u0000b\"}"), false),
        (json(vec![b' '; 2 << 20]), true),
    ] {
        let rig = Rig::bare(move |_| reply.clone(), &[], |_| {}, short()).await;
        let outcome = rig.client.contact(seven()).await;
        assert_eq!((is_refused(&outcome), is_transient(&outcome)), (refused, !refused), "{outcome:?}");
    }
}

fn oauth() -> Auth {
    Auth::OAuth {
        client_id: "client".into(),
        client_secret: SecretString::from("p&w=%1"),
        access_key_id: "key=1&x".into(),
        access_key_secret: SecretString::from(SECRET),
    }
}

#[tokio::test]
async fn oauth_is_discovered_signed_and_encoded() {
    let rig = Rig::bare(
        |request: &Request| {
            let host = request.header("host");
            match request.path.as_str() {
                "/.well-known/openid-configuration" => {
                    json(format!("{{\"token_endpoint\":\"http://{host}/auth/token\"}}"))
                }
                "/auth/token" => issue(request),
                "/.well-known/cxone-configuration?tenantId=11ee-tenant" => {
                    json(format!("{{\"api_endpoint\":\"http://{host}/cluster/\",\"area\":\"na1\"}}"))
                }
                "/cluster/inContactAPI/services/v33.0/contacts/7" => json(CONTACT),
                _ => status(404),
            }
        },
        &[],
        |settings| {
            settings.auth = oauth();
            settings.acd_url = None;
            settings.facade_url = None;
        },
        short(),
    )
    .await;
    let answers = join_all((0..100).map(|_| rig.client.contact(seven()))).await;
    assert!(answers.iter().all(Result::is_ok), "{:?}", answers[0]);
    assert_eq!(rig.api.count("/.well-known/"), 2, "discovery is shared too");
    let seen = rig.api.seen();
    let asked = seen.iter().find(|request| request.is("/auth/token")).unwrap();
    assert_eq!(asked.method, "POST");
    assert_eq!(asked.header("authorization"), format!("Basic {}", STANDARD.encode("client:p&w=%1")));
    assert_eq!(asked.header("content-type"), "application/x-www-form-urlencoded");
    assert_eq!(asked.body, format!("grant_type=password&username=key%3D1%26x&password={SECRET}"));
    assert!(is_transient(&rig.client.contact_playback(seven()).await), "without a domain there is no façade");
}

#[tokio::test]
async fn an_override_skips_what_it_makes_unnecessary() {
    let rig = Rig::bare(
        |request: &Request| match request.path.as_str() {
            "/sso/auth/token" => issue(request),
            path if path.starts_with("/inContactAPI/") => json(CONTACT),
            _ => status(500),
        },
        &[],
        |settings| {
            settings.auth_url = Some(settings.issuer.join("/sso").unwrap());
            settings.auth = oauth();
        },
        short(),
    )
    .await;
    rig.client.contact(seven()).await.unwrap();
    assert_eq!(rig.api.count("/.well-known/"), 0);
}

#[tokio::test]
async fn a_token_endpoint_in_clear_gets_no_secret() {
    let rig = Rig::bare(
        |_| json("{\"token_endpoint\":\"http://evil.example/auth/token\"}"),
        &[],
        |settings| settings.auth = oauth(),
        short(),
    )
    .await;
    assert!(is_refused(&rig.client.contact(seven()).await));
}

#[tokio::test]
async fn an_access_key_is_sent_as_json() {
    let rig = Rig::contact(json(CONTACT)).await;
    rig.client.contact(seven()).await.unwrap();
    let seen = rig.api.seen();
    assert_eq!(seen[0].method, "POST");
    assert_eq!(seen[0].header("content-type"), "application/json");
    let sent: serde_json::Value = serde_json::from_str(&seen[0].body).unwrap();
    assert_eq!(sent, serde_json::json!({ "accessKeyId": "key=1", "accessKeySecret": SECRET }));
    for request in &seen {
        assert_eq!(request.header("accept"), "application/json");
        assert!(request.header("user-agent").starts_with("nice-knovvu/"));
    }
    assert_eq!(seen[1].header("authorization"), format!("Bearer {}", token(1)));
    assert_eq!(seen[1].path, "/inContactAPI/services/v33.0/contacts/7");
}

#[tokio::test]
async fn a_budget_without_room_sends_nothing() {
    let rig = Rig::contact(json(CONTACT)).await;
    rig.quota.closed.store(1, Ordering::Relaxed);
    assert!(matches!(rig.client.contact(seven()).await, Err(NiceError::Quota { .. })));
    assert_eq!(rig.api.count("/inContactAPI/"), 0);
}
