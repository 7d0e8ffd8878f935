//! Suspects, and the marks of those who died over one.
//!
//! The broker counts how often a message came back, and cannot tell why: a connection that was cut, a consumer that
//! was too slow, a restart of its own, or a process that the message killed. So a message that came back often is only
//! suspect. Whoever takes a suspect marks it before the work begins, and takes the mark away when it is settled or
//! handed back, or, where the broker took it back meanwhile, as soon as it is reached again. A mark that stays is of
//! a process that died while it worked on the message. [`PROBATION`] of them, and the message is over the limit.
//!
//! A mark is an exchange that nothing is published to: it is durable, known to every node, costs next to nothing, and
//! can be declared while the broker takes no messages. Its name is made from the digest of the message.
//!
//! # After a crash
//! The mark stays, as it should. Where the broker loses one, the message is tried once more. A living process that
//! is cut off from the broker leaves its mark until it is back; so the last mark is waited on for [`GRACE`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use lapin::options::{ExchangeDeclareOptions, ExchangeDeleteOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, ExchangeKind};
use sha2::{Digest, Sha256};

use super::RabbitError;
use super::amqp::{close, code, failed, refused};
use super::ownership::Ownership;
use super::topology::{PROBATION, Topology};

/// How long a living process may take to take its mark away after the broker is back: several attempts to connect.
pub(super) const GRACE: Duration = Duration::from_secs(15);

/// A message that came back often: the first half of its digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Suspect(pub(super) String);

impl Suspect {
    /// The suspect that this message is.
    pub(super) fn of(body: &[u8]) -> Self {
        Self(hex::encode(&Sha256::digest(body)[..16]))
    }
}

/// The marks that others left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    /// How many processes died over it, or are away.
    pub deaths: u32,
    /// Where the next mark goes; none is free for one that is over the limit.
    free: Option<u32>,
}

impl Record {
    /// Whether nobody should work on it any more.
    pub(super) fn is_over_limit(self) -> bool {
        self.free.is_none()
    }
}

/// The marks of this process, and the way to those of others.
pub(super) struct SuspectMarks {
    topology: Arc<Topology>,
    /// At most one for each session that holds a suspect or has lost one.
    mine: Mutex<BTreeMap<Suspect, Mine>>,
}

struct Mine {
    slot: u32,
    /// Of the delivery that it was made for.
    ownership: Ownership,
}

impl SuspectMarks {
    /// No marks yet.
    pub(super) fn new(topology: Arc<Topology>) -> Self {
        Self { topology, mine: Mutex::default() }
    }

    fn mine(&self) -> std::sync::MutexGuard<'_, BTreeMap<Suspect, Mine>> {
        self.mine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What others left at a suspect. A mark of our own tells nothing: we live.
    pub(super) async fn look(&self, connection: &Connection, suspect: &Suspect) -> Result<Record, RabbitError> {
        let own = self.mine().get(suspect).map(|mine| mine.slot);
        let mut record = Record { deaths: 0, free: own };
        let mut channel = None;
        for slot in (1..=PROBATION).filter(|slot| Some(*slot) != own) {
            if exists(connection, &mut channel, self.topology.mark(&suspect.0, slot)).await? {
                record.deaths += 1;
            } else if record.free.is_none() {
                record.free = Some(slot);
            }
        }
        if let Some(channel) = channel {
            close(&channel).await;
        }
        Ok(record)
    }

    /// Marks a suspect before it is worked on.
    pub(super) async fn begin(
        &self,
        connection: &Connection,
        suspect: &Suspect,
        record: Record,
        ownership: &Ownership,
    ) -> Result<(), RabbitError> {
        let Some(slot) = record.free else { return Ok(()) };
        // Before it is asked for: whatever becomes of the question, the mark is ours to take away.
        self.mine().insert(suspect.clone(), Mine { slot, ownership: ownership.clone() });
        let channel = connection.create_channel().await.map_err(failed)?;
        let name = self.topology.mark(&suspect.0, slot);
        let options = ExchangeDeclareOptions { durable: true, internal: true, ..ExchangeDeclareOptions::default() };
        let declared = channel.exchange_declare(name.clone(), ExchangeKind::Direct, options, FieldTable::default());
        declared.await.map_err(|error| refused("the exchange", &name, error))?;
        close(&channel).await;
        Ok(())
    }

