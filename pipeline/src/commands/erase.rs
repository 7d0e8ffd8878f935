//! `erase`: takes a conversation out of everything, for good.
//!
//! Where all is on servers the command does it itself, beside whatever runs: it needs no state of this machine, and
//! the producer, whose daemon would be found here, has no recording store.

use reqwest::Method;
use stages::model::ContactId;

use super::{Access, Load, ask, print, tables};
use crate::config::Need;
use crate::doors::Wanted;
use crate::failure::Failure;
use crate::operations::Erased;

/// `erase`.
pub(crate) async fn erase(id: String, json: bool, load: Load<'_>) -> Result<(), Failure> {
    // Before it becomes part of a path.
    let id: ContactId = id.parse().map_err(|error| Failure::usage(format!("CONVERSATION_ID: {error}")))?;
    let access = Access::of(&load(Need::Erasure)?, Wanted::Erasure).await?;
    let erased: Erased = ask!(access, DELETE format!("/conversations/{id}"), erase(&id.to_string()));
    print(json, &erased, tables::erased);
    access.close().await
}
