//! Producer and consumer as processes of their own on real servers, killed.

#[allow(dead_code, reason = "the other tests use the rest")]
#[path = "../it/servers/bed.rs"]
mod bed;
#[allow(dead_code, reason = "the other tests use the rest")]
#[path = "../it/servers/calls.rs"]
mod calls;
#[allow(dead_code, reason = "the other tests use the rest")]
#[path = "../it/servers/machines.rs"]
mod machines;
#[path = "../it/servers/oracle.rs"]
mod oracle;
#[path = "../it/servers/store.rs"]
mod store;
#[allow(dead_code, reason = "the other tests use the rest")]
#[path = "../it/servers/watch.rs"]
mod watch;

mod boundaries;
mod erase;

use crate::harness::sized;
