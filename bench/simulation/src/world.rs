//! The simulated world: the servers in the middle, a NICE for each tenant, machines with the two services, and all that
//! a plan lets go wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use model::{Retention, TenantId};
use nice::{Auth, GroupKind, GroupSelector, Network, NiceSettings};
use nice_knovvu::embed::{LeaseServer, LentDoors as Lent, LentLease, Service};
use nice_sim::{Sim, SimConfig};
use runtime::{Clock, ClockSkew, Machine};
use secrecy::SecretString;
use stages::tenants::RecordingScope;

use crate::host::{Doors, Host, Parts};
use crate::journal::Journal;
use crate::plan;
use crate::plan::{Plan, Telling};
use crate::standins;
use crate::standins::{
    Life, Link, LinkOptions, Patience, ServerRoom, Weather,
    lease::{Held, LeaseOf},
};
use crate::wire::{Services, Wire};

/// The bearer token that NICE's script presents.
pub const WEBHOOK_TOKEN: &str = "the script of the tenant";

/// When every simulation begins: a Monday.
pub const BEGAN: &str = "2026-01-05T06:00:00Z";

/// The hour of the nightly comparison, where nobody changes it. In a short run it lies so long after the last trouble that
/// it hides no delay.
pub const NIGHT: u8 = 16;

/// A tenant of the world.
pub struct Tenant {
    /// Its id.
    pub id: TenantId,
    /// Its NICE.
    pub nice: Arc<Sim>,
    /// The members of its group at the start.
    pub members: BTreeSet<i64>,
    /// Its machines: the producer, and who stands by.
    pub producers: Vec<u32>,
    /// When the members or their readings changed.
    pub borders: Mutex<Vec<(Timestamp, Timestamp)>>,
    /// What was erased on purpose, and whether that was done for certain.
    pub erased: Mutex<BTreeMap<i64, bool>>,
    /// How NICE's script tells of calls that ended, while it does so in a wrong way.
    pub telling: Mutex<Vec<Telling>>,
}

/// What is set on the machines, as far as somebody may change it.
pub struct Settings {
    /// By tenant.
    pub tenants: Vec<plan::Tenant>,
    /// By tenant: the hour of the nightly comparison.
    pub nightly: Vec<u8>,
    /// Conversations that a consumer works on at a time.
    pub concurrency: u32,
}

impl Settings {
    /// As they are at the start.
    pub fn of(plan: &Plan) -> Self {
        Self { tenants: plan.tenants.clone(), nightly: vec![NIGHT; plan.tenants.len()], concurrency: 16 }
    }
}

/// Everything that there is.
pub struct World {
    /// What it is made from.
    pub plan: Plan,
    /// The true time.
    pub clock: Clock,
    /// The servers.
    pub room: ServerRoom,
    /// The weather on the way to NICE.
    pub internet: Weather,
    /// The tenants.
    pub tenants: Vec<Tenant>,
    /// What is set on machines that start.
    pub settings: Mutex<Settings>,
    /// What happens.
    pub journal: Journal,
    hosts: Mutex<BTreeMap<u32, Arc<Host>>>,
    /// Which machines are producers, and whose.
    producers: Mutex<BTreeMap<u32, usize>>,
    lender: Arc<Lender>,
    disk: tempfile::TempDir,
}

/// Gives each machine its doors.
struct Lender {
    clock: Clock,
    room: ServerRoom,
    services: Arc<Services>,
    internet: Weather,
    journal: Journal,
    seed: u64,
}

impl World {
    /// Builds the world of a plan; nothing runs yet. It must be built where it runs, under a paused clock.
    pub fn new(plan: Plan, journal: Journal) -> anyhow::Result<Self> {
        let began: Timestamp = BEGAN.parse()?;
        let clock = Clock::simulated(began, ClockSkew::none());
        let disk = disk()?;
        let room = ServerRoom::open(clock.clone(), plan.seed, Patience::default())?;
        let internet = Weather::clear();
        let mut services = Services::new();
        let mut tenants = Vec::new();
        let mut next = 0;
        for (at, tenant) in plan.tenants.iter().enumerate() {
            let host = format!("t{at}.nice.test");
            let nice = Arc::new(nice(&plan, at, &host, &clock));
            let id: TenantId = format!("tenant-{at}").parse()?;
            room.settings.set(id.clone(), nice_settings(&nice, &host)?, RecordingScope::Leg, Retention::default());
            let members = nice.group(nice.config().directory.wanted_group).into_iter().collect();
            let producers: Vec<u32> = (next..next + 1 + u32::from(tenant.stand_by)).collect();
            next += producers.len() as u32;
            // The host that nobody may call is its own witness.
            services.insert(nice.trap_base().trim_start_matches("https://").to_owned(), nice.clone());
            services.insert(host, nice.clone());
            let (borders, erased, telling) = (Mutex::default(), Mutex::default(), Mutex::default());
            tenants.push(Tenant { id, nice, members, producers, borders, erased, telling });
        }
        let lender = Arc::new(Lender {
            clock: clock.clone(),
            room: room.clone(),
            services: Arc::new(services),
            internet: internet.clone(),
            journal: journal.clone(),
            seed: plan.seed,
        });
        let (hosts, producers) = (Mutex::default(), Mutex::default());
        let settings = Mutex::new(Settings::of(&plan));
        let world = Self { plan, clock, room, internet, tenants, settings, journal, hosts, producers, lender, disk };
        for (at, tenant) in world.tenants.iter().enumerate() {
            for number in &tenant.producers {
                world.add_host(*number, Service::Producer, Some(at));
            }
        }
        for number in next..next + world.plan.consumers {
            world.add_host(number, Service::Consumer, None);
        }
        Ok(world)
    }

