//! The alarm that NICE refuses us: one for each client, and so for each tenant, whatever happens to the others.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use model::TenantId;
use tokio::time::Instant;
use tracing::error;

use super::NiceError;

/// The shortest time between two alarms, however many calls meet the same refusal.
const INTERVAL: Duration = Duration::from_secs(60);

/// Says that a person must look, now and then.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    tenant: OnceLock<TenantId>,
    last: Mutex<Option<Instant>>,
}

impl Alarm {
    /// Whose NICE it is; none where the client is nobody's yet.
    pub(super) fn name(&self, tenant: &TenantId) {
        self.tenant.get_or_init(|| tenant.clone());
    }

    /// Rings if it is a refusal, and the last one is long ago.
    pub(super) fn listen<T>(&self, answer: &Result<T, NiceError>) {
        if let Err(NiceError::Refused { what }) = answer
            && self.is_due()
        {
            let tenant = self.tenant.get().map(tracing::field::display);
            error!(tenant, reason = %what, "NICE refuses us, a person must look at key, role and licence");
        }
    }

    fn is_due(&self) -> bool {
        let now = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.is_none_or(|last| now.saturating_duration_since(last) >= INTERVAL);
        if due {
            *last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_alarm_of_a_tenant_rings_once_a_minute_whatever_the_others_do() {
        let (one, other) = (Alarm::default(), Alarm::default());
        assert!(one.is_due());
        assert!(other.is_due(), "another tenant");
        tokio::time::advance(INTERVAL - Duration::from_secs(1)).await;
        assert!(!one.is_due());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(one.is_due());
    }
}
