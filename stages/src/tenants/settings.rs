//! A tenant's settings, wherever they stand.

use async_trait::async_trait;
use model::{Retention, TenantId};
use nice::NiceSettings;

/// What is imported of a call with several legs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordingScope {
    /// The leg's own segments.
    Leg,
    /// The whole call.
    Master,
}

impl RecordingScope {
    /// The word in settings and rows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leg => "leg",
            Self::Master => "master",
        }
    }
}

/// What is known of a tenant.
#[derive(Debug, Clone)]
pub struct TenantSettings {
    /// How to reach its NICE.
    pub nice: NiceSettings,
    /// What is imported of a call with several legs.
    pub scope: RecordingScope,
    /// How long its conversations are kept.
    pub retention: Retention,
    /// Another text whenever anything of the settings has changed.
    pub revision: String,
}

/// Where the settings of tenants stand.
#[async_trait]
pub trait SettingsSource: Send + Sync + 'static {
    /// The tenant's settings, or none if it has none.
    async fn nice_settings(&self, tenant: &TenantId) -> Result<Option<TenantSettings>, SettingsError>;

    /// The tenants whose conversations are not kept for ever.
    async fn retentions(&self) -> Result<Vec<(TenantId, Retention)>, SettingsError> {
        Ok(Vec::new())
    }
}

/// Why there are no settings. The texts hold no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// They cannot be read at the moment.
    #[error("the tenant's settings cannot be read: {0}")]
    Unreachable(String),
    /// They stand there and are of no use: a person must mend them.
    #[error("the tenant's settings cannot be used: {0}")]
    Unusable(String),
}

/// One tenant's settings that never change: those of the settings file.
#[derive(Debug)]
pub struct FixedSettings {
    /// The one tenant there is.
    pub tenant: TenantId,
    /// How to reach its NICE.
    pub nice: NiceSettings,
    /// What is imported of a call with several legs.
    pub scope: RecordingScope,
    /// How long its conversations are kept.
    pub retention: Retention,
}

#[async_trait]
impl SettingsSource for FixedSettings {
    async fn nice_settings(&self, tenant: &TenantId) -> Result<Option<TenantSettings>, SettingsError> {
        Ok((*tenant == self.tenant).then(|| TenantSettings {
            nice: self.nice.clone(),
            scope: self.scope,
            retention: self.retention,
            revision: "fixed".to_owned(),
        }))
    }

    async fn retentions(&self) -> Result<Vec<(TenantId, Retention)>, SettingsError> {
        Ok(vec![(self.tenant.clone(), self.retention)])
    }
}
