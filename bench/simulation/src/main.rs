//! `bench -- simulate` alone, without the other measurements and what they are built from.

use clap::Parser;
use simulation::seeds::{Options, simulate};

/// Days of a misbehaving world in simulated time.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

fn main() -> anyhow::Result<()> {
    simulate(&Arguments::parse().options)
}
