//! Whether the files of a folder are whole: each signature, each link to the one before, no day without a file, and
//! each balance. It needs nothing but the files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use jiff::{Timestamp, civil::Date};
use model::TenantId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::day::{DayGap, ReadDay, hash};
use super::files::{day_of, files, read};

/// What is asked of a folder beside its own word.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChainExpectation {
    /// Who may have signed; empty: whoever signed the first file, and nobody else.
    pub(crate) public_keys: Vec<String>,
    /// Hashes that were published: the folder has a file of each.
    pub(crate) hashes: Vec<String>,
}

/// What a folder holds, and the first thing that is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ProofChain {
    /// Whose; none where no file can be read.
    pub(crate) tenant: Option<TenantId>,
    /// The days, the oldest first.
    pub(crate) days: Vec<ChainDay>,
    /// Days without a file, each with its reason.
    pub(crate) gaps: Vec<String>,
    /// Who has signed.
    pub(crate) public_keys: BTreeSet<String>,
    /// The first file that is wrong, and what is.
    pub(crate) fault: Option<ChainFault>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ChainDay {
    pub(crate) day: Date,
    /// The SHA-256 of the file.
    pub(crate) hash: String,
    /// When it was made; none where it cannot be read.
    pub(crate) made_at: Option<Timestamp>,
    pub(crate) ended: u64,
    pub(crate) missing: u64,
    /// The hash that it names of the file before; none in the first one, or where it cannot be read.
    #[serde(default)]
    pub(crate) previous: Option<String>,
    /// Who signed it; none where it cannot be read.
    #[serde(default)]
    pub(crate) public_key: Option<String>,
    /// Whether the file before is the one that it names.
    #[serde(default)]
    pub(crate) linked: bool,
    /// Whether it is right by itself and follows the one before.
    pub(crate) verified: bool,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct ChainFault {
    pub(crate) file: String,
    pub(crate) why: String,
}

impl ChainDay {
    /// A file of which only the name is known.
    fn unread(day: Date) -> Self {
        Self {
            day,
            hash: String::new(),
            made_at: None,
            ended: 0,
            missing: 0,
            previous: None,
            public_key: None,
            linked: false,
            verified: false,
        }
    }
}

impl ProofChain {
    /// Every key that the files of a folder name.
    pub(super) fn keys(folder: &Path) -> Result<Vec<String>, String> {
        let mut keys = BTreeSet::new();
        for file in files(folder)? {
            if let Ok(day) = ReadDay::of(&read(&file)?) {
                keys.insert(day.public_key);
            }
        }
        Ok(keys.into_iter().collect())
    }

    /// Reads every file of a folder.
    pub(crate) fn of(folder: &Path, expected: &ChainExpectation) -> Result<Self, String> {
        let mut chain = Self::default();
        let mut before: Option<(Date, String)> = None;
        for file in files(folder)? {
            let bytes = read(&file)?;
            let (day, hash) = (day_of(&file).expect("files are named by their day"), hash(&bytes));
            let mut entry = ChainDay { hash: hash.clone(), ..ChainDay::unread(day) };
            let right = ReadDay::of(&bytes).and_then(|read| {
                let balance = read.content.balance;
                (entry.made_at, entry.ended) = (Some(read.content.made_at), balance.ended);
                entry.missing = balance.missing;
                (entry.previous, entry.public_key) = (read.content.previous.clone(), Some(read.public_key.clone()));
                entry.linked = entry.previous.as_ref() == before.as_ref().map(|(_, hash)| hash);
                chain.follows(day, &read, before.as_ref(), expected)
            });
            match right {
                Ok(()) => entry.verified = true,
                Err(why) => chain.wrong(name(&file), why),
            }
            chain.days.push(entry);
            before = Some((day, hash));
        }
        if chain.days.is_empty() {
            chain.wrong(folder.display().to_string(), "it holds no signed day".to_owned());
        }
        for wanted in &expected.hashes {
            if !chain.days.iter().any(|day| day.hash.eq_ignore_ascii_case(wanted)) {
                chain.wrong("(missing)".to_owned(), format!("no file has the hash {wanted}"));
            }
        }
        Ok(chain)
    }

    /// The days from which on another key than before has signed.
    pub(crate) fn key_changes(&self) -> impl Iterator<Item = &ChainDay> {
        let signed = || self.days.iter().filter(|day| day.public_key.is_some());
        signed().zip(signed().skip(1)).filter(|(before, day)| before.public_key != day.public_key).map(|(_, day)| day)
    }

    /// Whether a file that is right by itself follows the one before.
    fn follows(
        &mut self,
        day: Date,
        read: &ReadDay,
        before: Option<&(Date, String)>,
        expected: &ChainExpectation,
    ) -> Result<(), String> {
        let ReadDay { content, public_key } = read;
        if content.day != day {
            return Err(format!("it is of {}, and its name says another day", content.day));
        }
        if *self.tenant.get_or_insert_with(|| content.tenant.clone()) != content.tenant {
            return Err(format!("it is of the tenant {}", content.tenant));
        }
        let is_allowed = match expected.public_keys.is_empty() {
            true => self.public_keys.is_empty() || self.public_keys.contains(public_key),
            false => expected.public_keys.iter().any(|key| key.eq_ignore_ascii_case(public_key)),
        };
        if !is_allowed {
            return Err(format!("it is signed with another key, {public_key}"));
        }
        self.public_keys.insert(public_key.clone());
        if content.previous.as_ref() != before.map(|(_, hash)| hash) {
            return Err(match &content.previous {
                Some(_) => "the file before it is not there, or was changed".to_owned(),
                None => "it says that it is the first, and is not".to_owned(),
            });
        }
        let skipped = before.and_then(|(before, _)| {
            let (from, to) = (before.tomorrow().ok()?, day.yesterday().ok()?);
            (from <= to).then_some((from, to))
        });
        match (&content.gap, skipped) {
            (None, None) => Ok(()),
            (Some(DayGap { from, reason, to }), Some(skipped)) if (*from, *to) == skipped => {
                self.gaps.push(format!("{from} to {to}: {reason}"));
                Ok(())
            }
            (_, Some((from, _))) => Err(format!("the day {from} is missing before it")),
            (Some(_), None) => Err("it names a gap where there is none".to_owned()),
        }
    }

    fn wrong(&mut self, file: String, why: String) {
        self.fault.get_or_insert(ChainFault { file, why });
    }

    /// What a person reads.
    pub(crate) fn table(&self) -> String {
        let mut lines = Vec::new();
        if let (Some(tenant), Some(first), Some(last)) = (&self.tenant, self.days.first(), self.days.last()) {
            lines.push(format!("{tenant}: {} signed days from {} to {}", self.days.len(), first.day, last.day));
            lines.extend(self.gaps.iter().map(|gap| format!("no file for {gap}")));
            lines.extend(self.public_keys.iter().map(|key| format!("signed with the key\n  {key}")));
            lines.push(format!("the newest file has the hash\n  {}", last.hash));
        }
        lines.push(match &self.fault {
            Some(ChainFault { file, why }) => format!("WRONG: {file}: {why}"),
            None => "every signature, link and balance is right, and no day is missing".to_owned(),
        });
        lines.join("\n")
    }
}

/// The folders of a directory that hold signed days: itself, or one for each tenant.
pub(crate) fn folders(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))? {
        let path = entry.map_err(|error| format!("{}: {error}", dir.display()))?.path();
        // Also one that is empty: its files may have been taken away.
        if path.is_dir() {
            folders.push(path);
        }
    }
    folders.sort();
    match (files(dir)?.is_empty(), folders.is_empty()) {
        (true, _) => Ok(folders),
        (false, true) => Ok(vec![dir.to_owned()]),
        (false, false) => Err(format!(
            "{}: it holds signed days and folders; name the folder of one tenant, or take the strange files out",
            dir.display()
        )),
    }
}

fn name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
