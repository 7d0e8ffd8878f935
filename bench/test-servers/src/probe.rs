//! Whether a server answers, asked in its own protocol.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// How long one question may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// A question, and how the right answer begins.
pub(crate) struct Probe {
    /// None is asked of what cannot be asked.
    port: Option<u16>,
    question: &'static [u8],
    answer: &'static [u8],
}

impl Probe {
    /// AMQP 0-9-1's greeting: a broker that has booted answers with a method frame.
    pub(crate) fn amqp(port: u16) -> Self {
        Self { port: Some(port), question: b"AMQP\0\0\x09\x01", answer: &[1] }
    }

    /// PostgreSQL's start of a session: asks for the password once it lets in, and sends an error before.
    pub(crate) fn postgresql(port: u16) -> Self {
        const START: &[u8] = b"\0\0\0\x29\0\x03\0\0user\0postgres\0database\0postgres\0\0";
        Self { port: Some(port), question: START, answer: b"R" }
    }

    /// Fluvio's question for the versions that it understands, to which both of its servers answer.
    pub(crate) fn fluvio(port: u16) -> Self {
        const VERSIONS: &[u8] = b"\0\0\0\x15\0\x12\0\x01\0\0\0\x01\0\0\0\x051.0.0\0\0\0\0";
        Self { port: Some(port), question: VERSIONS, answer: b"\0\0" }
    }

    /// Any answer of HTTP.
    pub(crate) fn http(port: u16) -> Self {
        Self { port: Some(port), question: b"GET / HTTP/1.0\r\n\r\n", answer: b"H" }
    }

    /// Prometheus, which listens before it has read its data and says so until it has.
    pub(crate) fn prometheus(port: u16) -> Self {
        Self { port: Some(port), question: b"GET /-/ready HTTP/1.0\r\n\r\n", answer: b"HTTP/1.0 200" }
    }

    /// For what has no protocol to speak of: it accepts connections.
    pub(crate) fn listens(port: u16) -> Self {
        Self { port: Some(port), question: b"", answer: b"" }
    }

    /// For what is not known where to reach: what needs it waits for it.
    pub(crate) fn none() -> Self {
        Self { port: None, question: b"", answer: b"" }
    }

    /// Whether the right answer came.
    pub(crate) fn answers(&self) -> bool {
        let Some(port) = self.port else { return true };
        let ask = || -> std::io::Result<bool> {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(self.question)?;
            let mut first = vec![0; self.answer.len()];
            stream.read_exact(&mut first)?;
            Ok(first == self.answer)
        };
        ask().unwrap_or(false)
    }
}
