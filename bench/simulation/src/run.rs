//! Runs a plan from its first moment to the judgement, in simulated time, on one thread.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use runtime::task;
use tokio_util::task::AbortOnDropHandle;

use crate::alarms::{AlarmRecorder, Firing};
use crate::journal::Journal;
use crate::oracle::{self, Evidence, TenantTruth};
use crate::plan::{Fault, Manner, Outage, Plan, Trouble};
use crate::world::{BEGAN, NIGHT, World, after, lock};
use crate::{scrape, trouble, webhook};

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Every promise that was broken, one line each.
    pub broken: Vec<String>,
    /// The hash of all that happened, and how many things that were.
    pub hash: (String, u64),
    /// How many legs ended, and how many of them were to be imported.
    pub legs: (usize, usize),
    /// The simulated time.
    pub simulated: Duration,
    /// The time that it took.
    pub took: Duration,
    /// The last lines of the journal.
    pub last: Vec<String>,
    /// Requests that the simulated NICEs answered.
    pub requests: u64,
}

/// What a run may be asked to do besides.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Takes every line of the journal.
    pub journal: Option<std::fs::File>,
    /// Judges the alerts, too. It takes longer than the rest.
    pub alarms: bool,
}

/// Runs a plan. Two runs of the same plan have the same outcome, but for the time that they took.
pub fn run(plan: &Plan, wishes: Wishes) -> anyhow::Result<Outcome> {
    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
    let outcome = runtime.block_on(live(plan.clone(), wishes))?;
    Ok(Outcome { took: began.elapsed(), ..outcome })
}

async fn live(plan: Plan, wishes: Wishes) -> anyhow::Result<Outcome> {
    let journal = Journal::new(wishes.journal);
    let world = Arc::new(World::new(plan, journal.clone())?);
    let faults = world.plan.faults.clone().into_iter().map(|fault| {
        let world = world.clone();
        task::spawn("fault", async move { trouble::happen(world, fault).await })
    });
    // Before the machines start: some have the wrong time by then.
    let faults: Vec<AbortOnDropHandle<()>> = faults.collect();
    let hosts: Vec<_> = world.hosts().into_iter().map(|host| task::spawn("host", host.run())).collect();
    let script = task::spawn("script", webhook::tell(world.clone()));
    let mut recorder = match wishes.alarms {
        true => Some(AlarmRecorder::new(SignedDuration::from_mins(1))?),
        false => None,
    };
    let whole = tokio::time::sleep(world.plan.whole());
    match &mut recorder {
        Some(recorder) => tokio::select! {
            biased;
            () = whole => {}
            scraped = scrape::scrape(world.clone(), recorder) => scraped?,
        },
        None => whole.await,
    }
    drop(faults);
    let mut broken = judge(&world).await;
    if let Some(recorder) = recorder {
        let firing = recorder.firing()?;
        for Firing { alert, labels, from, to } in &firing {
            journal.note(format_args!("alert {alert} {labels:?} from {from} to {to:?}"));
        }
        broken.extend(scrape::judge(&world.plan, &firing));
    }
    for host in world.hosts() {
        host.kill();
    }
    drop((hosts, script));
    // The scheduler drops what has ended.
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
    let requests = world.tenants.iter().flat_map(|tenant| tenant.nice.requests().into_values());
    let requests = requests.flat_map(BTreeMap::into_values).sum();
    let legs: Vec<_> = world.tenants.iter().flat_map(|tenant| tenant.nice.truth()).collect();
    let wanted = legs.iter().filter(|leg| leg.in_group).count();
    Ok(Outcome {
        broken,
        hash: journal.hash(),
        legs: (legs.len(), wanted),
        simulated: world.plan.whole(),
        took: Duration::ZERO,
        last: journal.last(),
        requests,
    })
}

/// What `[limits] acd` makes of a minute: it is left at 2/s. It is counted while the ACD has a limit.
const ACD_A_MINUTE: usize = 120;

