//! People who change the machines while the program runs: other settings, and an upgrade.

use std::sync::Arc;
use std::time::Duration;

use nice_knovvu::embed::Service;
use tokio::time::{sleep, timeout};

use super::{A_MOMENT, start};
use crate::host::Host;
use crate::plan::Setting;
use crate::world::{Settings, World, lock};

/// Who restarts machines waits so long for one that does not end; it starts by itself once it has ended.
const PATIENCE: Duration = Duration::from_secs(120);

/// Sets something else, and puts it back in the end; each time the machines that it is about start again.
pub(super) async fn change(world: &Arc<World>, setting: Setting, lasts: Duration) {
    // NICE grants the higher limit for as long as some machines have it.
    let grant = |of: fn(u32, u32) -> u32| {
        if let Setting::PlaybackLimit(tenant, limit) = setting {
            let old = world.plan.tenants[tenant].playback_limit;
            world.tenants[tenant].nice.set_playback_limit(of(limit, old));
        }
    };
    grant(u32::max);
    set(&mut lock(&world.settings), setting);
    start_again(world, setting).await;
    grant(|limit, _| limit);
    sleep(lasts).await;
    grant(u32::max);
    put_back(&mut lock(&world.settings), setting, Settings::of(&world.plan));
    start_again(world, setting).await;
    grant(|_, old| old);
}

fn set(settings: &mut Settings, setting: Setting) {
    match setting {
        Setting::PollInterval(tenant, interval) => settings.tenants[tenant].poll_interval = interval,
        Setting::AgentSessions(tenant) => settings.tenants[tenant].agent_sessions ^= true,
        Setting::Nightly(tenant, hour) => settings.nightly[tenant] = hour,
        Setting::PlaybackLimit(tenant, limit) => settings.tenants[tenant].playback_limit = limit,
        Setting::Concurrency(concurrency) => settings.concurrency = concurrency,
    }
}

fn put_back(settings: &mut Settings, setting: Setting, old: Settings) {
    match setting {
        Setting::PollInterval(tenant, _) => settings.tenants[tenant].poll_interval = old.tenants[tenant].poll_interval,
        Setting::AgentSessions(tenant) => settings.tenants[tenant].agent_sessions = old.tenants[tenant].agent_sessions,
        Setting::Nightly(tenant, _) => settings.nightly[tenant] = old.nightly[tenant],
        Setting::PlaybackLimit(tenant, _) => {
            settings.tenants[tenant].playback_limit = old.tenants[tenant].playback_limit;
        }
        Setting::Concurrency(_) => settings.concurrency = old.concurrency,
    }
}

/// Starts every machine again that a setting is about, one after the other, with what is set now.
async fn start_again(world: &World, setting: Setting) {
    for host in world.hosts() {
        let tenant = world.tenant_of(host.number);
        let is_about = match setting {
            Setting::PollInterval(whose, _) | Setting::AgentSessions(whose) | Setting::Nightly(whose, _) => {
                tenant == Some(whose)
            }
            Setting::PlaybackLimit(..) => true,
            Setting::Concurrency(_) => host.service() == Service::Consumer,
        };
        if is_about {
            host.configure(world.host_settings(&host.disk, tenant));
            replace(&host).await;
        }
    }
}

/// Replaces every machine of the plan, one after the other: a second one of its kind comes beside it, it goes and comes
/// back as the new version would, and the second one goes.
pub(super) async fn upgrade(world: &Arc<World>, lasts: Duration) {
    let step = lasts / (2 * world.plan.machines().max(1));
    for number in 0..world.plan.machines() {
        let Some(host) = world.host(number) else { continue };
        let beside = world.add_host(world.next_number(), host.service(), world.tenant_of(number));
        start(&beside);
        sleep(step).await;
        replace(&host).await;
        sleep(step).await;
        beside.stop();
    }
}

/// Stops a machine in order, and starts it again. One that is off is started by whoever stopped it.
async fn replace(host: &Arc<Host>) {
    if !host.is_running() || host.is_stopping() {
        return;
    }
    host.stop();
    let ended = async {
        while host.is_stopping() {
            sleep(A_MOMENT).await;
        }
    };
    drop(timeout(PATIENCE, ended).await);
    start(host);
}
