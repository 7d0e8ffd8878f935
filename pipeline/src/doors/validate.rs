//! Settings that cannot work together, and a kind that is not in this executable, are refused before anything is
//! touched.

use tracing::warn;

use super::wanted::Service;
use super::{servers, validate_queue};
use crate::command_error::CommandError;
use crate::config::{CatalogKind, Config, QueueKind};
use crate::proof::night::NightlyProof;

/// Refuses a queue that this executable does not have, and settings that cannot work together. Touches nothing.
pub(crate) fn validate(config: &Config, service: Service) -> Result<(), CommandError> {
    validate_queue(config, config.queue.kind)?;
    servers::validate(config)?;
    if service != Service::Run {
        shared(config, service)?;
    }
    if service.produces() {
        NightlyProof::of(&config.proof)?;
        sources(config)?;
    }
    Ok(())
}

/// `producer` and `consumer` alone need doors that more than one process can open.
fn shared(config: &Config, service: Service) -> Result<(), CommandError> {
    let refuse = |section: &str, other: &str| {
        let service = service.name();
        Err(CommandError::usage(format!(
            "[{section}] kind: the embedded {section} is open to one process only, so `{service}` alone would reach \
             nobody; use `nice-knovvu run`, or choose {other}"
        )))
    };
    if config.queue.kind == QueueKind::Embedded {
        return refuse("queue", "kind = \"rabbitmq\" with a url, or kind = \"fluvio\"");
    }
    if config.catalog.kind == CatalogKind::Embedded {
        return refuse("catalog", "kind = \"postgres\" with a url");
    }
    Ok(())
}

/// Refuses settings of the sources that cannot work together.
fn sources(config: &Config) -> Result<(), CommandError> {
    if !config.events.poll && !config.events.webhook && !config.events.agent_sessions {
        return Err(CommandError::usage(
            "[events] poll, webhook, agent_sessions: all are false, so no call would ever be found; set one of them \
             to true",
        ));
    }
    if config.events.agent_sessions && !config.events.poll {
        warn!(
            "[events] poll is off: a call that ends while its agent's session is not joined, or while we are down, is \
             not found by agent_sessions; set poll = true"
        );
    }
    let listen = config.events.webhook_listen;
    if config.events.webhook && listen == config.admin.listen && listen.port() != 0 {
        return Err(CommandError::usage(
            "[events] webhook_listen: the same address as [admin] listen; give each a port of its own",
        ));
    }
    Ok(())
}
