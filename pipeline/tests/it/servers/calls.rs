//! Calls of every kind.

use std::time::Duration;

use nice_sim::{CallSpec, RecordingSize, Sim, SimConfig};

use super::sized;
use crate::harness::hurried;

/// Larger than two parts of a multipart upload.
pub(crate) const LARGE: u64 = (11 << 20) + 17;

/// A simulated world whose recordings are small: many fit into a store in memory.
pub(crate) fn small(seed: u64, calls: usize) -> SimConfig {
    let mut config = hurried(seed, calls);
    config.day.recording_size = RecordingSize::Between(2 << 10, 60 << 10);
    config
}

/// A call that is recorded: of each kind in turn, by each agent in turn.
pub(crate) fn recorded(sim: &Sim, number: usize) -> CallSpec {
    let agents = sim.group(1001);
    let agent = |offset: usize| agents[(number + offset) % agents.len()];
    let plain = CallSpec::new(agent(0));
    match number % 10 {
        1 => CallSpec::transferred(&[agent(0), agent(1)]),
        // There and back again: two legs of one agent.
        3 if number % 30 == 3 => CallSpec::transferred(&[agent(0), agent(1), agent(0)]),
        4 => CallSpec { outbound: true, ..plain },
        5 => CallSpec { recording_delay: Some(Duration::from_secs(2)), ..plain },
        6 => CallSpec { break_first: 1, ..plain },
        // A store in memory holds no more of them in a long run.
        7 if number % sized(30, 300) == 7 => CallSpec { size: Some(LARGE), ..plain },
        8 if number % 30 == 8 => CallSpec { size: Some(0), ..plain },
        9 => CallSpec { elevated: true, ..plain },
        _ => plain,
    }
}

/// Places so many calls that hang up now.
pub(crate) fn place(sim: &Sim, numbers: std::ops::Range<usize>) {
    for number in numbers {
        sim.add_call(recorded(sim, number));
    }
}
