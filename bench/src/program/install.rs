//! The peers' dependencies, installed once with their own package managers, at the versions that `peers/` pins.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::bed::Common;

/// The peers' programs and pinned dependencies.
pub(super) const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

/// The virtual environment of the FastStream peer.
pub(super) fn python_home(common: &Common) -> PathBuf {
    common.peers_dir.join("faststream")
}

/// The folder of the Node peer.
pub(super) fn node_home(common: &Common) -> PathBuf {
    common.peers_dir.join("node")
}

/// Installs `peers/faststream/requirements.txt`.
pub(super) fn python(common: &Common) -> anyhow::Result<()> {
    let (home, pinned) = (python_home(common), Path::new(PEERS).join("faststream/requirements.txt"));
    once(&home, &pinned, || {
        let packages = "apt-get install python3 python3-venv";
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home), packages)?;
        run(Command::new(home.join("bin/pip")).args(["install", "--quiet", "--no-deps", "-r"]).arg(&pinned), packages)
    })
}

/// Installs `peers/node/package-lock.json`.
pub(super) fn node(common: &Common) -> anyhow::Result<()> {
    let (home, from) = (node_home(common), Path::new(PEERS).join("node"));
    std::fs::create_dir_all(&home)?;
    for file in ["package.json", "package-lock.json", "peer.js"] {
        std::fs::copy(from.join(file), home.join(file))?;
    }
    once(&home, &from.join("package-lock.json"), || {
        let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
        run(Command::new("npm").args(arguments).current_dir(&home), "apt-get install nodejs npm")
    })
}

/// Installs unless exactly these pinned versions were installed before.
fn once(home: &Path, pinned: &Path, install: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let (installed, wanted) = (home.join("installed"), std::fs::read(pinned)?);
    if std::fs::read(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    eprintln!("installing {} into {}", pinned.display(), home.display());
    install()?;
    Ok(std::fs::write(installed, wanted)?)
}

fn run(command: &mut Command, packages: &str) -> anyhow::Result<()> {
    let line = format!("{command:?}");
    let output = command.output().with_context(|| format!("{line}: is it installed? ({packages})"))?;
    ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
