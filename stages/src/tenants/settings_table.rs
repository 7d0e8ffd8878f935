//! The table `nice_settings`: each tenant's way to its NICE.
//!
//! A column for each key of `[nice]`, checked as the settings file is. Secrets are sealed on their way in and opened
//! on their way out; [`SettingsTable::show`] neither needs the key nor gives them. A row that cannot be used (written
//! by hand, sealed with another key) is an error that names the column, and concerns its own tenant only.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use database::{Database, DatabaseError};
use jiff::Timestamp;
use model::{Retention, TenantId};
use nice::{Auth, GroupKind, GroupSelector, MediaHost, NiceSettings};
use reqwest::Url;
use secrecy::SecretString;
use serde::Serialize;
use tokio_postgres::Row;

use super::seal::{Seal, SealError};
use crate::tenants::{RecordingScope, SettingsError, SettingsSource, TenantSettings};

/// What stands for a secret in listings.
const MASK: &str = "********";

const SELECT: &str = r#"
    select tenant_id, issuer, auth_flow, client_id, client_secret, access_key_id, access_key_secret, group_kind,
           "group", api_version, acd_url, facade_url, auth_url, media_hosts, private_media_hosts, recording_scope,
           extract(epoch from retention)::bigint as retention_secs, revision, updated_at
    from nice_settings"#;

const SET: &str = r#"
    with tenant as (insert into tenants (tenant_id, slug) values ($1, $1) on conflict (tenant_id) do nothing)
    insert into nice_settings (
        tenant_id, issuer, auth_flow, client_id, client_secret, access_key_id, access_key_secret, group_kind,
        "group", api_version, acd_url, facade_url, auth_url, media_hosts, recording_scope, retention,
        private_media_hosts)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, make_interval(secs => $16::bigint), $17)
    on conflict (tenant_id) do update set
        issuer = excluded.issuer, auth_flow = excluded.auth_flow, client_id = excluded.client_id,
        client_secret = excluded.client_secret, access_key_id = excluded.access_key_id,
        access_key_secret = excluded.access_key_secret, group_kind = excluded.group_kind, "group" = excluded."group",
        api_version = excluded.api_version, acd_url = excluded.acd_url, facade_url = excluded.facade_url,
        auth_url = excluded.auth_url, media_hosts = excluded.media_hosts, recording_scope = excluded.recording_scope,
        retention = excluded.retention, private_media_hosts = excluded.private_media_hosts"#;

const RETENTIONS: &str = "
    select tenant_id, extract(epoch from retention)::bigint from nice_settings where retention is not null";

/// The settings of all tenants.
#[derive(Debug, Clone)]
pub struct SettingsTable {
    database: Database,
    seal: Option<Arc<Seal>>,
}

/// One tenant's settings as they stand in the table, fit to be shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownSettings {
    /// Whose they are.
    pub tenant_id: String,
    /// Where discovery begins.
    pub issuer: String,
    /// How a token is asked for.
    pub auth_flow: String,
    /// The registered application.
    pub client_id: Option<String>,
    /// A mask, if there is one.
    pub client_secret: Option<&'static str>,
    /// The service user's key.
    pub access_key_id: String,
    /// A mask.
    pub access_key_secret: &'static str,
    /// Group or team.
    pub group_kind: String,
    /// Its id or name.
    pub group: String,
    /// The version of the ACD API.
    pub api_version: String,
    /// Overrides discovery.
    pub acd_url: Option<String>,
    /// Overrides discovery.
    pub facade_url: Option<String>,
    /// Overrides discovery.
    pub auth_url: Option<String>,
    /// The only hosts that recordings are fetched from.
    pub media_hosts: Vec<String>,
    /// Those of them that may lead to a private network.
    pub private_media_hosts: Vec<String>,
    /// Leg or master.
    pub recording_scope: String,
    /// How long conversations are kept; none: for ever.
    pub retention: Option<String>,
    /// When they were last changed.
    pub updated_at: Timestamp,
}

impl SettingsTable {
    /// The table as whoever has this key reads it; without one, settings can be shown and listed only.
    pub fn new(database: Database, seal: Option<Seal>) -> Self {
        Self { database, seal: seal.map(Arc::new) }
    }

    /// The tenant's settings, secrets opened.
    pub async fn get(&self, tenant: &TenantId) -> Result<Option<TenantSettings>, SettingsError> {
        self.read(tenant).await?.map(|stored| stored.open(tenant, self.seal()?)).transpose()
    }

