//! The processed-id log of the pipeline, through the calls that the pipeline makes.

use std::path::Path;

use model::Key;
use state::{ClaimOutcome, State, StateOptions};

use super::{Id, Target, id};

/// An open state.
#[derive(Clone)]
pub(crate) struct Ours(State);

impl Ours {
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let opened = State::open(&dir.join("state"), StateOptions { max_ids: u64::MAX, ..StateOptions::default() })?;
        anyhow::ensure!(opened.set_aside.is_none(), "the state was damaged");
        Ok(Self(opened.state))
    }

    pub(crate) fn load(&self, loaded: u64) -> anyhow::Result<()> {
        self.0.processed().seed((0..loaded).map(|number| Key::from_bytes(id(number))))?;
        Ok(())
    }
}

impl Target for Ours {
    async fn claim(&self, id: Id) -> anyhow::Result<bool> {
        match self.0.processed().claim(Key::from_bytes(id))? {
            ClaimOutcome::Processed => Ok(true),
            ClaimOutcome::InFlight(_) => anyhow::bail!("the bench claims no id twice at a time"),
            ClaimOutcome::Claimed(claim) => {
                claim.commit().await?;
                Ok(false)
            }
        }
    }

    fn syncs(&self) -> u64 {
        self.0.store().syncs()
    }
}
