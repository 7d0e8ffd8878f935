//! `dead-letters`: conversations set aside with their reason.

use std::sync::Arc;
use std::time::Duration;

use catalog::{Catalog, DeadLetterFilter, DeadLetterGroup, MOST_GROUPED, reason_shape};
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
use utoipa::ToSchema;

use super::paging::{AnswerPage, PageStart};
use super::{AdminRequest, AdminRoute, OperationError, SingleCommand};
use crate::arguments::number;
use crate::tables::folded;

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

/// Dead letters are asked for, oldest first, without their messages: those may tell of people, and are for who asks for
/// the one.
#[derive(Debug, Default, Clone, PartialEq, Eq, Args, Serialize, Deserialize, ToSchema)]
pub(crate) struct ListDeadLetters {
    /// Only those that were set aside at this stage, such as upload
    #[arg(long, value_name = "STAGE")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stage: Option<String>,
    /// Only those whose reason holds this text, as it is or with an N in place of each number
    #[arg(long, value_name = "TEXT")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// Only those whose reason is this one, with an N in place of each number: a group with its stage.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shape: Option<String>,
    /// Only those that were set aside at this moment or later.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<Timestamp>,
    /// Only those that were set aside before.
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<Timestamp>,
}

impl ListDeadLetters {
    /// Those of a group.
    pub(crate) fn of_group(group: &DeadLetterGroup) -> Self {
        Self { stage: Some(group.stage.clone()), shape: Some(group.reason.clone()), ..Self::default() }
    }

    /// Whether it selects some of them only.
    pub(crate) fn selects(&self) -> bool {
        *self != Self::default()
    }

    /// What the catalog selects by.
    fn filter(&self) -> DeadLetterFilter {
        let Self { stage, shape, from, to, .. } = self.clone();
        DeadLetterFilter { stage, shape, from, to }
    }

    /// Whether a letter's reason holds the text.
    fn takes(&self, letter: &DeadLetter) -> bool {
        let holds = |text: &String| letter.reason.contains(text) || reason_shape(&letter.reason).contains(text);
        self.reason.as_ref().is_none_or(holds)
    }
}

impl AdminRequest for ListDeadLetters {
    type Answer = Vec<DeadLetter>;
    type Handler = DeadLetterOperations;
    const ROUTE: AdminRoute = AdminRoute::get("/dead-letters");
    const IS_PAGED: bool = true;

    async fn fulfil(self, operations: &DeadLetterOperations) -> Result<Vec<DeadLetter>, OperationError> {
        operations.listed(&self, 0, MOST_LISTED).await
    }

    async fn fulfil_page(
        self,
        operations: &DeadLetterOperations,
        start: PageStart,
    ) -> Result<AnswerPage<Vec<DeadLetter>>, OperationError> {
        let limit = start.limit()?;
        // One more tells whether another page follows.
        let mut letters = operations.listed(&self, start.after()?.unwrap_or_default(), limit + 1).await?;
        let is_last = letters.len() <= limit;
        letters.truncate(limit);
        let page = AnswerPage::of(letters, limit, |letter| letter.id.to_string());
        Ok(AnswerPage { next: page.next.filter(|_| !is_last), ..page })
    }
}

impl SingleCommand for ListDeadLetters {
    fn table(letters: &Vec<DeadLetter>) -> String {
        list(letters)
    }
}

/// The dead letters are counted by stage and shape of reason.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct GroupDeadLetters {}

/// Groups in one answer; the reasons of a shelf are few.
pub(crate) const MOST_GROUPS: usize = 1000;

impl AdminRequest for GroupDeadLetters {
    type Answer = Vec<DeadLetterGroup>;
    type Handler = DeadLetterOperations;
    const ROUTE: AdminRoute = AdminRoute::get("/dead-letter-groups");

    async fn fulfil(self, operations: &DeadLetterOperations) -> Result<Vec<DeadLetterGroup>, OperationError> {
        Ok(operations.catalog.dead_letter_groups(MOST_GROUPS).await?)
    }
}

/// Whether there may be more letters, or more groups, than these.
pub(crate) fn is_cut(groups: &[DeadLetterGroup]) -> bool {
    let whole: u64 = groups.iter().map(|group| group.count).sum();
    groups.len() >= MOST_GROUPS || whole >= MOST_GROUPED as u64
}

/// The groups for a person.
pub(crate) fn groups(groups: &[DeadLetterGroup]) -> String {
    if groups.is_empty() {
        return "no dead letters".to_owned();
    }
    let line = |group: &DeadLetterGroup| {
        let DeadLetterGroup { stage, reason, count, first_at, last_at, .. } = group;
        let at = format!("{count:>7}  {:<20}  {first_at:.0} to {last_at:.0}", stage.replace('_', " "));
        format!("{at}\n{}", folded("         ", reason))
    };
    let bound = is_cut(groups).then(|| {
        format!("counted are the newest {MOST_GROUPED} letters, in the {MOST_GROUPS} largest groups; there may be more")
    });
    groups.iter().map(line).chain(bound).collect::<Vec<_>>().join("\n")
}

/// One dead letter is asked for, with its message.
#[derive(Debug, Args, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Serialize, Deserialize, ToSchema)]
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
#[derive(Debug, Serialize, Deserialize, ToSchema)]
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
    /// Those that are selected, after the one with this number: at most so many, without their messages.
    async fn listed(
        &self,
        selected: &ListDeadLetters,
        after: u64,
        most: usize,
    ) -> Result<Vec<DeadLetter>, OperationError> {
        let (mut listed, mut after, filter) = (Vec::new(), after, selected.filter());
        loop {
            // Few of many may hold the text, so that what is left to find says nothing of how many to read.
            let limit = if selected.reason.is_some() { PAGE } else { PAGE.min(most - listed.len()) };
            let page = self.catalog.dead_letters_of(&filter, after, limit).await?;
            let done = page.len() < limit;
            after = page.last().map_or(after, |letter| letter.id);
            let taken = page.into_iter().filter(|letter| selected.takes(letter)).take(most - listed.len());
            listed.extend(taken.map(|letter| DeadLetter { message: serde_json::Value::Null, ..letter }));
            if done || listed.len() >= most {
                return Ok(listed);
            }
        }
    }

    async fn dead_letter(&self, id: u64) -> Result<DeadLetter, OperationError> {
        let letter = self.catalog.dead_letter(id).await?;
        letter.ok_or_else(|| OperationError::NotFound(format!("there is no dead letter {id}")))
    }
}

fn list(letters: &[DeadLetter]) -> String {
    if letters.is_empty() {
        return "no dead letters".to_owned();
    }
    let line = |letter: &DeadLetter| {
        let DeadLetter { id, stage, reason, at, replay_at, conversation_id, .. } = letter;
        let conversation = conversation_id.as_deref().unwrap_or("-");
        let back = replay_at.map(|at| format!(", goes back {at:.0}")).unwrap_or_default();
        let head = format!("{id:>7}  {conversation:<19}  {stage:<18}  {at:.0}{back}");
        format!("{}\n{}", folded("", &head), folded("         ", reason))
    };
    let head = format!("{:>7}  {:<19}  {:<18}  {}", "id", "conversation", "stage", "set aside at");
    [head].into_iter().chain(letters.iter().map(line)).collect::<Vec<_>>().join("\n")
}
