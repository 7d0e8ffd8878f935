//! Tasks that end with their owner.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::Stream;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::machine::Machine;

/// Starts a task that is aborted when the handle is dropped, so that no work outlives its flow. It runs where its
/// owner does, if that is a simulated [`Machine`].
pub fn spawn<T: Send + 'static>(
    name: &'static str,
    future: impl Future<Output = T> + Send + 'static,
) -> AbortOnDropHandle<T> {
    spawn_boxed(name, Box::pin(future))
}

/// Boxed: the machinery of a task is large, and would be compiled anew for every future.
fn spawn_boxed<T: Send + 'static>(name: &'static str, future: BoxFuture<'static, T>) -> AbortOnDropHandle<T> {
    // Not `name`: a log in JSON gives every span a `name` of its own.
    let future = future.instrument(tracing::trace_span!("task", task = name));
    match Machine::current() {
        None => begin(future),
        Some(machine) => {
            let gate = machine.gate(future);
            let number = gate.number();
            // A killed machine aborts its tasks: this one ends with no value, not with a wrong one.
            let task = begin(async move {
                match gate.await {
                    Some(value) => value,
                    None => std::future::pending().await,
                }
            });
            machine.ends(number, task.abort_handle());
            task
        }
    }
}

fn begin<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> AbortOnDropHandle<T> {
    #[expect(clippy::disallowed_methods, reason = "the one place where tasks begin")]
    AbortOnDropHandle::new(tokio::spawn(future))
}

/// The work panicked, or the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("work that blocks broke off")]
pub struct BrokenOff;

/// Does work that blocks, on a thread that may. A simulated [`Machine`] has no threads: there it is done in place, and
/// others have their turn before its end is seen, as they would with a thread. It begins when it is first awaited.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, BrokenOff> {
    if Machine::current().is_some() {
        let done = catch_unwind(AssertUnwindSafe(work)).map_err(|_| BrokenOff);
        tokio::task::yield_now().await;
        return done;
    }
    #[expect(clippy::disallowed_methods, reason = "the one place where work that blocks begins")]
    tokio::task::spawn_blocking(work).await.map_err(|_| BrokenOff)
}

/// A stream that a task fills through a channel of `bound` items; dropping the stream ends the task. It ends when
/// the task does; a panic of the task goes on in whoever reads the stream, for an end would look like the work done.
pub fn stream<T, Filling>(
    name: &'static str,
    bound: usize,
    fill: impl FnOnce(mpsc::Sender<T>) -> Filling,
) -> impl Stream<Item = T> + Send + Unpin + 'static
where
    T: Send + 'static,
    Filling: Future<Output = ()> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(bound);
    TaskStream { items: ReceiverStream::new(receiver), task: Some(spawn(name, fill(sender))) }
}

struct TaskStream<T> {
    items: ReceiverStream<T>,
    /// None once it has ended.
    task: Option<AbortOnDropHandle<()>>,
}

impl<T> Stream for TaskStream<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(item) = ready!(Pin::new(&mut self.items).poll_next(context)) {
            return Poll::Ready(Some(item));
        }
        if let Some(task) = &mut self.task {
            let ended = ready!(Pin::new(task).poll(context));
            self.task = None;
            if let Err(error) = ended
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    #[tokio::test]
    async fn a_stream_ends_with_its_task() {
        let items = stream("test", 1, |sender| async move {
            for n in 0..3 {
                sender.send(n).await.unwrap();
            }
        });
        assert_eq!(items.collect::<Vec<_>>().await, [0, 1, 2]);
    }

    #[tokio::test]
    async fn a_panic_of_the_task_is_not_taken_for_its_end() {
        let items = stream("test", 1, |sender: mpsc::Sender<u8>| async move {
            sender.send(1).await.unwrap();
            panic!("on purpose");
        });
        let read = std::panic::AssertUnwindSafe(items.collect::<Vec<_>>()).catch_unwind().await;
        assert!(read.is_err());
    }
}
