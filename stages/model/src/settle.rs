//! The duty to settle a message once.

use std::time::Duration;

use async_trait::async_trait;

use crate::ContactEvent;

/// A delivery could not be settled; its effect is unknown, and the item will come again.
#[derive(Debug, Clone, thiserror::Error)]
#[error("delivery not settled: {0}")]
pub struct SettleError(pub String);

/// How the item's origin learns what became of it. Dropping it hands the item back.
#[async_trait]
pub trait Settle: Send + Sync {
    /// Never deliver it again.
    async fn ack(self: Box<Self>) -> Result<(), SettleError>;

    /// Deliver `event` in its place, after `delay`. The exchange is atomic where the origin allows it; else the
    /// item may come twice, never not at all.
    async fn defer(self: Box<Self>, event: &ContactEvent, delay: Duration) -> Result<(), SettleError>;
}
