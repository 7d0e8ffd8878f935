//! The tables: which ones this executable works with, and how they come to be.
//!
//! The files of `migrations/` are embedded. [`migrate`] applies what is missing, each file in a transaction of its
//! own, so that a crash leaves whole steps; of several that call it at once, one works and the others find it done.
//! [`check`] is asked by the services at their start: they do not work on tables they do not know.

use refinery_core::error::Kind;
use refinery_core::{Migration, Runner};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::{Database, DatabaseError};

/// The named files of `migrations/`.
macro_rules! embedded {
    ($($name:literal),+ $(,)?) => {
        &[$(($name, include_str!(concat!("../../../../migrations/", $name, ".sql")))),+]
    };
}

/// Every step: its name and what it does. A new file of `migrations/` is named here too; a test finds one that is not.
const STEPS: &[(&str, &str)] = embedded![
    "V0001__catalog",
    "V0002__nice_settings",
    "V0003__rate_leases",
    "V0004__quota_classes",
    "V0005__recording_readiness",
    "V0006__replay_runs",
    "V0007__erasure",
    "V0008__quota_budgets",
    "V0009__memberships",
    "V0010__producer_turns",
    "V0011__analysis_queue",
    "V0012__recordings_missing",
    "V0013__passing_dead_letters",
    "V0014__recording_attempts",
    "V0015__usual_readiness",
    "V0016__private_media_hosts",
    "V0017__queue_partitions",
    "V0018__services",
    "V0019__audit",
    "V0020__timeline_visits",
];

/// Taken while the tables are changed: "knovvu" in ASCII.
const LOCK: i64 = 0x6b6e_6f76_7675;

/// Steps may be long, but neither wait nor run for ever: of a lock that others hold, and of one statement.
const PATIENCE: &str = "set statement_timeout = '30min'; set lock_timeout = '60s'";

/// The step of a schema as the database has it: version, name, checksum.
type Step = (i32, String, String);

/// Applies what is missing; the names of the steps that were applied.
pub async fn migrate(database: &Database) -> Result<Vec<String>, DatabaseError> {
    let what = "migrate";
    let failed = |error| DatabaseError::of(what, &error);
    let mut session = database.dedicated().await?;
    session.client.batch_execute(PATIENCE).await.map_err(failed)?;
    // Released with the session.
    session.client.query_one("select pg_advisory_lock($1)", &[&LOCK]).await.map_err(failed)?;
    match compare(&applied(&session.client).await?.unwrap_or_default()) {
        Ok(()) => return Ok(Vec::new()),
        Err(SchemaDifference::Older) => {}
        Err(other) => return Err(other.into()),
    }
    let report = runner().run_async(&mut session.client).await;
    let report = report.map_err(|error| match error.kind() {
        Kind::Connection(_, source) => match source.downcast_ref::<tokio_postgres::Error>() {
            Some(error) => {
                let hint = error.as_db_error().map(|said| format!(" ({})", said.message())).unwrap_or_default();
                match DatabaseError::of(what, error) {
                    // The statements are ours, and hold no values.
                    DatabaseError::Failed { what, cause } => DatabaseError::Failed { what, cause: cause + &hint },
                    other => other,
                }
            }
            None => DatabaseError::Schema(format!("migrate: {error}")),
        },
        _ => DatabaseError::Schema(format!("migrate: {error}")),
    })?;
    Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
}

/// Whether the tables are those of this executable; if not, the error names the remedy.
pub async fn check(database: &Database) -> Result<(), DatabaseError> {
    let steps =
        database.run("check schema", |client| async move { applied_steps(&client).await }).await?.unwrap_or_default();
    compare(&steps).map_err(DatabaseError::from)
}

/// How the tables differ from what this executable knows.
#[derive(Debug, PartialEq, Eq)]
enum SchemaDifference {
    Older,
    Newer(i32),
    Other(i32),
}

impl From<SchemaDifference> for DatabaseError {
    fn from(difference: SchemaDifference) -> Self {
        Self::Schema(match difference {
            SchemaDifference::Older => {
                "the tables of the database are missing or too old; run: nice-knovvu migrate".to_owned()
            }
            SchemaDifference::Newer(version) => {
                format!("the tables of the database are of a later version (step {version}); upgrade this nice-knovvu")
            }
            SchemaDifference::Other(version) => format!(
                "step {version} of the tables was applied from another file than this nice-knovvu carries (checksum \
                 differs); use the build that applied it, or restore the database from before"
            ),
        })
    }
}

/// What applies the steps.
fn runner() -> Runner {
    let step = |(name, sql): &(&str, &str)| Migration::unapplied(name, sql).expect("a valid name");
    Runner::new(&STEPS.iter().map(step).collect::<Vec<_>>())
}

fn compare(applied: &[Step]) -> Result<(), SchemaDifference> {
    let known: Vec<Step> = runner().get_migrations().iter().map(step).collect();
    let newest = known.iter().map(|(version, ..)| *version).max().unwrap_or_default();
    if let Some(step) = applied.iter().find(|step| !known.contains(step)) {
        return Err(if step.0 > newest { SchemaDifference::Newer(step.0) } else { SchemaDifference::Other(step.0) });
    }
    if known.iter().all(|step| applied.contains(step)) { Ok(()) } else { Err(SchemaDifference::Older) }
}

fn step(migration: &Migration) -> Step {
    (migration.version(), migration.name().to_owned(), migration.checksum().to_string())
}

/// The steps that the database has; none if it has never been migrated.
async fn applied_steps(client: &Client) -> Result<Option<Vec<Step>>, tokio_postgres::Error> {
    let rows = client.query("select version, name, checksum from refinery_schema_history order by version", &[]).await;
    match rows {
        Ok(rows) => Ok(Some(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn applied(client: &Client) -> Result<Option<Vec<Step>>, DatabaseError> {
    applied_steps(client).await.map_err(|error| DatabaseError::of("migrate", &error))
}

#[cfg(test)]
mod tests;
