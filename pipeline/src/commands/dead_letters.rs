//! `dead-letters`.

use std::time::Duration;

use jiff::Timestamp;
use model::DeadLetter;
use runtime::Clock;
use serde::Serialize;

use crate::access::{Access, Load};
use crate::cli::{Asked, DeadLettersCommand, Dropped, ListedLetters, Selected};
use crate::command_error::CommandError;
use crate::config::Need;
use crate::doors::Wanted;
use crate::operations::SingleCommand;
use crate::operations::dead_letters::{
    self, DropDeadLetter, DropDeadLetters, GroupDeadLetters, ListDeadLetters, ReplayDeadLetter, ShowDeadLetter,
};
use crate::output::AnswerForm;

/// What became of the letters that were to be replayed or dropped.
#[derive(Debug, Default, Serialize)]
struct LettersActedOn {
    /// Whether nothing was done, and `count` is how many would be concerned.
    dry_run: bool,
    /// How many went back to the queue, or were dropped.
    count: u64,
    /// Those that stay on the shelf, and why.
    stayed: Vec<StayedLetter>,
    /// Those that would be concerned; none where they were only counted, or where something was done.
    letters: Option<Vec<DeadLetter>>,
}

/// A letter that could not be replayed or dropped.
#[derive(Debug, Serialize)]
struct StayedLetter {
    id: u64,
    reason: String,
}

/// What is done with letters.
#[derive(Debug, Clone, Copy)]
enum ShelfAct {
    Replay,
    Drop,
}

impl ShelfAct {
    /// What is said of several letters to which it was done, or would be.
    fn said(self, dry_run: bool) -> &'static str {
        match (self, dry_run) {
            (Self::Replay, false) => "are back on the queue",
            (Self::Replay, true) => "would go back to the queue",
            (Self::Drop, false) => "are dropped",
            (Self::Drop, true) => "would be dropped",
        }
    }

    /// Does it to one letter.
    async fn apply(self, access: &Access, id: u64) -> Result<(), CommandError> {
        match self {
            Self::Replay => access.ask(ReplayDeadLetter { id }).await,
            Self::Drop => access.ask(DropDeadLetter { id }).await,
        }
    }

    /// Does it to one letter, and says so.
    async fn on_one(self, access: &Access, id: u64, form: AnswerForm) -> Result<(), CommandError> {
        self.apply(access, id).await?;
        let said = match self {
            Self::Replay => "is back on the queue",
            Self::Drop => "is dropped",
        };
        let acted = LettersActedOn { count: 1, ..LettersActedOn::default() };
        form.print(&acted, |_| format!("dead letter {id} {said}"));
        Ok(())
    }

    /// Does it to every letter; those to which it cannot be done stay, and are named. A dry run only shows them.
    async fn on_all(
        self,
        access: &Access,
        letters: Vec<DeadLetter>,
        dry_run: bool,
        form: AnswerForm,
    ) -> Result<(), CommandError> {
        let all = letters.len() as u64;
        if dry_run {
            let acted = LettersActedOn { dry_run, count: all, letters: Some(letters), ..LettersActedOn::default() };
            form.print(&acted, |acted| {
                let listed = ListDeadLetters::table(acted.letters.as_ref().unwrap_or(&Vec::new()));
                format!("{listed}\n{all} dead letters {}", self.said(true))
            });
            return Ok(());
        }
        let mut stayed = Vec::new();
        for letter in letters {
            if let Err(failure) = self.apply(access, letter.id).await {
                eprintln!("{}", failure.message());
                stayed.push(StayedLetter { id: letter.id, reason: failure.message().to_owned() });
            }
        }
        let acted = LettersActedOn { count: all - stayed.len() as u64, stayed, ..LettersActedOn::default() };
        form.print(&acted, |acted| format!("{} of {all} dead letters {}", acted.count, self.said(false)));
        match acted.stayed.len() {
            0 => Ok(()),
            stayed => Err(CommandError::partly(format!("{stayed} dead letters stay on the shelf"))),
        }
    }
}

/// `dead-letters`.
pub(crate) async fn dead_letters(command: DeadLettersCommand, load: Load<'_>) -> Result<(), CommandError> {
    let access = Access::of(&load(Need::Local)?, Wanted::Listing).await?;
    match command {
        DeadLettersCommand::List(ListedLetters { groups: true, form, .. }) => {
            form.print(&access.ask(GroupDeadLetters {}).await?, |groups| dead_letters::groups(groups));
        }
        DeadLettersCommand::List(ListedLetters { filter, form, .. }) => {
            form.print(&access.ask(filter).await?, ListDeadLetters::table);
        }
        DeadLettersCommand::Show(Asked { request, form }) => {
            form.print(&access.ask(request).await?, ShowDeadLetter::table);
        }
        DeadLettersCommand::Replay(Selected { id: Some(id), form, .. }) => {
            ShelfAct::Replay.on_one(&access, id, form).await?;
        }
        DeadLettersCommand::Replay(Selected { filter, dry_run, form, .. }) => {
            let letters = access.ask(filter).await?;
            ShelfAct::Replay.on_all(&access, letters, dry_run, form).await?;
        }
        DeadLettersCommand::Drop(Dropped { id: Some(id), form, .. }) => {
            ShelfAct::Drop.on_one(&access, id, form).await?;
        }
        DeadLettersCommand::Drop(Dropped { filter, older_than, dry_run, form, .. }) if filter.selects() => {
            let before = Clock::system().now().checked_sub(older_than.unwrap_or_default()).unwrap_or(Timestamp::MIN);
            let letters = access.ask(filter).await?;
            let letters = letters.into_iter().filter(|letter| letter.at < before).collect();
            ShelfAct::Drop.on_all(&access, letters, dry_run, form).await?;
        }
        DeadLettersCommand::Drop(Dropped { older_than, dry_run, form, .. }) => {
            let older_than_secs = older_than.unwrap_or(Duration::MAX).as_secs();
            let count = access.ask(DropDeadLetters { older_than_secs, dry_run }).await?;
            let acted = LettersActedOn { dry_run, count, ..LettersActedOn::default() };
            form.print(&acted, |_| format!("{count} dead letters {}", ShelfAct::Drop.said(dry_run)));
        }
    }
    access.close().await
}
