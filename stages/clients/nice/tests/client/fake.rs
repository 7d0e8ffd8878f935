//! A server that says exactly what a test tells it to, byte by byte, and remembers what it was asked.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What the client sent.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query as sent.
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
    /// How many requests with the same path came before.
    pub(crate) nth: usize,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The first byte of a `Range: bytes=N-`.
    pub(crate) fn range(&self) -> Option<usize> {
        self.header("range").strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }

    pub(crate) fn is(&self, prefix: &str) -> bool {
        self.path.starts_with(prefix)
    }
}

/// One thing that the server does.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Send(Vec<u8>),
    /// Sends the bytes again and again until the client has had enough.
    Endless(Vec<u8>),
    /// Says nothing for so long.
    Pause(Duration),
    /// Says nothing more and keeps the connection.
    Stall,
}

pub(crate) type Reply = Vec<Step>;

/// A whole answer.
pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Reply {
    let body = body.as_ref();
    let length = body.len().to_string();
    let mut all = vec![("Content-Length", length.as_str())];
    all.extend_from_slice(headers);
    vec![Step::Send([head(status, &all), body.to_vec()].concat())]
}

pub(crate) fn json(body: impl AsRef<[u8]>) -> Reply {
    answer(200, &[("Content-Type", "application/json")], body)
}

pub(crate) fn status(status: u16) -> Reply {
    answer(status, &[], "")
}

/// An answer's head; the body follows by other steps.
pub(crate) fn head(status: u16, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} X\r\nConnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// The server; it ends with the value.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    sent: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub(crate) async fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, sent) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU64::new(0)));
        let (handler, log, count) = (Arc::new(handler), seen.clone(), sent.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (handler, log, count) = (handler.clone(), log.clone(), count.clone());
                tokio::spawn(async move {
                    // A client that goes away in the middle is part of the tests.
                    drop(serve(stream, &*handler, &log, &count).await);
                });
            }
        });
        Self { address, seen, sent, task }
    }

    pub(crate) fn url(&self) -> reqwest::Url {
        format!("http://{}", self.address).parse().unwrap()
    }

    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, prefix: &str) -> usize {
        self.seen().iter().filter(|request| request.is(prefix)).count()
    }

    /// How many bytes of answers went out.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

async fn serve(
    stream: TcpStream,
    handler: &(dyn Fn(&Request) -> Reply + Send + Sync),
    log: &Mutex<Vec<Request>>,
    sent: &AtomicU64,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let mut headers = HashMap::new();
    loop {
        line.clear();
        stream.read_line(&mut line).await?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.to_owned()),
            None => break,
        };
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let request = {
        let mut log = log.lock().unwrap();
        let nth = log.iter().filter(|seen| seen.path == path).count();
        let request = Request { method, path, headers, body, nth };
        log.push(request.clone());
        request
    };
    for step in handler(&request) {
        match step {
            Step::Send(bytes) => {
                stream.write_all(&bytes).await?;
                sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            Step::Endless(bytes) => loop {
                stream.write_all(&bytes).await?;
                sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            },
            Step::Pause(pause) => tokio::time::sleep(pause).await,
            Step::Stall => tokio::time::sleep(Duration::from_secs(3600)).await,
        }
        stream.flush().await?;
    }
    stream.shutdown().await
}
