//! `erase`: takes a conversation out of everything, for good.
//!
//! Where all is on servers the command does it itself, beside whatever runs: it needs no state of this machine, and
//! the producer, whose daemon would be found here, has no recording store.

use model::ContactId;
use reqwest::Method;

use super::{Access, Load, ask, print, tables};
use crate::config::Need;
use crate::doors::Wanted;
use crate::failure::Failure;
use crate::operations::{Erasable, Erased};

/// How a conversation is erased.
pub(crate) struct Erasing {
    /// Nothing is, only told of.
    pub(crate) dry_run: bool,
    /// Also where nothing is known of it.
    pub(crate) yes_unknown: bool,
}

/// `erase`.
pub(crate) async fn erase(id: String, erasing: Erasing, json: bool, load: Load<'_>) -> Result<(), Failure> {
    // Before it becomes part of a path.
    let id: ContactId = id.parse().map_err(|error| Failure::usage(format!("CONVERSATION_ID: {error}")))?;
    let access = Access::of(&load(Need::Erasure)?, Wanted::Erasure).await?;
    let (id, yes_unknown) = (id.to_string(), erasing.yes_unknown);
    if erasing.dry_run {
        let erasable: Erasable = ask!(access, GET format!("/conversations/{id}/erasure"), erasable(&id));
        print(json, &erasable, tables::erasable);
        return access.close().await;
    }
    let path = format!("/conversations/{id}?yes_unknown={yes_unknown}");
    let erased: Erased = ask!(access, DELETE path, erase(&id, yes_unknown));
    print(json, &erased, tables::erased);
    access.close().await
}
