//! A row of the table, as the client takes it and as it is shown.

use std::time::Duration;

use jiff::Timestamp;
use model::{Retention, TenantId};
use nice::{Auth, GroupKind, GroupSelector, MediaHost, NiceSettings};
use reqwest::Url;
use serde::{Serialize, Serializer};
use tokio_postgres::Row;

use super::unusable;
use crate::tenants::{RecordingScope, SettingsError, TenantSettings, seal::Seal};

/// What stands for a secret in listings.
pub(super) const MASK: &str = "********";

/// One tenant's settings as they stand in the table; serialized, they are fit to be shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SettingsRow {
    pub(super) tenant_id: String,
    issuer: String,
    auth_flow: String,
    client_id: Option<String>,
    /// Sealed, or masked.
    pub(super) client_secret: Option<String>,
    access_key_id: String,
    /// Sealed, or masked.
    pub(super) access_key_secret: String,
    group_kind: String,
    group: String,
    api_version: String,
    acd_url: Option<String>,
    facade_url: Option<String>,
    auth_url: Option<String>,
    media_hosts: Vec<String>,
    private_media_hosts: Vec<String>,
    recording_scope: String,
    /// How long conversations are kept; none: for ever.
    #[serde(rename = "retention", serialize_with = "shown_retention")]
    retention_secs: Option<i64>,
    #[serde(skip)]
    revision: i64,
    updated_at: Timestamp,
}

impl SettingsRow {
    pub(super) fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            tenant_id: row.try_get("tenant_id")?,
            issuer: row.try_get("issuer")?,
            auth_flow: row.try_get("auth_flow")?,
            client_id: row.try_get("client_id")?,
            client_secret: row.try_get("client_secret")?,
            access_key_id: row.try_get("access_key_id")?,
            access_key_secret: row.try_get("access_key_secret")?,
            group_kind: row.try_get("group_kind")?,
            group: row.try_get("group")?,
            api_version: row.try_get("api_version")?,
            acd_url: row.try_get("acd_url")?,
            facade_url: row.try_get("facade_url")?,
            auth_url: row.try_get("auth_url")?,
            media_hosts: row.try_get("media_hosts")?,
            private_media_hosts: row.try_get("private_media_hosts")?,
            recording_scope: row.try_get("recording_scope")?,
            retention_secs: row.try_get("retention_secs")?,
            revision: row.try_get("revision")?,
            updated_at: row.try_get("updated_at")?,
        })
    }

    /// The row without its secrets.
    pub(super) fn masked(self) -> Self {
        let client_secret = self.client_secret.map(|_| MASK.to_owned());
        Self { client_secret, access_key_secret: MASK.to_owned(), ..self }
    }

    /// The row as the client takes it.
    pub(super) fn open(self, tenant: &TenantId, seal: &Seal) -> Result<TenantSettings, SettingsError> {
        let retention = retention(self.retention_secs)?;
        let auth = self.auth(tenant, seal)?;
        let kind = match self.group_kind.as_str() {
            "acd_group" => GroupKind::AcdGroup,
            "team" => GroupKind::Team,
            _ => return Err(unusable("group_kind", "neither acd_group nor team")),
        };
        let scope = match self.recording_scope.as_str() {
            "leg" => RecordingScope::Leg,
            "master" => RecordingScope::Master,
            _ => return Err(unusable("recording_scope", "neither leg nor master")),
        };
        if self.media_hosts.is_empty() {
            return Err(unusable("media_hosts", "empty, no recording could be fetched"));
        }
        let hosts = |column, texts: &[String]| {
            let hosts = texts.iter().map(|host| host.parse::<MediaHost>()).collect::<Result<Vec<_>, _>>();
            hosts.map_err(|error| unusable(column, error))
        };
        let nice = NiceSettings {
            issuer: parse_url("issuer", &self.issuer)?,
            auth,
            api_version: self.api_version,
            group: GroupSelector { kind, id_or_name: self.group },
            acd_url: optional_url("acd_url", self.acd_url)?,
            facade_url: optional_url("facade_url", self.facade_url)?,
            auth_url: optional_url("auth_url", self.auth_url)?,
            media_hosts: hosts("media_hosts", &self.media_hosts)?,
            private_media_hosts: hosts("private_media_hosts", &self.private_media_hosts)?,
        };
        // These texts begin with the key, which is the column's name.
        nice.validate().map_err(|error| SettingsError::Unusable(format!("nice_settings, {error}")))?;
        Ok(TenantSettings { nice, scope, retention, revision: self.revision.to_string() })
    }

    fn auth(&self, tenant: &TenantId, seal: &Seal) -> Result<Auth, SettingsError> {
        let opened = |column: &'static str, sealed: &str| {
            seal.open(sealed, tenant, column).map_err(|error| unusable(column, error))
        };
        let missing = |column| unusable(column, "missing, oauth needs it");
        let access_key_id = self.access_key_id.clone();
        let access_key_secret = opened("access_key_secret", &self.access_key_secret)?;
        match self.auth_flow.as_str() {
            "oauth" => Ok(Auth::OAuth {
                client_id: self.client_id.clone().ok_or_else(|| missing("client_id"))?,
                client_secret: match &self.client_secret {
                    Some(sealed) => opened("client_secret", sealed)?,
                    None => return Err(missing("client_secret")),
                },
                access_key_id,
                access_key_secret,
            }),
            "access_key" => Ok(Auth::AccessKey { access_key_id, access_key_secret }),
            _ => Err(unusable("auth_flow", "neither oauth nor access_key")),
        }
    }
}

/// None in the column: for ever.
pub(super) fn retention(secs: Option<i64>) -> Result<Retention, SettingsError> {
    let Some(secs) = secs else { return Ok(Retention::default()) };
    let kept_for = u64::try_from(secs).map(Duration::from_secs).map_err(|error| unusable("retention", error))?;
    Retention::new(kept_for).ok_or_else(|| unusable("retention", "shorter than a day"))
}

/// As it would stand in a settings file.
fn shown_retention<S: Serializer>(secs: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    let Some(secs) = secs else { return serializer.serialize_none() };
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let unit = units.into_iter().find(|(size, _)| secs % size == 0);
    let (size, unit) = unit.unwrap_or((1, "s"));
    serializer.collect_str(&format_args!("{}{unit}", secs / size))
}

fn parse_url(column: &'static str, text: &str) -> Result<Url, SettingsError> {
    // The text is not repeated: user info may stand in it.
    Url::parse(text).map_err(|_| unusable(column, "not a URL"))
}

/// An absent URL and an empty one are the same, as in the settings file.
fn optional_url(column: &'static str, text: Option<String>) -> Result<Option<Url>, SettingsError> {
    text.filter(|text| !text.is_empty()).map(|text| parse_url(column, &text)).transpose()
}
