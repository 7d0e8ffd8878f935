//! The topics: what they are called, and which one a message goes to.
//!
//! ```text
//! {prefix}-live, {prefix}-backfill   the lanes, in as many partitions as the settings say
//! {prefix}-retry-30s                 a delay step; when its time is over, a message goes back to its lane
//! {prefix}-dead                      messages that processes died over, one at a time
//! ```
//!
//! A step and the topic of suspects have one partition: one consumer holds what is not due, or works on a suspect.

use std::sync::Arc;
use std::time::Duration;

use model::Lane;

use super::FluvioError;
use super::log::{Partition, Topic};
use crate::steps::{DelaySteps, step_name};

/// How long a record is kept, read or not: longer than any outage that nobody notices.
const RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);

/// The longest prefix: a topic's name has at most 63 characters.
const LONGEST_PREFIX: usize = 40;

/// What a topic is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TopicRole {
    /// Messages that are due.
    Lane(Lane),
    /// Messages that processes died over.
    Suspects,
    /// Messages that are not due before they lay here that long.
    Delay(Duration),
}

/// The topics below a prefix.
#[derive(Debug)]
pub(super) struct Topics {
    live: Arc<str>,
    backfill: Arc<str>,
    dead: Arc<str>,
    prefix: String,
    steps: DelaySteps,
    needed: Vec<(TopicRole, Topic)>,
    /// Delay steps of former settings: what waits there still comes, and nothing more goes there.
    former: Vec<(TopicRole, Topic)>,
}

impl Topics {
    /// The topics below a prefix.
    pub(super) fn new(
        prefix: &str,
        delays: &[Duration],
        partitions: u32,
        replication: u32,
    ) -> Result<Self, FluvioError> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let begins = prefix.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
        if !begins || prefix.len() > LONGEST_PREFIX || !prefix.bytes().all(is_allowed) {
            return Err(FluvioError::Prefix);
        }
        // Of other characters than these a topic's name is not made.
        let prefix = prefix.to_ascii_lowercase().replace(['.', '_'], "-");
        let named = |name: &str| -> Arc<str> { format!("{prefix}-{name}").into() };
        let (live, backfill, dead) = (named(Lane::Live.as_str()), named(Lane::Backfill.as_str()), named("dead"));
        let steps = DelaySteps::with(delays);
        let topic = |name: Arc<str>, partitions| Topic { name, partitions, replication, retention: RETENTION };
        let mut needed = vec![
            (TopicRole::Lane(Lane::Live), topic(live.clone(), partitions)),
            (TopicRole::Lane(Lane::Backfill), topic(backfill.clone(), partitions)),
            (TopicRole::Suspects, topic(dead.clone(), 1)),
        ];
        for millis in steps.iter() {
            let step = named(&format!("retry-{}", step_name(millis)));
            needed.push((TopicRole::Delay(Duration::from_millis(millis)), topic(step, 1)));
        }
        Ok(Self { live, backfill, dead, prefix, steps, needed, former: Vec::new() })
    }

    /// With the delay steps of former settings that are among the names of topics.
    pub(super) fn with_former(mut self, names: &[String]) -> Self {
        let begin = format!("{}-retry-", self.prefix);
        let length = |step: &str| match step.strip_suffix("ms") {
            Some(millis) => millis.parse().ok().map(Duration::from_millis),
            None => step.strip_suffix('s')?.parse().ok().map(Duration::from_secs),
        };
        for name in names {
            if let (None, Some(length)) = (self.role(name), name.strip_prefix(&begin).and_then(length)) {
                let topic = Topic { name: name.as_str().into(), partitions: 1, replication: 1, retention: RETENTION };
                self.former.push((TopicRole::Delay(length), topic));
            }
        }
        self
    }

    fn all(&self) -> impl Iterator<Item = &(TopicRole, Topic)> {
        self.needed.iter().chain(&self.former)
    }

    /// What the names of all begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The topic of a lane.
    pub(super) fn lane(&self, lane: Lane) -> &Arc<str> {
        match lane {
            Lane::Live => &self.live,
            Lane::Backfill => &self.backfill,
        }
    }

    /// The topic of suspects.
    pub(super) fn dead(&self) -> &Arc<str> {
        &self.dead
    }

    /// The topic of the step for a delay, with its length; none for no delay.
    pub(super) fn step(&self, delay: Duration) -> Option<(&Arc<str>, Duration)> {
        let length = Duration::from_millis(self.steps.of(delay)?);
        let (_, topic) = self.needed.iter().find(|(role, _)| *role == TopicRole::Delay(length))?;
        Some((&topic.name, length))
    }

    /// Every topic that must be there, as it must be.
    pub(super) fn needed(&self) -> Vec<Topic> {
        self.needed.iter().map(|(_, topic)| topic.clone()).collect()
    }

    /// The delay steps of former settings. Who has emptied one may delete it.
    pub(super) fn former(&self) -> Vec<Topic> {
        self.former.iter().map(|(_, topic)| topic.clone()).collect()
    }

    /// What a topic is for; none where it is not ours.
    pub(super) fn role(&self, name: &str) -> Option<TopicRole> {
        self.all().find(|(_, topic)| &*topic.name == name).map(|(role, _)| *role)
    }

    /// Every partition, in groups of which each consumer has its share: live, backfill, all else.
    pub(super) fn groups(&self) -> [Vec<Partition>; 3] {
        let mut groups = [Vec::new(), Vec::new(), Vec::new()];
        for (role, topic) in self.all() {
            let group = match role {
                TopicRole::Lane(Lane::Live) => &mut groups[0],
                TopicRole::Lane(Lane::Backfill) => &mut groups[1],
                TopicRole::Suspects | TopicRole::Delay(_) => &mut groups[2],
            };
            group.extend((0..topic.partitions).map(|number| Partition { topic: topic.name.clone(), number }));
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_of_the_prefix_becomes_a_hyphen_and_each_step_has_its_topic() {
        let topics = Topics::new("knovvu.nice", &[Duration::from_millis(150)], 8, 1).unwrap();
        assert_eq!(&**topics.lane(Lane::Live), "knovvu-nice-live");
        assert_eq!(&**topics.dead(), "knovvu-nice-dead");
        let step = |delay| topics.step(delay).map(|(name, _)| name.to_string());
        assert_eq!(step(Duration::from_secs(30)).as_deref(), Some("knovvu-nice-retry-30s"));
        assert_eq!(step(Duration::from_millis(20)).as_deref(), Some("knovvu-nice-retry-150ms"));
        assert_eq!(step(Duration::ZERO), None);
        assert_eq!(topics.groups().map(|group| group.len()), [8, 8, 14]);
        let names = ["knovvu-nice-retry-45s", "knovvu-nice-retry-30s", "other-retry-3s", "knovvu-nice-retry-xs"];
        let topics = topics.with_former(&names.map(str::to_owned));
        assert_eq!(topics.role("knovvu-nice-retry-45s"), Some(TopicRole::Delay(Duration::from_secs(45))));
        assert_eq!((topics.former().len(), topics.groups()[2].len()), (1, 15));
        let step = |delay| topics.step(delay).map(|(name, _)| name.to_string());
        assert_eq!(step(Duration::from_secs(45)).as_deref(), Some("knovvu-nice-retry-60s"), "nothing more goes there");
    }

    #[test]
    fn a_prefix_is_a_plain_name() {
        for prefix in ["", "1st", "-a", "a b", "ü", "a/b", &"a".repeat(41)] {
            assert!(matches!(Topics::new(prefix, &[], 1, 1), Err(FluvioError::Prefix)), "{prefix}");
        }
    }
}
