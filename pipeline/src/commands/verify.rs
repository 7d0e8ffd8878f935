//! `verify`: reads recordings back and compares them with their rows.
//!
//! Like `erase` it does it itself where all is on servers, beside whatever runs.

use catalog::Recorded;
use jiff::Timestamp;
use model::ContactId;
use rand::Rng;
use runtime::{Clock, chance};
use serde::Serialize;
use stages::verify::{Difference, Verified};

use super::{Access, Load, print, tables};
use crate::cli::VerifyOptions;
use crate::config::Need;
use crate::doors::Wanted;
use crate::failure::Failure;
use crate::operations::verify::{LISTED, Question, VERIFIED_AT_ONCE};

/// The most differences that are named; the counts count all of them.
const MOST_NAMED: usize = 10_000;

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Verification {
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
    /// Conversations whose recordings were read.
    pub(crate) conversations: u64,
    /// Recordings that were read, or looked for.
    pub(crate) recordings: u64,
    pub(crate) bytes: u64,
    /// Recordings whose row names another store than the settings: they were not looked at.
    pub(crate) elsewhere: u64,
    /// How many differ.
    pub(crate) differing: u64,
    /// Those that differ, 10,000 at most.
    pub(crate) differences: Vec<Difference>,
}

impl Verification {
    fn add(&mut self, conversations: usize, found: Verified) {
        self.conversations += conversations as u64;
        self.recordings += found.recordings;
        self.bytes += found.bytes;
        self.elsewhere += found.elsewhere;
        self.differing += found.differences.len() as u64;
        let room = MOST_NAMED.saturating_sub(self.differences.len());
        self.differences.extend(found.differences.into_iter().take(room));
    }
}

/// `verify`.
pub(crate) async fn verify(options: VerifyOptions, load: Load<'_>) -> Result<(), Failure> {
    let from = options.from.map_or(Timestamp::UNIX_EPOCH, |when| when.0);
    let to = options.to.map_or_else(|| Clock::system().now(), |when| when.0);
    if from >= to {
        return Err(Failure::usage("--from, --to: the range is empty, --from must lie before --to"));
    }
    let access = Access::of(&load(Need::Erasure)?, Wanted::Erasure).await?;
    let mut found = Verification {
        from,
        to,
        conversations: 0,
        recordings: 0,
        bytes: 0,
        elsewhere: 0,
        differing: 0,
        differences: Vec::new(),
    };
    let mut sample = options.sample.map(|size| Sample { size: size as usize, seen: 0, picked: Vec::new() });
    let mut after = None;
    loop {
        let page = listed(&access, Question { from, to, after }).await?;
        after = page.last().copied();
        let is_last = page.len() < LISTED;
        let ids = page.into_iter().map(|Recorded { external_id, .. }| external_id);
        match &mut sample {
            Some(sample) => chance::with(|mut rng| ids.for_each(|id| sample.offer(id, &mut rng))),
            None => read_back(&access, &ids.collect::<Vec<_>>(), &mut found).await?,
        }
        if is_last {
            break;
        }
    }
    if let Some(sample) = sample {
        read_back(&access, &sample.picked, &mut found).await?;
    }
    print(options.json, &found, tables::verification);
    access.close().await?;
    match found.differing {
        0 => Ok(()),
        differing => Err(Failure::partly(format!("{differing} recordings are not what their rows say"))),
    }
}

async fn listed(access: &Access, question: Question) -> Result<Vec<Recorded>, Failure> {
    Ok(match access {
        Access::Daemon(daemon) => daemon.post("/recorded", &question).await?,
        Access::Here(here) => here.0.recorded(question).await?,
    })
}

async fn read_back(access: &Access, ids: &[ContactId], found: &mut Verification) -> Result<(), Failure> {
    for ids in ids.chunks(VERIFIED_AT_ONCE) {
        let verified: Verified = match access {
            Access::Daemon(daemon) => daemon.post("/verifications", &ids).await?,
            Access::Here(here) => here.0.verify(ids.to_vec()).await?,
        };
        found.add(ids.len(), verified);
    }
    Ok(())
}

/// So many of however many are offered, each with the same chance.
struct Sample {
    size: usize,
    seen: usize,
    picked: Vec<ContactId>,
}

impl Sample {
    fn offer(&mut self, id: ContactId, chance: &mut impl Rng) {
        self.seen += 1;
        if self.picked.len() < self.size {
            self.picked.push(id);
            return;
        }
        if let Some(place) = self.picked.get_mut(chance.random_range(0..self.seen)) {
            *place = id;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_sample_gives_each_conversation_the_same_chance() {
        let mut chance = rand::rngs::StdRng::seed_from_u64(7);
        let mut times = [0_u32; 20];
        for _ in 0..4_000 {
            let mut sample = Sample { size: 5, seen: 0, picked: Vec::new() };
            (1..=20).for_each(|id| sample.offer(ContactId::from_number(id).unwrap(), &mut chance));
            assert_eq!(sample.picked.len(), 5);
            for id in sample.picked {
                times[id.get() as usize - 1] += 1;
            }
        }
        assert!(times.iter().all(|times| (850..1150).contains(times)), "{times:?}");
    }
}
