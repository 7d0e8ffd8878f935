use axum::http::HeaderValue;

use super::*;
use crate::config::{Config, Need};

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

fn admission(settings: &str) -> AccessRules {
    let none: [(&str, &str); 0] = [];
    let config = Config::from_text(&format!("[admin]\n{settings}"), "settings", none, Need::Local).unwrap();
    AccessRules::new(&config.admin, "of the file".to_owned().into())
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap())).collect()
}

#[test]
fn a_loopback_address_is_open_to_read_until_a_read_token_is_set() {
    let open = admission("").visitor(&headers(&[]), None);
    assert!(open.may(OperatorRole::Read) && !open.may(OperatorRole::Act));
    assert!(!admission("read_token = \"r\"").visitor(&headers(&[]), None).may(OperatorRole::Read));
    let beyond = admission("listen = \"0.0.0.0:9464\"");
    assert!(beyond.is_closed() && !beyond.visitor(&headers(&[]), None).may(OperatorRole::Read));
    assert!(!admission("listen = \"0.0.0.0:9464\"\nact_token = \"a\"").is_closed());
}

#[test]
fn each_token_has_its_role() {
    let admission = admission("read_token = \"r\"\nact_token = \"a\"");
    let role = |token| admission.of_token(token).map(|(role, _)| role);
    assert_eq!(role("r"), Some(OperatorRole::Read));
    assert_eq!(role("a"), Some(OperatorRole::Act));
    assert_eq!(role("of the file"), Some(OperatorRole::Act));
    assert_eq!((role(""), role("A"), role("rr")), (None, None, None));
}

#[test]
fn a_session_lasts_until_it_is_ended() {
    let admission = admission("read_token = \"r\"\nact_token = \"a\"");
    let set = admission.sign_in("a", &headers(&[]), None).unwrap();
    assert!(set.contains("HttpOnly; SameSite=Strict") && !set.contains("Secure"), "{set}");
    let with_cookie = headers(&[("cookie", set.split(';').next().unwrap())]);
    let visitor = admission.visitor(&with_cookie, None);
    assert!(visitor.may(OperatorRole::Act) && visitor.form_token.is_some());
    assert!(!visitor.who.contains(set.split(['=', ';']).nth(1).unwrap()), "the audit names no cookie");
    admission.sign_out(&with_cookie);
    assert_eq!(admission.visitor(&with_cookie, None).role, None);
    assert!(admission.sign_in("a", &headers(&[("x-forwarded-proto", "https")]), None).unwrap().contains("; Secure"));
}

#[test]
fn after_many_wrong_tokens_of_an_address_even_the_right_one_waits() {
    let admission = admission("act_token = \"a\"");
    let none = headers(&[]);
    for _ in 0..10 {
        assert_eq!(admission.sign_in("wrong", &none, Some(PEER)), Err(LoginRefused::Wrong));
    }
    assert_eq!(admission.sign_in("a", &none, Some(PEER)), Err(LoginRefused::TooMany));
    assert!(admission.sign_in("a", &none, None).is_ok(), "another address may");
}

#[test]
fn a_proxys_header_counts_only_from_its_address() {
    let settings = "listen = \"0.0.0.0:9464\"\nrole_header = \"X-Role\"\nproxies = [\"192.0.2.7\"]";
    let admission = admission(settings);
    let given = headers(&[("x-role", "act"), ("x-forwarded-user", "ops")]);
    assert_eq!(admission.visitor(&given, None).role, None);
    assert_eq!(admission.visitor(&given, Some("192.0.2.8".parse().unwrap())).role, None);
    let visitor = admission.visitor(&given, Some(PEER));
    assert_eq!((visitor.role, visitor.who.as_str()), (Some(OperatorRole::Act), "user ops"));
    assert_eq!(admission.visitor(&headers(&[("x-role", "root")]), Some(PEER)).role, None);
    // The key of a proxy's user is no cookie.
    assert_eq!(admission.visitor(&headers(&[("cookie", "knovvu_session_9464=proxy ops")]), None).role, None);
}

#[test]
fn a_foreign_name_or_page_is_told_from_ours() {
    let admission = admission("hosts = [\"ops.example.com\"]");
    let knows = |host| admission.knows_host(&headers(&[("host", host)]));
    for host in ["127.0.0.1:9464", "localhost", "[::1]:9464", "ops.example.com", "OPS.example.com:443"] {
        assert!(knows(host), "{host}");
    }
    for host in ["evil.example", "127.0.0.1.evil.example", "10.0.0.1:9464", "", "ops.example.com.evil.example"] {
        assert!(!knows(host), "{host}");
    }
    let own = |pairs| admission.is_own_form(&headers(pairs));
    assert!(own(&[("sec-fetch-site", "same-origin"), ("origin", "null")]));
    assert!(own(&[("host", "a:1"), ("origin", "http://a:1")]));
    assert!(!own(&[("sec-fetch-site", "same-site")]) && !own(&[("sec-fetch-site", "none")]));
    assert!(!own(&[("host", "a:1"), ("origin", "http://b:1")]) && !own(&[]));
}
