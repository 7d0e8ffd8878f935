//! The tenants' settings, as rows of one database that an operator changes while the program runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use model::{Retention, TenantId};
use nice::NiceSettings;
use stages::tenants::{RecordingScope, SettingsError, SettingsSource, TenantSettings};

use super::{Kind, Link, lock};

/// The settings of all tenants; clones share them.
#[derive(Debug, Clone, Default)]
pub struct SharedSettings(Arc<Mutex<Rows>>);

#[derive(Debug, Default)]
struct Rows {
    changes: u64,
    tenants: BTreeMap<TenantId, Row>,
}

#[derive(Debug, Clone)]
struct Row {
    settings: TenantSettings,
    /// Why they cannot be used.
    broken: Option<String>,
}

impl SharedSettings {
    /// No tenant has any.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a tenant settings, or others, as a new revision.
    pub fn set(&self, tenant: TenantId, nice: NiceSettings, scope: RecordingScope, retention: Retention) {
        let mut rows = lock(&self.0);
        rows.changes += 1;
        let settings = TenantSettings { nice, scope, retention, revision: rows.changes.to_string() };
        rows.tenants.insert(tenant, Row { settings, broken: None });
    }

    /// Changes a tenant's settings, as a new revision; false where it has none.
    pub fn change(&self, tenant: &TenantId, change: impl FnOnce(&mut TenantSettings)) -> bool {
        let mut rows = lock(&self.0);
        rows.changes += 1;
        let revision = rows.changes.to_string();
        let Some(row) = rows.tenants.get_mut(tenant) else { return false };
        change(&mut row.settings);
        row.settings.revision = revision;
        true
    }

    /// From now on a tenant's settings are of no use, for this reason, or of use again.
    pub fn break_for(&self, tenant: &TenantId, reason: Option<&str>) {
        if let Some(row) = lock(&self.0).tenants.get_mut(tenant) {
            row.broken = reason.map(str::to_owned);
        }
    }

    /// Takes a tenant's settings away.
    pub fn remove(&self, tenant: &TenantId) {
        lock(&self.0).tenants.remove(tenant);
    }

    /// Who has settings, of use or not.
    pub fn tenants(&self) -> Vec<TenantId> {
        lock(&self.0).tenants.keys().cloned().collect()
    }

    /// How long a tenant's conversations are kept; none where it has no settings.
    pub fn retention_of(&self, tenant: &TenantId) -> Option<Retention> {
        lock(&self.0).tenants.get(tenant).map(|row| row.settings.retention)
    }

    /// A machine's way to them.
    pub fn through(&self, link: Link) -> LinkedSettings {
        LinkedSettings { settings: self.clone(), link }
    }
}

/// A machine's way to the settings.
#[derive(Debug, Clone)]
pub struct LinkedSettings {
    settings: SharedSettings,
    link: Link,
}

#[async_trait]
impl SettingsSource for LinkedSettings {
    async fn nice_settings(&self, tenant: &TenantId) -> Result<Option<TenantSettings>, SettingsError> {
        let read = async { lock(&self.settings.0).tenants.get(tenant).cloned() };
        match self.link.call(Kind::Read, read).await {
            Ok(Some(Row { broken: Some(reason), .. })) => Err(SettingsError::Unusable(reason)),
            Ok(row) => Ok(row.map(|row| row.settings)),
            Err(unanswered) => Err(SettingsError::Unreachable(unanswered.to_string())),
        }
    }

    async fn retentions(&self) -> Result<Vec<(TenantId, Retention)>, SettingsError> {
        let read = async {
            let rows = lock(&self.settings.0);
            let kept = rows.tenants.iter().map(|(tenant, row)| (tenant.clone(), row.settings.retention));
            kept.filter(|(_, retention)| retention.kept_for().is_some()).collect()
        };
        let read = self.link.call(Kind::Read, read).await;
        read.map_err(|unanswered| SettingsError::Unreachable(unanswered.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nice::{Auth, GroupKind, GroupSelector};

    use super::*;
    use crate::standins::{Condition, LinkOptions, Weather};

    fn nice(group: &str) -> NiceSettings {
        NiceSettings {
            issuer: "https://nice.example".parse().unwrap(),
            auth: Auth::AccessKey { access_key_id: "id".to_owned(), access_key_secret: "secret".to_owned().into() },
            api_version: "v33.0".to_owned(),
            group: GroupSelector { kind: GroupKind::AcdGroup, id_or_name: group.to_owned() },
            acd_url: None,
            facade_url: None,
            auth_url: None,
            media_hosts: Vec::new(),
            private_media_hosts: Vec::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_a_new_revision_and_what_is_broken_says_why() {
        let (settings, weather) = (SharedSettings::new(), Weather::clear());
        let way = settings.through(Link::new(weather.clone(), 1, 1, LinkOptions::default(), || false));
        let acme: TenantId = "acme".parse().unwrap();
        assert!(way.nice_settings(&acme).await.unwrap().is_none());
        settings.set(acme.clone(), nice("sales"), RecordingScope::Leg, Retention::default());
        let first = way.nice_settings(&acme).await.unwrap().unwrap();
        assert_eq!(way.nice_settings(&acme).await.unwrap().unwrap().revision, first.revision);
        assert!(way.retentions().await.unwrap().is_empty());
        let week = Retention::new(Duration::from_secs(7 * 86_400)).unwrap();
        assert!(settings.change(&acme, |settings| (settings.nice, settings.retention) = (nice("service"), week)));
        let second = way.nice_settings(&acme).await.unwrap().unwrap();
        assert_eq!(second.nice.group.id_or_name, "service");
        assert_ne!(second.revision, first.revision);
        assert_eq!(way.retentions().await.unwrap(), [(acme.clone(), week)]);
        settings.break_for(&acme, Some("the seal does not open"));
        let broken = way.nice_settings(&acme).await.unwrap_err();
        assert_eq!(broken, SettingsError::Unusable("the seal does not open".to_owned()));
        settings.break_for(&acme, None);
        assert!(way.nice_settings(&acme).await.unwrap().is_some());
        let _away = weather.begin(Condition::Away);
        assert!(matches!(way.nice_settings(&acme).await.unwrap_err(), SettingsError::Unreachable(_)));
        settings.remove(&acme);
        assert!(settings.tenants().is_empty());
    }
}
