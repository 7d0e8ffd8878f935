//! A running simulation: started from a configuration, steered and questioned by a test, stopped when dropped.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use axum::{Router, body::Body, http};
use jiff::{SignedDuration, Timestamp};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    api,
    call::{CallSpec, PlacedCall},
    clock::Clock,
    config::SimConfig,
    day,
    faults::Faults,
    listener::{Line, SimListener},
    quota::{QuotaBreach, QuotaPeaks},
    service::Service,
    trap,
    truth::{self, TruthLeg},
    webhook,
};

/// A simulated NICE CXone on a port of its own.
#[derive(Debug)]
pub struct Sim {
    service: Arc<Service>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Sim {
    /// Binds the port and starts the schedule.
    pub async fn start(config: SimConfig) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(config.listen).await.context("bind the simulator's port")?;
        let trap_listener = TcpListener::bind(("127.0.0.1", 0)).await.context("bind the port nobody may call")?;
        let base = format!("http://{}", listener.local_addr().context("read the simulator's address")?);
        let trap = format!("http://{}", trap_listener.local_addr().context("read the address nobody may call")?);
        let service = Arc::new(Service::new(config, base, trap, Clock::new()));
        let stop = CancellationToken::new();

        let app = Router::new().fallback(api::handle).with_state(Arc::clone(&service));
        let mut tasks = vec![
            serve(SimListener { inner: listener, stop: stop.clone() }, app),
            serve(SimListener { inner: trap_listener, stop: stop.clone() }, trap::router(Arc::clone(&service))),
        ];
        if let Some(receiver) = service.config.webhook.clone() {
            let announcements = webhook::announce(Arc::clone(&service), receiver, stop.clone())?;
            tasks.push(tokio::spawn(announcements));
        }
        Ok(Self { service, stop, tasks })
    }

    /// A simulation without socket, thread or task, for a program in simulated time: requests are asked by
    /// [`call`](Self::call), `now` tells the time, and whatever waits waits on tokio's clock. All chance comes from the seed,
    /// so that the same questions at the same instants have the same answers. `base` is the root it answers for, such as
    /// `https://acme.nice.test`; its media links and documents name it. The port in `config` says nothing here, and ends
    /// of calls are pushed by whoever [takes](Self::take_announcements) them.
    pub fn in_memory(config: SimConfig, base: &str, now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        let base = base.trim_end_matches('/').to_owned();
        let name = base.rsplit('/').next().unwrap_or_default().replace(['.', ':'], "-");
        let trap = format!("https://{name}.stranger.invalid");
        let service = Arc::new(Service::new(config, base, trap, Clock::given(Box::new(now))));
        Self { service, stop: CancellationToken::new(), tasks: Vec::new() }
    }

