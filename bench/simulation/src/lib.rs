//! The whole program in simulated time: both services as they are, in one process and one thread, against a simulated
//! NICE in the same process, in a world that misbehaves. A seed decides everything; the same seed gives the same run.

pub mod standins;
pub mod alarms;
