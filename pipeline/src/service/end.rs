//! Ends a service: what it holds is finished or handed back, and the doors are left in order.

use std::time::Duration;

use futures::future;
use tracing::{info, warn};

use super::start::Answering;
use super::watch::{ServiceTask, ServiceTasks};
use crate::admin::Admin;
use crate::command_error::CommandError;
use crate::config::Config;
use crate::doors::OpenDoors;

/// Drains and closes; fails if the service ended because of an error.
pub(super) async fn end(
    config: &Config,
    doors: OpenDoors,
    front: Answering,
    work: ServiceTasks,
) -> Result<(), CommandError> {
    let ServiceTasks { producing, consuming, observing, looking, telling, upkeep, broken, queue_broken, ended_alone } =
        work;
    drop(upkeep);
    drain(config.flow.grace, [producing, consuming]).await;
    drop((front.webhook, observing, looking));
    if let Some(admin) = front.admin {
        Admin::stop(admin);
    }
    // Whoever meets the full disk first ends the service: the embedded queue lies on it as well.
    let state_failed = doors.state.as_ref().is_some_and(|state| state.store().check().is_err());
    telling.end().await;
    let closed = doors.close().await;
    if broken.is_cancelled() || state_failed {
        return Err(CommandError::failed("the local state failed: check the disk, then start again; nothing is lost"));
    }
    if queue_broken.is_cancelled() {
        return Err(CommandError::failed("the queue failed: the log says why; then start again; nothing is lost"));
    }
    closed?;
    if let Some(what) = ended_alone {
        return Err(CommandError::failed(format!("{what} ended by itself: start again; nothing is lost")));
    }
    info!("ended");
    Ok(())
}

/// Waits for the parts, but not longer than the grace period; what they still hold is handed back.
async fn drain(grace: Duration, parts: [ServiceTask; 2]) {
    let running = parts.into_iter().flatten().filter(|part| !part.is_finished());
    if tokio::time::timeout(grace, future::join_all(running)).await.is_err() {
        warn!(grace_secs = grace.as_secs_f64(), "grace period over, unfinished conversations are handed back");
        // Aborted tasks drop their deliveries at their next turn.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
