//! `bench quota-worker`: the work with a budget of ours, or with none, in a process that can be killed.
//!
//! A backfill takes all it gets, live calls end as a Poisson process, the nightly comparison asks now and then. While
//! the line `retries on` on stdin was the last one, calls that are tried once more take all they get as well. What was
//! refused is asked again. The server counts; this only says at its start what a backfill is promised.

use std::io::BufRead;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use model::{Permit, QuotaClass};
use quota::Patience;
use serde_json::json;
use tokio::sync::watch;

use super::asker::{Answer, Asker, now};
use super::ours::{Ours, OursOptions, wait_of};

/// The order that sets the retries to work.
pub(super) const RETRIES_ON: &str = "retries on";

/// What holds requests back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Means {
    /// Our budget.
    Ours,
    /// Nothing; who is refused waits twice as long as the time before.
    Backoff,
    /// One request at a time, and a fixed sleep after each.
    Sleep,
}

/// What `bench quota-worker` is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct WorkerOptions {
    #[arg(long, value_enum)]
    means: Means,
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

enum Budget {
    Ours(Ours),
    Backoff,
    Sleep(tokio::sync::Mutex<()>),
}

struct Work {
    budget: Budget,
    asker: Asker,
    /// Of NICE's time, in which delays are meant.
    second: Duration,
    /// Between two requests that are spread evenly.
    spacing: Duration,
}

/// Works until it is killed.
pub(crate) async fn run(options: &WorkerOptions) -> anyhow::Result<()> {
    let window = Duration::from_secs_f64(options.ours.window);
    let (budget, promised) = match options.means {
        Means::Ours => {
            let ours = Ours::open(&options.ours, Patience::Endless)?;
            let promised = ours.promised();
            (Budget::Ours(ours), Some(promised))
        }
        Means::Backoff => (Budget::Backoff, None),
        Means::Sleep => (Budget::Sleep(tokio::sync::Mutex::default()), None),
    };
    let (second, spacing) = (window / 300, window / options.ours.limit.max(1));
    let work = Arc::new(Work { budget, asker: Asker::new(&options.url)?, second, spacing });
    println!("{}", json!({ "pace": promised }));
    let (always, on) = (watch::channel(true), orders());
    for _ in 0..options.workers {
        tokio::spawn(Arc::clone(&work).saturating(QuotaClass::Backfill, always.1.clone()));
    }
    for _ in 0..options.retries {
        tokio::spawn(Arc::clone(&work).saturating(QuotaClass::Retry, on.clone()));
    }
    let a_second = |a_window: f64| a_window / window.as_secs_f64();
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
        let mut delay = self.second;
        while !self.request(class, due).await {
            if matches!(self.budget, Budget::Backoff) {
                tokio::time::sleep(delay.mul_f64(rand::random_range(0.5..1.5))).await;
                delay = (delay * 2).min(self.second * 60);
            }
        }
    }

    /// Whether the request was taken, once it was its turn.
    async fn request(&self, class: QuotaClass, due: Duration) -> bool {
        match &self.budget {
            Budget::Ours(ours) => {
                let permit = permit(ours, class).await;
                let answer = self.asker.ask(class, due).await;
                if answer == Answer::Refused {
                    permit.refused(None);
                }
                answer == Answer::Taken
            }
            Budget::Backoff => self.asker.ask(class, due).await == Answer::Taken,
            Budget::Sleep(turn) => {
                let _turn = turn.lock().await;
                let is_taken = self.asker.ask(class, due).await == Answer::Taken;
                tokio::time::sleep(if is_taken { self.spacing } else { self.second * 60 }).await;
                is_taken
            }
        }
    }
}

/// Waits for a turn, however long it takes.
async fn permit(ours: &Ours, class: QuotaClass) -> Permit {
    loop {
        match ours.permit(class).await {
            Ok(permit) => return permit,
            Err(error) => {
                eprintln!("{error}");
                tokio::time::sleep(wait_of(&error)).await;
            }
        }
    }
}
