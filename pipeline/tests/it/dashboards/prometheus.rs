//! A Prometheus of the test's own.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{folder, read, text};
use crate::harness::{Daemon, PATIENCE, http_client, tail};

/// What an expression gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Is {
    Shown,
    Empty,
}

/// A Prometheus of the test's own, with the repository's settings; ends with the test.
pub(crate) struct Prometheus {
    child: Child,
    address: String,
    dir: tempfile::TempDir,
}

impl Prometheus {
    /// Starts it and waits until it has read the daemon often enough for a rate.
    pub(crate) async fn reading(daemon: &mut Daemon) -> Self {
        daemon.ready().await;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let config = settings(&daemon.admin_address());
        std::fs::write(dir.path().join("prometheus.yaml"), config).unwrap();
        std::fs::copy(folder().join("alerts.yaml"), dir.path().join("alerts.yaml")).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", dir.path().join("prometheus.yaml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--enable-feature=exemplar-storage")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus starts: ./test installs it");
        let prometheus = Self { child, address, dir };
        prometheus.until(r#"min(sum_over_time(up{job="nice-knovvu"}[1m])) >= 3"#, Is::Shown).await;
        prometheus
    }

    /// Waits until an expression gives something, or nothing: a busy machine may miss a scrape.
    pub(crate) async fn until(&self, expression: &str, wanted: Is) {
        let begun = Instant::now();
        loop {
            // Nothing while it starts.
            let answer = self.get("query", &[("query", expression)]).await.unwrap_or_default();
            assert_ne!(answer["status"], "error", "{expression}: {answer}");
            match answer["data"]["result"].as_array() {
                Some(series) if series.is_empty() == (wanted == Is::Empty) => return,
                _ => {}
            }
            let log = tail(&self.dir.path().join("log"));
            assert!(begun.elapsed() < PATIENCE, "never {wanted:?}: {expression}\n{answer}\n{log}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Every alert as Prometheus understands it.
    pub(crate) async fn alerts(&self) -> Vec<Value> {
        let answer = self.get("rules", &[("type", "alert")]).await.expect("prometheus answers");
        let groups = answer["data"]["groups"].as_array().expect("groups of rules");
        groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).cloned().collect()
    }

    /// The expression of an alert.
    pub(crate) async fn alert(&self, name: &str) -> String {
        let alerts = self.alerts().await;
        let alert = alerts.iter().find(|alert| alert["name"] == name).expect("the alert exists");
        text(alert, "query")
    }

    /// The ids of the traces to which the series of an expression lead, once there is one.
    pub(crate) async fn exemplars(&self, expression: &str) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let query = [("query", expression), ("start", "0"), ("end", "9999999999")];
            let answer = self.get("query_exemplars", &query).await.unwrap_or_default();
            let series = answer["data"].as_array().into_iter().flatten();
            let all = series.flat_map(|series| series["exemplars"].as_array().into_iter().flatten());
            let ids: Vec<_> = all.map(|exemplar| text(&exemplar["labels"], "trace_id")).collect();
            if !ids.is_empty() {
                return ids;
            }
            assert!(begun.elapsed() < PATIENCE, "no exemplar of {expression}: {answer}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// A question to its API; none while it does not answer.
    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Option<Value> {
        let client = http_client().timeout(Duration::from_secs(10)).build().ok()?;
        let answer = client.get(format!("http://{}/api/v1/{path}", self.address)).query(query).send().await.ok()?;
        serde_json::from_slice(&answer.bytes().await.ok()?).ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The repository's settings, with this target in place of all, and as often as a test can wait for.
fn settings(target: &str) -> String {
    let settings = read("prometheus.yaml").replace("interval: 15s", "interval: 1s");
    let usual = r#"["127.0.0.1:9464", "127.0.0.1:9471", "127.0.0.1:9472"]"#;
    assert!(settings.contains(usual), "these are no targets: {settings}");
    settings.replace(usual, &format!("[{target:?}]"))
}
