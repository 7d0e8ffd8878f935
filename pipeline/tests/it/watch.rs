//! What a test sees of a bed while its daemon works.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nice_sim::CallSpec;
use serde_json::Value;

use crate::harness::{Bed, Daemon, PATIENCE};

/// Adds calls, and waits until they are ready.
pub(crate) async fn bring_in(bed: &Bed, daemon: &mut Daemon, count: usize) -> Vec<i64> {
    let agents = bed.sim.group(1001);
    let ids: Vec<i64> = (0..count).map(|n| bed.sim.add_call(CallSpec::new(agents[n])).contact_ids[0]).collect();
    bed.ready(daemon, &ids).await;
    ids
}

/// Every file of a conversation in the recording store.
pub(crate) fn files(bed: &Bed, id: i64) -> Vec<PathBuf> {
    fn walk(folder: &Path, id: &str, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, id, found);
            } else if path.parent().and_then(Path::file_name).is_some_and(|name| name == id) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&bed.data().join("recordings"), &id.to_string(), &mut found);
    found
}

/// How a conversation stands, as `trace` tells of it.
pub(crate) fn state(bed: &Bed, id: i64) -> Value {
    bed.json(&["trace", &id.to_string(), "--json"])["state"].clone()
}

/// Waits until the dedupe has dropped so many found calls since the start, for they are known: erased, or there.
pub(crate) async fn dropped(daemon: &mut Daemon, times: u64) {
    let begun = Instant::now();
    loop {
        let (_, page) = daemon.get("/metrics").await.unwrap_or_default();
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix("nice_knovvu_stage_items_total{outcome=\"done\",stage=\"dedupe\"} "));
        if line.is_some_and(|count| count.parse::<u64>().unwrap() >= times) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "it does not come up again\n{}", daemon.logged());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The store does not open at the next start, as after a page was found unreadable.
pub(crate) fn damage(bed: &Bed) {
    std::fs::write(bed.data().join("sled/damaged"), "by a test").unwrap();
}
