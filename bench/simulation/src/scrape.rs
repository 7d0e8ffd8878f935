//! What Prometheus would see of a run: the metrics of every machine, once a simulated minute.

use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};

use crate::alarms::{AlarmRecorder, Firing, Target};
use crate::plan::{Fault, Manner, Outage, Part, Plan, Server, Trouble};
use crate::world::{BEGAN, World, after};

/// Time between two scrapes.
const EVERY: Duration = Duration::from_secs(60);

/// Says nothing of the simulated world: how full the disk of this machine is.
const OF_THIS_MACHINE: &str = "DiskFills";

/// Scrapes until it is dropped.
pub async fn scrape(world: Arc<World>, recorder: &mut AlarmRecorder) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        for host in world.hosts() {
            let target = Target::new(&host.name);
            if let Some(start) = host.last_start() {
                recorder.started(&target, after(BEGAN.parse()?, start.saturating_duration_since(began)));
            }
            let page = match host.is_running() {
                true => {
                    tokio::time::timeout(EVERY / 6, host.ask(Method::GET, "/metrics", ().into())).await.ok().flatten()
                }
                false => None,
            };
            match page {
                Some((_, page)) => recorder.scrape(&target, world.now(), &page)?,
                None => recorder.scrape_failed(&target, world.now())?,
            }
        }
        let due = began.elapsed().as_secs() / EVERY.as_secs() + 1;
        sleep(EVERY.saturating_mul(u32::try_from(due)?).saturating_sub(began.elapsed())).await;
    }
}

/// What is wrong with the alerts that fired: nothing may fire where nothing was wrong, and what lasts must be told.
pub fn judge(plan: &Plan, firing: &[Firing]) -> Vec<String> {
    let mut broken = Vec::new();
    let firing: Vec<_> = firing.iter().filter(|firing| firing.alert != OF_THIS_MACHINE).collect();
    if plan.faults.is_empty() {
        broken
            .extend(firing.iter().map(|firing| format!("{} fired in a quiet time: {:?}", firing.alert, firing.labels)));
    }
    for fault in &plan.faults {
        let Some((alerts, within)) = told_by(plan, fault) else { continue };
        if fault.lasts < within + Duration::from_secs(600) {
            continue;
        }
        let (from, to) = (moment(fault.at), moment(fault.ends()));
        let latest = from + SignedDuration::try_from(within).unwrap_or(SignedDuration::ZERO);
        let is_told = firing.iter().any(|firing| {
            alerts.contains(&firing.alert.as_str())
                && firing.from <= latest.max(from)
                && firing.to.is_none_or(|end| end >= latest.min(to))
        });
        if !is_told {
            broken.push(format!("none of {alerts:?} told within {} min of {:?}", within.as_secs() / 60, fault.what));
        }
    }
    broken
}

/// The alerts of which one must fire, and how long after the beginning at the latest.
fn told_by(plan: &Plan, fault: &Fault) -> Option<(&'static [&'static str], Duration)> {
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    Some(match &fault.what {
        Trouble::Server(Server::Catalog | Server::Queue | Server::Store, Manner::Away | Manner::Silent, None) => {
            (&["OutsideSystemAway"], minutes(10))
        }
        Trouble::Nice(_, Part::Api | Part::Tokens, Outage::Refused | Outage::Silent | Outage::Status(_)) => {
            (&["NiceFails", "PollBehind", "TenantSystemFails", "NobodyAsksNice"], minutes(45))
        }
        Trouble::Keys(_) => (&["NiceRefusesUs", "PollBehind", "TenantSystemFails"], minutes(120)),
        Trouble::Kill(machine) | Trouble::Stop(machine) if *machine < plan.machines() => {
            (&["ProcessDown"], minutes(10))
        }
        _ => return None,
    })
}

fn moment(at: Duration) -> Timestamp {
    after(BEGAN.parse().unwrap_or_default(), at)
}
