//! What a signed file holds: one form and no other, so that its hash and its signature mean one thing.
//!
//! The form is JSON by RFC 8785: keys in order, no spaces, whole numbers and texts; one line. A file in another form is
//! refused, even if it says the same.

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use model::{ContactId, TenantId};
use ring::{digest, signature};
use serde::{Deserialize, Serialize};
use stages::completeness::{CallCounts, Completeness};

use super::key::ProofKey;

/// The version of the form.
const SCHEMA: u64 = 1;

/// What is signed begins with this, so that a signature of ours is none of anything else.
const SIGNED_AS: &[u8] = b"nice-knovvu.proof.1\n";

/// What a day says of itself. The fields stand in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DayContent {
    pub(crate) balance: DayBalance,
    /// The UTC day on which the calls ended.
    pub(crate) day: Date,
    /// Slices of NICE's list that did not add up.
    pub(crate) doubtful: u64,
    pub(crate) exceptions: Vec<DayException>,
    /// Exceptions that are counted and not named.
    pub(crate) exceptions_left_out: u64,
    /// The days without a file before this one.
    pub(crate) gap: Option<DayGap>,
    pub(crate) made_at: Timestamp,
    /// The SHA-256 of the file before; none in the first one.
    pub(crate) previous: Option<String>,
    schema: u64,
    pub(crate) tenant: TenantId,
    /// Listed rows that cannot be read as calls.
    pub(crate) unreadable: u64,
}

/// How many calls, by what had become of them when the file was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DayBalance {
    pub(crate) dead: u64,
    pub(crate) ended: u64,
    pub(crate) excluded: u64,
    pub(crate) in_flight: u64,
    /// Of the ready ones: those that lack recordings.
    pub(crate) incomplete: u64,
    pub(crate) missing: u64,
    pub(crate) no_recording: u64,
    pub(crate) not_looked_for_yet: u64,
    pub(crate) ready: u64,
}

/// A call that is neither ready nor without a recording, or that lacks recordings: its id, and no word more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DayException {
    pub(crate) conversation_id: ContactId,
    pub(crate) ended_at: Option<Timestamp>,
    pub(crate) what: String,
}

/// Days for which there is no file, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DayGap {
    pub(crate) from: Date,
    pub(crate) reason: String,
    pub(crate) to: Date,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SignedDay {
    content: DayContent,
    public_key: String,
    signature: String,
}

/// A file that was read: its form and its signature are right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadDay {
    pub(crate) content: DayContent,
    /// Whose signature it is, in hex.
    pub(crate) public_key: String,
}

impl DayContent {
    /// What a report says of a day, with nothing before it yet.
    pub(crate) fn of(report: &Completeness, day: Date) -> Self {
        let counted = report.days.iter().find(|counted| counted.day == day).map(|day| day.counted).unwrap_or_default();
        let is_of_day = |ended_at: Timestamp| ended_at.to_zoned(TimeZone::UTC).date() == day;
        let exceptions = report.exceptions.iter().filter(|exception| exception.ended_at.is_none_or(is_of_day));
        Self {
            balance: counted.into(),
            day,
            doubtful: report.doubtful,
            exceptions: exceptions
                .map(|exception| DayException {
                    conversation_id: exception.conversation_id,
                    ended_at: exception.ended_at,
                    what: exception.what.clone(),
                })
                .collect(),
            exceptions_left_out: report.exceptions_left_out,
            gap: None,
            made_at: report.at,
            previous: None,
            schema: SCHEMA,
            tenant: report.tenant.clone(),
            unreadable: report.unreadable,
        }
    }

    /// Whether it says the same of the day, whenever and after which file it was made.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        let bare =
            |content: &Self| Self { made_at: Timestamp::UNIX_EPOCH, previous: None, gap: None, ..content.clone() };
        bare(self) == bare(other)
    }

    /// The file, signed.
    pub(crate) fn sign(self, key: &ProofKey) -> Vec<u8> {
        let signature = key.sign(&to_be_signed(&self));
        let mut file = written(&SignedDay { content: self, public_key: key.public(), signature });
        file.push(b'\n');
        file
    }

    /// What does not add up.
    fn fault(&self) -> Option<String> {
        let DayBalance {
            dead,
            ended,
            excluded,
            in_flight,
            incomplete,
            missing,
            no_recording,
            not_looked_for_yet,
            ready,
        } = self.balance;
        let parts = [ready, no_recording, dead, in_flight, excluded, not_looked_for_yet, missing];
        if parts.iter().map(|part| u128::from(*part)).sum::<u128>() != u128::from(ended) {
            return Some(format!("the balance does not add up to the {ended} calls that ended"));
        }
        if incomplete > ready {
            return Some("more calls lack recordings than are ready".to_owned());
        }
        let counted = [
            ("recordings_missing", incomplete),
            ("dead", dead),
            ("in_flight", in_flight),
            ("excluded", excluded),
            ("not_looked_for_yet", not_looked_for_yet),
            ("missing", missing),
        ];
        let mut left_out: u128 = 0;
        for (what, count) in counted {
            let named = self.exceptions.iter().filter(|exception| exception.what == what).count() as u64;
            let Some(unnamed) = count.checked_sub(named) else {
                return Some(format!("{named} calls are named as {what}, and {count} are counted"));
            };
            left_out += u128::from(unnamed);
        }
        let is_known = |exception: &DayException| counted.iter().any(|(what, _)| *what == exception.what);
        if let Some(odd) = self.exceptions.iter().find(|exception| !is_known(exception)) {
            return Some(format!("{:?} is no kind of exception", odd.what));
        }
        (left_out != u128::from(self.exceptions_left_out))
            .then(|| format!("{left_out} exceptions are not named, and it says {}", self.exceptions_left_out))
    }
}

impl From<CallCounts> for DayBalance {
    fn from(counted: CallCounts) -> Self {
        Self {
            dead: counted.dead,
            ended: counted.ended,
            excluded: counted.excluded,
            in_flight: counted.in_flight,
            incomplete: counted.incomplete,
            missing: counted.missing,
            no_recording: counted.no_recording,
            not_looked_for_yet: counted.not_looked_for_yet,
            ready: counted.ready,
        }
    }
}

impl ReadDay {
    /// Reads a file, or says what is wrong with it by itself.
    pub(crate) fn of(file: &[u8]) -> Result<Self, String> {
        let read: SignedDay = serde_json::from_slice(file).map_err(|_| "it is no signed day".to_owned())?;
        let mut again = written(&read);
        again.push(b'\n');
        if again != file {
            return Err("it is not in the form in which it was signed".to_owned());
        }
        let SignedDay { content, public_key, signature } = read;
        if content.schema != SCHEMA {
            return Err(format!("its form is {}, and this version knows {SCHEMA}", content.schema));
        }
        let (key, signed) = (hex::decode(&public_key), hex::decode(&signature));
        let (Ok(key), Ok(signed)) = (key, signed) else { return Err("key or signature is not in hex".to_owned()) };
        signature::UnparsedPublicKey::new(&signature::ED25519, key)
            .verify(&to_be_signed(&content), &signed)
            .map_err(|_| "the signature is not that of its content".to_owned())?;
        match content.fault() {
            Some(fault) => Err(fault),
            None => Ok(Self { content, public_key }),
        }
    }
}

/// The SHA-256 of a file, in hex: what the next one names.
pub(crate) fn hash(file: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, file))
}

fn to_be_signed(content: &DayContent) -> Vec<u8> {
    [SIGNED_AS, &written(content)].concat()
}

fn written(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("texts and numbers are always JSON")
}
