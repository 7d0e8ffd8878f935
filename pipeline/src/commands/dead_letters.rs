//! `dead-letters`.

use std::time::Duration;

use crate::access::{Access, Load, print};
use crate::cli::{Asked, DeadLettersCommand, Dropped, Selected};
use crate::command_error::CommandError;
use crate::config::Need;
use crate::doors::Wanted;
use crate::operations::SingleCommand;
use crate::operations::dead_letters::{
    DropDeadLetter, DropDeadLetters, ListDeadLetters, ReplayDeadLetter, ShowDeadLetter,
};
use crate::output;

/// `dead-letters`.
pub(crate) async fn dead_letters(command: DeadLettersCommand, load: Load<'_>) -> Result<(), CommandError> {
    let access = Access::of(&load(Need::Local)?, Wanted::Listing).await?;
    match command {
        DeadLettersCommand::List(Asked { request, json }) => {
            print(json, &access.ask(request).await?, ListDeadLetters::table);
        }
        DeadLettersCommand::Show(Asked { request, json }) => {
            print(json, &access.ask(request).await?, ShowDeadLetter::table);
        }
        DeadLettersCommand::Replay(Selected { id: Some(id), .. }) => {
            access.ask(ReplayDeadLetter { id }).await?;
            output::line(format!("dead letter {id} is back on the queue"));
        }
        DeadLettersCommand::Replay(Selected { id: None, dry_run: true, .. }) => {
            let letters = access.ask(ListDeadLetters {}).await?;
            print(false, &letters, ListDeadLetters::table);
            output::line(format!("{} dead letters would go back to the queue", letters.len()));
        }
        DeadLettersCommand::Replay(Selected { id: None, .. }) => replay_all(&access).await?,
        DeadLettersCommand::Drop(Dropped { id: Some(id), .. }) => {
            access.ask(DropDeadLetter { id }).await?;
            output::line(format!("dead letter {id} is dropped"));
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
async fn replay_all(access: &Access) -> Result<(), CommandError> {
    let letters = access.ask(ListDeadLetters {}).await?;
    let mut stayed = 0;
    for letter in &letters {
        if let Err(failure) = access.ask(ReplayDeadLetter { id: letter.id }).await {
            stayed += 1;
            eprintln!("{}", failure.message());
        }
    }
    output::line(format!("{} of {} dead letters are back on the queue", letters.len() - stayed, letters.len()));
    if stayed > 0 {
        return Err(CommandError::partly(format!("{stayed} dead letters stay on the shelf")));
    }
    Ok(())
}
