//! The rate budget, as a process of the daemon opens it: in the local state, or in the database that several share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use database::{Database, DatabaseOptions};
use model::{ApiFamily, Permit, Quota, QuotaClass, QuotaError, TenantId};
use quota::{Budgets, LocalStores, Patience, QuotaMetrics, Rate, SharedStores, Stores, TenantQuota, Terms};
use secrecy::SecretString;
use state::{State, StateOptions};

/// All requests are of this family.
const FAMILY: ApiFamily = ApiFamily::MediaPlayback;

/// Who is told no time asks again after this one.
const AGAIN: Duration = Duration::from_secs(1);

/// Which budget it is.
#[derive(Debug, Clone, Args)]
pub(super) struct OursOptions {
    /// Requests in a window
    #[arg(long)]
    pub(super) limit: u32,
    /// Its length in seconds
    #[arg(long)]
    pub(super) window: f64,
    /// The part that backfill may not take
    #[arg(long)]
    reserve: f64,
    /// Where the local state lies
    #[arg(long)]
    dir: PathBuf,
    /// The database of the budget; the local state has it unless named
    #[arg(long)]
    postgres: Option<String>,
    /// Whose budget it is
    #[arg(long)]
    tenant: String,
}

/// An open budget.
pub(super) struct Ours {
    budgets: Arc<Budgets>,
    quota: TenantQuota,
    account: String,
}

impl Ours {
    /// Opens it for those who wait as long as it takes.
    pub(super) fn open(options: &OursOptions) -> anyhow::Result<Self> {
        let rate = Rate { limit: options.limit, window: Duration::from_secs_f64(options.window) };
        let terms = Terms::new(rate, options.reserve);
        let budgets = Arc::new(Budgets::new(stores(options)?, terms, terms, QuotaMetrics::default()));
        let tenant: TenantId = options.tenant.parse().ok().context("the tenant's name")?;
        let quota = TenantQuota::new(Arc::clone(&budgets), tenant.clone(), Patience::Endless);
        Ok(Self { budgets, quota, account: format!("bench/{tenant}") })
    }

    /// A permit for a request that leaves now.
    pub(super) async fn permit(&self, class: QuotaClass) -> Result<Box<dyn Permit>, QuotaError> {
        loop {
            let mut permit = self.quota.admit(Some(&self.account), FAMILY, class).await?;
            if permit.leave() {
                return Ok(permit);
            }
        }
    }

    /// Requests a second that a backfill is promised.
    pub(super) fn promised(&self) -> f64 {
        self.budgets.terms(FAMILY).pace(QuotaClass::Backfill)
    }
}

fn stores(options: &OursOptions) -> anyhow::Result<Arc<dyn Stores>> {
    if let Some(url) = &options.postgres {
        let url = SecretString::from(url.as_str());
        let database = Database::new(DatabaseOptions { url, connections: 2, service: "bench" })?;
        return Ok(Arc::new(SharedStores::new(database)));
    }
    let opened = State::open(&options.dir, StateOptions::default())?;
    ensure!(opened.set_aside.is_none(), "the state was damaged");
    Ok(Arc::new(LocalStores::new(opened.state)))
}

/// How long to wait after this.
pub(super) fn wait_of(error: &QuotaError) -> Duration {
    match error {
        QuotaError { retry_after: Some(wait), .. } => *wait,
        _ => AGAIN,
    }
}
