//! Tasks that end with their owner.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

/// Starts a task that is aborted when the handle is dropped, so that no work outlives its flow.
pub fn spawn<T: Send + 'static>(
    name: &'static str,
    future: impl Future<Output = T> + Send + 'static,
) -> AbortOnDropHandle<T> {
    // Not `name`: a log in JSON gives every span a `name` of its own.
    let future = future.instrument(tracing::info_span!("task", task = name));
    #[expect(clippy::disallowed_methods, reason = "the one place where tasks begin")]
    AbortOnDropHandle::new(tokio::spawn(future))
}

/// A stream that a task fills through a channel of `bound` items; dropping the stream ends the task.
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
    TaskStream { items: ReceiverStream::new(receiver), _task: spawn(name, fill(sender)) }
}

struct TaskStream<T> {
    items: ReceiverStream<T>,
    _task: AbortOnDropHandle<()>,
}

impl<T> Stream for TaskStream<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        Pin::new(&mut self.items).poll_next(context)
    }
}
