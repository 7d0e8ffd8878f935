//! The share of the partitions that a consumer has: as even as can be, and with as few changes as can be.

use super::log::Partition;

/// A partition, and who has it now.
#[derive(Debug, Clone)]
pub(super) struct Holding {
    /// The partition.
    pub partition: Partition,
    /// The member that has it, if that one lives.
    pub owner: Option<String>,
}

/// What a member does to come to its share.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    /// Partitions that nobody has.
    pub take: Vec<Partition>,
    /// Partitions for others.
    pub give: Vec<Partition>,
}

/// The share of `me` among the members, who are in the same order for everybody. The partitions of each group are
/// divided by themselves, so that all have a part of each lane; what is left over goes round.
pub(super) fn share(groups: &[Vec<Holding>], members: &[String], me: &str) -> Share {
    let mut share = Share::default();
    let Some(rank) = members.iter().position(|member| member == me) else { return share };
    let mut turn = 0;
    for group in groups {
        let left_over = group.len() % members.len();
        let is_next = (rank + members.len() - turn) % members.len() < left_over;
        let quota = group.len() / members.len() + usize::from(is_next);
        turn = (turn + left_over) % members.len();
        let (mine, others): (Vec<_>, Vec<_>) = group.iter().partition(|holding| holding.owner.as_deref() == Some(me));
        share.give.extend(mine.iter().skip(quota).map(|holding| holding.partition.clone()));
        let free = others.iter().filter(|holding| holding.owner.is_none());
        share.take.extend(free.take(quota.saturating_sub(mine.len())).map(|holding| holding.partition.clone()));
    }
    share
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn groups(sizes: &[usize]) -> Vec<Vec<Holding>> {
        let group = |(topic, size): (usize, &usize)| {
            let partition = |number| Partition { topic: topic.to_string().into(), number };
            (0..*size as u32).map(|number| Holding { partition: partition(number), owner: None }).collect()
        };
        sizes.iter().enumerate().map(group).collect()
    }

    fn members(number: usize) -> Vec<String> {
        (0..number).map(|number| format!("member-{number}")).collect()
    }

    /// Everybody acts until nobody changes anything. How many partitions changed hands.
    fn settle(groups: &mut [Vec<Holding>], members: &[String]) -> usize {
        for holding in groups.iter_mut().flatten() {
            holding.owner = holding.owner.take().filter(|owner| members.contains(owner));
        }
        let mut changes = 0;
        for _ in 0..10 {
            for me in members {
                let Share { take, give } = share(groups, members, me);
                for holding in groups.iter_mut().flatten() {
                    if give.contains(&holding.partition) {
                        holding.owner = None;
                    } else if take.contains(&holding.partition) {
                        (holding.owner, changes) = (Some(me.clone()), changes + 1);
                    }
                }
            }
        }
        changes
    }

    fn held<'a>(groups: impl IntoIterator<Item = &'a Vec<Holding>>, me: &str) -> usize {
        groups.into_iter().flatten().filter(|holding| holding.owner.as_deref() == Some(me)).count()
    }

    #[test]
    fn one_member_has_everything_and_a_second_one_half() {
        let mut groups = groups(&[8, 8, 13]);
        assert_eq!(settle(&mut groups, &members(1)), 29);
        assert_eq!(held(&groups, "member-0"), 29);
        assert_eq!(settle(&mut groups, &members(2)), 14, "only what the second one gets changes hands");
        assert_eq!((held(&groups, "member-0"), held(&groups, "member-1")), (15, 14));
    }

    proptest! {
        /// Whoever comes or goes: each partition has an owner, each group and all together are shared evenly.
        #[test]
        fn every_partition_is_held_and_the_shares_are_even(
            sizes in prop::collection::vec(1usize..20, 1..4),
            counts in prop::collection::vec(1usize..9, 1..5),
        ) {
            let mut groups = groups(&sizes);
            for count in counts {
                let members = members(count);
                settle(&mut groups, &members);
                for group in &groups {
                    let shares: Vec<_> = members.iter().map(|me| held([group], me)).collect();
                    prop_assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1, "{:?}", shares);
                }
                let shares: Vec<_> = members.iter().map(|me| held(&groups, me)).collect();
                prop_assert_eq!(shares.iter().sum::<usize>(), sizes.iter().sum::<usize>());
                prop_assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1, "{:?}", shares);
            }
        }
    }
}
