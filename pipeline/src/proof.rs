//! The proof: each day's balance and exceptions as a signed file that names the hash of the one before.
//!
//! Who has the folder and the public key sees, with no daemon and no server, that nothing was taken out or changed
//! later. A file holds counts and ids, and nothing of what was said or by whom.
//!
//! - [`day`]: what a file holds, in its one form, and its signature.
//! - [`key`]: the key that signs.
//! - [`folder`]: the files of a tenant, and how one is added.
//! - [`files`]: which files those are.
//! - [`chain`]: whether a folder is whole.
//! - [`night`]: the producer signs by itself.
//!
//! # After a crash
//! A file is whole or absent: it is written beside its place and then moved there. What a crash leaves has another
//! name, is no part of the chain, and is written over by the next try.

pub(crate) mod chain;
pub(crate) mod day;
mod files;
pub(crate) mod folder;
pub(crate) mod key;
pub(crate) mod night;
#[cfg(test)]
mod tests;
