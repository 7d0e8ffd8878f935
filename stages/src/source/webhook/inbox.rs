//! From the inbox to the dedupe.
//!
//! In: the events that were answered with 202, in their order. Out: each as an event, until the dedupe has settled it;
//! only then it leaves the inbox. What cannot be read as an event becomes a dead letter. After a crash the inbox is
//! read from its beginning.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use futures::Stream;
use model::ContactEvent;
use runtime::task;
use state::{Inbox, InboxId};
use tokio::sync::mpsc;
use tracing::{error, warn};

use crate::Context;
use crate::source::{FoundEvent, Receipt, event::set_aside, found::count};

/// Events taken from the inbox at a time.
const BATCH: usize = 64;

/// Emits what stands in the inbox, oldest first, until the service drains.
pub fn drain(inbox: Inbox, context: &Context) -> impl Stream<Item = FoundEvent> + Send + Unpin + 'static {
    let context = context.clone();
    task::stream("webhook_inbox", BATCH, move |found| async move {
        context.flow.stopping.clone().run_until_cancelled(drain_inbox(inbox, context, found)).await;
    })
}

async fn drain_inbox(inbox: Inbox, context: Context, found: mpsc::Sender<FoundEvent>) {
    let (mut after, retry): (Option<InboxId>, _) = (None, &context.flow.retry);
    // Set when an event was handed back: the inbox is read from its beginning again.
    let handed_back = Arc::new(AtomicBool::new(false));
    loop {
        if handed_back.swap(false, Ordering::SeqCst) {
            after = None;
            tokio::time::sleep(retry.error_delay_min).await;
        }
        let batch = match inbox.next(after, BATCH) {
            Ok(batch) => batch,
            // At an even pace: the sender has had its answer, and the event is not to wait longer than the disk does.
            Err(error) => {
                error!(%error, "inbox not read, will retry");
                tokio::time::sleep(retry.error_delay_min).await;
                continue;
            }
        };
        if batch.is_empty() {
            // Woken by a new event; now and then for those that were handed back.
            let _woken = tokio::time::timeout(retry.error_delay_max, inbox.wait()).await;
            continue;
        }
        for (id, body) in batch {
            after = Some(id);
            match ContactEvent::decode(&body) {
                Ok(event) => {
                    let receipt = receipt(inbox.clone(), id, handed_back.clone());
                    count(&context, "ok");
                    if found.send(FoundEvent::new(event, receipt)).await.is_err() {
                        return;
                    }
                }
                Err(error) => match set_aside(&body, None, &error.to_string(), &context).await {
                    Ok(()) => remove(&inbox, id),
                    Err(error) => {
                        warn!(%error, "dead letter not written, the event stays in the inbox");
                        handed_back.store(true, Ordering::SeqCst);
                        tokio::time::sleep(retry.error_delay_min).await;
                    }
                },
            }
        }
    }
}

/// Removes the event once it is settled; dropped before that, it has the inbox read again.
fn receipt(inbox: Inbox, id: InboxId, handed_back: Arc<AtomicBool>) -> Receipt {
    let guard = HandBack { flag: handed_back, armed: true };
    Receipt::new(move || {
        let mut guard = guard;
        guard.armed = false;
        remove(&inbox, id);
    })
}

struct HandBack {
    flag: Arc<AtomicBool>,
    armed: bool,
}

impl Drop for HandBack {
    fn drop(&mut self) {
        if self.armed {
            self.flag.store(true, Ordering::SeqCst);
        }
    }
}

fn remove(inbox: &Inbox, id: InboxId) {
    if let Err(error) = inbox.remove(id) {
        warn!(%error, "event stays in the inbox and is dropped as a repeat next time");
    }
}
