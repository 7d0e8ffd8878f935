//! `verify`: reads recordings back and compares them with their rows.
//!
//! Like `erase` it does it itself where all is on servers, beside whatever runs.

use catalog::Recorded;
use jiff::Timestamp;
use model::ContactId;
use rand::Rng;
use runtime::{Clock, chance};
use serde::Serialize;
use stages::verify::{RecordingMismatch, Verified};

use crate::access::{Access, Load};
use crate::cli::VerifyOptions;
use crate::command_error::CommandError;
use crate::config::Need;
use crate::doors::Wanted;
use crate::operations::verify::{LISTED, ListRecorded, VERIFIED_AT_ONCE, Verify};
use crate::tables::folded;

/// The most differences that are named; the counts count all of them.
const MOST_NAMED: usize = 10_000;

/// What was found.
#[derive(Debug, Default, Serialize)]
struct Verification {
    from: Timestamp,
    to: Timestamp,
    /// Conversations whose recordings were read.
    conversations: u64,
    /// Recordings that were read, or looked for.
    recordings: u64,
    bytes: u64,
    /// Recordings whose row names another store than the settings: they were not looked at.
    elsewhere: u64,
    /// How many differ.
    differing: u64,
    /// Those that differ, 10,000 at most.
    differences: Vec<RecordingMismatch>,
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
pub(crate) async fn verify(options: VerifyOptions, load: Load<'_>) -> Result<(), CommandError> {
    let from = options.from.unwrap_or(Timestamp::UNIX_EPOCH);
    let to = options.to.unwrap_or_else(|| Clock::system().now());
    if from >= to {
        return Err(CommandError::usage("--from, --to: the range is empty, --from must lie before --to"));
    }
    let access = Access::of(&load(Need::Erasure)?, Wanted::Erasure).await?;
    let mut found = Verification { from, to, ..Verification::default() };
    let mut sample = options.sample.map(|size| Sample { size: size as usize, seen: 0, picked: Vec::new() });
    let mut after = None;
    loop {
        let page = access.ask(ListRecorded { from, to, after }).await?;
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
    options.form.print(&found, lines);
    access.close().await?;
    match found.differing {
        0 => Ok(()),
        differing => Err(CommandError::partly(format!("{differing} recordings are not what their rows say"))),
    }
}

async fn read_back(access: &Access, ids: &[ContactId], found: &mut Verification) -> Result<(), CommandError> {
    for ids in ids.chunks(VERIFIED_AT_ONCE) {
        found.add(ids.len(), access.ask(Verify(ids.to_vec())).await?);
    }
    Ok(())
}

/// What was found, for a person.
fn lines(found: &Verification) -> String {
    let mut lines = vec![format!(
        "{} conversations, {} recordings, {} bytes read back: {} differ",
        found.conversations, found.recordings, found.bytes, found.differing
    )];
    if found.elsewhere > 0 {
        lines.push(format!("{} lie in another store than the settings name, and were not looked at", found.elsewhere));
    }
    if !found.differences.is_empty() {
        for difference in &found.differences {
            let problem = difference.problem.as_str();
            let found = difference.found_size_bytes.map_or_else(|| "none".to_owned(), |size| size.to_string());
            lines.push(format!(
                "{} recording {}: {problem} differs, {} bytes in its row, {found} found",
                difference.conversation_id, difference.position, difference.size_bytes
            ));
            lines.push(folded("    ", &difference.object_key));
        }
    }
    lines.join("\n")
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
