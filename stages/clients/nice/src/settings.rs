//! How to reach one tenant's NICE: already validated texts in, nothing read from files or the environment here.

use std::fmt;
use std::time::Duration;

use model::http;
use reqwest::Url;
use runtime::Clock;
use secrecy::SecretString;

use super::NiceError;
use super::media_hosts::MediaHost;

/// The settings of one tenant.
#[derive(Clone)]
pub struct NiceSettings {
    /// Where discovery begins, e.g. `https://cxone.niceincontact.com`.
    pub issuer: Url,
    /// How a token is asked for.
    pub auth: Auth,
    /// The version of the ACD API, e.g. `v33.0`.
    pub api_version: String,
    /// Whose calls are imported.
    pub group: GroupSelector,
    /// Overrides the discovered root of the ACD API.
    pub acd_url: Option<Url>,
    /// Overrides the discovered root of media playback.
    pub facade_url: Option<Url>,
    /// Overrides the discovered root of the token service.
    pub auth_url: Option<Url>,
    /// The only hosts that recordings are fetched from.
    pub media_hosts: Vec<MediaHost>,
    /// Those of them that may lead to an address of a private network.
    pub private_media_hosts: Vec<MediaHost>,
}

impl fmt::Debug for NiceSettings {
    /// Without the credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NiceSettings")
            .field("issuer", &self.issuer.as_str())
            .field("auth", &self.auth)
            .field("api_version", &self.api_version)
            .field("group", &self.group)
            .field("media_hosts", &self.media_hosts)
            .field("private_media_hosts", &self.private_media_hosts)
            .finish_non_exhaustive()
    }
}

impl NiceSettings {
    /// The checks that keep a bearer token from travelling in clear and a path from being built of odd parts.
    pub fn validate(&self) -> Result<(), NiceError> {
        let urls = [
            ("issuer", Some(&self.issuer)),
            ("acd_url", self.acd_url.as_ref()),
            ("facade_url", self.facade_url.as_ref()),
            ("auth_url", self.auth_url.as_ref()),
        ];
        for (name, url) in urls {
            if url.is_some_and(|url| !http::carries_secrets(url)) {
                return Err(NiceError::permanent(format!("{name} must be https, or http to a loopback address")));
            }
        }
        let digits = self.api_version.strip_prefix(['v', 'V']).unwrap_or_default();
        let plain = (1..=8).contains(&digits.len())
            && digits.starts_with(|c: char| c.is_ascii_digit())
            && digits.ends_with(|c: char| c.is_ascii_digit())
            && digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if !plain {
            return Err(NiceError::permanent("api_version must look like v33.0"));
        }
        if self.group.id_or_name.trim().is_empty() {
            return Err(NiceError::permanent("group must name a group"));
        }
        let listed = |private: &&MediaHost| self.media_hosts.iter().any(|entry| entry.covers(private));
        if let Some(private) = self.private_media_hosts.iter().find(|private| !listed(private)) {
            return Err(NiceError::permanent(format!(
                "private_media_hosts: {private} is not on media_hosts; list it there, too"
            )));
        }
        Ok(())
    }
}

/// NICE's two ways to a token.
#[derive(Clone)]
pub enum Auth {
    /// An application registration plus the access key of a service user.
    OAuth {
        /// The registered application.
        client_id: String,
        /// Its secret.
        client_secret: SecretString,
        /// The service user's key.
        access_key_id: String,
        /// The key's secret.
        access_key_secret: SecretString,
    },
    /// The access key alone (UserHub).
    AccessKey {
        /// The service user's key.
        access_key_id: String,
        /// The key's secret.
        access_key_secret: SecretString,
    },
}

impl fmt::Debug for Auth {
    /// The kind alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OAuth { .. } => "OAuth",
            Self::AccessKey { .. } => "AccessKey",
        })
    }
}

/// Which of NICE's notions of a group is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupKind {
    /// A free collection of agents.
    AcdGroup,
    /// The one team that each agent belongs to.
    Team,
}

/// The group whose calls are imported.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GroupSelector {
    /// Group or team.
    pub kind: GroupKind,
    /// NICE's id of it, or its name.
    pub id_or_name: String,
}

/// The rows of a page unless the settings say otherwise: requests are what a long list costs. NICE gives up to 10,000.
pub const PAGE_SIZE: u32 = 4_000;

/// How much is asked of NICE at a time, and how long the client waits; the default is for production, tests make them
/// short.
#[derive(Debug, Clone)]
pub struct Timeouts {
    /// Until a connection stands.
    pub connect: Duration,
    /// Until the answer of an API call is whole.
    pub api: Duration,
    /// The most rows that a request for completed contacts asks for.
    pub page_size: u32,
    /// Until a long poll, which NICE answers after a minute at the latest, counts as hung.
    pub poll: Duration,
    /// Until a recording's headers are here.
    pub media_headers: Duration,
    /// Between two chunks of a recording.
    pub media_idle: Duration,
    /// The slowest that a recording may arrive, in bytes per second of waiting for it.
    pub media_min_rate: u64,
    /// The waiting over which that rate is measured; a recording may begin as slowly as it likes for so long.
    pub media_rate_window: Duration,
    /// Before a broken recording is asked for again the first time; grows and is jittered.
    pub resume_delay: Duration,
    /// After a failed token request or discovery; grows to a minute.
    pub renewal_delay: Duration,
    /// Between two calls that ask for a data extraction: NICE takes one in 30 seconds.
    pub extraction_pace: Duration,
    /// Between two looks at a data extraction.
    pub extraction_poll: Duration,
    /// Until a data extraction is over.
    pub extraction_total: Duration,
    /// Tells how far away the time is that an answer asks to wait for.
    pub clock: Clock,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            api: Duration::from_secs(30),
            page_size: PAGE_SIZE,
            poll: Duration::from_secs(90),
            media_headers: Duration::from_secs(30),
            media_idle: Duration::from_secs(30),
            media_min_rate: 1024,
            media_rate_window: Duration::from_secs(60),
            resume_delay: Duration::from_secs(1),
            renewal_delay: Duration::from_secs(3),
            extraction_pace: Duration::from_secs(30),
            extraction_poll: Duration::from_secs(5),
            extraction_total: Duration::from_secs(600),
            clock: Clock::system(),
        }
    }
}
