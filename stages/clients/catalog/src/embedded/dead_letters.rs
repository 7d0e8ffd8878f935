//! The shelf of what was set aside.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::{Timestamp, tz::TimeZone};
use model::{ConversationKey, DeadLetter};

use super::{EmbeddedCatalog, kind, numbered};
use crate::dead_letters::MOST_DAYS;
use crate::{CatalogError, DayOfLetters, DeadLetterFilter, DeadLetterGroup, DeadLetters, MOST_GROUPED, reason_shape};

#[async_trait]
impl DeadLetters for EmbeddedCatalog {
    async fn add_dead_letter(&self, letter: DeadLetter) -> Result<bool, CatalogError> {
        let written = self.inner.shelve(letter, self.turn.get())?;
        // Also of a letter that stood: another caller may have written it a moment ago.
        self.inner.commit().await?;
        Ok(written)
    }

    async fn dead_letters(&self, after: u64, limit: usize) -> Result<Vec<DeadLetter>, CatalogError> {
        let from = numbered(kind::DEAD_LETTER, after.saturating_add(1));
        let range = self.inner.tree.range(from..vec![kind::DEAD_LETTER + 1]).values().take(limit);
        self.inner.read_all(range).collect()
    }

    async fn dead_letters_of(
        &self,
        selected: &DeadLetterFilter,
        after: u64,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, CatalogError> {
        let from = numbered(kind::DEAD_LETTER, after.saturating_add(1));
        let letters = self.inner.read_all(self.inner.tree.range(from..vec![kind::DEAD_LETTER + 1]).values());
        let is_taken = |letter: &Result<DeadLetter, CatalogError>| match letter {
            Ok(letter) => selected.takes(letter),
            Err(_) => true,
        };
        letters.filter(is_taken).take(limit).collect()
    }

    async fn due_dead_letters(
        &self,
        now: Timestamp,
        after: Option<(Timestamp, u64)>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, CatalogError> {
        let mut due = Vec::new();
        for letter in self.inner.letters() {
            let letter = letter?;
            let is_after = |at| after.is_none_or(|after| (at, letter.id) > after);
            if letter.replay_at.is_some_and(|at| at <= now && is_after(at)) {
                due.push(letter);
            }
            // The earliest of those that fit: the others come when these are gone.
            if due.len() >= limit.saturating_mul(2) {
                due.sort_by_key(|letter| (letter.replay_at, letter.id));
                due.truncate(limit);
            }
        }
        due.sort_by_key(|letter| (letter.replay_at, letter.id));
        due.truncate(limit);
        Ok(due)
    }

    async fn drop_dead_letters(&self, before: Timestamp) -> Result<u64, CatalogError> {
        let mut dropped = 0;
        for letter in self.inner.letters() {
            let letter = letter?;
            if letter.at < before && self.inner.unshelve(&letter)? {
                dropped += 1;
            }
        }
        self.inner.commit().await?;
        Ok(dropped)
    }

    async fn count_dead_letters(&self, before: Timestamp) -> Result<u64, CatalogError> {
        let mut count = 0;
        for letter in self.inner.letters() {
            count += u64::from(letter?.at < before);
        }
        Ok(count)
    }

    async fn dead_letter_groups(&self, limit: usize) -> Result<Vec<DeadLetterGroup>, CatalogError> {
        let mut groups: BTreeMap<(String, String), DeadLetterGroup> = BTreeMap::new();
        let newest = self.inner.tree.scan_prefix([kind::DEAD_LETTER]).values().rev().take(MOST_GROUPED);
        for letter in self.inner.read_all(newest) {
            let DeadLetter { stage, reason, at, replay_at, .. } = letter?;
            let reason = reason_shape(&reason);
            let new = || DeadLetterGroup {
                stage: stage.clone(),
                reason: reason.clone(),
                count: 0,
                first_at: at,
                last_at: at,
                replay_at: None,
                days: Vec::new(),
            };
            let group = groups.entry((stage.clone(), reason.clone())).or_insert_with(new);
            group.count += 1;
            group.first_at = group.first_at.min(at);
            group.last_at = group.last_at.max(at);
            group.replay_at = [group.replay_at, replay_at].into_iter().flatten().min();
            let day = at.to_zoned(TimeZone::UTC).date();
            match group.days.iter_mut().find(|known| known.day == day) {
                Some(known) => known.count += 1,
                None => group.days.push(DayOfLetters { day, count: 1 }),
            }
        }
        let mut groups: Vec<_> = groups.into_values().collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.count));
        groups.truncate(limit);
        for group in &mut groups {
            group.days.sort_by_key(|counted| std::cmp::Reverse(counted.day));
            group.days.truncate(MOST_DAYS);
        }
        Ok(groups)
    }

    async fn dead_letter(&self, id: u64) -> Result<Option<DeadLetter>, CatalogError> {
        self.inner.get(&numbered(kind::DEAD_LETTER, id))
    }

    async fn dead_letter_of(&self, key: &ConversationKey) -> Result<Option<DeadLetter>, CatalogError> {
        self.inner.letter_of(key)
    }

    async fn remove_dead_letter(&self, letter: &DeadLetter) -> Result<bool, CatalogError> {
        if !self.inner.unshelve(letter)? {
            return Ok(false);
        }
        self.inner.commit().await?;
        Ok(true)
    }
}
