# Shorthands. Each recipe is a command that works without just.

# Lists the recipes.
default:
    @just --list

# Tests that need no server: about a minute once they are built.
test *NAME:
    ./test --no-servers {{ NAME }}

# Every test, on real servers; or those whose name contains NAME.
test-servers *NAME:
    ./test {{ NAME }}

# Format, lints and documentation, as CI wants them.
lint:
    ./lint

# Watch simulated calls flow.
demo:
    cargo run --release -- demo

# One measurement of bench/README.md: flow, latency, dedupe, recording, reconcile, quota, simulate.
bench NAME *OPTIONS:
    cargo build --release -p nice-knovvu -p bench
    cargo run --release -p bench -- {{ NAME }} {{ OPTIONS }}
