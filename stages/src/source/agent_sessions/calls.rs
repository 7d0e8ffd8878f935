//! The calls of one agent, from what its session tells of them until they count as ended.
//!
//! In: how a call stands. Out: the calls that have ended, the oldest first. Nothing is asked here, and nothing is kept.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use model::ContactId;
use nice::{CallEvent, Phase};
use tokio::time::Instant;

/// Calls of one agent that are kept in mind; nobody has so many at a time.
const CALLS: usize = 64;

/// The calls of an agent that are going on or not yet passed on, the newest last.
#[derive(Default)]
pub(super) struct Calls(VecDeque<Call>);

/// A call of an agent.
pub(super) struct Call {
    pub(super) contact: ContactId,
    pub(super) master: Option<ContactId>,
    /// Whether it was seen ringing, and on the phone.
    offered: bool,
    taken: bool,
    /// Since when the phone is down, where NICE says so.
    pub(super) ended_at: Option<Timestamp>,
    /// From when on it counts as ended; none while the phone is not down.
    due: Option<Instant>,
}

impl Call {
    /// Whether it is the agent's, as far as was seen: one that only rang may be another's by now.
    pub(super) fn is_agents(&self) -> bool {
        self.taken || !self.offered
    }
}

impl Calls {
    /// Takes note of how a call stands.
    pub(super) fn take(&mut self, event: CallEvent, after_call: Duration) {
        let at = self.0.iter().position(|call| call.contact == event.contact).unwrap_or_else(|| {
            self.0.push_back(Call {
                contact: event.contact,
                master: None,
                offered: false,
                taken: false,
                ended_at: None,
                due: None,
            });
            self.0.len() - 1
        });
        let Some(call) = self.0.get_mut(at) else { return };
        call.master = event.master.or(call.master);
        match event.phase {
            Phase::Offered => call.offered = true,
            Phase::Taken => call.taken = true,
            Phase::Disconnected => {
                call.ended_at = event.since.or(call.ended_at);
                call.due.get_or_insert(Instant::now() + after_call);
            }
            Phase::Over => {
                call.ended_at = event.since.or(call.ended_at);
                call.due = Some(Instant::now());
            }
            Phase::Unknown => {}
        }
        self.make_room();
    }

    /// Forgets the oldest calls that go on, or else lets the oldest that wait be passed on.
    fn make_room(&mut self) {
        let now = Instant::now();
        let waiting = |call: &Call| call.due.is_none_or(|due| due > now);
        while self.0.iter().filter(|call| waiting(call)).count() > CALLS {
            if let Some(going_on) = self.0.iter().position(|call| call.due.is_none()) {
                self.0.remove(going_on);
            } else if let Some(oldest) = self.0.iter_mut().find(|call| waiting(call)) {
                oldest.due = Some(now);
            }
        }
    }

    /// Nothing more will be told: what was disconnected counts as ended, the rest is the poll's.
    pub(super) fn end_all(&mut self) {
        self.0.retain(|call| call.due.is_some());
        let now = Instant::now();
        self.0.iter_mut().for_each(|call| call.due = Some(now));
    }

    /// The place of the oldest call that counts as ended.
    pub(super) fn next_ended(&self) -> Option<usize> {
        let now = Instant::now();
        self.0.iter().position(|call| call.due.is_some_and(|due| due <= now))
    }

    pub(super) fn take_ended(&mut self) -> Option<Call> {
        self.0.remove(self.next_ended()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_kept_in_mind_are_bounded_and_none_that_is_disconnected_is_forgotten() {
        let mut calls = Calls::default();
        let told = |contact: usize, phase| CallEvent {
            contact: ContactId::from_number(contact as u64).unwrap(),
            master: None,
            phase,
            since: None,
        };
        let long = Duration::from_secs(600);
        for contact in 1..=CALLS {
            calls.take(told(contact, Phase::Taken), long);
        }
        for contact in 1_001..=1_000 + 2 * CALLS {
            calls.take(told(contact, Phase::Disconnected), long);
        }
        let mut ended = Vec::new();
        while let Some(call) = calls.take_ended() {
            ended.push(call.contact.get() as usize);
        }
        assert_eq!(ended, (1_001..=1_000 + CALLS).collect::<Vec<_>>(), "the oldest that wait");
        assert_eq!(calls.0.len(), CALLS);
        calls.end_all();
        assert_eq!(std::iter::from_fn(|| calls.take_ended()).count(), CALLS);
    }
}