    /// Takes every mark of a message away that is done with.
    pub(super) async fn clear(&self, connection: &Connection, suspect: &Suspect) -> Result<(), RabbitError> {
        let channel = connection.create_channel().await.map_err(failed)?;
        for slot in 1..=PROBATION {
            delete(&channel, self.topology.mark(&suspect.0, slot)).await?;
        }
        self.mine().remove(suspect);
        close(&channel).await;
        Ok(())
    }

    /// Takes our mark away on the channel of the delivery, just before that is handed back on it. One of a delivery
    /// that is not ours any more is left to [`SuspectMarks::forgive`].
    pub(super) fn hand_back(&self, suspect: &Suspect, ownership: &Ownership) {
        let mut mine = self.mine();
        let ours = mine.get(suspect).filter(|mine| mine.ownership.is_same(ownership) && ownership.is_ours());
        if let Some(slot) = ours.map(|mine| mine.slot) {
            let options = ExchangeDeleteOptions { nowait: true, ..ExchangeDeleteOptions::default() };
            // The first poll puts it on its way, before the answer that follows it.
            let deleting = ownership.channel().exchange_delete(self.topology.mark(&suspect.0, slot), options);
            drop(deleting.now_or_never());
            mine.remove(suspect);
        }
    }

    /// Takes our marks of deliveries away that the broker took back: we live.
    pub(super) async fn forgive(&self, connection: &Connection) -> Result<(), RabbitError> {
        self.take_away(connection, |mine| !mine.ownership.is_ours()).await
    }

    /// Takes all our marks away: we end, and not over a suspect.
    pub(super) async fn hand_over(&self, connection: &Connection) -> Result<(), RabbitError> {
        self.take_away(connection, |_| true).await
    }

    async fn take_away(&self, connection: &Connection, which: fn(&Mine) -> bool) -> Result<(), RabbitError> {
        let away: Vec<(Suspect, u32)> = {
            let mine = self.mine();
            mine.iter().filter(|(_, mine)| which(mine)).map(|(suspect, mine)| (suspect.clone(), mine.slot)).collect()
        };
        if away.is_empty() {
            return Ok(());
        }
        let channel = connection.create_channel().await.map_err(failed)?;
        for (suspect, slot) in away {
            delete(&channel, self.topology.mark(&suspect.0, slot)).await?;
            self.mine().remove(&suspect);
        }
        close(&channel).await;
        Ok(())
    }
}

/// Whether an exchange exists. The broker closes the channel over one that does not.
async fn exists(
    connection: &Connection,
    channel: &mut Option<Channel>,
    name: ShortString,
) -> Result<bool, RabbitError> {
    let open = match channel.take() {
        Some(open) => open,
        None => connection.create_channel().await.map_err(failed)?,
    };
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    let declared = open.exchange_declare(name.clone(), ExchangeKind::Direct, options, FieldTable::default()).await;
    match declared {
        Ok(()) => {
            *channel = Some(open);
            Ok(true)
        }
        Err(error) if code(&error) == Some(404) => Ok(false),
        Err(error) => Err(refused("the exchange", &name, error)),
    }
}

/// Deletes an exchange; one that does not exist is as good as deleted.
async fn delete(channel: &Channel, name: ShortString) -> Result<(), RabbitError> {
    let deleted = channel.exchange_delete(name.clone(), ExchangeDeleteOptions::default()).await;
    deleted.map_err(|error| refused("the exchange", &name, error))
}