    /// Writes the tenant's settings, and the tenant itself if it is not known yet.
    pub async fn set(
        &self,
        tenant: &TenantId,
        settings: &NiceSettings,
        scope: RecordingScope,
        retention: Retention,
    ) -> Result<(), SettingsError> {
        settings.validate().map_err(|error| SettingsError::Unusable(error.to_string()))?;
        let columns = &Columns::sealed(tenant, settings, scope, retention, self.seal()?);
        let written = self.database.run("write NICE settings", |client| async move {
            let set = client.prepare_cached(SET).await?;
            client
                .execute(
                    &set,
                    &[
                        &columns.tenant_id,
                        &columns.issuer,
                        &columns.auth_flow,
                        &columns.client_id,
                        &columns.client_secret,
                        &columns.access_key_id,
                        &columns.access_key_secret,
                        &columns.group_kind,
                        &columns.group,
                        &columns.api_version,
                        &columns.acd_url,
                        &columns.facade_url,
                        &columns.auth_url,
                        &columns.media_hosts,
                        &columns.recording_scope,
                        &columns.retention_secs,
                        &columns.private_media_hosts,
                    ],
                )
                .await
        });
        written.await.map(|_| ()).map_err(unreachable)
    }

    /// The tenant's settings with secrets masked.
    pub async fn show(&self, tenant: &TenantId) -> Result<Option<ShownSettings>, SettingsError> {
        Ok(self.read(tenant).await?.map(Stored::shown))
    }

    /// All settings by tenant, secrets masked.
    pub async fn list(&self) -> Result<Vec<ShownSettings>, SettingsError> {
        let select = format!("{SELECT} order by tenant_id");
        let select = select.as_str();
        let rows = self.database.run("list NICE settings", |client| async move { client.query(select, &[]).await });
        let rows = rows.await.map_err(unreachable)?;
        rows.iter().map(|row| Stored::read(row).map(Stored::shown).map_err(|error| unusable("a row", error))).collect()
    }

    async fn read(&self, tenant: &TenantId) -> Result<Option<Stored>, SettingsError> {
        let select = format!("{SELECT} where tenant_id = $1");
        let select = select.as_str();
        let row = self.database.run("read NICE settings", |client| async move {
            let select = client.prepare_cached(select).await?;
            client.query_opt(&select, &[&tenant.as_str()]).await
        });
        let row = row.await.map_err(unreachable)?;
        row.as_ref().map(Stored::read).transpose().map_err(|error| unusable("the row", error))
    }

    fn seal(&self) -> Result<&Seal, SettingsError> {
        self.seal.as_deref().ok_or_else(|| {
            SettingsError::Unusable("[catalog] seal_key is missing: secrets are sealed with it".to_owned())
        })
    }
}

#[async_trait]
impl SettingsSource for SettingsTable {
    async fn nice_settings(&self, tenant: &TenantId) -> Result<Option<TenantSettings>, SettingsError> {
        self.get(tenant).await
    }

    async fn retentions(&self) -> Result<Vec<(TenantId, Retention)>, SettingsError> {
        let rows = self.database.query("read retentions", RETENTIONS, &[]).await.map_err(unreachable)?;
        let read = |row: &Row| {
            let name: &str = row.try_get(0).map_err(|error| unusable("tenant_id", error))?;
            let tenant = name.parse().map_err(|error| unusable("tenant_id", error))?;
            Ok((tenant, retention(row.try_get(1).map_err(|error| unusable("retention", error))?)?))
        };
        rows.iter().map(read).collect()
    }
}

/// Whatever the database says of itself: it passes, or concerns every tenant alike.
fn unreachable(error: DatabaseError) -> SettingsError {
    SettingsError::Unreachable(error.to_string())
}

fn unusable(column: &str, error: impl fmt::Display) -> SettingsError {
    SettingsError::Unusable(format!("nice_settings, {column}: {error}"))
}

/// A row as it stands there.
struct Columns {
    tenant_id: String,
    issuer: String,
    auth_flow: String,
    client_id: Option<String>,
    /// Sealed.
    client_secret: Option<String>,
    access_key_id: String,
    /// Sealed.
    access_key_secret: String,
    group_kind: String,
    group: String,
    api_version: String,
    acd_url: Option<String>,
    facade_url: Option<String>,
    auth_url: Option<String>,
    media_hosts: Vec<String>,
    private_media_hosts: Vec<String>,
    recording_scope: String,
    retention_secs: Option<i64>,
}

/// A row with what the database adds to it.
struct Stored {
    columns: Columns,
    revision: i64,
    updated_at: Timestamp,
}

impl Stored {
    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            columns: Columns::read(row)?,
            revision: row.try_get("revision")?,
            updated_at: row.try_get("updated_at")?,
        })
    }

    fn open(self, tenant: &TenantId, seal: &Seal) -> Result<TenantSettings, SettingsError> {
        let retention = retention(self.columns.retention_secs)?;
        let (nice, scope) = self.columns.open(tenant, seal)?;
        Ok(TenantSettings { nice, scope, retention, revision: self.revision.to_string() })
    }

    fn shown(self) -> ShownSettings {
        let Self { columns, updated_at, .. } = self;
        ShownSettings {
            tenant_id: columns.tenant_id,
            issuer: columns.issuer,
            auth_flow: columns.auth_flow,
            client_id: columns.client_id,
            client_secret: columns.client_secret.map(|_| MASK),
            access_key_id: columns.access_key_id,
            access_key_secret: MASK,
            group_kind: columns.group_kind,
            group: columns.group,
            api_version: columns.api_version,
            acd_url: columns.acd_url,
            facade_url: columns.facade_url,
            auth_url: columns.auth_url,
            media_hosts: columns.media_hosts,
            private_media_hosts: columns.private_media_hosts,
            recording_scope: columns.recording_scope,
            retention: columns.retention_secs.map(shown_retention),
            updated_at,
        }
    }
}

