//! `nice-sim`: the simulated NICE CXone as a process, for demonstrations and for tests in other languages.
//!
//! It prints its base URL and the `[nice]` settings that reach it, then serves until Ctrl-C.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use clap::Parser;
use nice_sim::{Faults, NotReady, RecordingSize, Sim, SimConfig, WebhookConfig};

/// A simulated NICE CXone.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// One seed is one world and one day.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Calls that agents take.
    #[arg(long, default_value_t = 50)]
    calls: usize,
    /// Time over which they hang up, from now on.
    #[arg(long, default_value = "60s", value_parser = duration)]
    over: Duration,
    /// Time before now over which they hung up as well.
    #[arg(long, default_value = "0s", value_parser = duration)]
    history: Duration,
    /// Agents of the tenant.
    #[arg(long, default_value_t = 20)]
    agents: usize,
    /// Members of the group Knovvu (1001).
    #[arg(long, default_value_t = 12)]
    group_agents: usize,
    /// After-call work.
    #[arg(long, default_value = "30s", value_parser = duration)]
    acw: Duration,
    /// From the end of after-call work to the first sight among completed contacts.
    #[arg(long, default_value = "45s", value_parser = duration)]
    completed_delay: Duration,
    /// From the end of after-call work to the second update.
    #[arg(long, default_value = "300s", value_parser = duration)]
    second_update_delay: Duration,
    /// Earliest recording after the end of after-call work.
    #[arg(long, default_value = "120s", value_parser = duration)]
    recording_delay_min: Duration,
    /// Latest recording after the end of after-call work.
    #[arg(long, default_value = "1800s", value_parser = duration)]
    recording_delay_max: Duration,
    /// Every delay of a call's life below a second: the whole story at once.
    #[arg(long)]
    hurried: bool,
    /// Bytes of every recording; drawn when not given.
    #[arg(long)]
    recording_bytes: Option<u64>,
    /// Share of calls that are transferred.
    #[arg(long, default_value_t = 0.15)]
    transfer_share: f64,
    /// Share of calls that are never recorded.
    #[arg(long, default_value_t = 0.05)]
    never_recorded_share: f64,
    /// Share of legs taken by agents outside the group.
    #[arg(long, default_value_t = 0.3)]
    out_of_group_share: f64,
    /// Media playback requests per window; the window is 5 minutes.
    #[arg(long, default_value_t = 150)]
    playback_limit: u32,
    /// How long every answer takes at least.
    #[arg(long, default_value = "0s", value_parser = duration)]
    latency: Duration,
    /// Everything that heals goes wrong now and then.
    #[arg(long)]
    faults: bool,
    /// Calls without a recording answer 404, and nothing else.
    #[arg(long)]
    plain_not_ready: bool,
    /// Pushes the end of each call to this URL.
    #[arg(long, requires = "webhook_secret")]
    webhook_url: Option<String>,
    /// The bearer token of the push.
    #[arg(long)]
    webhook_secret: Option<String>,
}

impl Args {
    fn config(&self) -> SimConfig {
        let mut config = SimConfig { seed: self.seed, listen: self.listen, ..SimConfig::default() };
        config.directory.agents = self.agents;
        if let Some(group) = config.directory.groups.first_mut() {
            group.agents = self.group_agents;
        }
        config.day.calls = self.calls;
        config.day.over = self.over;
        config.day.history = self.history;
        config.day.transfer_share = self.transfer_share;
        config.day.never_recorded_share = self.never_recorded_share;
        config.day.out_of_group_share = self.out_of_group_share;
        if let Some(bytes) = self.recording_bytes {
            config.day.recording_size = RecordingSize::Fixed(bytes);
        }
        config.life.acw = self.acw;
        config.life.completed_delay = self.completed_delay;
        config.life.second_update_delay = self.second_update_delay;
        config.life.recording_delay = (self.recording_delay_min, self.recording_delay_max);
        config.playback.limit = self.playback_limit;
        config.latency = self.latency;
        if self.plain_not_ready {
            config.playback.not_ready = NotReady::NotFound;
        }
        if self.faults {
            config.faults = Faults::all(self.seed);
        }
        if let (Some(url), Some(secret)) = (&self.webhook_url, &self.webhook_secret) {
            config.webhook = Some(WebhookConfig::new(url, secret));
        }
        if self.hurried { config.hurried() } else { config }
    }
}

/// A span with its unit: `250ms`, `45s`, `5m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "a number and a unit, as in 45s".to_owned())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("the unit is ms, s, m or h".to_owned()),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(|| "too long".to_owned())
}

/// The settings that reach the simulation, as TOML.
fn settings(sim: &Sim) -> String {
    let line = |(key, value): (&str, String)| match key {
        "media_hosts" => format!("{key} = [\"{value}\"]\n"),
        _ => format!("{key} = \"{value}\"\n"),
    };
    sim.settings().into_iter().map(line).fold("[nice]\n".to_owned(), |page, line| page + &line)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let sim = Sim::start(Args::parse().config()).await?;
    println!("# {}\n{}", sim.base_url(), settings(&sim));
    tokio::signal::ctrl_c().await.context("wait for Ctrl-C")?;
    sim.shutdown().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert!(["", "5", "s", "5d", "-1s", "99999999999999999999s"].iter().all(|text| duration(text).is_err()));
    }

    #[test]
    fn the_arguments_are_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
