//! Callers that come at the same time share one statement and one commit.
//!
//! One task takes all that wait and runs it as one; whoever comes meanwhile waits for the next round. No timer is
//! needed: alone, a caller is served at once, and the more there are, the more share a commit. Each caller gets its
//! own answer. A caller that leaves may still have its effect, like one whose answer was lost.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use database::DatabaseError;
use runtime::task;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use crate::CatalogError;

/// The most callers that share a statement: at this size the commit costs next to nothing for each.
const MOST: usize = 256;

/// The most bytes in one statement, so that a few long records do not make a giant one.
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// A caller has an answer after this, whatever the database does.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is done for many callers at once.
pub(super) trait Work: Send + Sync + 'static {
    /// What a caller asks.
    type Ask: Send + Sync + 'static;
    /// What it gets.
    type Answer: Send + 'static;

    /// For errors.
    const NAME: &'static str;

    /// About how many bytes an ask brings into the statement.
    fn weight(_: &Self::Ask) -> usize {
        0
    }

    /// Does all of it in one commit, or none of it; the answers in the order of the asks.
    fn run(
        &self,
        asks: &[&Self::Ask],
    ) -> impl Future<Output = Result<Vec<Result<Self::Answer, CatalogError>>, DatabaseError>> + Send;
}

struct Waiting<W: Work> {
    ask: W::Ask,
    answer: oneshot::Sender<Result<W::Answer, CatalogError>>,
}

/// The way to a task that works in batches.
pub(super) struct Batches<W: Work> {
    sender: mpsc::Sender<Waiting<W>>,
    _task: AbortOnDropHandle<()>,
}

impl<W: Work> Batches<W> {
    /// Starts the task.
    pub(super) fn start(work: W) -> Self {
        // Callers are bounded by the stages' concurrency; beyond it they wait here instead of in memory.
        let (sender, receiver) = mpsc::channel(MOST);
        Self { sender, _task: task::spawn(W::NAME, serve(Arc::new(work), receiver)) }
    }

    /// Waits for the batch that this ask is in.
    pub(super) async fn ask(&self, ask: W::Ask) -> Result<W::Answer, CatalogError> {
        let answered = async {
            let (answer, answered) = oneshot::channel();
            let ended = |_| CatalogError(format!("{}: the catalog is closed", W::NAME));
            self.sender.send(Waiting { ask, answer }).await.map_err(|_| ended(()))?;
            answered.await.map_err(|_| ended(()))?
        };
        let late = |_| CatalogError(format!("{}: the database cannot be reached: no answer in time", W::NAME));
        tokio::time::timeout(PATIENCE, answered).await.map_err(late)?
    }
}

async fn serve<W: Work>(work: Arc<W>, mut receiver: mpsc::Receiver<Waiting<W>>) {
    let mut waiting = Vec::with_capacity(MOST);
    while receiver.recv_many(&mut waiting, MOST).await > 0 {
        // Nobody waits for these any more.
        waiting.retain(|one| !one.answer.is_closed());
        while !waiting.is_empty() {
            let mut bytes = 0;
            let beyond = waiting.iter().position(|one| {
                bytes += W::weight(&one.ask);
                bytes > MOST_BYTES
            });
            let rest = waiting.split_off(beyond.unwrap_or(waiting.len()).max(1));
            answer(&*work, std::mem::replace(&mut waiting, rest)).await;
        }
    }
}

/// Runs a batch and answers its callers.
async fn answer<W: Work>(work: &W, batch: Vec<Waiting<W>>) {
    let asks: Vec<&W::Ask> = batch.iter().map(|one| &one.ask).collect();
    let answers = match work.run(&asks).await {
        Ok(answers) => answers,
        // One of them breaks a rule of the tables; its neighbours do not suffer for it.
        Err(DatabaseError::Failed { .. }) if asks.len() > 1 => {
            let mut answers = Vec::with_capacity(asks.len());
            for one in &batch {
                answers.push(alone(work, one).await);
            }
            answers
        }
        Err(error) => {
            let error = CatalogError::from(error);
            asks.iter().map(|_| Err(error.clone())).collect()
        }
    };
    for (one, answer) in batch.into_iter().zip(answers) {
        // A caller that left does not miss it.
        drop(one.answer.send(answer));
    }
}

