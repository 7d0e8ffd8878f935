//! Callers that come at the same time share one statement and one commit.
//!
//! One task takes all that wait and runs it as one; whoever comes meanwhile waits for the next round. No timer is
//! needed: alone, a caller is served at once, and the more there are, the more share a commit. Each caller gets its
//! own answer. A caller that leaves may still have its effect, like one whose answer was lost.

use std::future::Future;
use std::time::Duration;

use database::{Database, DatabaseError};
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

/// What one caller asks for, and how a batch of such requests is answered in one statement.
pub(super) trait BatchRequest: Sized + Send + Sync + 'static {
    /// What the caller gets.
    type Answer: Send + 'static;

    /// For errors.
    const NAME: &'static str;

    /// About how many bytes the request brings into the statement.
    fn weight(&self) -> usize {
        0
    }

    /// Does all of it in one commit, or none of it; the answers in the order of the requests.
    fn run(
        database: &Database,
        requests: &[&Self],
    ) -> impl Future<Output = Result<Vec<Result<Self::Answer, CatalogError>>, DatabaseError>> + Send;
}

/// A request whose caller waits.
struct Pending<R: BatchRequest> {
    request: R,
    answer: oneshot::Sender<Result<R::Answer, CatalogError>>,
}

/// The way to a task that answers requests in batches.
pub(super) struct Batcher<R: BatchRequest> {
    sender: mpsc::Sender<Pending<R>>,
    _task: AbortOnDropHandle<()>,
}

impl<R: BatchRequest> Batcher<R> {
    /// Starts the task.
    pub(super) fn start(database: &Database) -> Self {
        // Callers are bounded by the stages' concurrency; beyond it they wait here instead of in memory.
        let (sender, receiver) = mpsc::channel(MOST);
        Self { sender, _task: task::spawn(R::NAME, serve(database.clone(), receiver)) }
    }

    /// Waits for the batch that this request is in.
    pub(super) async fn submit(&self, request: R) -> Result<R::Answer, CatalogError> {
        let answered = async {
            let (answer, answered) = oneshot::channel();
            let ended = |_| CatalogError(format!("{}: the catalog is closed", R::NAME));
            self.sender.send(Pending { request, answer }).await.map_err(|_| ended(()))?;
            answered.await.map_err(|_| ended(()))?
        };
        let late = |_| CatalogError(format!("{}: the database cannot be reached: no answer in time", R::NAME));
        tokio::time::timeout(PATIENCE, answered).await.map_err(late)?
    }
}

async fn serve<R: BatchRequest>(database: Database, mut receiver: mpsc::Receiver<Pending<R>>) {
    let mut waiting = Vec::with_capacity(MOST);
    while receiver.recv_many(&mut waiting, MOST).await > 0 {
        // Nobody waits for these any more.
        waiting.retain(|one| !one.answer.is_closed());
        while !waiting.is_empty() {
            let mut bytes = 0;
            let beyond = waiting.iter().position(|one| {
                bytes += one.request.weight();
                bytes > MOST_BYTES
            });
            let rest = waiting.split_off(beyond.unwrap_or(waiting.len()).max(1));
            answer(&database, std::mem::replace(&mut waiting, rest)).await;
        }
    }
}

/// Runs a batch and answers its callers.
async fn answer<R: BatchRequest>(database: &Database, batch: Vec<Pending<R>>) {
    let requests: Vec<&R> = batch.iter().map(|one| &one.request).collect();
    let answers = match R::run(database, &requests).await {
        Ok(answers) => answers,
        // One of them breaks a rule of the tables; its neighbours do not suffer for it.
        Err(DatabaseError::Failed { .. }) if requests.len() > 1 => {
            let mut answers = Vec::with_capacity(requests.len());
            for one in &batch {
                answers.push(alone(database, one).await);
            }
            answers
        }
        Err(error) => {
            let error = CatalogError::from(error);
            requests.iter().map(|_| Err(error.clone())).collect()
        }
    };
    for (one, answer) in batch.into_iter().zip(answers) {
        // A caller that left does not miss it.
        drop(one.answer.send(answer));
    }
}

