use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::ExposeSecret;

use super::*;

fn jwt(claims: &str) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
}

#[test]
fn both_flows_answer_alike() {
    let access = jwt(r#"{"tenantId":"11ee-a","icClusterId":"L36","icBUId":7}"#);
    let identity = jwt(r#"{"tenantId":"other","area":"UK1"}"#);
    for expires in ["3600", "\"3600\""] {
        let body = format!(
            r#"{{"access_token":"{access}","token_type":"Bearer","expires_in":{expires},"id_token":"{identity}"}}"#
        );
        let token = token(body.as_bytes()).unwrap();
        assert_eq!(token.access_token.expose_secret(), access);
        assert_eq!(token.expires_in_secs, Some(3_600));
        assert_eq!(token.claims.tenant_id.as_deref(), Some("11ee-a"));
        assert_eq!(token.claims.area.as_deref(), Some("uk1"));
        assert_eq!(token.claims.cluster.as_deref(), Some("l36"));
        assert!(!format!("{token:?}").contains(&access));
    }
}

#[test]
fn an_odd_lifetime_counts_as_absent() {
    for expires in ["null", "0", "-5", "\"soon\"", "1e99", "{}"] {
        let body = format!(r#"{{"access_token":"a.b.c","expires_in":{expires}}}"#);
        assert_eq!(token(body.as_bytes()).unwrap().expires_in_secs, None, "{expires}");
    }
}

#[test]
fn a_lifetime_may_have_a_fraction_and_a_token_blanks_around_it() {
    for expires in ["3599.9", "\"3599.5\"", "3599.0", " 3599"] {
        let body = format!("\u{feff}{{\"Access_Token\":\" a.b.c\\n\",\"EXPIRES_IN\":{expires}}}\0");
        let token = token(body.as_bytes()).unwrap();
        assert_eq!((token.access_token.expose_secret(), token.expires_in_secs), ("a.b.c", Some(3_599)), "{expires}");
    }
    assert_eq!(token_endpoint("\u{feff}{\"token_endpoint\":\"https://a/t\"}".as_bytes()).unwrap(), "https://a/t");
    assert_eq!(configuration("\u{feff}{\"area\":\"NA1\"}\r\n".as_bytes()).unwrap().area.as_deref(), Some("na1"));
}

#[test]
fn a_token_must_fit_into_a_header() {
    let long = "a".repeat(MAX_TOKEN + 1);
    for bad in ["", "a b", "a\\r\\nX: y", "é", long.as_str()] {
        assert!(token(format!(r#"{{"access_token":"{bad}"}}"#).as_bytes()).is_err());
    }
    assert!(token(b"{}").is_err());
    assert_eq!(token(b"<html>").unwrap_err(), ShapeError::Html);
}

#[test]
fn a_claim_cannot_lead_to_another_host() {
    for (name, value) in [
        ("tenantId", "a/../b"),
        ("tenantId", "a&b=c"),
        ("area", "na1.evil.example"),
        ("area", "-na1"),
        ("area", ""),
        ("icClusterId", "c42/"),
        ("icClusterId", "c42@evil"),
    ] {
        assert_eq!(claims(&jwt(&format!("{{\"{name}\":\"{value}\"}}"))), Claims::default(), "{value}");
    }
}

#[test]
fn a_token_that_is_no_jwt_says_nothing() {
    for text in ["", "opaque", "a.b", "a.%%%.c", "..", "e30.bm90IGpzb24.x", "a.W10.c"] {
        assert_eq!(claims(text), Claims::default(), "{text}");
    }
    let padded = format!("e30.{}==.x", URL_SAFE_NO_PAD.encode(r#"{"area":"na1"}"#));
    let _ = claims(&padded);
}

#[test]
fn where_nice_is() {
    let body = br#"{"private":false,"api_endpoint":"https://api-c42.nice-incontact.com","area":"na1","cluster":"C42",
        "auth_endpoint":"https://na1.nice-incontact.com","domain":"niceincontact.com","uhDomain":"nice-incontact.com"}"#;
    let found = configuration(body).unwrap();
    assert_eq!(found.api_endpoint.as_deref(), Some("https://api-c42.nice-incontact.com"));
    assert_eq!((found.area.as_deref(), found.domain.as_deref()), (Some("na1"), Some("niceincontact.com")));
    for domain in ["evil.example/x", "a@b.c", "com", "a..b", ".a.b", "a.b:1", "a b.c"] {
        assert_eq!(configuration(format!("{{\"domain\":\"{domain}\"}}").as_bytes()).unwrap().domain, None, "{domain}");
    }
    assert_eq!(token_endpoint(br#"{"token_endpoint":"https://a/auth/token"}"#).unwrap(), "https://a/auth/token");
    assert!(token_endpoint(b"{}").is_err());
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..256)) {
        let _ = (token(&body).is_ok(), configuration(&body).is_ok(), token_endpoint(&body).is_ok());
        let _ = claims(&String::from_utf8_lossy(&body));
    }
}
