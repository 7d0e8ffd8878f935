//! The commands of the Knovvu database: its tables, and the NICE settings that stand in it.

use std::io::Read;
use std::sync::Arc;

use stages::clients::postgres::nice_settings::{SettingsTable, ShownSettings};
use stages::clients::postgres::{Database, schema};
use stages::clients::quota::Unmetered;
use stages::model::TenantId;

use super::check::ask_nice;
use super::{Load, print};
use crate::cli::{SettingsCommand, TenantOption};
use crate::config::{Config, Need, NiceConfig};
use crate::doors;
use crate::failure::Failure;
use crate::{output, telemetry};

/// Longer than any table of settings.
const LONGEST: u64 = 1 << 20;

/// `migrate`.
pub(crate) async fn migrate(load: Load<'_>) -> Result<(), Failure> {
    let config = load(Need::Catalog)?;
    telemetry::start(&config.log)?;
    let applied = schema::migrate(&database(&config)?).await?;
    match applied.is_empty() {
        true => output::line("the tables are those of this version already"),
        false => output::line(format!("applied: {}", applied.join(", "))),
    }
    Ok(())
}

/// `settings`.
pub(crate) async fn settings(command: SettingsCommand, load: Load<'_>) -> Result<(), Failure> {
    let config = load(Need::Settings)?;
    telemetry::start(&config.log)?;
    let database = database(&config)?;
    schema::check(&database).await?;
    let table = doors::settings_table(&config, &database);
    match command {
        SettingsCommand::Show { tenant, json } => show(&table, &tenant_of(tenant, &config)?, json).await,
        SettingsCommand::Set { tenant } => set(&table, &tenant_of(tenant, &config)?).await,
        SettingsCommand::Check { tenant } => {
            let tenants = doors::Nice::unmetered(&config, Some(&database), Arc::new(Unmetered))?;
            let mut broken = Vec::new();
            ask_nice(&tenants, &tenant_of(tenant, &config)?, &mut broken).await;
            match broken.is_empty() {
                true => Ok(()),
                false => Err(Failure::unreachable(format!("not in order: {}", broken.join(", ")))),
            }
        }
    }
}

async fn show(table: &SettingsTable, tenant: &TenantId, json: bool) -> Result<(), Failure> {
    let shown = table.show(tenant).await?;
    let shown = shown.ok_or_else(|| {
        Failure::failed(format!("tenant {tenant} has no NICE settings; run: nice-knovvu settings set < nice.toml"))
    })?;
    print(json, &shown, lines);
    Ok(())
}

/// One line for each key, as it would stand in a settings file.
fn lines(shown: &ShownSettings) -> String {
    let fields = serde_json::to_value(shown).unwrap_or_default();
    let line = |(key, value): (&String, &serde_json::Value)| format!("{key:<18} {value}");
    let given = fields.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    given.map(line).collect::<Vec<_>>().join("\n")
}

async fn set(table: &SettingsTable, tenant: &TenantId) -> Result<(), Failure> {
    let mut text = String::new();
    let read = std::io::stdin().take(LONGEST + 1).read_to_string(&mut text);
    let length = read.map_err(|error| Failure::usage(format!("stdin: {error}; give a TOML text with [nice]")))?;
    if length as u64 > LONGEST {
        return Err(Failure::usage("stdin: longer than 1 MiB; give a TOML text with the table [nice]"));
    }
    let nice = NiceConfig::from_toml(&text, "stdin").map_err(Failure::usage)?;
    let scope = doors::recording_scope(nice.recording_scope);
    let retention = doors::retention(&nice)?;
    table.set(tenant, &doors::nice_settings(nice)?, scope, retention).await?;
    output::line(format!("NICE settings of tenant {tenant} are set"));
    Ok(())
}

fn tenant_of(option: TenantOption, config: &Config) -> Result<TenantId, Failure> {
    match option.id {
        Some(tenant) => Ok(tenant),
        None => doors::tenant(config)
            .map_err(|_| Failure::usage("--tenant: missing; name the tenant, or set [tenant] id in the settings")),
    }
}

fn database(config: &Config) -> Result<Database, Failure> {
    doors::database(config)?.ok_or_else(|| {
        Failure::usage(
            "[catalog] kind: the embedded catalog has neither migrations nor settings in a database, those of [nice] \
             stand in the settings file; choose kind = \"postgres\" with a url",
        )
    })
}
