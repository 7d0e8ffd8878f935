//! The right to be the tenant's producer.

use std::sync::Arc;

use database::{HeldLease, ProducerLease};
use futures::future::BoxFuture;
use model::TenantId;

use crate::command_error::CommandError;

/// A server of leases that another program lends to a service in its own process; see [`crate::embed`].
pub trait LeaseServer: Send + Sync {
    /// Waits for the right to be the tenant's producer.
    fn hold(&self, tenant: &TenantId) -> BoxFuture<'static, Box<dyn LentLease>>;
}

/// The right, until it is dropped or lost.
pub trait LentLease: Send + Sync {
    /// Resolves when it is lost.
    fn lost(&self) -> BoxFuture<'_, ()>;
}

/// How one producer of a tenant keeps another one waiting.
pub(crate) enum Lease {
    /// The catalog is embedded: no other process can open it.
    Sole,
    /// A lock in the Knovvu database.
    Contended(ProducerLease),
    /// Another program keeps the leases.
    Lent(Arc<dyn LeaseServer>, TenantId),
}

/// The right, for as long as it lives.
pub(crate) enum LeaseGuard {
    /// Cannot be lost.
    Sole,
    /// Lost with its connection.
    Contended(HeldLease),
    /// Lost when its owner says so.
    Lent(Box<dyn LentLease>),
}

impl Lease {
    /// Waits for the right.
    pub(crate) async fn hold(&self) -> LeaseGuard {
        match self {
            Self::Sole => LeaseGuard::Sole,
            Self::Contended(lease) => LeaseGuard::Contended(lease.wait().await),
            Self::Lent(server, tenant) => LeaseGuard::Lent(server.hold(tenant).await),
        }
    }

    /// Takes the right if it is free.
    pub(crate) async fn try_hold(&self) -> Result<Option<LeaseGuard>, CommandError> {
        match self {
            Self::Sole => Ok(Some(LeaseGuard::Sole)),
            Self::Contended(lease) => Ok(lease.try_take().await?.map(LeaseGuard::Contended)),
            // Only commands of an executable try, and none runs there.
            Self::Lent(server, tenant) => Ok(Some(LeaseGuard::Lent(server.hold(tenant).await))),
        }
    }
}

impl LeaseGuard {
    /// Resolves when it is lost.
    pub(crate) async fn lost(&self) {
        match self {
            Self::Sole => std::future::pending().await,
            Self::Contended(held) => held.lost().await,
            Self::Lent(held) => held.lost().await,
        }
    }
}
