//! Settings as the stages take them.

use std::time::Duration;

use flow::RetryPolicy;
use model::{Retention, TenantId};
use nice::{Auth, GroupSelector, NiceSettings};
use stages::readiness::Bounds;

use crate::command_error::CommandError;
use crate::config::{AuthFlow, Config, NiceConfig, ReconciliationConfig};
use crate::nightly::Nightly;

/// The settings `[nice]` as the client takes them; none where they are not complete for their flow.
pub(crate) fn nice_settings(nice: &NiceConfig) -> Option<NiceSettings> {
    let (access_key_id, access_key_secret) = (nice.access_key_id.clone()?, nice.access_key_secret.clone()?);
    let auth = match nice.auth_flow {
        AuthFlow::Oauth => Auth::OAuth {
            client_id: nice.client_id.clone()?,
            client_secret: nice.client_secret.clone()?,
            access_key_id,
            access_key_secret,
        },
        AuthFlow::AccessKey => Auth::AccessKey { access_key_id, access_key_secret },
    };
    Some(NiceSettings {
        issuer: nice.issuer.clone(),
        auth,
        api_version: nice.api_version.clone(),
        group: GroupSelector { kind: nice.group_kind, id_or_name: nice.group.clone()? },
        acd_url: nice.acd_url.clone(),
        facade_url: nice.facade_url.clone(),
        auth_url: nice.auth_url.clone(),
        media_hosts: nice.media_hosts.clone(),
        private_media_hosts: nice.private_media_hosts.clone(),
    })
}

/// When the first look for a recording comes. It leaves half of the time until the deadline for further looks, and
/// short steps mean that recordings are expected soon.
pub(crate) fn first_look(config: &Config) -> Bounds {
    let retry = &config.retry;
    let longest_step = retry.not_ready_delays.iter().max().copied().unwrap_or_default();
    Bounds {
        share: retry.first_look,
        guess: retry.first_guess.min(longest_step),
        longest: retry.recording_deadline / 2,
    }
}

/// How long the tenant's conversations are kept.
pub(crate) fn retention(nice: &NiceConfig) -> Result<Retention, CommandError> {
    let shorter = || CommandError::usage("[nice] retention: shorter than a day");
    nice.retention.map_or(Ok(Retention::default()), |kept_for| Retention::new(kept_for).ok_or_else(shorter))
}

/// The settings `[retry]` as the flow takes them.
pub(crate) fn retry_policy(config: &Config) -> RetryPolicy {
    RetryPolicy {
        not_ready_delays: config.retry.not_ready_delays.clone(),
        recording_deadline: config.retry.recording_deadline,
        error_delay_min: config.retry.error_delay_min,
        error_delay_max: config.retry.error_delay_max,
    }
}

/// The tenant of the settings.
pub(crate) fn tenant(config: &Config) -> Result<TenantId, CommandError> {
    config.tenant.id.clone().ok_or_else(|| CommandError::usage("[tenant] id: missing"))
}

/// When the nightly comparison is due.
pub(crate) fn nightly(config: &Config) -> Nightly {
    let ReconciliationConfig { at, timezone, window, lateness, longest_call, recheck, .. } =
        config.reconciliation.clone();
    let recheck = (!recheck.is_zero()).then_some(recheck);
    Nightly { at, timezone, window, longest_call, lateness, recheck }
}

/// The recovery window: how far back the producer looks for calls after its local state was lost or a clock was wrong.
/// A lost call may have waited for its recording until the deadline.
pub(crate) fn recovery_window(config: &Config) -> Duration {
    config.state.retention.max(config.reconciliation.window).max(config.retry.recording_deadline)
}
