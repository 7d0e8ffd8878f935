//! Those who look at a service while it works: a collector of traces, a Prometheus, and somebody with the page open.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Between two scrapes: three times as often as Prometheus does it unless told otherwise.
const SCRAPE_EVERY: Duration = Duration::from_secs(5);

/// All that looks at one program. They stop looking when it is dropped.
pub(crate) struct Watcher {
    collector: SocketAddr,
    received: Arc<AtomicU64>,
    looks: JoinSet<()>,
}

impl Watcher {
    /// Starts the collector.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (collector, received) = (listener.local_addr()?, Arc::new(AtomicU64::new(0)));
        let router = Router::new().route("/v1/traces", post(receive)).with_state(Arc::clone(&received));
        let mut looks = JoinSet::new();
        looks.spawn(async move { drop(axum::serve(listener, router).await) });
        Ok(Self { collector, received, looks })
    }

    /// The root of the collector.
    pub(crate) fn collector(&self) -> String {
        format!("http://{}", self.collector)
    }

    /// Looks at the service with this admin address from now on.
    pub(crate) fn look_at(&mut self, admin: SocketAddr) -> anyhow::Result<()> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let scraper = client.clone();
        self.looks.spawn(async move {
            loop {
                if let Ok(answer) = scraper.get(format!("http://{admin}/metrics")).send().await {
                    drop(answer.bytes().await);
                }
                tokio::time::sleep(SCRAPE_EVERY).await;
            }
        });
        self.looks.spawn(async move {
            // The feed ends with the service, and when it was open for ten minutes.
            while let Ok(mut feed) = client.get(format!("http://{admin}/live/now")).send().await {
                while let Ok(Some(_)) = feed.chunk().await {}
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        Ok(())
    }

    /// An error where no trace came: then something else was measured.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(self.received.load(Ordering::Relaxed) > 0, "the collector has received nothing");
        Ok(())
    }
}

async fn receive(State(received): State<Arc<AtomicU64>>, body: axum::body::Bytes) {
    received.fetch_add(body.len() as u64, Ordering::Relaxed);
}
