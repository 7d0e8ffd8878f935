//! The reader of PKCS #12 files that `tcp-stream` asks for by name, and that reads none.
//!
//! `lapin` reaches RabbitMQ through `tcp-stream`, whose TLS over rustls always brings a reader of client certificates
//! in PKCS #12: 30 crates of old ciphers, ASN.1 and large numbers. We show the broker no client certificate, so nothing
//! here is ever called. `[patch.crates-io]` of the workspace puts this crate in its place.

/// What a file would hold; there is none.
#[derive(Debug, Clone, Copy)]
pub enum KeyStore {}

impl KeyStore {
    /// Refuses every file.
    pub fn from_pkcs12(_: &[u8], _: &str) -> Result<Self, &'static str> {
        Err("client certificates in PKCS #12 are not supported")
    }

    /// The first private key with its certificates.
    pub fn private_key_chain(&self) -> Option<(&str, &PrivateKeyChain)> {
        match *self {}
    }
}

/// A private key and its certificates; there is none.
#[derive(Debug, Clone, Copy)]
pub enum PrivateKeyChain {}

impl PrivateKeyChain {
    /// The key, in PKCS #8.
    pub fn key(&self) -> &[u8] {
        match *self {}
    }

    /// The certificates.
    pub fn chain(&self) -> &[Certificate] {
        match *self {}
    }
}

/// A certificate; there is none.
#[derive(Debug, Clone, Copy)]
pub enum Certificate {}

impl Certificate {
    /// The certificate, in DER.
    pub fn as_der(&self) -> &[u8] {
        match *self {}
    }
}
