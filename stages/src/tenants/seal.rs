//! Secrets at rest: sealed so that the database holds nothing that can be used without the key of the settings.
//!
//! In: a secret, and the place where it is to stand. Out: `v1.` and base64 of a random nonce and the ciphertext
//! (XChaCha20-Poly1305). The place is authenticated too, so that a sealed secret that is moved to another tenant's
//! row or to another column does not open. The nonce has 24 bytes: drawn at random, it does not repeat.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use model::TenantId;
use rand::RngCore;
use secrecy::{ExposeSecret, SecretBox, SecretString};

/// What a sealed text begins with; another way of sealing gets another word.
const VERSION: &str = "v1.";

/// Bytes of the nonce in front of the ciphertext.
const NONCE: usize = 24;

/// No key or client secret is longer; a longer text in a column is nonsense.
const LONGEST: usize = 64 * 1024;

/// The key of the settings, `[catalog] seal_key`.
pub struct Seal {
    key: SecretBox<[u8; 32]>,
}

impl fmt::Debug for Seal {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}

/// Why a sealed secret does not open, and what to do about it. Names no part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It was sealed with another key, moved, or changed.
    #[error(
        "it does not open with the [catalog] seal_key of this process: use the key that it was sealed with, or seal it \
         again by `settings set`"
    )]
    Foreign,
    /// It is no sealed text.
    #[error("it is not sealed: secrets are not written into the table by hand, use `settings set`")]
    NotSealed,
    /// It was sealed in a way that this version does not know.
    #[error("it was sealed by a later version: use that one, or seal it again by `settings set`")]
    LaterVersion,
}

impl Seal {
    /// Seals with this key.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { key: SecretBox::new(Box::new(*key)) }
    }

    /// Seals a secret for one place.
    pub fn seal(&self, secret: &SecretString, tenant: &TenantId, column: &str) -> String {
        let mut nonce = [0; NONCE];
        #[expect(clippy::disallowed_methods, reason = "no nonce may ever come twice")]
        rand::rng().fill_bytes(&mut nonce);
        let place = place(tenant, column);
        let payload = Payload { msg: secret.expose_secret().as_bytes(), aad: &place };
        let sealed = self.cipher().encrypt(XNonce::from_slice(&nonce), payload);
        let sealed = sealed.expect("a secret in memory is far below the 256 GiB that the cipher takes");
        format!("{VERSION}{}", STANDARD.encode([nonce.as_slice(), &sealed].concat()))
    }

    /// Opens what was sealed for this place.
    pub fn open(&self, sealed: &str, tenant: &TenantId, column: &str) -> Result<SecretString, SealError> {
        let text = match sealed.strip_prefix(VERSION) {
            Some(text) if text.len() <= LONGEST => text,
            None if is_versioned(sealed) => return Err(SealError::LaterVersion),
            _ => return Err(SealError::NotSealed),
        };
        let bytes = STANDARD.decode(text).map_err(|_| SealError::Foreign)?;
        let (nonce, ciphertext) = bytes.split_at_checked(NONCE).ok_or(SealError::Foreign)?;
        let place = place(tenant, column);
        let payload = Payload { msg: ciphertext, aad: &place };
        let opened = self.cipher().decrypt(XNonce::from_slice(nonce), payload).map_err(|_| SealError::Foreign)?;
        String::from_utf8(opened).map(SecretString::from).map_err(|_| SealError::Foreign)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.key.expose_secret().into())
    }
}

/// Tenant and column, told apart by a byte that neither can contain.
fn place(tenant: &TenantId, column: &str) -> Vec<u8> {
    [tenant.as_str().as_bytes(), &[0], column.as_bytes()].concat()
}

/// Whether a text begins as every version does.
fn is_versioned(text: &str) -> bool {
    let version = text.strip_prefix('v').and_then(|text| text.split_once('.')).map(|(version, _)| version);
    version.is_some_and(|version| !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seal(key: u8) -> Seal {
        Seal::new(&[key; 32])
    }

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    #[test]
    fn another_key_does_not_open_it_and_the_remedy_is_named() {
        let sealed = seal(1).seal(&SecretString::from("canary"), &tenant("acme"), "client_secret");
        let error = seal(2).open(&sealed, &tenant("acme"), "client_secret").unwrap_err();
        assert_eq!(error, SealError::Foreign);
        let text = error.to_string();
        assert!(text.contains("[catalog] seal_key") && text.contains("settings set"), "{text}");
    }

    #[test]
    fn what_is_not_sealed_is_told_from_what_is_sealed_otherwise() {
        let open = |text: &str| seal(1).open(text, &tenant("acme"), "client_secret").unwrap_err();
        for plain in ["", "hunter2", "v1", "v.x", "vault.secret"] {
            assert_eq!(open(plain), SealError::NotSealed, "{plain}");
        }
        assert_eq!(open("v2.AAAA"), SealError::LaterVersion);
        for broken in ["v1.", "v1.%%%", "v1.AAAA"] {
            assert_eq!(open(broken), SealError::Foreign, "{broken}");
        }
    }

    #[test]
    fn the_same_secret_never_looks_the_same() {
        let secret = SecretString::from("canary");
        let seal = seal(1);
        let once = seal.seal(&secret, &tenant("acme"), "client_secret");
        assert_ne!(once, seal.seal(&secret, &tenant("acme"), "client_secret"));
        assert!(!format!("{seal:?}").contains('1'));
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens(secret in ".{0,200}", key: u8) {
            let sealed = seal(key).seal(&SecretString::from(secret.clone()), &tenant("acme"), "client_secret");
            let opened = seal(key).open(&sealed, &tenant("acme"), "client_secret").unwrap();
            prop_assert_eq!(opened.expose_secret(), secret.as_str());
        }

        #[test]
        fn any_flipped_bit_is_noticed(secret in ".{0,40}", at: prop::sample::Index, bit in 0..8u8) {
            let sealed = seal(1).seal(&SecretString::from(secret), &tenant("acme"), "client_secret");
            let mut bytes = STANDARD.decode(&sealed[VERSION.len()..]).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let changed = format!("{VERSION}{}", STANDARD.encode(bytes));
            prop_assert!(seal(1).open(&changed, &tenant("acme"), "client_secret").is_err());
        }

        #[test]
        fn a_sealed_secret_opens_in_its_own_place_only(
            own in ("[a-z][a-z0-9]{0,8}", "[a-z_]{1,8}"),
            other in ("[a-z][a-z0-9]{0,8}", "[a-z_]{1,8}"),
        ) {
            prop_assume!(own != other);
            let sealed = seal(1).seal(&SecretString::from("canary"), &tenant(&own.0), &own.1);
            prop_assert!(seal(1).open(&sealed, &tenant(&own.0), &own.1).is_ok());
            prop_assert!(seal(1).open(&sealed, &tenant(&other.0), &other.1).is_err());
        }

        #[test]
        fn no_text_breaks_it(text in ".{0,100}") {
            prop_assert!(seal(1).open(&text, &tenant("acme"), "client_secret").is_err());
            let text = format!("{VERSION}{text}");
            prop_assert!(seal(1).open(&text, &tenant("acme"), "client_secret").is_err());
        }
    }
}
