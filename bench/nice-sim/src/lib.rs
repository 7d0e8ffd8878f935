//! A simulated NICE CXone: the HTTP faces, the life of a call, and the faults.
//!
//! One port plays discovery, tokens, the ACD, media playback, data extraction and the object store with its signed links. It is written
//! from the description of NICE's interfaces alone and shares no type with the client under test: a field that the client
//! misreads fails a test instead of being wrong on both sides.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use nice_sim::{CallSpec, Sim, SimConfig};
//!
//! let mut config = SimConfig::default();
//! config.day.calls = 50;
//! let sim = Sim::start(config).await?;
//! let agent = sim.agents()[0];
//! sim.add_call(CallSpec::new(agent));
//! println!("{} {}", sim.base_url(), sim.truth().len());
//! sim.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! One seed is one world: ids, agents, durations, transfers, sizes and bytes repeat. Only the instants move, because
//! calls hang up in real time, counted from the start.
//!
//! A program in simulated time holds it [in memory](Sim::in_memory): no socket, no task, the time is the program's own, and the same
//! questions at the same instants have the same answers. Whatever goes wrong is one value, [`Faults`]: a driver draws what is on from when
//! to when and how much of it, and [changes](Sim::change_faults) it while the simulation runs.

// One contact row is a single `json!` of some seventy fields.
#![recursion_limit = "256"]

mod api;
mod call;
mod chance;
mod clock;
mod config;
mod counters;
mod day;
mod directory;
mod fate;
mod faults;
mod listener;
mod memory;
mod quota;
mod recording;
mod service;
mod sim;
mod throttle;
mod trap;
mod truth;
mod webhook;
mod world;

pub use call::{CallSpec, LegSpec, PlacedCall};
pub use config::{
    AcdConfig, DayConfig, DirectoryConfig, ExtractionConfig, ExtractionOutcome, GroupConfig, LifeConfig, NotReady,
    PlaybackConfig, RecordingSize, SimConfig, TeamConfig, TenantConfig, WebhookConfig,
};
pub use faults::{Away, Faults, Outage};
pub use listener::Refused;
pub use quota::{QuotaBreach, QuotaCount, QuotaPeaks};
pub use recording::SMALLEST_PLAYABLE;
pub use sim::Sim;
pub use truth::{Direction, TruthLeg, TruthMedium, TruthRecording};
