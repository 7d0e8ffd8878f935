//! Makes a failing plan small: the shortest beginning of its faults that still fails, then each fault left out that the
//! failure does not need.

use crate::plan::Plan;

/// Runs at most; a plan has few faults, so this is rarely reached.
const MOST_RUNS: usize = 60;

/// The smallest plan found for which `fails` still holds, and how many runs it took.
pub fn shrink(plan: &Plan, mut fails: impl FnMut(&Plan) -> bool) -> (Plan, usize) {
    let mut runs = 0;
    let mut still_fails = |plan: &Plan| {
        runs += 1;
        runs <= MOST_RUNS && fails(plan)
    };
    let mut smallest = beginning(plan, &mut still_fails);
    let mut at = smallest.faults.len();
    while at > 0 {
        at -= 1;
        let mut without = smallest.clone();
        without.faults.remove(at);
        if still_fails(&without) {
            smallest = without;
        }
    }
    (smallest, runs.min(MOST_RUNS))
}

/// The shortest beginning that fails, by halving: most failures need no fault that comes after them.
fn beginning(plan: &Plan, fails: &mut impl FnMut(&Plan) -> bool) -> Plan {
    let first = |count: usize| Plan { faults: plan.faults[..count].to_vec(), ..plan.clone() };
    let (mut passes, mut fails_with) = (0, plan.faults.len());
    while passes + 1 < fails_with {
        let middle = passes.midpoint(fails_with);
        if fails(&first(middle)) {
            fails_with = middle;
        } else {
            passes = middle;
        }
    }
    first(fails_with)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Scale, Trouble};

    #[test]
    fn what_a_failure_does_not_need_is_left_out() {
        let scale = Scale { bad: std::time::Duration::from_secs(10 * 24 * 3600), ..Scale::default() };
        let plan = (0..).map(|seed| Plan::of(seed, scale)).find(|plan| plan.faults.len() >= 20).unwrap();
        let guilty = [plan.faults[3].clone(), plan.faults[11].clone()];
        let (small, runs) = shrink(&plan, |plan| guilty.iter().all(|fault| plan.faults.contains(fault)));
        assert_eq!(small.faults, guilty);
        assert!(runs <= 30, "{runs}");
    }

    #[test]
    fn a_failure_that_needs_no_fault_ends_with_few() {
        let plan = Plan::of(3, Scale::default());
        let (small, _) = shrink(&plan, |_| true);
        assert!(
            small.faults.is_empty(),
            "{:?}",
            small.faults.iter().map(|fault| &fault.what).collect::<Vec<&Trouble>>()
        );
    }
}
