//! `report` and its subcommands: what became of each call, as a table or as a signed file, and the check of such files.

use std::path::{Path, PathBuf};

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use runtime::Clock;
use serde::Serialize;

use crate::access::{Access, Load, answer};
use crate::cli::{ReportCommand, ReportOptions};
use crate::command_error::CommandError;
use crate::config::Config;
use crate::operations::SingleCommand;
use crate::operations::report::ShowReport;
use crate::output::AnswerForm;
use crate::proof::chain::{ChainExpectation, ProofChain, folders};
use crate::proof::day::DayContent;
use crate::proof::folder::{ProofFolder, SignOutcome};
use crate::proof::key::ProofKey;
use crate::proof::night::midnight;

/// `report`, with or without a subcommand.
pub(crate) async fn report(options: ReportOptions, load: Load<'_>) -> Result<(), CommandError> {
    match options.command {
        Some(ReportCommand::Keygen { file, form }) => {
            let made = GeneratedKey { public_key: ProofKey::generate(&file)? };
            form.print(&made, |made| format!("public key: {}", made.public_key));
            return Ok(());
        }
        Some(ReportCommand::Verify { dir, public_keys, hashes, form }) => {
            return verify(&dir, &ChainExpectation { public_keys, hashes }, form);
        }
        None => {}
    }
    let (Some(from), Some(to)) = (options.from, options.to) else {
        return Err(CommandError::usage("--from, --to: both are needed"));
    };
    match options.sign {
        false => answer(ShowReport { from, to }, options.form, load).await,
        true => sign(from, to, options.key_file, options.gap, options.form, load).await,
    }
}

/// A key that was made: its secret half is in the file.
#[derive(Debug, Serialize)]
struct GeneratedKey {
    public_key: String,
}

/// A day that was signed, or that was signed before and says the same.
#[derive(Debug, Serialize)]
struct SignedLine {
    day: Date,
    /// The SHA-256 of its file.
    hash: String,
    /// Whether the file is new.
    new: bool,
    missing: u64,
}

async fn sign(
    from: Timestamp,
    to: Timestamp,
    key_file: Option<PathBuf>,
    gap: Option<String>,
    form: AnswerForm,
    load: Load<'_>,
) -> Result<(), CommandError> {
    let days = whole_days(from, to, Clock::system().now())?;
    let config = load(ShowReport::NEED)?;
    let dir = config.proof.dir.clone();
    let dir = dir.ok_or_else(|| CommandError::usage("[proof] dir: missing, and --sign writes files there"))?;
    let key = key(key_file.as_deref(), &config)?;
    let access = Access::of(&config, ShowReport::WANTED).await?;
    let (mut signed, mut gap) = (Vec::new(), gap.as_deref());
    for day in days {
        let next = day.tomorrow().unwrap_or(Date::MAX);
        let report = access.ask(ShowReport { from: midnight(day), to: midnight(next) }).await?;
        let content = DayContent::of(&report, day);
        let missing = content.balance.missing;
        // The reason is of the gap before the first of them.
        let outcome = ProofFolder::of(&dir, &report.tenant).sign(content, &key, gap.take());
        let (hash, new) = match outcome.map_err(CommandError::failed)? {
            SignOutcome::Signed(hash) => (hash, true),
            SignOutcome::Kept(hash) => (hash, false),
        };
        signed.push(SignedLine { day, hash, new, missing });
    }
    access.close().await?;
    form.print(&signed, |signed| lines(signed));
    match signed.iter().map(|day| day.missing).sum() {
        0_u64 => Ok(()),
        missing => Err(CommandError::partly(format!("{missing} calls are missing"))),
    }
}

fn lines(signed: &[SignedLine]) -> String {
    let line = |SignedLine { day, hash, new, missing }: &SignedLine| {
        let what = if *new { "signed" } else { "was signed before, and says the same" };
        let missing = if *missing > 0 { format!(", {missing} calls missing") } else { String::new() };
        format!("{day} {what}{missing}\n  {hash}")
    };
    let mut lines: Vec<_> = signed.iter().map(line).collect();
    lines.push("keep the last hash where nobody of this machine can change it".to_owned());
    lines.join("\n")
}

fn key(file: Option<&Path>, config: &Config) -> Result<ProofKey, CommandError> {
    match (file, &config.proof.key) {
        (Some(file), _) => ProofKey::read(file),
        (None, Some(seed)) => Ok(ProofKey::of(seed.expose())),
        (None, None) => Err(CommandError::usage(
            "[proof] key_file: missing; name the file here or with --key-file, or make one with `nice-knovvu report \
             keygen FILE`",
        )),
    }
}

/// The UTC days of a range that is of whole days, and over.
fn whole_days(from: Timestamp, to: Timestamp, now: Timestamp) -> Result<Vec<Date>, CommandError> {
    let day = |time: Timestamp| time.to_zoned(TimeZone::UTC).date();
    let (first, end) = (day(from), day(to));
    if midnight(first) != from || midnight(end) != to || first >= end {
        return Err(CommandError::usage("--from, --to: a signed file is of a whole UTC day, so give two dates"));
    }
    if to > now {
        return Err(CommandError::usage(format!("--to: {end} has not begun; a day is signed when it is over")));
    }
    Ok(first.series(jiff::Span::new().days(1)).take_while(|day| *day < end).collect())
}

/// Checks every chain in a directory, its own or one in each folder.
fn verify(dir: &Path, expected: &ChainExpectation, form: AnswerForm) -> Result<(), CommandError> {
    let folders = folders(dir).map_err(CommandError::failed)?;
    if folders.is_empty() {
        return Err(CommandError::failed(format!("{}: it holds no signed day", dir.display())));
    }
    if folders.len() > 1 && !expected.hashes.is_empty() {
        return Err(CommandError::usage("--expect: a hash is of one tenant; name the folder of that tenant"));
    }
    let chains = folders.iter().map(|folder| ProofChain::of(folder, expected)).collect::<Result<Vec<_>, _>>();
    let chains = chains.map_err(CommandError::failed)?;
    form.print(&chains, |chains| chains.iter().map(ProofChain::table).collect::<Vec<_>>().join("\n\n"));
    let wrong = folders.iter().zip(&chains).find_map(|(folder, chain)| Some((folder, chain.fault.as_ref()?)));
    match wrong {
        None => Ok(()),
        Some((folder, fault)) => {
            Err(CommandError::failed(format!("{}: {}: {}", folder.display(), fault.file, fault.why)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_days_that_are_over_are_signed_and_nothing_else() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let days = |from: &str, to: &str| whole_days(at(from), at(to), at("2026-04-03T00:00:00Z"));
        let two = days("2026-04-01T00:00:00Z", "2026-04-03T00:00:00Z").unwrap();
        assert_eq!(two, [jiff::civil::date(2026, 4, 1), jiff::civil::date(2026, 4, 2)]);
        for (from, to) in [
            ("2026-04-01T00:00:01Z", "2026-04-02T00:00:00Z"),
            ("2026-04-01T00:00:00Z", "2026-04-01T12:00:00Z"),
            ("2026-04-01T00:00:00Z", "2026-04-01T00:00:00Z"),
            ("2026-04-02T00:00:00Z", "2026-04-01T00:00:00Z"),
            ("2026-04-02T00:00:00Z", "2026-04-04T00:00:00Z"),
        ] {
            assert!(days(from, to).is_err(), "{from} {to}");
        }
    }
}
