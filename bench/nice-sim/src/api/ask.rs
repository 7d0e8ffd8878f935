//! A request, read whole and taken apart.

use axum::{
    body::{Bytes, to_bytes},
    extract::Request,
    http::{HeaderMap, Method, header},
};

/// The longest request body read: tokens and sessions are a few hundred bytes.
const BODY_MAX: usize = 64 * 1024;

/// One request.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) path: String,
    parts: Vec<String>,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Ask {
    /// Reads the body and splits path and query.
    pub(crate) async fn read(request: Request) -> Result<Self, u16> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        Ok(Self {
            method: head.method,
            parts: path.split('/').skip(1).map(str::to_owned).collect(),
            path,
            query: pairs(head.uri.query().unwrap_or_default()),
            headers: head.headers,
            body: to_bytes(body, BODY_MAX).await.map_err(|_| 413_u16)?,
        })
    }

    /// A part of the path in lower case, as the real service matches it; empty where there is none.
    pub(crate) fn part(&self, index: usize) -> String {
        self.raw_part(index).to_lowercase()
    }

    /// A part of the path as it was sent.
    pub(crate) fn raw_part(&self, index: usize) -> &str {
        self.parts.get(index).map_or("", String::as_str)
    }

    /// How many parts the path has.
    pub(crate) fn parts(&self) -> usize {
        self.parts.len()
    }

    /// A query parameter, by name in any case.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// A header as text.
    pub(crate) fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The bearer token.
    pub(crate) fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header(header::AUTHORIZATION)?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    }
}

/// Takes a query or a form apart.
pub(crate) fn pairs(encoded: &str) -> Vec<(String, String)> {
    let Ok(mut url) = reqwest::Url::parse("http://form/") else { return Vec::new() };
    url.set_query(Some(encoded));
    url.query_pairs().into_owned().collect()
}
