//! One signed request at a time, for what a test wants of the store behind the back of the client under test.
//!
//! The signature is AWS's version 4, over the few headers that are sent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{Keys, REGION};

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The body of the answer, or why there is none.
pub(super) fn send(
    address: SocketAddr,
    keys: &Keys,
    method: &str,
    target: &str,
    body: &[u8],
) -> Result<Vec<u8>, String> {
    let head = head(address, keys, method, target, body, Timestamp::now());
    let exchange = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().map_err(|error| format!("{method} {target}: {error}"))?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or(format!("{method} {target}: no answer"))?;
    let (head, body) = answer.split_at(end + 4);
    // `HTTP/1.1 200 OK`
    if head.get(9) == Some(&b'2') {
        return Ok(body.to_owned());
    }
    Err(format!("{method} {target}: {}", String::from_utf8_lossy(&answer)))
}

fn head(address: SocketAddr, keys: &Keys, method: &str, target: &str, body: &[u8], now: Timestamp) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    // A subresource without a value is signed as one with an empty value.
    let signed_query = if query.is_empty() { String::new() } else { format!("{query}=") };
    let body_hash = hex::encode(Sha256::digest(body));
    let time = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    let scope = format!("{}/{REGION}/s3/aws4_request", &time[..8]);
    let signed_headers = "host;x-amz-content-sha256;x-amz-date";
    let request = format!(
        "{method}\n{path}\n{signed_query}\nhost:{address}\nx-amz-content-sha256:{body_hash}\nx-amz-date:{time}\n\n\
         {signed_headers}\n{body_hash}"
    );
    let request_hash = hex::encode(Sha256::digest(request));
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{request_hash}");
    let key = scope.split('/').fold(format!("AWS4{}", keys.secret).into_bytes(), |key, part| hmac(&key, part));
    let (access, signature) = (&keys.access, hex::encode(hmac(&key, &to_sign)));
    format!(
        "{method} {target} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\nx-amz-content-sha256: {body_hash}\r\n\
         x-amz-date: {time}\r\nAuthorization: AWS4-HMAC-SHA256 Credential={access}/{scope}, \
         SignedHeaders={signed_headers}, Signature={signature}\r\n\r\n",
        body.len()
    )
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}
