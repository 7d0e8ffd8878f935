//! `bench quota-drill-worker`: calls of the drill in a process of its own, as the consumer treats them.
//!
//! A call that NICE refuses or the budget sends away waits for as long as it is told, and asks again. RabbitMQ, which
//! goes with the database, rounds such a wait up to its next step; the embedded queue keeps it exactly.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;

use clap::Args;
use model::QuotaClass;
use quota::Patience;
use serde_json::json;
use tokio::task::JoinSet;

use crate::quota::{
    asker::{Answer, Asker, now},
    ours::{Ours, OursOptions, wait_of},
};

/// Requests that each call needs.
pub(super) const REQUESTS: usize = 3;

/// The steps of RabbitMQ that matter here, in seconds.
const STEPS: [u64; 6] = [1, 2, 5, 10, 30, 60];

/// The limit is looked at so often.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What `bench quota-drill-worker` is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct DrillWorkerOptions {
    /// Where requests go
    #[arg(long)]
    url: String,
    /// Calls of all processes
    #[arg(long)]
    conversations: usize,
    /// The seconds in which they come
    #[arg(long)]
    arrival: f64,
    /// The first call of this process
    #[arg(long)]
    first: usize,
    /// The distance to its next one
    #[arg(long)]
    every: usize,
    #[command(flatten)]
    ours: OursOptions,
}

struct Calls {
    ours: Ours,
    asker: Asker,
    has_steps: bool,
    sent_away: AtomicUsize,
}

/// Says when it is ready, waits for a line, does its calls, and says what it saw.
pub(crate) async fn run(options: &DrillWorkerOptions) -> anyhow::Result<()> {
    let calls = Arc::new(Calls {
        ours: Ours::open(&options.ours, Patience::WORKER)?,
        asker: Asker::new(&options.url)?,
        has_steps: options.ours.is_shared(),
        sent_away: AtomicUsize::new(0),
    });
    println!("{{}}");
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
    let begun = now();
    let mut tasks = JoinSet::new();
    for number in (options.first..options.conversations).step_by(options.every.max(1)) {
        let comes_after = options.arrival * number as f64 / options.conversations as f64;
        let class = if number % 2 == 0 { QuotaClass::Live } else { QuotaClass::Retry };
        tasks.spawn(Arc::clone(&calls).call(class, begun + Duration::from_secs_f64(comes_after)));
    }
    let mut lowest = options.ours.limit;
    while !tasks.is_empty() {
        lowest = lowest.min(calls.ours.limit_now().await?);
        tokio::time::sleep(LOOK_EVERY).await;
        while let Some(done) = tasks.try_join_next() {
            done?;
        }
    }
    println!("{}", json!({ "limit_now": lowest, "sent_away": calls.sent_away.load(Ordering::Relaxed) }));
    Ok(())
}

impl Calls {
    /// What of a call is done stays done.
    async fn call(self: Arc<Self>, class: QuotaClass, due: Duration) {
        tokio::time::sleep(due.saturating_sub(now())).await;
        let mut taken = 0;
        while taken < REQUESTS {
            match self.request(class, due).await {
                Ok(()) => taken += 1,
                Err(wait) => tokio::time::sleep(self.away(wait)).await,
            }
        }
    }

    /// One request, or how long to wait before the next.
    async fn request(&self, class: QuotaClass, due: Duration) -> Result<(), Duration> {
        let permit = self.ours.permit(class).await.map_err(|error| {
            self.sent_away.fetch_add(1, Ordering::Relaxed);
            wait_of(&error)
        })?;
        match self.asker.ask(class, due).await {
            Answer::Taken => Ok(()),
            Answer::Refused => {
                permit.refused(None);
                // As the client of NICE does it.
                Err(Duration::from_secs(2).mul_f64(rand::random_range(0.5..1.0)))
            }
            Answer::Failed => Err(Duration::from_secs(1)),
        }
    }

    /// For how long the queue keeps a call that shall wait for so long.
    fn away(&self, wait: Duration) -> Duration {
        let mut steps = STEPS.map(Duration::from_secs).into_iter();
        match self.has_steps {
            true => steps.find(|step| *step >= wait).unwrap_or(wait),
            false => wait,
        }
    }
}
