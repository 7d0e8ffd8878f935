//! When a key has to be given, and by which commands.

use super::{
    keys::Needed,
    reader::Accepted,
    settings::Settings,
    value::{AuthFlow, CatalogKind, QueueKind, RecordingsKind},
};

/// Which settings a command cannot do without. Whatever is given is validated in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// Everything: `run`, `check`.
    Service,
    /// Everything but the recording store: `producer`.
    Producer,
    /// Everything but the webhook; the tenant only where the catalog is embedded: `consumer`.
    Consumer,
    /// Tenant, queue, catalog with its key, and the recording store: `erase`.
    Erasure,
    /// Tenant, NICE and catalog: `agents sync`.
    Nice,
    /// The catalog with its key: `settings`.
    Settings,
    /// The catalog: `migrate`.
    Catalog,
    /// Nothing but what has a default: listings.
    Local,
}

impl Needed {
    /// Whether a command with this need cannot do without the key.
    pub(super) fn by(self, need: Need, settings: &Settings, accepted: &Accepted) -> bool {
        // If the kind itself is a mistake, nothing follows from it.
        let is = |section, key, chosen| chosen && accepted.setting(section, key).is_some();
        let is_embedded = is("catalog", "kind", settings.catalog.kind == CatalogKind::Embedded);
        let is_postgres = is("catalog", "kind", settings.catalog.kind == CatalogKind::Postgres);
        let is_rabbitmq = is("queue", "kind", settings.queue.kind == QueueKind::Rabbitmq);
        let is_s3 = is("recordings", "kind", settings.recordings.kind == RecordingsKind::S3);
        let service = matches!(need, Need::Service | Need::Producer | Need::Consumer);
        let calls_nice = service || need == Need::Nice;
        let nice_here = calls_nice && is_embedded;
        match self {
            Self::Never => false,
            Self::Tenant => matches!(need, Need::Service | Need::Producer | Need::Nice | Need::Erasure) || nice_here,
            Self::Nice => nice_here,
            Self::Oauth => nice_here && is("nice", "auth_flow", settings.nice.auth_flow == AuthFlow::Oauth),
            Self::Webhook => {
                matches!(need, Need::Service | Need::Producer) && is("events", "webhook", settings.events.webhook)
            }
            Self::Rabbitmq => (service || need == Need::Erasure) && is_rabbitmq,
            Self::Postgres => need != Need::Local && is_postgres,
            Self::Sealed => (calls_nice || need == Need::Settings || need == Need::Erasure) && is_postgres,
            Self::S3 => matches!(need, Need::Service | Need::Consumer | Need::Erasure) && is_s3,
            Self::S3Key => Self::S3.by(need, settings, accepted) && settings.recordings.credentials_file.is_none(),
        }
    }

    /// What needs the key, as a clause.
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::Never | Self::Tenant | Self::Nice => "needed",
            Self::Oauth => "needed for [nice] auth_flow = \"oauth\"",
            Self::Webhook => "needed for [events] webhook = true",
            Self::Rabbitmq => "needed for [queue] kind = \"rabbitmq\"",
            Self::Postgres | Self::Sealed => "needed for [catalog] kind = \"postgres\"",
            Self::S3 | Self::S3Key => "needed for [recordings] kind = \"s3\"",
        }
    }
}
