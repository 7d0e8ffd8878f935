//! The bucket, read by a client that shares nothing with the one under test.

use std::time::Duration;

use rusty_s3::actions::ListObjectsV2;
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use sha2::{Digest, Sha256};
use test_servers::S3;

use crate::harness::http_client;

/// Nobody but the test sees the signed links.
const EXPIRY: Duration = Duration::from_secs(300);

/// A bucket.
pub(crate) struct Store {
    bucket: Bucket,
    credentials: Credentials,
    client: reqwest::Client,
}

/// An object as it lies there.
pub(crate) struct Object {
    pub(crate) size: u64,
    /// Of its bytes.
    pub(crate) sha256: String,
    /// As its metadata say.
    pub(crate) told_sha256: Option<String>,
    pub(crate) content_type: String,
}

impl Store {
    pub(crate) fn new(server: &S3, bucket: &str) -> Self {
        let endpoint = server.endpoint().parse().unwrap();
        let bucket = Bucket::new(endpoint, UrlStyle::Path, bucket.to_owned(), server.region().to_owned()).unwrap();
        let client = http_client().build().unwrap();
        Self { bucket, credentials: Credentials::new(server.access_key(), server.secret_key()), client }
    }

    /// Every key.
    pub(crate) async fn keys(&self) -> Vec<String> {
        let (mut keys, mut token) = (Vec::new(), None::<String>);
        loop {
            let mut list = ListObjectsV2::new(&self.bucket, Some(&self.credentials));
            if let Some(token) = token {
                list.with_continuation_token(token);
            }
            let answer = self.client.get(list.sign(EXPIRY)).send().await.unwrap().error_for_status().unwrap();
            let page = ListObjectsV2::parse_response(&answer.text().await.unwrap()).unwrap();
            keys.extend(page.contents.into_iter().map(|object| object.key));
            token = page.next_continuation_token;
            if token.is_none() {
                return keys;
            }
        }
    }

    /// Reads an object.
    pub(crate) async fn object(&self, key: &str) -> Object {
        let url = self.bucket.get_object(Some(&self.credentials), key).sign(EXPIRY);
        let answer = self.client.get(url).send().await.unwrap().error_for_status().unwrap();
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (told_sha256, content_type) = (header("x-amz-meta-sha256"), header("content-type").unwrap_or_default());
        let bytes = answer.bytes().await.unwrap();
        // What went in parts carries it as a tag.
        let told_sha256 = match told_sha256 {
            None => self.tag(key).await,
            told => told,
        };
        Object { size: bytes.len() as u64, sha256: hex(&Sha256::digest(&bytes)), told_sha256, content_type }
    }

    /// The tag `sha256` of an object.
    async fn tag(&self, key: &str) -> Option<String> {
        let mut get = self.bucket.get_object(Some(&self.credentials), key);
        get.query_mut().insert("tagging", "");
        let answer = self.client.get(get.sign(EXPIRY)).send().await.unwrap().error_for_status().unwrap();
        let tags = answer.text().await.unwrap();
        let (_, value) = tags.split_once("<Key>sha256</Key><Value>")?;
        value.split_once("</Value>").map(|(hash, _)| hash.to_owned())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