    /// Puts one more machine there; it is off.
    pub fn add_host(&self, number: u32, service: Service, tenant: Option<usize>) -> Arc<Host> {
        let name = match (service, tenant) {
            (Service::Producer, Some(tenant)) => format!("producer-{tenant}-{number}"),
            _ => format!("consumer-{number}"),
        };
        let disk = self.disk.path().join(&name);
        let parts = Parts {
            settings: self.host_settings(&disk, tenant),
            seed: self.plan.seed ^ (u64::from(number) << 32),
            doors: self.lender.clone().doors(number, &name),
            skew: ClockSkew::none(),
            name,
            number,
            service,
            disk,
        };
        let parts = Parts { doors: skewed(parts.doors, &self.clock, &parts.skew), ..parts };
        let host = Host::new(parts, self.journal.clone());
        lock(&self.hosts).insert(number, host.clone());
        if let Some(tenant) = tenant {
            lock(&self.producers).insert(number, tenant);
        }
        host
    }

    /// A machine.
    pub fn host(&self, number: u32) -> Option<Arc<Host>> {
        lock(&self.hosts).get(&number).cloned()
    }

    /// All machines.
    pub fn hosts(&self) -> Vec<Arc<Host>> {
        lock(&self.hosts).values().cloned().collect()
    }

    /// Whose producer a machine is; none of a consumer.
    pub fn tenant_of(&self, number: u32) -> Option<usize> {
        lock(&self.producers).get(&number).copied()
    }

    /// A number that no machine has.
    pub fn next_number(&self) -> u32 {
        lock(&self.hosts).keys().next_back().map_or(0, |last| last + 1)
    }

    /// The true time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The settings of a service that starts now, as its settings file would have them.
    pub fn host_settings(&self, disk: &Path, tenant: Option<usize>) -> String {
        let mut text = String::new();
        let settings = lock(&self.settings);
        if let Some(at) = tenant {
            let plan::Tenant { poll_interval, agent_sessions, webhook, .. } = &settings.tenants[at];
            text.push_str(&format!(
                "[tenant]\nid = \"{}\"\n[events]\npoll_interval = \"{}s\"\nagent_sessions = {agent_sessions}\n\
                 webhook = {webhook}\nwebhook_token = \"{}\"\n[reconciliation]\nat = \"{:02}:00\"\n",
                self.tenants[at].id,
                poll_interval.as_secs(),
                WEBHOOK_TOKEN,
                settings.nightly[at],
            ));
        }
        if let ([only], None) = (&self.tenants[..], tenant) {
            // So that an operator can erase there.
            text.push_str(&format!("[tenant]\nid = \"{}\"\n", only.id));
        }
        // Every tenant has the limit that NICE has told it; the settings of a process hold for all of its tenants.
        let limit = settings.tenants.iter().map(|tenant| tenant.playback_limit).min().unwrap_or(150);
        let concurrency = settings.concurrency;
        text.push_str(&format!(
            "[limits]\nmedia_playback = \"{limit}/5m\"\n[consumer]\nconcurrency = {concurrency}\n[retry]\nrecording_deadline = \"{}s\"\n\
             [queue]\nkind = \"rabbitmq\"\nurl = \"amqps://user:password@queue.test\"\n\
             [catalog]\nkind = \"postgres\"\nurl = \"postgres://user:password@catalog.test/knovvu\"\nseal_key = \"{}\"\n\
             [recordings]\nkind = \"s3\"\nendpoint = \"https://store.test\"\nbucket = \"recordings\"\n\
             access_key_id = \"key\"\nsecret_access_key = \"secret\"\n\
             [state]\ndir = \"{}\"\n",
            self.plan.scale.recording_deadline.as_secs(),
            "5a".repeat(32),
            disk.display(),
        ));
        text
    }
}

