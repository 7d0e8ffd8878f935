//! Settings as the stages take them.

use flow::RetryPolicy;
use model::Retention;
use nice::{Auth, GroupKind, GroupSelector, NiceSettings};
use stages::{readiness::Bounds, tenants::RecordingScope};

use crate::config;
use crate::config::{Config, NiceConfig};
use crate::failure::Failure;

/// The settings `[nice]` as the client takes them.
pub(crate) fn nice_settings(nice: NiceConfig) -> Result<NiceSettings, Failure> {
    let auth = match nice.auth_flow {
        config::AuthFlow::Oauth { client_id, client_secret } => Auth::OAuth {
            client_id,
            client_secret,
            access_key_id: nice.access_key_id,
            access_key_secret: nice.access_key_secret,
        },
        config::AuthFlow::AccessKey => {
            Auth::AccessKey { access_key_id: nice.access_key_id, access_key_secret: nice.access_key_secret }
        }
    };
    let kind = match nice.group_kind {
        config::GroupKind::AcdGroup => GroupKind::AcdGroup,
        config::GroupKind::Team => GroupKind::Team,
    };
    let hosts = |key: &str, hosts: &[config::MediaHost]| {
        let hosts = hosts.iter().map(|host| host.to_string().parse()).collect::<Result<_, _>>();
        hosts.map_err(|error| Failure::usage(format!("[nice] {key}: {error}")))
    };
    Ok(NiceSettings {
        issuer: nice.issuer,
        auth,
        api_version: nice.api_version,
        group: GroupSelector { kind, id_or_name: nice.group },
        acd_url: nice.acd_url,
        facade_url: nice.facade_url,
        auth_url: nice.auth_url,
        media_hosts: hosts("media_hosts", &nice.media_hosts)?,
        private_media_hosts: hosts("private_media_hosts", &nice.private_media_hosts)?,
    })
}

/// What of a transferred call is imported.
pub(crate) fn recording_scope(scope: config::RecordingScope) -> RecordingScope {
    match scope {
        config::RecordingScope::Master => RecordingScope::Master,
        config::RecordingScope::Leg => RecordingScope::Leg,
    }
}

/// When calls are looked at first. Half the time until the deadline is left for the steps after it. Who takes short
/// steps expects recordings soon.
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
pub(crate) fn retention(nice: &NiceConfig) -> Result<Retention, Failure> {
    let shorter = || Failure::usage("[nice] retention: shorter than a day");
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