    /// Answers a request in memory, by the handlers that answer over a socket. A request whose host is that of
    /// [`trap_base`](Self::trap_base) reaches the host that nobody may call.
    ///
    /// What a connection would do is told by the answer: a body whose stream ends with an error was reset or cut, and an
    /// answer that never comes is silence. A connection that was refused carries [`Refused`](crate::Refused) among the answer's extensions:
    /// the client sees neither its head nor its body.
    pub fn call(
        &self,
        request: http::Request<Body>,
    ) -> impl Future<Output = http::Response<Body>> + Send + 'static + use<> {
        let service = Arc::clone(&self.service);
        async move {
            let asked = request.uri().authority().map(http::uri::Authority::as_str);
            let asked = asked.or_else(|| request.headers().get(http::header::HOST)?.to_str().ok());
            if asked.is_some_and(|host| service.trap.ends_with(&format!("//{host}"))) {
                return trap::caught(&service, &request.into_parts().0);
            }
            api::respond(&service, request, Line::default()).await
        }
    }

    /// The root of a host that is not the service: faults point there, and whoever calls it has broken a rule.
    pub fn trap_base(&self) -> &str {
        &self.service.trap
    }

    /// Takes what a script of the tenant would push now: the body of each end of a leg since the last time, with the losses
    /// and duplicates of the configured webhook. Nothing where none is configured. For a simulation in memory; one
    /// with a port pushes by itself.
    pub fn take_announcements(&self) -> Vec<serde_json::Value> {
        let receiver = self.service.config.webhook.as_ref();
        receiver.map_or(Vec::new(), |receiver| webhook::due(&self.service, receiver))
    }

    /// `http://127.0.0.1:PORT`: issuer, ACD, façade and token root in one.
    pub fn base_url(&self) -> &str {
        &self.service.base
    }

    /// `127.0.0.1:PORT`: the host that media links point to.
    pub fn host(&self) -> &str {
        self.service.base.rsplit('/').next().unwrap_or_default()
    }

    /// What a client's settings `[nice]` must say to reach it, by key.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let (base, config) = (self.base_url().to_owned(), self.config());
        vec![
            ("issuer", base.clone()),
            ("auth_flow", "access_key".to_owned()),
            ("access_key_id", config.tenant.access_key_id.clone()),
            ("access_key_secret", config.tenant.access_key_secret.clone()),
            ("group_kind", "acd_group".to_owned()),
            ("group", config.directory.wanted_group.to_string()),
            ("acd_url", base.clone()),
            ("facade_url", base.clone()),
            ("auth_url", base),
            ("media_hosts", self.host().to_owned()),
        ]
    }

    /// The same as the environment gives it to the daemon.
    pub fn environment(&self) -> impl Iterator<Item = (String, String)> {
        let name = |key: &str| format!("NICE_KNOVVU_NICE__{}", key.to_ascii_uppercase());
        self.settings().into_iter().map(move |(key, value)| (name(key), value))
    }

    /// The configuration it runs with.
    pub fn config(&self) -> &SimConfig {
        &self.service.config
    }

    /// Ends the service and every connection at once.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        for task in std::mem::take(&mut self.tasks) {
            drop(task.await); // a task that panicked has ended too
        }
    }

    /// Places a call whose hang-up counts from now.
    pub fn add_call(&self, spec: CallSpec) -> PlacedCall {
        let now = self.service.now();
        self.service.world_mut().add_call(&self.service.config, spec, now)
    }

    /// Places a call whose last leg hangs up at `hung_up_at`, instead of the time that the specification says.
    pub fn place(&self, spec: CallSpec, hung_up_at: Timestamp) -> PlacedCall {
        let now = self.service.now();
        let hang_up_in = SignedDuration::from_millis(hung_up_at.as_millisecond() - now);
        self.service.world_mut().add_call(&self.service.config, CallSpec { hang_up_in, ..spec }, now)
    }

    /// Moves the simulation's clock ahead instead of waiting. The real clock of a client stays where it is.
    pub fn advance(&self, by: Duration) {
        self.service.clock.advance(by);
    }

    /// How long after a hang-up the last thing can happen to a call.
    pub fn longest_tail(&self) -> Duration {
        day::longest_tail(&self.service.config)
    }

    /// Puts other faults in force from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.service.set_faults(faults);
    }

    /// The faults in force.
    pub fn faults(&self) -> Faults {
        Faults::clone(&self.service.faults.current())
    }

    /// Changes some of the faults from now on, and leaves the others as they are.
    pub fn change_faults(&self, change: impl FnOnce(&mut Faults)) {
        let mut faults = self.faults();
        change(&mut faults);
        self.service.set_faults(faults);
    }

    /// Lowers or raises the limit of media playback from now on; what was granted in the window still counts.
    pub fn set_playback_limit(&self, limit: u32) {
        let mut quota = self.service.playback_quota();
        let window = quota.limit().map_or(self.service.config.playback.window, |(_, window)| window);
        quota.set_limit(Some((limit, window)), self.service.now());
    }

    /// Gives the ACD another limit from now on, or none; what was granted in a window of the same length still counts.
    pub fn set_acd_limit(&self, limit: Option<(u32, Duration)>) {
        self.service.acd_quota().set_limit(limit, self.service.now());
    }

    /// When a window held more requests than the limit allowed: more than the highest that was in force during it.
    pub fn quota_breaches(&self) -> Vec<QuotaBreach> {
        let mut breaches = self.service.playback_quota().breaches().to_vec();
        breaches.extend_from_slice(self.service.acd_quota().breaches());
        breaches
    }

    /// The most requests to media playback that any window held.
    pub fn playback_peaks(&self) -> QuotaPeaks {
        self.service.playback_quota().peaks()
    }

    /// The most requests to the ACD that any window held, as long as it had a limit.
    pub fn acd_peaks(&self) -> QuotaPeaks {
        self.service.acd_quota().peaks()
    }

    /// The ids of all agents, in the order they were hired.
    pub fn agents(&self) -> Vec<i64> {
        self.service.world().directory.agents.iter().map(|agent| agent.id).collect()
    }

    /// The members of a group now.
    pub fn group(&self, group: i64) -> Vec<i64> {
        let now = self.service.now();
        let world = self.service.world();
        world.directory.group(group).map_or(Vec::new(), |group| group.members(now).iter().copied().collect())
    }

    /// The members of a group now that its list would leave out while [`Faults::group_half`] is `share`.
    pub fn left_out(&self, group: i64, share: f64) -> Vec<i64> {
        let is_left_out = |agent: &i64| api::acd::people::is_left_out(self.service.config.seed, *agent, share);
        self.group(group).into_iter().filter(is_left_out).collect()
    }

    /// Gives a group exactly these members from now on; a group that is not there yet begins to exist.
    pub fn set_group(&self, group: i64, members: impl IntoIterator<Item = i64>) {
        let now = self.service.now();
        self.service.world_mut().directory.set_group(group, members.into_iter().collect::<BTreeSet<_>>(), now);
    }

    /// Hides these members of a group from the client's user from now on, as a narrower role does: they stay members, and
    /// the group's list leaves them out, counts them in `hiddenAgents`, and comes with 200 also where nobody is left.
    pub fn hide_agents(&self, group: i64, agents: impl IntoIterator<Item = i64>) {
        self.service.world_mut().directory.hide(group, agents.into_iter().collect());
    }

    /// Takes back what [`hide_agents`](Self::hide_agents) did: the group's list shows all members and does not speak of hidden ones.
    pub fn show_agents(&self, group: i64) {
        self.service.world_mut().directory.show(group);
    }

    /// Hires an agent and returns the id.
    pub fn add_agent(&self, first_name: &str, last_name: &str, team: i64) -> i64 {
        let now = self.service.now();
        let seed = self.service.config.seed;
        self.service.world_mut().directory.add_agent(first_name, last_name, team, now, seed)
    }

    /// Activates or deactivates an agent from now on; false where there is none with that id.
    pub fn set_agent_active(&self, agent: i64, active: bool) -> bool {
        let now = self.service.now();
        self.service.world_mut().directory.change_agent(agent, now, |version| version.active = active)
    }

    /// Renames an agent from now on; false where there is none with that id.
    pub fn rename_agent(&self, agent: i64, first_name: &str, last_name: &str) -> bool {
        let now = self.service.now();
        self.service.world_mut().directory.change_agent(agent, now, |version| {
            version.first_name = first_name.to_owned();
            version.last_name = last_name.to_owned();
        })
    }

    /// Moves an agent to another team from now on; false where there is none with that id.
    pub fn set_agent_team(&self, agent: i64, team: i64) -> bool {
        let now = self.service.now();
        self.service.world_mut().directory.change_agent(agent, now, |version| version.team = team)
    }

    /// Logs an agent in or out of the ACD: a session can be joined only while the agent is logged in.
    pub fn set_logged_in(&self, agent: i64, logged_in: bool) {
        self.service.set_logged_in(agent, logged_in);
    }

    /// Takes every access token out of force. While [`Faults::keys_refused`] is 1, no new one is given.
    pub fn revoke_tokens(&self) {
        self.service.tokens.revoke_all();
    }

    /// Every voice leg an agent took or will take, with what an importer of legs must end with. Generates and hashes
    /// each recording the first time.
    pub fn truth(&self) -> Vec<TruthLeg> {
        let now = self.service.now();
        truth::hashed(truth::legs(&self.service, None, now), &self.service.hashes, now)
    }

    /// The same of the legs that began in a range, end excluded: after a month of days the last one is told as fast as the
    /// first.
    pub fn truth_of(&self, begun: Range<Timestamp>) -> Vec<TruthLeg> {
        let now = self.service.now();
        let begun = begun.start.as_millisecond()..begun.end.as_millisecond();
        truth::hashed(truth::legs(&self.service, Some(begun), now), &self.service.hashes, now)
    }

    /// Answers so far, by endpoint and status.
    pub fn requests(&self) -> BTreeMap<String, BTreeMap<u16, u64>> {
        self.service.counters.answers()
    }

    /// Answers of one endpoint so far.
    pub fn requests_to(&self, endpoint: &str) -> u64 {
        self.requests().get(endpoint).map_or(0, |by_status| by_status.values().sum())
    }

    /// Tokens asked for so far, by any flow.
    pub fn token_requests(&self) -> u64 {
        ["token", "access-key-token", "refresh"].iter().map(|endpoint| self.requests_to(endpoint)).sum()
    }

    /// Answers with 429 so far.
    pub fn throttled(&self) -> u64 {
        self.requests().values().filter_map(|by_status| by_status.get(&429)).sum()
    }

    /// The most requests to media playback, refused ones included, that any window of the configured length has held.
    pub fn playback_peak(&self) -> usize {
        self.service.counters.playback_peak()
    }

    /// Bytes of media handed to sockets so far.
    pub fn media_bytes(&self) -> u64 {
        self.service.counters.media_bytes()
    }

    /// What clients did that they must never do.
    pub fn violations(&self) -> Vec<String> {
        self.service.counters.violations()
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Serves until stopped; the listener's token ends the connections, this one the accepting.
fn serve(listener: SimListener, app: Router) -> JoinHandle<()> {
    let stop = listener.stop.clone();
    let server = axum::serve(listener, app.into_make_service_with_connect_info::<Line>());
    tokio::spawn(async move {
        tokio::select! {
            _ = server => {}
            () = stop.cancelled() => {}
        }
    })
}
