//! The commands of the Knovvu database: its tables, and the NICE settings that stand in it.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use database::{Database, schema};
use model::{TenantId, Unmetered};
use nice::{Network, NiceClient, NiceError, NiceHealth, NiceMetrics, NiceSettings, Timeouts};
use serde::Serialize;
use stages::tenants::{SettingsRow, SettingsTable};

use super::check::CheckReport;
use crate::access::Load;
use crate::cli::{SettingsCommand, TenantOption};
use crate::command_error::CommandError;
use crate::config::{Config, Need, NiceConfig};
use crate::output::AnswerForm;
use crate::{doors, probes, telemetry};

/// Longer than any table of settings.
const LONGEST: u64 = 1 << 20;

/// What `migrate` did.
#[derive(Debug, Serialize)]
struct AppliedMigrations {
    /// The migrations that were applied now, in their order.
    applied: Vec<String>,
}

/// Whose settings `settings set` replaced.
#[derive(Debug, Serialize)]
struct ReplacedSettings<'a> {
    tenant: &'a TenantId,
}

/// `migrate`.
pub(crate) async fn migrate(form: AnswerForm, load: Load<'_>) -> Result<(), CommandError> {
    let config = load(Need::Catalog)?;
    telemetry::start(&config.log)?;
    let applied = schema::migrate(&database(&config)?).await?;
    form.print(&AppliedMigrations { applied }, |AppliedMigrations { applied }| match applied.is_empty() {
        true => "the tables are those of this version already".to_owned(),
        false => format!("applied: {}", applied.join(", ")),
    });
    Ok(())
}

/// `settings`.
pub(crate) async fn settings(command: SettingsCommand, load: Load<'_>) -> Result<(), CommandError> {
    let config = load(Need::Settings)?;
    telemetry::start(&config.log)?;
    let database = database(&config)?;
    schema::check(&database).await?;
    let table = doors::settings_table(&config, &database);
    match command {
        SettingsCommand::Show { tenant, form } => show(&table, &tenant_of(tenant, &config)?, form).await,
        SettingsCommand::Set { tenant, force, form } => set(&table, &tenant_of(tenant, &config)?, force, form).await,
        SettingsCommand::Check { tenant, form } => {
            let tenants = doors::Nice::unmetered(&config, Some(&database), Arc::new(Unmetered))?;
            let answers = probes::nice(&tenants, &tenant_of(tenant, &config)?, TRIAL).await;
            CheckReport::of_systems(&answers, form)
        }
    }
}

async fn show(table: &SettingsTable, tenant: &TenantId, form: AnswerForm) -> Result<(), CommandError> {
    let shown = table.show(tenant).await?;
    let shown = shown.ok_or_else(|| {
        CommandError::failed(format!("tenant {tenant} has no NICE settings; run: nice-knovvu settings set < nice.toml"))
    })?;
    form.print(&shown, lines);
    Ok(())
}

/// One line for each key, as in a settings file.
fn lines(shown: &SettingsRow) -> String {
    let fields = serde_json::to_value(shown).unwrap_or_default();
    let line = |(key, value): (&String, &serde_json::Value)| format!("{key:<19} {value}");
    let given = fields.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    given.map(line).collect::<Vec<_>>().join("\n")
}

/// What was set before stays until NICE takes what is set now.
async fn set(table: &SettingsTable, tenant: &TenantId, force: bool, form: AnswerForm) -> Result<(), CommandError> {
    let mut text = String::new();
    let read = std::io::stdin().take(LONGEST + 1).read_to_string(&mut text);
    let length = read.map_err(|error| CommandError::usage(format!("stdin: {error}; give a TOML text with [nice]")))?;
    if length as u64 > LONGEST {
        return Err(CommandError::usage("stdin: longer than 1 MiB; give a TOML text with the table [nice]"));
    }
    // Some editors put a byte order mark in front of every text.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let nice = NiceConfig::from_toml(text, "stdin").map_err(CommandError::usage)?;
    let (scope, retention) = (nice.recording_scope, doors::retention(&nice)?);
    let settings = doors::nice_settings(&nice).ok_or_else(|| CommandError::usage("stdin: [nice]: not complete"))?;
    if !force {
        try_out(&settings).await?;
    }
    table.set(tenant, &settings, scope, retention).await?;
    form.print(&ReplacedSettings { tenant }, |_| format!("NICE settings of tenant {tenant} are set"));
    Ok(())
}

/// NICE answers within seconds, and a person waits.
const TRIAL: Duration = Duration::from_secs(60);

/// Asks NICE for a token, for where it is and for the group.
async fn try_out(settings: &NiceSettings) -> Result<(), CommandError> {
    let nice = NiceClient::new(
        settings.clone(),
        Network::Internet,
        Arc::new(Unmetered),
        NiceMetrics::default(),
        NiceHealth::default(),
        Timeouts::default(),
    );
    let nice = nice.map_err(|error| CommandError::usage(format!("stdin: [nice]: {error}")))?;
    let stays = "nothing is changed, the settings of before stay";
    match tokio::time::timeout(TRIAL, nice.check()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error @ (NiceError::Refused { .. } | NiceError::Permanent { .. }))) => {
            Err(CommandError::failed(format!(
                "NICE does not take these settings: {error}; {stays}; correct key, secret, issuer, role or group under \
             [nice], or set them unasked with --force"
            )))
        }
        Ok(Err(error)) => Err(CommandError::unreachable(format!("{error}; {stays}; {UNASKED}"))),
        Err(_) => {
            Err(CommandError::unreachable(format!("NICE did not answer in {} s; {stays}; {UNASKED}", TRIAL.as_secs())))
        }
    }
}

/// What to do where NICE cannot be asked.
const UNASKED: &str =
    "correct issuer and the other URLs under [nice], try again later, or set them unasked with --force";

fn tenant_of(option: TenantOption, config: &Config) -> Result<TenantId, CommandError> {
    match option.id {
        Some(tenant) => Ok(tenant),
        None => doors::tenant(config)
            .map_err(|_| CommandError::usage("--tenant: missing; name the tenant, or set [tenant] id in the settings")),
    }
}

fn database(config: &Config) -> Result<Database, CommandError> {
    doors::database(config)?.ok_or_else(|| {
        CommandError::usage(
            "[catalog] kind: the embedded catalog has neither migrations nor settings in a database, those of [nice] \
             stand in the settings file; choose kind = \"postgres\" with a url",
        )
    })
}
