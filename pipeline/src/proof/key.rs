//! The key that signs: Ed25519. Its seed is a secret, 32 bytes in hex, in a file that nobody else may read.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::command_error::CommandError;

/// A key that signs. It is never shown.
pub(crate) struct ProofKey(Ed25519KeyPair);

impl ProofKey {
    /// The key of a seed.
    pub(crate) fn of(seed: &[u8; 32]) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed of 32 bytes is one"))
    }

    /// The key in a file that [`Self::generate`] has made.
    pub(crate) fn read(file: &Path) -> Result<Self, CommandError> {
        let cannot = |why: &str| CommandError::usage(format!("the key file {}: {why}", file.display()));
        let text = crate::config::read_small(file, 1024).map_err(|why| cannot(&why))?;
        let mut seed = [0; 32];
        hex::decode_to_slice(text.trim(), &mut seed)
            .map_err(|_| cannot("not 64 hex digits; `nice-knovvu report keygen FILE` makes one"))?;
        Ok(Self::of(&seed))
    }

    /// Makes a key, writes it to a file that is not there yet, and gives its public half.
    pub(crate) fn generate(file: &Path) -> Result<String, CommandError> {
        let cannot = |why: &dyn std::fmt::Display| CommandError::failed(format!("{}: {why}", file.display()));
        let mut seed = [0; 32];
        SystemRandom::new().fill(&mut seed).map_err(|_| cannot(&"the system gives no random bytes"))?;
        let written =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).and_then(|mut written| {
                writeln!(written, "{}", hex::encode(seed))?;
                written.sync_all()
            });
        written.map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => cannot(&"it is there already, and a key is never written over"),
            _ => cannot(&error),
        })?;
        Ok(Self::of(&seed).public())
    }

    /// The public half, in hex: what an auditor is given.
    pub(crate) fn public(&self) -> String {
        hex::encode(self.0.public_key())
    }

    pub(super) fn sign(&self, text: &[u8]) -> String {
        hex::encode(self.0.sign(text))
    }
}
