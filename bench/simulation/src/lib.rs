//! The whole program in simulated time: both services as they are, in one process and one thread, against a simulated
//! NICE in the same process, in a world that misbehaves. A seed decides everything; the same seed gives the same run.
//!
//! ```text
//!  plan (seed) ─► world ─► hosts: the services, started by the function of the executable
//!                  │  ▲        │ links, weather ─► standins: catalog, queue, store, budgets, leases
//!                  │  trouble  │ wire ───────────► nice-sim
//!                  ▼           ▼
//!               oracle ◄── what lies in the servers, what NICE knows
//! ```

pub mod alarms;
pub mod host;
pub mod journal;
pub mod oracle;
pub mod plan;
pub mod run;
pub mod scrape;
pub mod seeds;
pub mod shrink;
pub mod standins;
pub mod trouble;
pub mod webhook;
pub mod wire;
pub mod world;
