//! Whatever is changed in a folder of signed days, its check finds it.

use jiff::{Timestamp, civil::Date};
use stages::completeness::{CallCounts, Completeness, Day, Exception};
use tempfile::TempDir;

use super::chain::{ChainExpectation, ProofChain};
use super::day::{DayContent, ReadDay};
use super::folder::{ProofFolder, SignOutcome};
use super::key::ProofKey;

fn date(day: i8) -> Date {
    jiff::civil::date(2026, 4, day)
}

/// A day with so many ready calls, and a dead one.
fn report(day: i8, ready: u64) -> Completeness {
    let counted = CallCounts { ended: ready + 1, ready, dead: 1, ..CallCounts::default() };
    let at: Timestamp = "2026-05-01T02:00:00Z".parse().unwrap();
    let from = date(day).to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp();
    Completeness {
        tenant: "acme".parse().unwrap(),
        from,
        to: from + jiff::SignedDuration::from_hours(24),
        at,
        days: vec![Day { day: date(day), counted }],
        total: counted,
        exceptions: vec![Exception {
            conversation_id: model::ContactId::from_number(698_800_000_000 + u64::try_from(day).unwrap()).unwrap(),
            ended_at: Some(from + jiff::SignedDuration::from_hours(1)),
            what: "dead".to_owned(),
            reason: "a reason that may name anything".to_owned(),
        }],
        exceptions_left_out: 0,
        unreadable: 0,
        doubtful: 0,
        doubt: None,
    }
}

fn key(seed: u8) -> ProofKey {
    ProofKey::of(&[seed; 32])
}

/// A folder of five days, and how its check may find it.
struct Signed {
    dir: TempDir,
    folder: ProofFolder,
}

impl Signed {
    fn new() -> Self {
        let signed = Self::empty();
        for day in 1..=5 {
            signed.sign(day, 10).unwrap();
        }
        assert_eq!(signed.fault(), None);
        signed
    }

    fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = ProofFolder::of(dir.path(), &"acme".parse().unwrap());
        Self { dir, folder }
    }

    fn sign(&self, day: i8, ready: u64) -> Result<SignOutcome, String> {
        self.folder.sign(DayContent::of(&report(day, ready), date(day)), &key(1), None)
    }

    fn file(&self, day: i8) -> std::path::PathBuf {
        self.dir.path().join(format!("acme/2026-04-0{day}.json"))
    }

    fn bytes(&self, day: i8) -> Vec<u8> {
        std::fs::read(self.file(day)).unwrap()
    }

    fn write(&self, day: i8, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.file(day), bytes).unwrap();
    }

    fn chain(&self, expected: &ChainExpectation) -> ProofChain {
        ProofChain::of(self.folder.path(), expected).unwrap()
    }

    /// The first file that is wrong, and what is.
    fn fault(&self) -> Option<(String, String)> {
        self.chain(&ChainExpectation::default()).fault.map(|fault| (fault.file, fault.why))
    }

    /// Asserts that this file is the first that is wrong.
    fn is_wrong(&self, file: &str, why: &str) {
        let (found, because) = self.fault().expect("it is not noticed");
        assert!(found == file && because.contains(why), "{found}: {because}");
    }
}

