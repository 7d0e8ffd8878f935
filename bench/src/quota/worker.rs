//! `bench quota-worker`: the work, in a process that can be killed.
//!
//! A backfill takes all it gets, live calls end as a Poisson process, the nightly comparison asks now and then. While
//! the line `retries on` on stdin was the last one, calls that are tried once more take all they get as well. What was
//! refused is asked again. The server counts; this only says at its start what a backfill is promised.

use std::io::BufRead;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use model::{Permit, QuotaClass};
use serde_json::json;
use tokio::sync::watch;

use super::asker::{Answer, Asker, now};
use super::ours::{Ours, OursOptions, wait_of};

/// The order that sets the retries to work.
pub(super) const RETRIES_ON: &str = "retries on";

/// What `bench quota-worker` is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct WorkerOptions {
    /// Where requests go
    #[arg(long)]
    url: String,
    /// Workers of the backfill
    #[arg(long)]
    workers: usize,
    /// Workers that try calls once more, while they are told to
    #[arg(long)]
    retries: usize,
    /// Live calls in a window
    #[arg(long)]
    live: f64,
    /// Requests of the comparison in a window
    #[arg(long)]
    reconciliation: f64,
    #[command(flatten)]
    ours: OursOptions,
}

struct Work {
    budget: Ours,
    asker: Asker,
}

/// Works until it is killed.
pub(crate) async fn run(options: &WorkerOptions) -> anyhow::Result<()> {
    let budget = Ours::open(&options.ours)?;
    let promised = budget.promised();
    let work = Arc::new(Work { budget, asker: Asker::new(&options.url)? });
    println!("{}", json!({ "pace": promised }));
    let (always, on) = (watch::channel(true), orders());
    for _ in 0..options.workers {
        tokio::spawn(Arc::clone(&work).saturating(QuotaClass::Backfill, always.1.clone()));
    }
    for _ in 0..options.retries {
        tokio::spawn(Arc::clone(&work).saturating(QuotaClass::Retry, on.clone()));
    }
    let a_second = |a_window: f64| a_window / options.ours.window;
    tokio::spawn(Arc::clone(&work).arriving(QuotaClass::Reconciliation, a_second(options.reconciliation)));
    work.arriving(QuotaClass::Live, a_second(options.live)).await;
    Ok(())
}

/// Whether the retries shall work, as stdin says; each order is answered.
fn orders() -> watch::Receiver<bool> {
    let (switch, on) = watch::channel(false);
    std::thread::spawn(move || {
        for order in std::io::stdin().lock().lines().map_while(Result::ok) {
            switch.send_replace(order == RETRIES_ON);
            println!("{{}}");
        }
    });
    on
}

impl Work {
    /// One conversation after the other, while it is told to.
    async fn saturating(self: Arc<Self>, class: QuotaClass, mut on: watch::Receiver<bool>) {
        while on.wait_for(|on| *on).await.is_ok() {
            self.conversation(class, now()).await;
        }
    }

    /// Conversations of a Poisson process, so many a second.
    async fn arriving(self: Arc<Self>, class: QuotaClass, a_second: f64) {
        let mut due = now();
        loop {
            let chance: f64 = rand::random_range(1e-9..1.0);
            due += Duration::from_secs_f64(-chance.ln() / a_second);
            tokio::time::sleep(due.saturating_sub(now())).await;
            let work = Arc::clone(&self);
            tokio::spawn(async move { work.conversation(class, due).await });
        }
    }

    /// One conversation needs one request that is taken.
    async fn conversation(&self, class: QuotaClass, due: Duration) {
        loop {
            let permit = self.permit(class).await;
            match self.asker.ask(class, due).await {
                Answer::Taken => return,
                Answer::Refused => permit.refused(None),
                Answer::Failed => {}
            }
        }
    }

    /// Waits for a turn, however long it takes.
    async fn permit(&self, class: QuotaClass) -> Box<dyn Permit> {
        loop {
            match self.budget.permit(class).await {
                Ok(permit) => return permit,
                Err(error) => {
                    eprintln!("{error}");
                    tokio::time::sleep(wait_of(&error)).await;
                }
            }
        }
    }
}
