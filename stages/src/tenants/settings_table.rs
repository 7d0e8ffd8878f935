//! The table `nice_settings`: each tenant's way to its NICE.
//!
//! A column for each key of `[nice]`, checked as the settings file is. Secrets are sealed on their way in and opened
//! on their way out; [`SettingsTable::show`] neither needs the key nor gives them. A row that cannot be used (written
//! by hand, sealed with another key) is an error that names the column, and concerns its own tenant only.
//!
//! One statement writes a row, so a crash leaves the old settings or the new ones.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use database::{Database, DatabaseError};
use model::{Retention, TenantId};
use nice::NiceSettings;
use tokio_postgres::{Row, types::ToSql};

use self::row::retention;
use super::seal::Seal;
use crate::tenants::{RecordingScope, SettingsError, SettingsSource, TenantSettings};

mod row;
mod write;

pub use self::row::SettingsRow;

/// Reads rows; the condition follows.
macro_rules! select {
    ($condition:literal) => {
        concat!(
            r#"
    select tenant_id, issuer, auth_flow, client_id, client_secret, access_key_id, access_key_secret, group_kind,
           "group", api_version, acd_url, facade_url, auth_url, media_hosts, private_media_hosts, recording_scope,
           extract(epoch from retention)::bigint as retention_secs, revision, updated_at
    from nice_settings "#,
            $condition
        )
    };
}

const SELECT_ONE: &str = select!("where tenant_id = $1");

const SELECT_ALL: &str = select!("order by tenant_id");

const RETENTIONS: &str = "
    select tenant_id, extract(epoch from retention)::bigint from nice_settings where retention is not null";

/// The settings of all tenants.
#[derive(Debug, Clone)]
pub struct SettingsTable {
    database: Database,
    seal: Option<Arc<Seal>>,
}

impl SettingsTable {
    /// The table as whoever has this key reads it; without one, settings can be shown and listed only.
    pub fn new(database: Database, seal: Option<Seal>) -> Self {
        Self { database, seal: seal.map(Arc::new) }
    }

    /// The tenant's settings, secrets opened.
    pub async fn get(&self, tenant: &TenantId) -> Result<Option<TenantSettings>, SettingsError> {
        self.read(tenant).await?.map(|row| row.open(tenant, self.seal()?)).transpose()
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
        let values = write::values(tenant, settings, scope, retention, self.seal()?);
        let values: Vec<_> = values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect();
        self.database.execute("write NICE settings", write::SET, &values).await.map(|_| ()).map_err(unreachable)
    }

    /// The tenant's settings with secrets masked.
    pub async fn show(&self, tenant: &TenantId) -> Result<Option<SettingsRow>, SettingsError> {
        Ok(self.read(tenant).await?.map(SettingsRow::masked))
    }

    /// All settings by tenant, secrets masked.
    pub async fn list(&self) -> Result<Vec<SettingsRow>, SettingsError> {
        Ok(self.select(SELECT_ALL, &[]).await?.into_iter().map(SettingsRow::masked).collect())
    }

    async fn read(&self, tenant: &TenantId) -> Result<Option<SettingsRow>, SettingsError> {
        Ok(self.select(SELECT_ONE, &[&tenant.as_str()]).await?.pop())
    }

    async fn select(
        &self,
        statement: &'static str,
        tenant: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<SettingsRow>, SettingsError> {
        let rows = self.database.query("read NICE settings", statement, tenant).await.map_err(unreachable)?;
        rows.iter().map(|row| SettingsRow::read(row).map_err(|error| unusable("a row", error))).collect()
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

#[cfg(test)]
mod tests;