async fn alone<R: BatchRequest>(database: &Database, one: &Pending<R>) -> Result<R::Answer, CatalogError> {
    let unanswered = || Err(CatalogError(format!("{}: no answer", R::NAME)));
    if one.answer.is_closed() {
        return unanswered();
    }
    R::run(database, &[&one.request]).await?.pop().unwrap_or_else(unanswered)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use database::DatabaseOptions;
    use futures::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    /// Doubles numbers; a 13 fails its batch. Each run waits for a permit.
    struct Doubled {
        number: u64,
        fixture: Fixture,
    }

    impl BatchRequest for Doubled {
        type Answer = u64;

        const NAME: &'static str = "double";

        fn weight(&self) -> usize {
            if self.number >= 1000 { MOST_BYTES } else { 0 }
        }

        async fn run(_: &Database, requests: &[&Self]) -> Result<Vec<Result<u64, CatalogError>>, DatabaseError> {
            let Fixture { permits, runs, .. } = &requests[0].fixture;
            permits.acquire().await.unwrap().forget();
            runs.lock().unwrap().push(requests.len());
            if requests.iter().any(|request| request.number == 13) {
                return Err(DatabaseError::Failed { what: "double", cause: "unlucky".to_owned() });
            }
            Ok(requests.iter().map(|request| Ok(request.number * 2)).collect())
        }
    }

    #[derive(Clone)]
    struct Fixture {
        batcher: Arc<Batcher<Doubled>>,
        permits: Arc<Semaphore>,
        runs: Arc<Mutex<Vec<usize>>>,
    }

    fn fixture() -> Fixture {
        let url = "postgres://nobody@localhost/nothing".into();
        let database = Database::new(DatabaseOptions { url, connections: 1, service: "test" }).unwrap();
        let batcher = Arc::new(Batcher::start(&database));
        Fixture { batcher, permits: Arc::new(Semaphore::new(0)), runs: Arc::default() }
    }

    impl Fixture {
        async fn double(&self, number: u64) -> Result<u64, CatalogError> {
            self.batcher.submit(Doubled { number, fixture: self.clone() }).await
        }

        /// What these callers get that ask while the first one is being served.
        async fn double_together(&self, numbers: &[u64]) -> Vec<Result<u64, CatalogError>> {
            let first = self.double(1);
            let others = async {
                // Polled after the first one: these come while the task is at work, or wait before it has begun.
                let all = join_all(numbers.iter().map(|number| self.double(*number)));
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
        let numbers: Vec<u64> = (100..200).collect();
        let answers: Vec<u64> = fixture.double_together(&numbers).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers, numbers.iter().map(|number| number * 2).collect::<Vec<_>>());
        let runs = fixture.runs.lock().unwrap().clone();
        assert_eq!(runs.iter().sum::<usize>(), 101);
        assert!(runs.len() <= 2, "{runs:?}");
    }

    #[tokio::test]
    async fn one_that_fails_does_not_fail_its_neighbours() {
        let fixture = fixture();
        let answers = fixture.double_together(&[12, 13, 14]).await;
        assert_eq!(answers[0].as_ref().unwrap(), &24);
        assert!(answers[1].as_ref().unwrap_err().to_string().contains("unlucky"));
        assert_eq!(answers[2].as_ref().unwrap(), &28);
    }

    #[tokio::test]
    async fn heavy_requests_do_not_share_a_statement() {
        let fixture = fixture();
        let answers = fixture.double_together(&[1001, 1002, 1003]).await;
        assert_eq!(answers.len(), 3);
        let runs = fixture.runs.lock().unwrap().clone();
        assert!(runs.iter().all(|run| *run <= 2), "a light one may go with a heavy one: {runs:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_has_an_answer_though_the_database_has_none() {
        let fixture = fixture();
        let error = fixture.double(1).await.unwrap_err();
        assert!(error.to_string().contains("no answer in time"), "{error}");
    }
}