#[test]
fn what_is_signed_is_verified_and_holds_ids_and_no_words() {
    let signed = Signed::new();
    let chain = signed.chain(&ChainExpectation::default());
    assert_eq!((chain.days.len(), chain.gaps.len(), chain.public_keys.len()), (5, 0, 1));
    assert!(chain.days.iter().all(|day| day.verified && day.ended == 11));
    let text = String::from_utf8(signed.bytes(3)).unwrap();
    assert!(text.contains("\"698800000003\"") && !text.contains("reason that"), "{text}");
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn every_byte_that_is_changed_is_noticed() {
    let signed = Signed::new();
    let whole = signed.bytes(3);
    for at in 0..whole.len() {
        for other in [whole[at] ^ 1, b' ', b'0', b'9', b'f'] {
            if other == whole[at] {
                continue;
            }
            let mut changed = whole.clone();
            changed[at] = other;
            assert!(ReadDay::of(&changed).is_err(), "byte {at} as {other}");
        }
    }
    for changed in [&whole[..whole.len() - 1], &[&whole[..], b"\n"].concat(), &[b" ", &whole[..]].concat(), b""] {
        assert!(ReadDay::of(changed).is_err());
    }
    signed.write(3, String::from_utf8(whole).unwrap().replace("\"ready\":10", "\"ready\":11"));
    signed.is_wrong("2026-04-03.json", "signature");
}

#[test]
fn files_that_are_dropped_swapped_or_made_anew_are_noticed() {
    let signed = Signed::new();
    std::fs::remove_file(signed.file(3)).unwrap();
    signed.is_wrong("2026-04-04.json", "the file before it is not there");

    let signed = Signed::new();
    std::fs::remove_file(signed.file(1)).unwrap();
    signed.is_wrong("2026-04-02.json", "the file before it is not there");

    let signed = Signed::new();
    let (second, third) = (signed.bytes(2), signed.bytes(3));
    signed.write(2, third);
    signed.write(3, second);
    signed.is_wrong("2026-04-02.json", "its name says another day");

    // Signed with the right key, by somebody who has the key: the link of the next file does not fit.
    let signed = Signed::new();
    let other = Signed::empty();
    (1..=2).for_each(|day| drop(other.sign(day, 10).unwrap()));
    other.sign(3, 99).unwrap();
    signed.write(3, other.bytes(3));
    signed.is_wrong("2026-04-04.json", "was changed");
}

#[test]
fn a_newest_file_that_is_cut_off_is_noticed_by_its_published_hash() {
    let signed = Signed::new();
    let published = signed.chain(&ChainExpectation::default()).days[4].hash.clone();
    let expected = ChainExpectation { hashes: vec![published.to_uppercase()], ..ChainExpectation::default() };
    assert_eq!(signed.chain(&expected).fault, None);
    std::fs::remove_file(signed.file(5)).unwrap();
    assert_eq!(signed.fault(), None, "the folder alone cannot tell");
    assert!(signed.chain(&expected).fault.is_some_and(|fault| fault.why.contains(&published.to_uppercase())));
}

#[test]
fn another_key_is_noticed() {
    let signed = Signed::new();
    let content = DayContent::of(&report(6, 10), date(6));
    signed.folder.sign(content, &key(2), None).unwrap();
    signed.is_wrong("2026-04-06.json", "another key");
    // What comes after a key was replaced is whole, and who looks is told since when.
    let content = DayContent::of(&report(7, 10), date(7));
    signed.folder.sign(content, &key(2), None).unwrap();
    let chain = signed.folder.chain().unwrap();
    assert_eq!(chain.fault, None);
    assert!(chain.days.iter().all(|day| day.verified && day.linked), "{chain:#?}");
    assert_eq!(chain.key_changes().map(|day| day.day).collect::<Vec<_>>(), [date(6)]);
    // A change of the key is allowed by whoever checks.
    let both = ChainExpectation { public_keys: vec![key(1).public(), key(2).public()], ..ChainExpectation::default() };
    assert_eq!(signed.chain(&both).fault, None);
    let foreign = ChainExpectation { public_keys: vec![key(3).public()], ..ChainExpectation::default() };
    assert_eq!(signed.chain(&foreign).fault.unwrap().file, "2026-04-01.json");
    // A whole folder by another key is right in itself, and that is why an auditor names the key.
    assert!(
        signed
            .chain(&ChainExpectation { public_keys: vec![key(2).public()], ..ChainExpectation::default() })
            .fault
            .is_some()
    );
}

#[test]
fn a_folder_without_a_day_is_no_broken_chain() {
    let none = Signed::empty();
    assert_eq!(none.folder.chain().unwrap(), ProofChain::default());
    std::fs::create_dir_all(none.folder.path()).unwrap();
    assert_eq!(none.folder.chain().unwrap(), ProofChain::default());
}

#[test]
fn a_day_is_signed_once_and_never_changed() {
    let signed = Signed::new();
    let before = signed.bytes(5);
    assert!(matches!(signed.sign(5, 10), Ok(SignOutcome::Kept(_))));
    assert!(signed.sign(5, 11).unwrap_err().contains("never changed"));
    assert!(signed.sign(3, 10).is_ok(), "it says the same");
    assert_eq!(signed.bytes(5), before);
    // A chain grows at its end only.
    std::fs::remove_file(signed.file(1)).unwrap();
    assert!(signed.sign(1, 10).unwrap_err().contains("2026-04-02.json"), "and not behind a broken one");
}

#[test]
fn days_without_a_file_need_a_reason_that_is_written_down() {
    let signed = Signed::new();
    let content = || DayContent::of(&report(9, 10), date(9));
    let refused = signed.folder.sign(content(), &key(1), None).unwrap_err();
    assert!(refused.contains("2026-04-06 to 2026-04-08"), "{refused}");
    for reason in ["", "two\nlines", &"x".repeat(201)] {
        assert!(signed.folder.sign(content(), &key(1), Some(reason)).is_err());
    }
    signed.folder.sign(content(), &key(1), Some("the server was moved")).unwrap();
    let chain = signed.chain(&ChainExpectation::default());
    assert_eq!(chain.fault, None);
    assert_eq!(chain.gaps, ["2026-04-06 to 2026-04-08: the server was moved"]);
}

#[test]
fn what_a_crash_leaves_is_no_part_of_the_chain() {
    let signed = Signed::new();
    let half = signed.dir.path().join("acme/.2026-04-06.json");
    std::fs::write(&half, b"{\"content\":{\"bal").unwrap();
    assert_eq!(signed.fault(), None);
    assert!(matches!(signed.sign(6, 10), Ok(SignOutcome::Signed(_))));
    assert_eq!(signed.fault(), None);
    assert!(!half.exists());
}

#[test]
fn a_balance_that_does_not_add_up_is_noticed_though_it_is_signed() {
    let signed = Signed::new();
    let wrong = |change: fn(&mut Completeness)| {
        let mut report = report(6, 10);
        change(&mut report);
        ReadDay::of(&DayContent::of(&report, date(6)).sign(&key(1))).unwrap_err()
    };
    assert!(wrong(|report| report.days[0].counted.ended += 1).contains("does not add up"));
    assert!(wrong(|report| report.days[0].counted.incomplete = 11).contains("lack recordings"));
    assert!(wrong(|report| report.exceptions.clear()).contains("1 exceptions are not named"));
    assert!(wrong(|report| report.exceptions[0].what = "missing".to_owned()).contains("are named as missing"));
    assert!(wrong(|report| report.exceptions[0].what = "lost".to_owned()).contains("no kind"));
    drop(signed);
}

#[test]
fn a_key_is_made_once_and_only_its_owner_reads_it() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("proof.key");
    let public = ProofKey::generate(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(ProofKey::read(&file).unwrap().public(), public);
    let before = std::fs::read(&file).unwrap();
    assert!(ProofKey::generate(&file).unwrap_err().message().contains("never written over"));
    assert_eq!(std::fs::read(&file).unwrap(), before);
    assert!(!String::from_utf8(before).unwrap().contains(&public));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// What sign wrote is accepted, whatever the days hold; with any byte of any file changed, it is not.
    #[test]
    fn verify_accepts_exactly_what_sign_wrote(
        days in proptest::collection::vec((0_u64..1_000_000, 0_u64..50), 1..5),
        at in proptest::prelude::any::<proptest::sample::Index>(),
        of in proptest::prelude::any::<proptest::sample::Index>(),
        flip in 1_u8..=255,
    ) {
        let signed = Signed::empty();
        for (number, (ready, unreadable)) in days.iter().enumerate() {
            let day = i8::try_from(number + 1).unwrap();
            let report = Completeness { unreadable: *unreadable, ..report(day, *ready) };
            signed.folder.sign(DayContent::of(&report, date(day)), &key(1), None).unwrap();
        }
        proptest::prop_assert_eq!(signed.fault(), None);
        let day = i8::try_from(of.index(days.len()) + 1).unwrap();
        let mut bytes = signed.bytes(day);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        signed.write(day, bytes);
        proptest::prop_assert!(signed.fault().is_some());
    }
}
