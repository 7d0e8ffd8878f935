//! The peers' dependencies, installed once with their own package managers, at the versions that `peers/` pins.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// The peers' programs and pinned dependencies.
pub(crate) const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers");

/// Installs `peers/NAME/requirements.txt` into a virtual environment; its Python.
pub(crate) fn python(peers_dir: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let (home, pinned) = (peers_dir.join(name), Path::new(PEERS).join(name).join("requirements.txt"));
    once(&home, &pinned, || {
        let packages = "apt-get install python3 python3-venv";
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home), packages)?;
        run(Command::new(home.join("bin/pip")).args(["install", "--quiet", "--no-deps", "-r"]).arg(&pinned), packages)
    })?;
    Ok(home.join("bin/python"))
}

/// Installs `peers/NAME/package-lock.json`; the program beside its modules.
pub(crate) fn node(peers_dir: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let (home, from) = (peers_dir.join(name), Path::new(PEERS).join(name));
    std::fs::create_dir_all(&home)?;
    for file in ["package.json", "package-lock.json", "peer.js"] {
        std::fs::copy(from.join(file), home.join(file))?;
    }
    once(&home, &from.join("package-lock.json"), || {
        let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
        run(Command::new("npm").args(arguments).current_dir(&home), "apt-get install nodejs npm")
    })?;
    Ok(home.join("peer.js"))
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