async fn alone<W: Work>(work: &W, one: &Waiting<W>) -> Result<W::Answer, CatalogError> {
    let unanswered = || Err(CatalogError(format!("{}: no answer", W::NAME)));
    if one.answer.is_closed() {
        return unanswered();
    }
    work.run(&[&one.ask]).await?.pop().unwrap_or_else(unanswered)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    /// Doubles numbers; a 13 fails its batch. Each run waits for a permit.
    struct Doubling {
        permits: Arc<Semaphore>,
        runs: Arc<Mutex<Vec<usize>>>,
    }

    impl Work for Doubling {
        type Ask = u64;
        type Answer = u64;

        const NAME: &'static str = "double";

        fn weight(ask: &u64) -> usize {
            if *ask >= 1000 { MOST_BYTES } else { 0 }
        }

        async fn run(&self, asks: &[&u64]) -> Result<Vec<Result<u64, CatalogError>>, DatabaseError> {
            self.permits.acquire().await.unwrap().forget();
            self.runs.lock().unwrap().push(asks.len());
            if asks.contains(&&13) {
                return Err(DatabaseError::Failed { what: "double", cause: "unlucky".to_owned() });
            }
            Ok(asks.iter().map(|ask| Ok(**ask * 2)).collect())
        }
    }

    struct Fixture {
        batches: Arc<Batches<Doubling>>,
        permits: Arc<Semaphore>,
        runs: Arc<Mutex<Vec<usize>>>,
    }

    fn fixture() -> Fixture {
        let (permits, runs) = (Arc::new(Semaphore::new(0)), Arc::default());
        let batches = Arc::new(Batches::start(Doubling { permits: permits.clone(), runs: Arc::clone(&runs) }));
        Fixture { batches, permits, runs }
    }

    impl Fixture {
        /// What these callers get that ask while the first one is being served.
        async fn ask_together(&self, asks: &[u64]) -> Vec<Result<u64, CatalogError>> {
            let first = self.batches.ask(1);
            let others = async {
                // Polled after the first one: these come while the task is at work, or wait before it has begun.
                let all = join_all(asks.iter().map(|ask| self.batches.ask(*ask)));
                let let_go = async { self.permits.add_permits(1000) };
                futures::join!(all, let_go).0
            };
            let (first, others) = futures::join!(first, others);
            assert_eq!(first.unwrap(), 2);
            others
        }
    }

    #[tokio::test]
    async fn callers_that_come_together_share_a_run_and_get_their_own_answer() {
        let fixture = fixture();
        let asks: Vec<u64> = (100..200).collect();
        let answers: Vec<u64> = fixture.ask_together(&asks).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers, asks.iter().map(|ask| ask * 2).collect::<Vec<_>>());
        let runs = fixture.runs.lock().unwrap().clone();
        assert_eq!(runs.iter().sum::<usize>(), 101);
        assert!(runs.len() <= 2, "{runs:?}");
    }

    #[tokio::test]
    async fn one_that_fails_does_not_fail_its_neighbours() {
        let fixture = fixture();
        let answers = fixture.ask_together(&[12, 13, 14]).await;
        assert_eq!(answers[0].as_ref().unwrap(), &24);
        assert!(answers[1].as_ref().unwrap_err().to_string().contains("unlucky"));
        assert_eq!(answers[2].as_ref().unwrap(), &28);
    }

    #[tokio::test]
    async fn heavy_asks_do_not_share_a_statement() {
        let fixture = fixture();
        let answers = fixture.ask_together(&[1001, 1002, 1003]).await;
        assert_eq!(answers.len(), 3);
        let runs = fixture.runs.lock().unwrap().clone();
        assert!(runs.iter().all(|run| *run <= 2), "a light one may go with a heavy one: {runs:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_has_an_answer_though_the_database_has_none() {
        let fixture = fixture();
        let error = fixture.batches.ask(1).await.unwrap_err();
        assert!(error.to_string().contains("no answer in time"), "{error}");
    }
}
