//! The bare file behind a group commit.
//!
//! The bench is fair if both peers see the same batches: whatever waits while a commit is under way goes into the next one.

use std::sync::Arc;

use anyhow::Context;
use tokio::sync::{mpsc, oneshot};

use super::{BATCH_LIMIT, Id, Raw, Target};

/// A file behind a group commit.
#[derive(Clone)]
pub(crate) struct Grouped {
    file: Arc<Raw>,
    line: mpsc::Sender<(Id, oneshot::Sender<()>)>,
}

impl Grouped {
    pub(crate) fn new(file: Raw) -> anyhow::Result<Self> {
        let (line, mut waiting) = mpsc::channel::<(Id, oneshot::Sender<()>)>(4096);
        let file = Arc::new(file);
        let committing = Arc::clone(&file);
        std::thread::Builder::new().name("group-commit".to_owned()).spawn(move || {
            let (mut ids, mut replies) = (Vec::new(), Vec::new());
            while let Some((id, reply)) = waiting.blocking_recv() {
                ids.push(id);
                replies.push(reply);
                while ids.len() < BATCH_LIMIT
                    && let Ok((id, reply)) = waiting.try_recv()
                {
                    ids.push(id);
                    replies.push(reply);
                }
                if let Err(error) = committing.commit(&ids) {
                    eprintln!("the commit failed: {error:#}");
                    return;
                }
                ids.clear();
                for reply in replies.drain(..) {
                    reply.send(()).ok();
                }
            }
        })?;
        Ok(Self { file, line })
    }
}

impl Target for Grouped {
    async fn claim(&self, id: Id) -> anyhow::Result<bool> {
        if self.file.contains(&id) {
            return Ok(true);
        }
        let (reply, done) = oneshot::channel();
        self.line.send((id, reply)).await.context("the committer ended")?;
        done.await.context("the commit failed")?;
        Ok(false)
    }

    fn syncs(&self) -> u64 {
        self.file.syncs()
    }
}
