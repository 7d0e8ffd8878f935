//! A store that answers what a test wants: one request a connection, in plain bytes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use md5::{Digest, Md5};
use runtime::task;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::*;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// What it asks for, in a word.
    pub(super) fn operation(&self) -> &'static str {
        match (self.method.as_str(), self.target.split_once('?').map_or("", |(_, query)| query)) {
            ("PUT", "") => "put",
            ("PUT", query) if query.starts_with("tagging") => "tag",
            ("PUT", _) => "part",
            ("POST", query) if query.starts_with("uploads") => "create",
            ("POST", _) => "complete",
            ("DELETE", _) => "abort",
            ("HEAD", _) => "head",
            ("GET", query) if query.contains("uploadId") => "parts",
            ("GET", query) if query.contains("versions") => "versions",
            _ => "uploads",
        }
    }
}

/// An answer in full.
pub(super) fn answer(status: u16, headers: &[&str], body: &str) -> Option<Vec<u8>> {
    let mut answer = format!("HTTP/1.1 {status} Word\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
    headers.iter().for_each(|header| answer += &format!("{header}\r\n"));
    Some(format!("{answer}\r\n{body}").into_bytes())
}

/// S3's way to fail.
pub(super) fn error(status: u16, code: &str) -> Option<Vec<u8>> {
    answer(status, &[], &format!("<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code></Error>"))
}

/// What the fake store has seen.
type Seen = Arc<Mutex<Vec<Request>>>;

/// The fake store.
pub(super) struct Fake {
    address: SocketAddr,
    seen: Seen,
    _task: AbortOnDropHandle<()>,
}

impl Fake {
    /// `say` answers a request, told how many like it came before, or leaves it to the healthy store. An empty
    /// answer closes the connection.
    pub(super) async fn start(say: impl Fn(&Request, usize) -> Option<Vec<u8>> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Seen::default());
        let requests = seen.clone();
        let task = task::spawn("fake", async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let Some(request) = read(&mut stream).await else { continue };
                let before = of(&requests, request.operation()).len();
                requests.lock().unwrap().push(request.clone());
                let answer = say(&request, before).unwrap_or_else(|| healthy(&request, &requests));
                // Whoever hung up does not read it.
                drop(stream.write_all(&answer).await);
            }
        });
        Self { address, seen, _task: task }
    }

    pub(super) fn options(&self) -> S3Options {
        let credentials = Credentials::Static {
            access_key_id: "fake-id".to_owned(),
            secret_access_key: "fake-s3cr3t".into(),
            session_token: None,
        };
        let endpoint = self.url().parse().unwrap();
        S3Options::new(endpoint, "calls".to_owned(), "us-east-1".to_owned(), credentials)
    }

    pub(super) async fn store(&self) -> S3Store {
        open(self.options()).await
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests for one operation.
    pub(super) fn of(&self, operation: &str) -> Vec<Request> {
        of(&self.seen, operation)
    }

    /// What was asked for, in order.
    pub(super) fn operations(&self) -> Vec<&'static str> {
        self.seen.lock().unwrap().iter().map(Request::operation).collect()
    }
}

fn of(seen: &Seen, operation: &str) -> Vec<Request> {
    seen.lock().unwrap().iter().filter(|request| request.operation() == operation).cloned().collect()
}

async fn read(stream: &mut tokio::net::TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let end = loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ').map(str::to_owned);
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Request { method: words.next()?, target: words.next()?, headers, body })
}

/// What a store answers that is well. It keeps what it has seen, and nothing else.
fn healthy(request: &Request, seen: &Seen) -> Vec<u8> {
    let e_tag = format!("etag: \"{}\"", hex::encode(Md5::digest(&request.body)));
    let stored = || of(seen, "put").into_iter().chain(of(seen, "part"));
    let answer = match request.operation() {
        "put" | "part" => answer(200, &[&e_tag], ""),
        "create" => answer(
            200,
            &[],
            "<InitiateMultipartUploadResult><UploadId>upload-1</UploadId></InitiateMultipartUploadResult>",
        ),
        "complete" => answer(200, &[], COMPLETED),
        "tag" => answer(200, &[], ""),
        "abort" => answer(204, &[], ""),
        "head" => {
            let length: usize = stored().map(|request| request.body.len()).sum();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\netag: {}\r\nconnection: close",
                whole_tag(&of(seen, "part")),
            );
            return format!("{head}\r\n\r\n").into_bytes();
        }
        _ => answer(200, &[], "<ListMultipartUploadsResult></ListMultipartUploadsResult>"),
    };
    answer.unwrap()
}

/// A completion that succeeded.
pub(super) const COMPLETED: &str = "<?xml version=\"1.0\"?><CompleteMultipartUploadResult><ETag>\"whole-2\"</ETag>\
                                    </CompleteMultipartUploadResult>";

/// The ETag of the object that parts make.
fn whole_tag(parts: &[Request]) -> String {
    let number = |request: &Request| {
        let number = request.target.split(['?', '&']).find_map(|pair| pair.strip_prefix("partNumber="));
        number.unwrap().parse::<u32>().unwrap()
    };
    let parts: BTreeMap<u32, _> = parts.iter().map(|part| (number(part), Md5::digest(&part.body))).collect();
    let digests: Vec<u8> = parts.values().flatten().copied().collect();
    format!("\"{}-{}\"", hex::encode(Md5::digest(digests)), parts.len())
}