/// Asks the oracle, and the program for its own report.
async fn judge(world: &World) -> Vec<String> {
    let began: Timestamp = BEGAN.parse().unwrap_or_default();
    let tenants = world.tenants.iter().enumerate().map(|(at, tenant)| {
        let mut violations = tenant.nice.violations();
        // While NICE has lowered its limit, or others use it, we learn it by being refused: our own is what we keep.
        let own = world.plan.highest_playback_limit(at) as usize;
        let peaks = tenant.nice.playback_peaks();
        if peaks.asked > own {
            violations
                .push(format!("asked media playback {} times in one window, and its limit is {own}", peaks.asked));
        }
        let asked = tenant.nice.acd_peaks().asked;
        if asked > ACD_A_MINUTE {
            violations.push(format!("asked the ACD {asked} times in one minute, and its limit is {ACD_A_MINUTE}"));
        }
        TenantTruth {
            id: tenant.id.clone(),
            legs: tenant.nice.truth(),
            members: tenant.nice.group(tenant.nice.config().directory.wanted_group).into_iter().collect(),
            away: away(&world.plan, at, began),
            ahead: ahead(&world.plan),
            // The settings of a consumer hold for all tenants.
            playback_limit: world.plan.tenants.iter().map(|tenant| tenant.playback_limit).min().unwrap_or(1),
            borders: lock(&tenant.borders).clone(),
            troubled: troubled(&world.plan, at, began),
            erased: lock(&tenant.erased).clone(),
            violations,
            recording_deadline: world.plan.scale.recording_deadline,
        }
    });
    let evidence = Evidence {
        catalog: world.room.catalog.embedded(),
        objects: world.room.store.objects(),
        tenants: tenants.collect(),
        began,
        healed: after(began, world.plan.healed()),
        now: world.now(),
        nights: nights(began, world.now()),
    };
    let mut broken = oracle::judge(&evidence).await;
    broken.extend(oracle::report::judge(&evidence, &trouble::reports(world).await).await);
    for host in world.hosts() {
        for reason in host.failures() {
            world.journal.note(format_args!("{} had ended by itself: {reason}", host.name));
        }
    }
    broken
}

/// When something went wrong that concerns a tenant: with its NICE, with its machines, or with what all share.
fn troubled(plan: &Plan, tenant: usize, began: Timestamp) -> Vec<(Timestamp, Timestamp)> {
    let delays = |fault: &&Fault| fault.what.delays() && concerns(plan, &fault.what, tenant);
    let spans = plan.faults.iter().filter(delays).map(|fault| match fault.what {
        // Done at once, whatever length was drawn.
        Trouble::Members(_) | Trouble::Tokens(_) | Trouble::Operator(..) => (fault.at, fault.at),
        // Until then recordings of that time come, and tell that they take long.
        Trouble::LateRecordings(_, by) => (fault.at, fault.ends() + by),
        _ => (fault.at, fault.ends()),
    });
    spans.map(|(from, to)| (after(began, from), after(began, to))).collect()
}

fn concerns(plan: &Plan, what: &Trouble, tenant: usize) -> bool {
    let machine = match what {
        Trouble::Kill(machine) | Trouble::Pause(machine) | Trouble::Stop(machine) => Some(*machine),
        Trouble::Clock(machine, _) | Trouble::Drift(machine, _) => Some(*machine),
        Trouble::Server(_, _, machine) => *machine,
        _ => None,
    };
    let whose = what.tenant().or_else(|| machine.and_then(|machine| plan.tenant_of(machine)));
    whose.is_none_or(|whose| whose == tenant)
}

/// When a system was wholly away that every call of a tenant needs.
fn away(plan: &Plan, tenant: usize, began: Timestamp) -> Vec<(Timestamp, Timestamp)> {
    let is_whole = |what: &Trouble| match what {
        Trouble::Server(_, Manner::Away | Manner::Silent, None) | Trouble::Keys(_) => true,
        Trouble::Nice(_, _, outage) => !matches!(outage, Outage::Odd(..)),
        _ => false,
    };
    let faults = plan.faults.iter().filter(|fault| is_whole(&fault.what) && concerns(plan, &fault.what, tenant));
    faults.map(|fault| (after(began, fault.at), after(began, fault.ends()))).collect()
}

/// How far a consumer's clock is ahead at most.
fn ahead(plan: &Plan) -> SignedDuration {
    let ahead = plan.faults.iter().map(|fault| match fault.what {
        Trouble::Clock(machine, secs) if plan.tenant_of(machine).is_none() => secs,
        // So many millionths of the time that it lasts.
        Trouble::Drift(machine, ppm) if plan.tenant_of(machine).is_none() => {
            (fault.lasts.as_secs() as i64).saturating_mul(ppm) / 1_000_000
        }
        _ => 0,
    });
    SignedDuration::from_secs(ahead.max().unwrap_or_default().max(0))
}

/// When the nightly comparison was due so far.
fn nights(began: Timestamp, now: Timestamp) -> Vec<Timestamp> {
    let day = SignedDuration::from_hours(24);
    let first = began.to_zoned(TimeZone::UTC).with().hour(i8::try_from(NIGHT).unwrap_or_default()).build();
    let first = first.map_or(began, |first| first.timestamp());
    std::iter::successors(Some(first), |night| Some(*night + day)).take_while(|night| *night < now).collect()
}
