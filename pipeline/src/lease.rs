//! The right to be the tenant's producer.

#[cfg(feature = "servers")]
use stages::clients::postgres::{Held as HeldLease, ProducerLease};

use crate::failure::Failure;

/// How one producer of a tenant keeps another one waiting.
pub(crate) enum Lease {
    /// The catalog is embedded: no other process can open it.
    Sole,
    /// A lock in the Knovvu database.
    #[cfg(feature = "servers")]
    Contended(ProducerLease),
}

/// The right, for as long as it lives.
pub(crate) enum Held {
    /// Cannot be lost.
    Sole,
    /// Lost with its connection.
    #[cfg(feature = "servers")]
    Contended(HeldLease),
}

impl Lease {
    /// Waits for the right.
    pub(crate) async fn hold(&self) -> Held {
        match self {
            Self::Sole => Held::Sole,
            #[cfg(feature = "servers")]
            Self::Contended(lease) => Held::Contended(lease.wait().await),
        }
    }

    /// Takes the right if it is free.
    pub(crate) async fn try_hold(&self) -> Result<Option<Held>, Failure> {
        match self {
            Self::Sole => Ok(Some(Held::Sole)),
            #[cfg(feature = "servers")]
            Self::Contended(lease) => Ok(lease.try_take().await?.map(Held::Contended)),
        }
    }
}

impl Held {
    /// Resolves when it is lost.
    pub(crate) async fn lost(&self) {
        match self {
            Self::Sole => std::future::pending().await,
            #[cfg(feature = "servers")]
            Self::Contended(held) => held.lost().await,
        }
    }
}
