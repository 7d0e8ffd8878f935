//! A stage: one step from item to item.

use std::future::Future;

use model::ContactEvent;

use super::{Outcome, StageError};

/// One step from item to item: a struct that holds its clients, and one function.
pub trait Stage<In>: Send + Sync + 'static {
    /// The one name of the stage, in metrics, logs, timeline and dead letters.
    const NAME: &'static str;
    /// The next stage's item.
    type Out: Send + 'static;

    /// Works on one item, and on the event that it began as. May be repeated for the same item at any time, so its
    /// effects must be repeatable.
    fn process(
        &self,
        event: &ContactEvent,
        item: In,
    ) -> impl Future<Output = Result<Outcome<Self::Out>, StageError>> + Send;
}
