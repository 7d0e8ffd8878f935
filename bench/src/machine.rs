//! What the machine could do at this moment: load, syncs a second, memory and disk in use.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

/// The load averages of the last 1, 5 and 15 minutes.
pub(crate) fn load_average() -> anyhow::Result<String> {
    let text = std::fs::read_to_string("/proc/loadavg").context("read /proc/loadavg")?;
    Ok(text.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
}

/// How many appends of one page, each followed by `fdatasync`, this disk does in a second.
pub(crate) fn syncs_per_second(dir: &Path) -> anyhow::Result<f64> {
    const SPAN: Duration = Duration::from_secs(1);
    let path = dir.join("sync-probe");
    let mut file = File::create(&path).context("create a probe file")?;
    let (begin, mut syncs) = (Instant::now(), 0);
    while begin.elapsed() < SPAN {
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        syncs += 1;
    }
    let elapsed = begin.elapsed().as_secs_f64();
    std::fs::remove_file(&path)?;
    Ok(f64::from(syncs) / elapsed)
}

/// The resident memory of this process in bytes.
pub(crate) fn resident_bytes() -> anyhow::Result<u64> {
    memory_bytes("VmRSS:")
}

/// The most resident memory that this process had since [`forget_peak`], in bytes.
pub(crate) fn peak_bytes() -> anyhow::Result<u64> {
    memory_bytes("VmHWM:")
}

/// Begins the peak anew.
pub(crate) fn forget_peak() -> anyhow::Result<()> {
    std::fs::write("/proc/self/clear_refs", "5").context("write /proc/self/clear_refs")
}

fn memory_bytes(name: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{name} is missing"))?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// The bytes that a directory takes on disk.
pub(crate) fn disk_bytes(dir: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}
