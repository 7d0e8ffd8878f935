//! The commands of the Knovvu database, in an executable without its client.

use crate::access::Load;
use crate::cli::SettingsCommand;
use crate::failure::Failure;

const NOT_BUILT: &str = "[catalog] kind: \"postgres\" is not part of this executable, and the embedded catalog needs \
    neither a migration nor settings in a database; those of [nice] stand in the settings file";

/// `migrate`.
pub(crate) async fn migrate(_load: Load<'_>) -> Result<(), Failure> {
    Err(Failure::usage(NOT_BUILT))
}

/// `settings`.
pub(crate) async fn settings(_command: SettingsCommand, _load: Load<'_>) -> Result<(), Failure> {
    Err(Failure::usage(NOT_BUILT))
}
