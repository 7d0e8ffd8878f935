//! `dead-letters`: conversations set aside with their reason.

use std::sync::Arc;
use std::time::Duration;

use catalog::Catalog;
use clap::Args;
use jiff::Timestamp;
use model::DeadLetter;
use queue::Queue;
use runtime::Clock;
use serde::{Deserialize, Serialize};
use stages::{
    shelf,
    shelf::{AskedBy, ReplayError},
};

use super::{AdminRequest, AdminRoute, OperationError, SingleCommand};
use crate::arguments::number;
use crate::tables::{table, time};

/// Dead letters read at a time.
const PAGE: usize = 500;

/// The most dead letters in one listing; the rest is named by the metric and comes after these are dealt with.
const MOST_LISTED: usize = 100_000;

/// What is asked of the shelf of dead letters.
#[derive(Clone)]
pub(crate) struct DeadLetterOperations {
    pub(super) catalog: Arc<dyn Catalog>,
    pub(super) queue: Arc<dyn Queue>,
    pub(super) clock: Clock,
}

/// Every dead letter is asked for, oldest first, without its message: that may tell of people, and is for who asks for
/// the one.
#[derive(Debug, Args, Serialize, Deserialize)]
pub(crate) struct ListDeadLetters {}

impl AdminRequest for ListDeadLetters {
    type Answer = Vec<DeadLetter>;
    type Handler = DeadLetterOperations;
    const ROUTE: AdminRoute = AdminRoute::get("/dead-letters");

    async fn fulfil(self, operations: &DeadLetterOperations) -> Result<Vec<DeadLetter>, OperationError> {
        let mut all = Vec::new();
        loop {
            let after = all.last().map_or(0, |letter: &DeadLetter| letter.id);
            let page = operations.catalog.dead_letters(after, PAGE).await?;
            let done = page.len() < PAGE;
            all.extend(page.into_iter().map(|letter| DeadLetter { message: serde_json::Value::Null, ..letter }));
            if done || all.len() >= MOST_LISTED {
                return Ok(all);
            }
        }
    }
}

impl SingleCommand for ListDeadLetters {
    fn table(letters: &Vec<DeadLetter>) -> String {
        list(letters)
    }
}

/// One dead letter is asked for, with its message.
#[derive(Debug, Args, Serialize, Deserialize)]
pub(crate) struct ShowDeadLetter {
    /// Its number in the list
    #[arg(value_parser = number)]
    id: u64,
}

impl AdminRequest for ShowDeadLetter {
    type Answer = DeadLetter;
    type Handler = DeadLetterOperations;
    const ROUTE: AdminRoute = AdminRoute::get("/dead-letters/{id}");

    async fn fulfil(self, operations: &DeadLetterOperations) -> Result<DeadLetter, OperationError> {
        operations.dead_letter(self.id).await
    }
}

impl SingleCommand for ShowDeadLetter {
    fn table(letter: &DeadLetter) -> String {
        let message = serde_json::to_string_pretty(&letter.message).unwrap_or_default();
        format!("{}\n\nmessage:\n{message}", list(std::slice::from_ref(letter)))
    }
}

/// A dead letter's message goes back on the queue, behind fresh calls.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ReplayDeadLetter {
    pub(crate) id: u64,
}

impl AdminRequest for ReplayDeadLetter {
    type Answer = ();
    type Handler = DeadLetterOperations;
    const ROUTE: AdminRoute = AdminRoute::post("/dead-letters/{id}/replay");

    async fn fulfil(self, operations: &DeadLetterOperations) -> Result<(), OperationError> {
        let letter = operations.dead_letter(self.id).await?;
        let now = operations.clock.now();
        let (catalog, queue) = (&*operations.catalog, &*operations.queue);
        match shelf::replay(&letter, AskedBy::Operator, catalog, catalog, queue, now).await {
            Ok(_) => Ok(()),
            Err(ReplayError::Queue(error)) => Err(error.into()),
            Err(ReplayError::Catalog(error)) => Err(error.into()),
            Err(error @ ReplayError::Unreadable(..)) => Err(OperationError::Refused(error.to_string())),
        }
    }
}

/// A dead letter is dropped for good.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DropDeadLetter {
    pub(crate) id: u64,
}

impl AdminRequest for DropDeadLetter {
    type Answer = ();
    type Handler = DeadLetterOperations;
    const ROUTE: AdminRoute = AdminRoute::delete("/dead-letters/{id}");

    async fn fulfil(self, operations: &DeadLetterOperations) -> Result<(), OperationError> {
        let Self { id } = self;
        let letter = operations.dead_letter(id).await?;
        if !operations.catalog.remove_dead_letter(&letter).await? {
            return Err(OperationError::Refused(format!("dead letter {id} was just written anew; look at it again")));
        }
        tracing::info!(dead_letter = id, reason = letter.reason, "dead letter dropped");
        Ok(())
    }
}

/// Every dead letter that is older is dropped, or only counted.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct DropDeadLetters {
    pub(crate) older_than_secs: u64,
    /// Only count them.
    pub(crate) dry_run: bool,
}

impl AdminRequest for DropDeadLetters {
    type Answer = u64;
    type Handler = DeadLetterOperations;
    const ROUTE: AdminRoute = AdminRoute::post_body("/dead-letters/drop");

    async fn fulfil(self, operations: &DeadLetterOperations) -> Result<u64, OperationError> {
        let age = Duration::from_secs(self.older_than_secs);
        let before = operations.clock.now().checked_sub(age).unwrap_or(Timestamp::MIN);
        if self.dry_run {
            return Ok(operations.catalog.count_dead_letters(before).await?);
        }
        let dropped = operations.catalog.drop_dead_letters(before).await?;
        tracing::info!(count = dropped, to = %before, "dead letters dropped");
        Ok(dropped)
    }
}

impl DeadLetterOperations {
    async fn dead_letter(&self, id: u64) -> Result<DeadLetter, OperationError> {
        let letter = self.catalog.dead_letter(id).await?;
        letter.ok_or_else(|| OperationError::NotFound(format!("there is no dead letter {id}")))
    }
}

fn list(letters: &[DeadLetter]) -> String {
    let mut table = table(&["id", "conversation", "stage", "reason", "at", "goes back"]);
    for letter in letters {
        table.add_row([
            letter.id.to_string(),
            letter.conversation_id.clone().unwrap_or_else(|| "-".to_owned()),
            letter.stage.clone(),
            letter.reason.clone(),
            time(Some(letter.at)),
            time(letter.replay_at),
        ]);
    }
    table.to_string()
}
