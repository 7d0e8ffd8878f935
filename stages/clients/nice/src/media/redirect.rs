//! Where an answer sends us, and whether we go there.
//!
//! An object store sends on what it keeps elsewhere: a bucket of another region, for its first day. The next place is
//! checked as the link was, so that nothing is reached through a redirect that could not be reached without. A
//! redirect off the list is an answer for good; one that makes no sense may make some later.

use reqwest::header::LOCATION;
use reqwest::{Response, StatusCode, Url};

use super::super::{LinkRefused, MediaHost, NiceError, check_link};
use super::host_of;

/// The most redirects that one request follows.
pub(super) const MOST: usize = 3;

/// Whether the answer lies at another place.
pub(super) fn is_one(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// The next place.
pub(super) fn target(hosts: &[MediaHost], from: &Url, response: &Response) -> Result<Url, NiceError> {
    let status = response.status().as_u16();
    let told = response.headers().get(LOCATION).map(|location| String::from_utf8_lossy(location.as_bytes()));
    let Some(told) = told.as_deref().map(str::trim).filter(|told| !told.is_empty()) else {
        let what =
            format!("the media host {} answered {status} and does not say where the recording is", host_of(from));
        return Err(NiceError::media(what));
    };
    follow(hosts, from, told)
}

fn follow(hosts: &[MediaHost], from: &Url, told: &str) -> Result<Url, NiceError> {
    check_link(hosts, &absolute(from, told)).map_err(|refused| {
        let host = host_of(from);
        match refused {
            LinkRefused::OffTheList { scheme, host: to, port } => NiceError::permanent(format!(
                "the media host {host} redirects off the allowed hosts: {scheme} to {to}, port {port}"
            )),
            LinkRefused::Scheme { scheme, host: to } => NiceError::permanent(format!(
                "the media host {host} redirects by {scheme} to {to}, which must be https"
            )),
            LinkRefused::TooLong
            | LinkRefused::ControlCharacter
            | LinkRefused::Backslash
            | LinkRefused::NotAUrl
            | LinkRefused::Spelling => {
                NiceError::media(format!("the media host {host} redirects to what is no plain link: {refused}"))
            }
        }
    })
}

/// What is told, with scheme and host: as it is written where it has them, so that an odd spelling is still seen.
fn absolute(from: &Url, told: &str) -> String {
    if told.starts_with("//") {
        return format!("{}:{told}", from.scheme());
    }
    let scheme = told.split_once("://").map(|(scheme, _)| scheme);
    match scheme {
        Some(scheme) if !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            told.to_owned()
        }
        _ => from.join(told).map(String::from).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followed(told: &str) -> Result<String, NiceError> {
        let hosts: Vec<_> = ["*.amazonaws.com", "127.0.0.1:9000"].map(|host| host.parse().unwrap()).into();
        let from = Url::parse("https://b.s3.amazonaws.com/a/b.mp4?sig=1").unwrap();
        follow(&hosts, &from, told).map(String::from)
    }

    #[test]
    fn a_listed_host_is_followed_however_it_is_told() {
        for (told, url) in [
            (
                "https://b.s3.eu-west-1.amazonaws.com/a/b.mp4?sig=1",
                "https://b.s3.eu-west-1.amazonaws.com/a/b.mp4?sig=1",
            ),
            ("//c.amazonaws.com/x", "https://c.amazonaws.com/x"),
            ("/x?y=http://z", "https://b.s3.amazonaws.com/x?y=http://z"),
            ("c.mp4", "https://b.s3.amazonaws.com/a/c.mp4"),
            ("?again=1", "https://b.s3.amazonaws.com/a/b.mp4?again=1"),
            ("http://127.0.0.1:9000/x", "http://127.0.0.1:9000/x"),
        ] {
            assert_eq!(followed(told).as_deref(), Ok(url), "{told}");
        }
    }

    #[test]
    fn a_redirect_off_the_list_is_refused_for_good_and_names_both_hosts() {
        for told in ["https://evil.example/x?secret", "//evil.example/secret", "http://evil.example/"] {
            let Err(NiceError::Permanent { what }) = followed(told) else { panic!("{told}") };
            assert!(what.contains("b.s3.amazonaws.com") && what.contains("evil.example"), "{what}");
            assert!(!what.contains("secret"), "{what}");
        }
        for told in ["http://c.amazonaws.com/", "http://169.254.169.254/latest", "http://127.0.0.1:9001/", "ftp://a.b/"]
        {
            assert!(matches!(followed(told), Err(NiceError::Permanent { .. })), "{told}");
        }
    }

    #[test]
    fn what_is_no_plain_link_is_refused_for_now() {
        for told in [
            "https://c.amazonaws.com@evil.example/",
            "https://evil.example\\@c.amazonaws.com/",
            "https://user:pw@c.amazonaws.com/",
            "http://0x7f.1:9000/",
            "http://[",
            "https://",
            "mailto:x",
        ] {
            assert!(matches!(followed(told), Err(NiceError::Media { .. })), "{told}: {:?}", followed(told));
        }
        // A browser reads a backslash as a slash: this is another host.
        assert!(matches!(followed("/\\evil.example/"), Err(NiceError::Permanent { .. })));
    }

    #[test]
    fn only_a_redirect_is_one() {
        for (status, is) in [(300, false), (301, true), (302, true), (303, true), (304, false), (305, false)] {
            assert_eq!(is_one(StatusCode::from_u16(status).unwrap()), is, "{status}");
        }
        assert!(is_one(StatusCode::TEMPORARY_REDIRECT) && is_one(StatusCode::PERMANENT_REDIRECT));
        assert!(!is_one(StatusCode::OK));
    }
}
