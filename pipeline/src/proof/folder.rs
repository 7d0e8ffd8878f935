//! The signed days of a tenant: a file for each, in a folder of its own.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use model::TenantId;
use runtime::crash;
use rustix::fs::{FlockOperation, flock};

use super::chain::{ChainExpectation, ProofChain};
use super::day::{DayContent, DayGap, ReadDay, hash};
use super::files::{day_of, files, read};
use super::key::ProofKey;

/// The longest reason of a gap.
const LONGEST_REASON: usize = 200;

/// The folder of a tenant.
pub(crate) struct ProofFolder {
    path: PathBuf,
}

/// What signing a day has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SignOutcome {
    /// A new file with this hash.
    Signed(String),
    /// A file that says the same was there.
    Kept(String),
}

impl ProofFolder {
    /// The folder of a tenant below the directory of the settings.
    pub(crate) fn of(dir: &Path, tenant: &TenantId) -> Self {
        Self { path: dir.join(tenant.as_str()) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The newest day that has a file.
    pub(crate) fn newest(&self) -> Result<Option<Date>, String> {
        match self.path.exists() {
            true => Ok(files(&self.path)?.last().and_then(|file| day_of(file))),
            false => Ok(None),
        }
    }

    /// Every file, whoever has signed it: a chain may go on with a new key, and `verify` says whether each file was signed
    /// with one that was allowed. No fault where there is no file yet.
    pub(crate) fn chain(&self) -> Result<ProofChain, String> {
        if self.newest()?.is_none() {
            return Ok(ProofChain::default());
        }
        let signed_with = ProofChain::keys(&self.path)?;
        ProofChain::of(&self.path, &ChainExpectation { public_keys: signed_with, hashes: Vec::new() })
    }

    /// Adds a day behind the newest one. One that is there is never written over: it must say the same. Days without a
    /// file before it need a reason, which is written down with them.
    pub(crate) fn sign(
        &self,
        mut content: DayContent,
        key: &ProofKey,
        gap: Option<&str>,
    ) -> Result<SignOutcome, String> {
        let cannot = |error: std::io::Error| format!("{}: {error}", self.path.display());
        std::fs::create_dir_all(&self.path).map_err(cannot)?;
        let folder = File::open(&self.path).map_err(cannot)?;
        // One at a time, so that two never follow the same file.
        flock(&folder, FlockOperation::LockExclusive).map_err(|error| cannot(error.into()))?;
        let file = self.path.join(format!("{}.json", content.day));
        if file.exists() {
            let bytes = read(&file)?;
            let there = ReadDay::of(&bytes).map_err(|why| format!("{}: {why}", file.display()))?;
            return match there.content.says_the_same(&content) {
                true => Ok(SignOutcome::Kept(hash(&bytes))),
                false => Err(format!(
                    "{} was signed at {:.0} and says something else; a signed day is never changed",
                    content.day, there.content.made_at
                )),
            };
        }
        let chain = self.chain()?;
        if let Some(newest) = chain.days.last() {
            if let Some(fault) = chain.fault {
                return Err(format!("{}: {}; nothing is added to a broken chain", fault.file, fault.why));
            }
            content.gap = gap_before(newest.day, content.day, gap)?;
            content.previous = Some(newest.hash.clone());
        }
        let bytes = content.sign(key);
        // What `verify` would refuse is not written.
        ReadDay::of(&bytes).map_err(|why| format!("the new file would be wrong: {why}"))?;
        // Behind a dot: no name of a day, so no part of the chain until it is whole.
        let beside = self.path.join(format!(".{}", file.file_name().unwrap_or_default().to_string_lossy()));
        let written = || {
            let mut new = OpenOptions::new().write(true).create(true).truncate(true).open(&beside)?;
            new.write_all(&bytes)?;
            new.sync_all()?;
            crash::point("signed_day_written");
            std::fs::rename(&beside, &file)?;
            crash::point("signed_day_moved");
            folder.sync_all()
        };
        written().map_err(cannot)?;
        Ok(SignOutcome::Signed(hash(&bytes)))
    }
}

/// The days between two files, with the reason that was given.
fn gap_before(newest: Date, day: Date, reason: Option<&str>) -> Result<Option<DayGap>, String> {
    if day < newest {
        return Err(format!("{day} lies before {newest}, the newest signed day; a chain only grows at its end"));
    }
    let (Ok(from), Ok(to)) = (newest.tomorrow(), day.yesterday()) else { return Ok(None) };
    if from > to {
        return Ok(None);
    }
    let Some(reason) = reason else {
        return Err(format!("{from} to {to} have no file; sign them first, or say with --gap why there is none"));
    };
    if reason.trim().is_empty() || reason.len() > LONGEST_REASON || reason.contains(char::is_control) {
        return Err(format!("--gap: the reason is a line of 1 to {LONGEST_REASON} bytes"));
    }
    Ok(Some(DayGap { from, reason: reason.to_owned(), to }))
}
