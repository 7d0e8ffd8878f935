//! What a test sees of a bed while its services work.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt;
use serde_json::Value;

use super::bed::{Role, ServerBed};
use crate::harness::{PATIENCE, tail};

impl ServerBed {
    /// How often `acme`'s NICE was asked for a recording.
    pub(crate) fn playbacks(&self) -> u64 {
        self.sim().requests_to("playback-contact") + self.sim().requests_to("playback-segment")
    }

    /// The queues of the bed with the messages that lie in each or are under way from it.
    pub(crate) async fn queues(&self) -> Vec<(String, u64)> {
        match self.is_on_fluvio() {
            true => self.backlog(),
            false => self.rabbitmq_queues().await,
        }
    }

    /// What `status` says of the queue: a topic keeps what was settled, and only the program tells it from the rest.
    pub(crate) fn backlog(&self) -> Vec<(String, u64)> {
        let asked = self.ended(Role::Both, &["status", "--json"]);
        // The cluster may be away.
        let Ok(status) = serde_json::from_str::<Value>(&asked.stdout) else { return vec![(asked.said(), 1)] };
        if status["not_asked"].as_array().is_some_and(|names| names.iter().any(|name| name == "backlog")) {
            return vec![("the queue does not answer".to_owned(), 1)];
        }
        let counts = status["backlog"].as_object().expect("status tells of the queue");
        counts.iter().map(|(place, count)| (place.clone(), count.as_u64().unwrap())).collect()
    }

    async fn rabbitmq_queues(&self) -> Vec<(String, u64)> {
        let listed = self.servers.rabbitmq().ctl(&["list_queues", "--no-table-headers", "name", "messages"]).await;
        let queue = |line: &str| {
            let (name, messages) = line.split_once(char::is_whitespace)?;
            let name = name.strip_prefix(&format!("{}.", self.prefix))?;
            Some((name.to_owned(), messages.trim().parse().ok()?))
        };
        listed.lines().filter_map(queue).collect()
    }

    /// Who reads which partition of Fluvio, and how far.
    async fn partitions(&self) -> String {
        let query =
            "select topic, number, owner, next_offset, begun, deaths, epoch from queue_partitions order by 1, 2";
        format!("{:?}\n{}", self.backlog(), self.psql(query).await)
    }

    /// Where the broker has messages, for whoever reads why a test failed. Those that are neither ready nor
    /// unacknowledged have left a delay step and are not confirmed by their lane yet.
    pub(crate) async fn broker(&self) -> String {
        if self.is_on_fluvio() {
            return self.partitions().await;
        }
        let list = ["list_queues", "name", "messages", "messages_ready", "messages_unacknowledged", "consumers"];
        let listing = self.servers.rabbitmq().ctl(&list);
        // A broker that does not answer is no reason to hide the logs.
        AssertUnwindSafe(listing).catch_unwind().await.unwrap_or_else(|_| "the broker lists no queues".to_owned())
    }

    /// The conversations of a tenant that are final: in a row or as a dead letter.
    pub(crate) async fn final_ids(&self, tenant: &str) -> Vec<i64> {
        let query = "select external_id from conversations where tenant_id = $1 and state <> 'metadata_saved'
                     union select conversation_id from dead_letters where tenant_id = $1 and conversation_id is not null";
        let rows = self.sql().await.query(query, &[&tenant]).await.unwrap();
        rows.iter().map(|row| row.get::<_, &str>(0).parse().unwrap()).collect()
    }

    /// The calls of the tenant's group that are not final yet.
    pub(crate) async fn unfinished(&self, tenant: &str) -> Vec<i64> {
        let done: BTreeSet<i64> = self.final_ids(tenant).await.into_iter().collect();
        let truth = self.sim_of(tenant).truth();
        let expected = truth.iter().filter(|leg| leg.in_group).map(|leg| leg.contact_id);
        expected.filter(|id| !done.contains(id)).collect()
    }

    /// Waits until every call of this tenant is final. How long that took.
    pub(crate) async fn finished(&self, tenant: &str) -> Duration {
        let begun = Instant::now();
        let (mut least, mut since) = (usize::MAX, begun);
        loop {
            let left = self.unfinished(tenant).await;
            if left.is_empty() {
                return begun.elapsed();
            }
            if left.len() < least {
                (least, since) = (left.len(), Instant::now());
            }
            if since.elapsed() > PATIENCE {
                panic!("{tenant}: nothing goes on, {left:?} are left\n{}\n{}", self.broker().await, self.tails());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until every call of every tenant is final and nothing lies in the queues. How long that took.
    pub(crate) async fn quiet(&self) -> Duration {
        let begun = Instant::now();
        for tenant in &self.tenants {
            self.finished(&tenant.id).await;
        }
        let final_since = Instant::now();
        loop {
            if self.queues().await.iter().all(|(_, messages)| *messages == 0) {
                return begun.elapsed();
            }
            if final_since.elapsed() > PATIENCE {
                panic!("all is final, but messages are left\n{}\n{}", self.broker().await, self.tails());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Every version of every object, as the store lists them.
    pub(crate) async fn versions(&self) -> String {
        let listing = self.servers.s3.request("GET", &format!("/{}?versions", self.bucket), Vec::new()).await;
        String::from_utf8(listing).unwrap()
    }

    /// Every table in which a conversation stands. Other legs of its call may name it as their master.
    pub(crate) async fn rows(&self, id: &str) -> String {
        let mut found = String::new();
        for (table, of_it) in [
            ("conversations", format!("t.external_id = '{id}'")),
            ("recordings", format!("t.object_key like '%/{id}/%'")),
            ("dead_letters", format!("t::text like '%{id}%'")),
            ("timeline", format!("t::text like '%{id}%'")),
            ("timeline_visits", format!("t::text like '%{id}%'")),
        ] {
            found.push_str(self.psql(&format!("select '{table} ' from {table} t where {of_it} limit 1")).await.trim());
        }
        found
    }

    /// How a conversation stands, as `trace` tells of it.
    pub(crate) fn state_of(&self, id: &str) -> Value {
        self.json(&["trace", id, "--json"])["state"].clone()
    }

    /// The last lines of every log.
    pub(crate) fn tails(&self) -> String {
        let mut text = String::new();
        for entry in std::fs::read_dir(self.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "log") {
                text += &format!("== {}\n{}\n", path.display(), tail(&path));
            }
        }
        text
    }
}
