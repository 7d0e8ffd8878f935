//! `recheck`: NICE is asked once more for the recordings that calls lack.

use model::{ContactId, Members};
use reqwest::Method;
use runtime::Clock;

use super::{Access, Load, print, tables};
use crate::cli::RecheckOptions;
use crate::config::Need;
use crate::doors::Wanted;
use crate::failure::Failure;
use crate::operations::Rechecked;
use crate::operations::replays::Range;

/// `recheck`.
pub(crate) async fn recheck(options: RecheckOptions, load: Load<'_>) -> Result<(), Failure> {
    let (rechecked, access) = match (options.conversation_id, options.from, options.to) {
        (Some(id), None, None) => {
            // Before it becomes part of a path.
            let id: ContactId = id.parse().map_err(|error| Failure::usage(format!("CONVERSATION_ID: {error}")))?;
            let access = Access::of(&load(Need::Local)?, Wanted::Listing).await?;
            let rechecked: Rechecked = match &access {
                Access::Daemon(daemon) => daemon.call(Method::POST, &format!("/conversations/{id}/recheck")).await?,
                Access::Here(here) => here.0.recheck(&id.to_string()).await?,
            };
            (rechecked, access)
        }
        (None, Some(from), Some(to)) => {
            let range = Range { from: from.0, to: to.0, members: Members::Then, plan_only: false };
            range.validate(Clock::system().now())?;
            let access = Access::of(&load(Need::Local)?, Wanted::Listing).await?;
            let rechecked: Rechecked = match &access {
                Access::Daemon(daemon) => daemon.post("/rechecks", &range).await?,
                Access::Here(here) => here.0.recheck_range(range).await?,
            };
            (rechecked, access)
        }
        _ => return Err(Failure::usage("CONVERSATION_ID, or --from and --to: one of the two is needed")),
    };
    print(options.json, &rechecked, tables::rechecked);
    access.close().await
}
