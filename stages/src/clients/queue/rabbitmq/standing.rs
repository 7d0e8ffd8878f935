//! What both connections say together of the broker: here, blocked or away.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use super::connection::Role;
use crate::clients::queue::QueueStanding;

/// The worse of what the two connections say, and every change of it.
#[derive(Default)]
pub(super) struct Standings {
    of: Mutex<OfEach>,
    together: watch::Sender<QueueStanding>,
}

#[derive(Default)]
struct OfEach {
    publish: QueueStanding,
    consume: QueueStanding,
}

impl Standings {
    /// Takes note of how one connection stands.
    pub(super) fn note(&self, role: Role, standing: QueueStanding) {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        match role {
            Role::Publish => of.publish = standing,
            Role::Consume => of.consume = standing,
        }
        let together = match (&of.publish, &of.consume) {
            (QueueStanding::Away(_), _) | (_, QueueStanding::Here) => of.publish.clone(),
            (_, consume) => consume.clone(),
        };
        // Under the lock, so that the last word of one is not overtaken by an earlier one of the other.
        self.together.send_if_modified(|standing| {
            let is_new = *standing != together;
            *standing = together;
            is_new
        });
    }

    /// The standing, now and at every change.
    pub(super) fn watch(&self) -> watch::Receiver<QueueStanding> {
        self.together.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worse_of_both_connections_counts_and_a_repeat_wakes_nobody() {
        let standings = Standings::default();
        let mut watch = standings.watch();
        let (away, blocked) = (QueueStanding::Away("gone".to_owned()), QueueStanding::Blocked("full".to_owned()));
        for (role, standing, together) in [
            (Role::Publish, &blocked, &blocked),
            (Role::Consume, &away, &away),
            (Role::Publish, &QueueStanding::Here, &away),
            (Role::Consume, &QueueStanding::Here, &QueueStanding::Here),
            (Role::Publish, &away, &away),
            (Role::Publish, &QueueStanding::Here, &QueueStanding::Here),
        ] {
            standings.note(role, standing.clone());
            assert_eq!(&*watch.borrow_and_update(), together);
        }
        standings.note(Role::Publish, QueueStanding::Here);
        assert!(!watch.has_changed().unwrap());
    }
}
