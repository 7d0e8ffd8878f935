//! What an object may be written in place of, and whether the store heeds it.
//!
//! A store that heeds conditions decides itself, in the moment in which it writes. AWS and MinIO do; others only for a
//! PUT, or not at all, and take the header without a word. So the store is asked once, with a condition that cannot
//! hold. Where it does not heed one, the object is looked at just before: what another consumer writes between that
//! look and the write is not noticed. [`Conditions::caveat`] says so.

use super::dispatcher::Condition;
use super::error::{S3Error, S3ErrorKind};
use super::memory::Gathering;
use super::operation::Operation;
use super::{PROBE_KEY, S3Store};
use crate::CurrentObject;

/// An ETag that no object has.
const NO_OBJECTS: &str = "00000000000000000000000000000000-0";

/// What the store does about the condition of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heed {
    /// It keeps to it.
    Keeps,
    /// It writes all the same.
    Ignores,
    /// It refuses a request that has one.
    Refuses,
}

/// The same, of both ways to write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conditions {
    /// Of a PUT.
    pub(super) put: Heed,
    /// Of the completion of an upload in parts.
    pub(super) complete: Heed,
}

impl Conditions {
    /// What is left to chance.
    pub(super) fn caveat(&self) -> Option<String> {
        let ways = [(self.put, "PutObject"), (self.complete, "CompleteMultipartUpload")];
        let ways: Vec<_> = ways.iter().filter(|(heed, _)| *heed != Heed::Keeps).map(|(_, way)| *way).collect();
        (!ways.is_empty()).then(|| {
            format!(
                "the store does not heed If-Match of {}: it is looked at just before instead, and two consumers that \
                 store one call within the same moment are not told apart; `verify` finds what differs",
                ways.join(" and ")
            )
        })
    }
}

impl S3Store {
    /// What lies under a key.
    pub(super) async fn found(&self, key: &str) -> Result<CurrentObject, S3Error> {
        let Some(object) = self.head(key).await? else { return Ok(CurrentObject::Nothing) };
        let tag = object.e_tag.as_deref().map(|tag| tag.trim_matches('"')).filter(|tag| !tag.is_empty());
        let missing = || S3Error::new(Operation::Head, S3ErrorKind::Unsaid, "the answer names no ETag");
        tag.map(|tag| CurrentObject::Object(tag.to_owned())).ok_or_else(missing)
    }

    /// What the store does about conditions; asked once.
    pub(super) async fn conditions(&self) -> Result<Conditions, S3Error> {
        let ask = async || {
            let conditions = Conditions { put: self.heeds_of_put().await?, complete: self.heeds_of_complete().await? };
            if [conditions.put, conditions.complete].contains(&Heed::Ignores)
                && let Err(failure) = self.erase_objects(PROBE_KEY).await
            {
                tracing::debug!(error = %failure, "what the store wrote to find it out stays; it is empty");
            }
            tracing::trace!("what the recording store does about conditions: {conditions:?}");
            Ok(conditions)
        };
        self.conditions.get_or_try_init(ask).await.copied()
    }

    /// The condition to put under, after a look at what lies there where the store does not heed it.
    pub(super) async fn before_put(
        &self,
        key: &str,
        found: Option<&CurrentObject>,
    ) -> Result<Option<Condition>, S3Error> {
        let Some(found) = found else { return Ok(None) };
        self.before(key, found, self.conditions().await?.put).await
    }

    /// The same for the completion of an upload.
    pub(super) async fn before_complete(
        &self,
        key: &str,
        found: Option<&CurrentObject>,
    ) -> Result<Option<Condition>, S3Error> {
        let Some(found) = found else { return Ok(None) };
        self.before(key, found, self.conditions().await?.complete).await
    }

    async fn before(&self, key: &str, found: &CurrentObject, heed: Heed) -> Result<Option<Condition>, S3Error> {
        if heed != Heed::Keeps && self.found(key).await? != *found {
            return Err(S3Error::new(
                Operation::Head,
                S3ErrorKind::Conflict,
                "another recording was stored there meanwhile",
            ));
        }
        Ok((heed != Heed::Refuses).then(|| match found {
            CurrentObject::Nothing => Condition::Nothing,
            CurrentObject::Object(tag) => Condition::ETag(tag.clone()),
        }))
    }

    async fn heeds_of_put(&self) -> Result<Heed, S3Error> {
        let mut heed = Heed::Ignores;
        // A store may heed it only where there is an object: a first one that was written is the second one's.
        for _ in 0..2 {
            let part = Gathering::new(&self.memory).finish(true);
            let condition = Some(Condition::ETag(NO_OBJECTS.to_owned()));
            heed = heed_of(self.put_whole(PROBE_KEY, PROBE_TYPE, &part, "", condition).await.map(drop))?;
            if heed != Heed::Ignores {
                break;
            }
        }
        Ok(heed)
    }

    async fn heeds_of_complete(&self) -> Result<Heed, S3Error> {
        let mut heed = Heed::Ignores;
        for _ in 0..2 {
            let upload = self.create_upload(PROBE_KEY, PROBE_TYPE).await?;
            let mut part = Gathering::new(&self.memory);
            part.add(b"check").await;
            let part = self.send_part(&upload, 1, part.finish(true)).await?;
            let condition = Some(Condition::ETag(NO_OBJECTS.to_owned()));
            let completed = self.put_together(&upload, 5, &[part], condition).await;
            match completed {
                Ok(()) => self.end(upload).await,
                Err(_) => self.abort(upload).await,
            }
            heed = heed_of(completed)?;
            if heed != Heed::Ignores {
                break;
            }
        }
        Ok(heed)
    }
}

/// The media type of what is written to find something out.
const PROBE_TYPE: &str = "application/octet-stream";

fn heed_of(written: Result<(), S3Error>) -> Result<Heed, S3Error> {
    match written {
        Ok(()) => Ok(Heed::Ignores),
        Err(failure) => match failure.kind {
            S3ErrorKind::Conflict | S3ErrorKind::Missing => Ok(Heed::Keeps),
            S3ErrorKind::Unable | S3ErrorKind::Rejected => Ok(Heed::Refuses),
            // The rights may end with the keys of recordings.
            S3ErrorKind::Refused => Ok(Heed::Ignores),
            S3ErrorKind::Busy | S3ErrorKind::NoUpload | S3ErrorKind::Unsaid => Err(failure),
        },
    }
}
