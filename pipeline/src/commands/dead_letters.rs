//! `dead-letters`.

use std::time::Duration;

use jiff::Timestamp;
use model::DeadLetter;
use runtime::Clock;

use crate::access::{Access, Load, print};
use crate::cli::{Asked, DeadLettersCommand, Dropped, ListedLetters, Selected};
use crate::command_error::CommandError;
use crate::config::Need;
use crate::doors::Wanted;
use crate::operations::SingleCommand;
use crate::operations::dead_letters::{
    self, DropDeadLetter, DropDeadLetters, GroupDeadLetters, ListDeadLetters, ReplayDeadLetter, ShowDeadLetter,
};
use crate::output;

/// `dead-letters`.
pub(crate) async fn dead_letters(command: DeadLettersCommand, load: Load<'_>) -> Result<(), CommandError> {
    let access = Access::of(&load(Need::Local)?, Wanted::Listing).await?;
    match command {
        DeadLettersCommand::List(ListedLetters { groups: true, json, .. }) => {
            print(json, &access.ask(GroupDeadLetters {}).await?, |groups| dead_letters::groups(groups));
        }
        DeadLettersCommand::List(ListedLetters { filter, json, .. }) => {
            print(json, &access.ask(filter).await?, ListDeadLetters::table);
        }
        DeadLettersCommand::Show(Asked { request, json }) => {
            print(json, &access.ask(request).await?, ShowDeadLetter::table);
        }
        DeadLettersCommand::Replay(Selected { id: Some(id), .. }) => {
            access.ask(ReplayDeadLetter { id }).await?;
            output::line(format!("dead letter {id} is back on the queue"));
        }
        DeadLettersCommand::Replay(Selected { filter, dry_run, .. }) => {
            let letters = access.ask(filter).await?;
            match dry_run {
                true => {
                    print(false, &letters, ListDeadLetters::table);
                    output::line(format!("{} dead letters would go back to the queue", letters.len()));
                }
                false => replay(&access, &letters).await?,
            }
        }
        DeadLettersCommand::Drop(Dropped { id: Some(id), .. }) => {
            access.ask(DropDeadLetter { id }).await?;
            output::line(format!("dead letter {id} is dropped"));
        }
        DeadLettersCommand::Drop(Dropped { filter, older_than, dry_run, .. }) if filter.selects() => {
            let before = Clock::system().now().checked_sub(older_than.unwrap_or_default()).unwrap_or(Timestamp::MIN);
            let letters = access.ask(filter).await?;
            let letters: Vec<_> = letters.into_iter().filter(|letter| letter.at < before).collect();
            match dry_run {
                true => {
                    print(false, &letters, ListDeadLetters::table);
                    output::line(format!("{} dead letters would be dropped", letters.len()));
                }
                false => drop_each(&access, &letters).await?,
            }
        }
        DeadLettersCommand::Drop(Dropped { older_than, dry_run, .. }) => {
            let older_than_secs = older_than.unwrap_or(Duration::MAX).as_secs();
            let count = access.ask(DropDeadLetters { older_than_secs, dry_run }).await?;
            let verb = if dry_run { "would be dropped" } else { "are dropped" };
            output::line(format!("{count} dead letters {verb}"));
        }
    }
    access.close().await
}

/// Replays every letter; those that cannot be replayed stay, and are named.
async fn replay(access: &Access, letters: &[DeadLetter]) -> Result<(), CommandError> {
    let mut stayed = 0;
    for letter in letters {
        if let Err(failure) = access.ask(ReplayDeadLetter { id: letter.id }).await {
            stayed += 1;
            eprintln!("{}", failure.message());
        }
    }
    tell(letters.len(), stayed, "are back on the queue")
}

/// Drops every letter; those that were written anew meanwhile stay, and are named.
async fn drop_each(access: &Access, letters: &[DeadLetter]) -> Result<(), CommandError> {
    let mut stayed = 0;
    for letter in letters {
        if let Err(failure) = access.ask(DropDeadLetter { id: letter.id }).await {
            stayed += 1;
            eprintln!("{}", failure.message());
        }
    }
    tell(letters.len(), stayed, "are dropped")
}

fn tell(all: usize, stayed: usize, done: &str) -> Result<(), CommandError> {
    output::line(format!("{} of {all} dead letters {done}", all - stayed));
    match stayed {
        0 => Ok(()),
        stayed => Err(CommandError::partly(format!("{stayed} dead letters stay on the shelf"))),
    }
}