impl Columns {
    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
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
        })
    }

    /// The row to be written.
    fn sealed(
        tenant: &TenantId,
        settings: &NiceSettings,
        scope: RecordingScope,
        retention: Retention,
        seal: &Seal,
    ) -> Self {
        let sealed = |column, secret| seal.seal(secret, tenant, column);
        let (auth_flow, client, access_key_id, access_key_secret) = match &settings.auth {
            Auth::OAuth { client_id, client_secret, access_key_id, access_key_secret } => {
                ("oauth", Some((client_id, client_secret)), access_key_id, access_key_secret)
            }
            Auth::AccessKey { access_key_id, access_key_secret } => {
                ("access_key", None, access_key_id, access_key_secret)
            }
        };
        let url = |url: &Option<Url>| url.as_ref().map(ToString::to_string);
        Self {
            tenant_id: tenant.to_string(),
            issuer: settings.issuer.to_string(),
            auth_flow: auth_flow.to_owned(),
            client_id: client.map(|(id, _)| id.clone()),
            client_secret: client.map(|(_, secret)| sealed("client_secret", secret)),
            access_key_id: access_key_id.clone(),
            access_key_secret: sealed("access_key_secret", access_key_secret),
            group_kind: match settings.group.kind {
                GroupKind::AcdGroup => "acd_group".to_owned(),
                GroupKind::Team => "team".to_owned(),
            },
            group: settings.group.id_or_name.clone(),
            api_version: settings.api_version.clone(),
            acd_url: url(&settings.acd_url),
            facade_url: url(&settings.facade_url),
            auth_url: url(&settings.auth_url),
            media_hosts: settings.media_hosts.iter().map(ToString::to_string).collect(),
            private_media_hosts: settings.private_media_hosts.iter().map(ToString::to_string).collect(),
            recording_scope: scope.as_str().to_owned(),
            retention_secs: retention.kept_for().map(|kept| i64::try_from(kept.as_secs()).unwrap_or(i64::MAX)),
        }
    }

    /// The row as the client takes it.
    fn open(self, tenant: &TenantId, seal: &Seal) -> Result<(NiceSettings, RecordingScope), SettingsError> {
        let opened = |column: &'static str, sealed: &str| -> Result<SecretString, SettingsError> {
            seal.open(sealed, tenant, column).map_err(|error: SealError| unusable(column, error))
        };
        let access_key_secret = opened("access_key_secret", &self.access_key_secret)?;
        let auth = match self.auth_flow.as_str() {
            "oauth" => Auth::OAuth {
                client_id: self.client_id.ok_or_else(|| unusable("client_id", "missing, oauth needs it"))?,
                client_secret: match &self.client_secret {
                    Some(sealed) => opened("client_secret", sealed)?,
                    None => return Err(unusable("client_secret", "missing, oauth needs it")),
                },
                access_key_id: self.access_key_id,
                access_key_secret,
            },
            "access_key" => Auth::AccessKey { access_key_id: self.access_key_id, access_key_secret },
            _ => return Err(unusable("auth_flow", "neither oauth nor access_key")),
        };
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
        Ok((nice, scope))
    }
}

/// None in the column: for ever.
fn retention(secs: Option<i64>) -> Result<Retention, SettingsError> {
    let Some(secs) = secs else { return Ok(Retention::default()) };
    let kept_for = u64::try_from(secs).map(Duration::from_secs).map_err(|error| unusable("retention", error))?;
    Retention::new(kept_for).ok_or_else(|| unusable("retention", "shorter than a day"))
}

/// As it would stand in a settings file.
fn shown_retention(secs: i64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let unit = units.into_iter().find(|(size, _)| secs % size == 0);
    let (size, unit) = unit.unwrap_or((1, "s"));
    format!("{}{unit}", secs / size)
}

fn parse_url(column: &'static str, text: &str) -> Result<Url, SettingsError> {
    // The text is not repeated: user info may stand in it.
    Url::parse(text).map_err(|_| unusable(column, "not a URL"))
}

/// An absent URL and an empty one are the same, as in the settings file.
fn optional_url(column: &'static str, text: Option<String>) -> Result<Option<Url>, SettingsError> {
    text.filter(|text| !text.is_empty()).map(|text| parse_url(column, &text)).transpose()
}

#[cfg(test)]
mod tests;