impl Lender {
    fn doors(self: Arc<Self>, number: u32, name: &str) -> Doors {
        let name = name.to_owned();
        Arc::new(move |machine: &Machine| self.lend(number, &name, machine))
    }

    /// The doors of one start of a machine.
    fn lend(&self, number: u32, name: &str, machine: &Machine) -> Lent {
        let seed = self.seed ^ (u64::from(number) << 16);
        let is_killed = {
            let machine = machine.clone();
            Arc::new(move || machine.is_killed()) as Arc<dyn Fn() -> bool + Send + Sync>
        };
        let doors = self.room.doors(&Life { machine: number, seed, is_killed: is_killed.clone() });
        let link = Link::new(self.internet.clone(), number, !seed, LinkOptions::default(), move || is_killed());
        let wire = Wire::new(self.services.clone(), link, name, self.journal.clone());
        Lent {
            clock: self.clock.clone(),
            catalog: doors.catalog.clone(),
            queue: doors.queue.clone(),
            recordings: doors.store.clone(),
            settings: doors.settings.clone(),
            budgets: doors.budgets.clone(),
            leases: Arc::new(LentLeases(doors)),
            network: Network::Simulated(Arc::new(wire)),
        }
    }
}

/// The same doors with the clock of one machine.
fn skewed(doors: Doors, clock: &Clock, skew: &ClockSkew) -> Doors {
    let clock = clock.with_skew(skew.clone());
    Arc::new(move |machine: &Machine| Lent { clock: clock.clone(), ..doors(machine) })
}

/// The leases as a service takes them.
struct LentLeases(standins::Doors);

impl LeaseServer for LentLeases {
    fn hold(&self, tenant: &TenantId) -> BoxFuture<'static, Box<dyn LentLease>> {
        let way: LeaseOf = self.0.lease(tenant.clone());
        Box::pin(async move { Box::new(HeldLease(way.hold().await)) as Box<dyn LentLease> })
    }
}

struct HeldLease(Held);

impl LentLease for HeldLease {
    fn lost(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.0.lost())
    }
}

/// The NICE of a tenant.
fn nice(plan: &Plan, at: usize, host: &str, clock: &Clock) -> Sim {
    let tenant = &plan.tenants[at];
    let mut config = SimConfig { seed: plan.seed.wrapping_add(at as u64 * 7919), ..SimConfig::default() };
    let over = plan.last_calls();
    config.day.over = over;
    config.day.calls = (f64::from(tenant.calls) * over.as_secs_f64() / (24.0 * 3600.0)).round() as usize;
    config.day.recording_size = nice_sim::RecordingSize::Between(1024, 6 * 1024);
    config.playback.limit = tenant.playback_limit;
    config.playback.strict_window = true;
    config.acd.contacts_page_max = tenant.page;
    // So large that a part of it is more than a few agents.
    config.directory.agents = 36;
    for group in config.directory.groups.iter_mut().filter(|group| group.id == config.directory.wanted_group) {
        group.agents = 24;
    }
    config.acd.strict_window = true;
    config.webhook = tenant.webhook.then(|| nice_sim::WebhookConfig::new("", WEBHOOK_TOKEN));
    config.tenant.tenant_id = format!("11ee0000-1111-2222-3333-0242ac11{at:04}");
    let clock = clock.clone();
    Sim::in_memory(config, &format!("https://{host}"), move || clock.now())
}

/// How a tenant's NICE is reached.
fn nice_settings(nice: &Sim, host: &str) -> anyhow::Result<NiceSettings> {
    let config = nice.config();
    let base: reqwest::Url = nice.base_url().parse()?;
    Ok(NiceSettings {
        issuer: base.clone(),
        auth: Auth::AccessKey {
            access_key_id: config.tenant.access_key_id.clone(),
            access_key_secret: SecretString::from(config.tenant.access_key_secret.clone()),
        },
        api_version: "v33.0".to_owned(),
        group: GroupSelector { kind: GroupKind::AcdGroup, id_or_name: config.directory.wanted_group.to_string() },
        acd_url: Some(base.clone()),
        facade_url: Some(base.clone()),
        auth_url: Some(base),
        media_hosts: vec![host.parse()?],
        private_media_hosts: Vec::new(),
    })
}

/// A directory in memory where there is one: nothing of a simulation is to survive a power cut.
fn disk() -> std::io::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    match memory.is_dir() {
        true => tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()),
        false => tempfile::tempdir(),
    }
}

/// A time so much later.
pub fn after(began: Timestamp, by: Duration) -> Timestamp {
    began.checked_add(SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX)
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
