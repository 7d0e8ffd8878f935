//! The queue on Fluvio, in an executable that is built with it.
//!
//! Which process reads which partition, and how far, stands in the Knovvu database. Where the catalog is built in, one
//! process is alone with everything, and its local state holds the same.

#[cfg(not(feature = "fluvio"))]
pub(super) use without::{open, validate};

#[cfg(feature = "fluvio")]
pub(super) use within::{open, validate};

#[cfg(not(feature = "fluvio"))]
mod without {
    use std::sync::Arc;

    use queue::Queue;
    use runtime::Clock;
    use stages::metrics::Metrics;

    use super::super::QueuePlace;
    use crate::command_error::CommandError;
    use crate::config::Config;

    fn missing() -> CommandError {
        CommandError::usage(
            "[queue] kind: \"fluvio\" is not part of this executable; take one that is built with it (cargo build \
             --release -p nice-knovvu --features fluvio), or choose kind = \"rabbitmq\" or \"embedded\"",
        )
    }

    /// Refuses it.
    pub(in super::super) fn validate(_config: &Config) -> Result<(), CommandError> {
        Err(missing())
    }

    /// Refuses it.
    pub(in super::super) async fn open(
        _config: &Config,
        _place: QueuePlace<'_>,
        _clock: &Clock,
        _metrics: &Metrics,
    ) -> Result<Arc<dyn Queue>, CommandError> {
        Err(missing())
    }
}

#[cfg(feature = "fluvio")]
mod within {
    use std::sync::Arc;

    use database::schema;
    use queue::{FluvioError, FluvioLedger, FluvioOptions, FluvioQueue, Queue};
    use runtime::Clock;
    use stages::metrics::Metrics;

    use super::super::{QueuePlace, servers::SERVICE};
    use crate::command_error::CommandError;
    use crate::config::Config;

    /// Lets the client check its settings; touches no server.
    pub(in super::super) fn validate(config: &Config) -> Result<(), CommandError> {
        Ok(options(config).validate()?)
    }

    /// Makes or checks the topics. The tables that hold who reads what must be those we know.
    pub(in super::super) async fn open(
        config: &Config,
        place: QueuePlace<'_>,
        clock: &Clock,
        metrics: &Metrics,
    ) -> Result<Arc<dyn Queue>, CommandError> {
        let options = options(config);
        options.validate()?;
        let ledger = match (place.database, place.state) {
            (Some(database), _) => {
                schema::check(database).await?;
                FluvioLedger::Database(database.clone())
            }
            (None, Some(store)) => FluvioLedger::Local(store.clone()),
            (None, None) => return Err(CommandError::failed("this process has no place for the offsets of Fluvio")),
        };
        Ok(Arc::new(FluvioQueue::connect(options, ledger, clock.clone(), &metrics.queue).await?))
    }

    fn options(config: &Config) -> FluvioOptions {
        let queue = &config.queue;
        FluvioOptions {
            address: queue.cluster(),
            profile: queue.profile.clone(),
            prefix: queue.prefix.clone(),
            partitions: queue.partitions,
            replication: queue.replication,
            delays: config.retry.not_ready_delays.clone(),
            service: SERVICE.to_owned(),
        }
    }

    impl From<FluvioError> for CommandError {
        fn from(error: FluvioError) -> Self {
            match &error {
                FluvioError::Address(_) | FluvioError::Profile(_) | FluvioError::Prefix => Self::usage(error),
                FluvioError::Unreachable { .. } => Self::unreachable(error),
                FluvioError::Differs { .. } | FluvioError::Failed(_) => Self::failed(error),
            }
        }
    }
}
