//! `agents sync` and `agents list`.

use crate::access::{Access, Load, answer, print};
use crate::cli::{AgentsCommand, Asked};
use crate::config::Need;
use crate::doors::Wanted;
use crate::failure::Failure;
use crate::operations::SingleCommand;
use crate::operations::agents::{Doubt, ListAgents, ReadGroup, ShowHeldReading, held};

/// `agents sync` and `agents list`.
pub(crate) async fn agents(command: AgentsCommand, load: Load<'_>) -> Result<(), Failure> {
    match command {
        AgentsCommand::Sync { accept, json } => {
            let doubt = if accept { Doubt::Accept } else { Doubt::Sync };
            answer(ReadGroup { doubt }, json, load).await
        }
        AgentsCommand::List(Asked { request, json }) => {
            let access = Access::of(&load(Need::Local)?, Wanted::Listing).await?;
            print(json, &access.ask(request).await?, ListAgents::table);
            if let Some(reading) = access.ask(ShowHeldReading {}).await? {
                eprintln!("{}", held(&reading));
            }
            access.close().await
        }
    }
}
