//! Where a budget is kept: loaded, decided upon, saved, by one at a time.

use std::time::Duration;

use async_trait::async_trait;

use super::{BudgetDecision, BudgetRequest, Terms, Usage};

/// A budget could not be asked.
#[derive(Debug, Clone, thiserror::Error)]
#[error("rate budget: {what}")]
pub struct StoreError {
    /// What happened.
    pub what: String,
    /// Whether it may have been saved all the same: then [`BudgetRequest::once_more`] says what may be told again.
    pub may_be_saved: bool,
}

/// One NICE tenant's budget of one API family.
///
/// All who ask shall have the same limit: by a shorter window a request is forgotten for those who have a longer one.
#[async_trait]
pub trait BudgetStore: Send + Sync + 'static {
    /// Loads the budget, has it decide, and saves it. When this returns, the verdict survives a crash if it must.
    ///
    /// `age` tells how long the asking process has lived; it is asked once the budget is loaded.
    async fn turn(
        &self,
        request: &BudgetRequest,
        age: &(dyn Fn() -> Duration + Send + Sync),
    ) -> Result<BudgetDecision, StoreError>;

    /// How much of it is in use.
    async fn usage(&self, terms: &Terms) -> Result<Usage, StoreError>;
}
