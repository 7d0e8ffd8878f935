//! A tenant's settings on their way into the table: secrets are sealed.

use model::{Retention, TenantId};
use nice::{Auth, GroupKind, MediaHost, NiceSettings};
use reqwest::Url;
use tokio_postgres::types::ToSql;

use crate::tenants::{RecordingScope, seal::Seal};

/// Takes the [`values`] in their order.
pub(super) const SET: &str = r#"
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

/// The values of the columns, in the order of [`SET`].
pub(super) fn values(
    tenant: &TenantId,
    settings: &NiceSettings,
    scope: RecordingScope,
    retention: Retention,
    seal: &Seal,
) -> Vec<Box<dyn ToSql + Sync + Send>> {
    let (auth_flow, client, access_key_id, access_key_secret) = match &settings.auth {
        Auth::OAuth { client_id, client_secret, access_key_id, access_key_secret } => {
            ("oauth", Some((client_id, client_secret)), access_key_id, access_key_secret)
        }
        Auth::AccessKey { access_key_id, access_key_secret } => ("access_key", None, access_key_id, access_key_secret),
    };
    let group_kind = match settings.group.kind {
        GroupKind::AcdGroup => "acd_group",
        GroupKind::Team => "team",
    };
    let url = |url: &Option<Url>| Box::new(url.as_ref().map(ToString::to_string));
    let texts = |hosts: &[MediaHost]| Box::new(hosts.iter().map(ToString::to_string).collect::<Vec<_>>());
    vec![
        Box::new(tenant.to_string()),
        Box::new(settings.issuer.to_string()),
        Box::new(auth_flow),
        Box::new(client.map(|(id, _)| id.clone())),
        Box::new(client.map(|(_, secret)| seal.seal(secret, tenant, "client_secret"))),
        Box::new(access_key_id.clone()),
        Box::new(seal.seal(access_key_secret, tenant, "access_key_secret")),
        Box::new(group_kind),
        Box::new(settings.group.id_or_name.clone()),
        Box::new(settings.api_version.clone()),
        url(&settings.acd_url),
        url(&settings.facade_url),
        url(&settings.auth_url),
        texts(&settings.media_hosts),
        Box::new(scope.as_str()),
        Box::new(retention.kept_for().map(|kept| i64::try_from(kept.as_secs()).unwrap_or(i64::MAX))),
        texts(&settings.private_media_hosts),
    ]
}
