//! `agents sync` and `agents list`.

use crate::access::{Access, Load, answer};
use crate::cli::{AgentsCommand, Asked};
use crate::command_error::CommandError;
use crate::config::Need;
use crate::doors::Wanted;
use crate::operations::SingleCommand;
use crate::operations::agents::{ListAgents, ReadGroup, ShowHeldReading, SyncMode, held};

/// `agents sync` and `agents list`.
pub(crate) async fn agents(command: AgentsCommand, load: Load<'_>) -> Result<(), CommandError> {
    match command {
        AgentsCommand::Sync { accept, form } => {
            let mode = if accept { SyncMode::Accept } else { SyncMode::Sync };
            answer(ReadGroup { mode }, form, load).await
        }
        AgentsCommand::List(Asked { request, form }) => {
            let access = Access::of(&load(Need::Local)?, Wanted::Listing).await?;
            form.print(&access.ask(request).await?, ListAgents::table);
            if let Some(reading) = access.ask(ShowHeldReading {}).await? {
                eprintln!("{}", held(&reading));
            }
            access.close().await
        }
    }
}
