//! A tenant whose settings are in use.

use std::time::Duration;

use flow::StageError;
use model::{Retention, System, TenantId};
use nice::NiceClient;
use runtime::chance;

use super::settings::RecordingScope;

/// How long a call waits, at least, whose tenant's NICE is silent while others try it; at most three times as long, so
/// that they do not come back together.
const SILENT_DELAY: Duration = Duration::from_secs(5);

/// A tenant whose NICE can be asked.
#[derive(Debug)]
pub struct Tenant {
    /// Who it is.
    pub id: TenantId,
    /// The door to its NICE.
    pub nice: NiceClient,
    /// What is imported of a call with several legs.
    pub scope: RecordingScope,
    /// How long its conversations are kept.
    pub retention: Retention,
}

impl Tenant {
    /// The door to its NICE, unless it is silent and enough others are trying it.
    pub fn responsive(&self) -> Result<&NiceClient, StageError> {
        match self.nice.is_stuck() {
            true => Err(StageError::Busy {
                reason: "the tenant's NICE does not answer, and others are trying it".to_owned(),
                waits_for: Some(System::Nice),
                retry_after: SILENT_DELAY.mul_f64(chance::range(1.0..3.0)),
            }),
            false => Ok(&self.nice),
        }
    }
}
