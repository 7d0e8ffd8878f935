//! Uploads in parts that a crash left open: they take up room, and nobody sees them.
//!
//! An upload that nobody works on is told from one under way in another process by four rules.
//! - Whoever begins to upload a key aborts what else is open for it: a crashed call is delivered again, and its next
//!   delivery cleans up at once. Should two consumers work on one call after all, one of them fails and tries again.
//!   Spared is what has gone on for [`VERY_LONG`] and still goes on: the broker hands a call out again that takes so
//!   long, and if each delivery ended the one before, none would come to its end. Both store the same bytes.
//! - What this process gave up, dropped with its future, goes with the next sweep.
//! - What a process of this machine left, killed, goes with the next sweep of any: its [mark](super::marks) tells. So
//!   does what the store began without its answer reaching anybody, which may be begun late.
//! - What is left is found by listing the bucket, [some pages](super::walk) a sweep, and goes once it got no part for [`super::S3Options::stale_after`], by the clock of the store. A part
//!   that is sent takes minutes at most.
//!
//! Uploads under keys that are not ours are nobody's business here: the bucket may be shared.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use model::{ContactId, Extension, TenantId};
use rand::seq::IteratorRandom;
use runtime::{Clock, chance, task};
use rusoto_s3::{
    AbortMultipartUploadRequest, ListMultipartUploadsRequest, ListPartsRequest, MultipartUpload, Part, S3,
};

use super::error::{S3Error, S3ErrorKind};
use super::marks::UploadMark;
use super::operation::Operation;
use super::uploads::{ActiveUpload, UploadName};
use super::walk::Marker;
use super::{PROBE_KEY, S3Store};

/// An upload that is so old may have outlived the broker's patience with its consumer, half an hour where it is not
/// set otherwise.
const VERY_LONG: Duration = Duration::from_secs(20 * 60);

/// An upload that got a part within this time goes on: a part of a recording that arrives no faster than it was spoken
/// may take that long.
const GOES_ON: Duration = Duration::from_secs(300);

/// An upload gets its first part at once: it is at hand before the upload begins. One that has none after this time is
/// the work of a request whose answer nobody got.
const FIRST_PART: Duration = Duration::from_secs(60);

/// Marks that are looked at again in one sweep: each costs a request.
const MOST_MARKS: usize = 100;

/// Pages of a listing that are read at most, where what is under one key or of one conversation is listed.
const MOST_PAGES: usize = 10;

/// Pages that one sweep reads; the next one goes on after them.
const PAGES_OF_A_SWEEP: usize = 5;

/// Which uploads of a key stay.
#[derive(Debug, Clone, Copy)]
pub(super) enum Spared {
    /// None.
    None,
    /// Those that were begun so long ago and go on.
    Older(Duration),
    /// Those that have parts and go on.
    Begun,
}

/// Failures after which a sweep ends: the store may be down, and each takes as long as all its attempts.
const MOST_FAILURES: u32 = 20;

/// What a sweep has come to.
#[derive(Default)]
struct Swept {
    aborted: u64,
    failures: u32,
    first: Option<S3Error>,
}

impl Swept {
    fn add(&mut self, aborted: Result<u64, S3Error>) {
        match aborted {
            Ok(aborted) => self.aborted += aborted,
            Err(failure) => {
                self.failures += 1;
                self.first.get_or_insert(failure);
            }
        }
    }

    /// Whether so many failed that the rest is left to the next sweep.
    fn is_hopeless(&self) -> bool {
        self.failures >= MOST_FAILURES
    }

    fn told(self) -> Result<u64, S3Error> {
        self.first.map_or(Ok(self.aborted), Err)
    }
}

impl S3Store {
    /// Aborts the uploads that nobody works on, and counts them. One that fails does not hold up the others: the first
    /// failure is told at the end.
    pub(super) async fn abort_orphans(&self) -> Result<u64, S3Error> {
        let mut swept = Swept::default();
        let given_up = self.uploads.take_given_up().into_iter().map(|name| self.uploads.begin(name, None));
        // Where one fails, it is dropped, and so given up again.
        for upload in given_up.collect::<Vec<_>>() {
            if swept.is_hopeless() {
                break;
            }
            let ended = self.abort_named(upload.name()).await;
            if ended.is_ok() {
                upload.end();
            }
            swept.add(ended.map(|()| 1));
        }
        self.abort_marked(&mut swept).await;
        for _ in 0..PAGES_OF_A_SWEEP {
            if swept.is_hopeless() {
                break;
            }
            let (prefix, after) = self.walk.next();
            let page = self.page_of_uploads(&prefix, after).await;
            // A listing that fails does not hold up that of the next tenant.
            let goes_on = self.walk.read(page.as_ref().ok().and_then(|(_, next)| next.clone()));
            let uploads = match page {
                Ok((uploads, _)) => uploads,
                Err(failure) => {
                    swept.add(Err(failure));
                    break;
                }
            };
            for upload in uploads {
                swept.add(self.abort_stale(&upload).await);
            }
            if !goes_on {
                break;
            }
        }
        swept.told()
    }

    async fn abort_stale(&self, upload: &ListedUpload) -> Result<u64, S3Error> {
        let after = self.options.stale_after;
        if !is_ours(&upload.name.key) || self.is_under_way(upload) || !self.is_stale(upload, after, after).await? {
            return Ok(0);
        }
        self.abort_named(&upload.name).await?;
        Ok(1)
    }

    /// Aborts what processes of this machine left that are gone.
    async fn abort_marked(&self, swept: &mut Swept) {
        let Some(marks) = self.marks.clone() else { return };
        let left = task::blocking(move || marks.left()).await;
        let left = left.map_err(std::io::Error::other).and_then(|left| left).unwrap_or_else(|error| {
            tracing::warn!(%error, "marks of uploads cannot be read; what a crash left is known by its age only");
            Vec::new()
        });
        // Those that nobody has looked at come first; of the others some at a time, whichever they are.
        let (looked_at, new): (Vec<_>, Vec<_>) = left.into_iter().partition(UploadMark::was_looked_at);
        let looked_at = chance::with(|rng| looked_at.into_iter().choose_multiple(rng, MOST_MARKS));
        for mark in new.into_iter().chain(looked_at) {
            if !is_ours(mark.key()) {
                mark.remove();
                continue;
            }
            let spared = if mark.was_looked_at() { Spared::Begun } else { Spared::None };
            if swept.is_hopeless() {
                return;
            }
            let aborted = self.abort_others(mark.key(), spared).await;
            if aborted.is_ok() {
                mark.looked(Clock::system().now());
            }
            swept.add(aborted);
        }
    }

    /// Does what a put and a sweep need the right to do, and leaves nothing behind.
    pub(super) async fn probe(&self) -> Result<(), S3Error> {
        let upload = self.create_upload(PROBE_KEY, "application/octet-stream").await?;
        self.open_uploads(PROBE_KEY).await?;
        self.abort_named(upload.name()).await?;
        self.end(upload).await;
        Ok(())
    }

    /// Aborts what is open for a key before another upload of it begins.
    pub(super) async fn abort_replaced(&self, key: &str) -> Result<(), S3Error> {
        self.abort_others(key, Spared::Older(VERY_LONG)).await.map(drop)
    }

    /// Aborts what is open for a key and not under way here, and counts it.
    pub(super) async fn abort_others(&self, key: &str, spared: Spared) -> Result<u64, S3Error> {
        let mut aborted = 0;
        for upload in self.open_uploads(key).await? {
            if upload.name.key != key || self.is_under_way(&upload) {
                continue;
            }
            let is_nobodys = match spared {
                Spared::None => true,
                Spared::Older(age) => {
                    !self.is_long_ago(upload.initiated, age) || self.is_stale(&upload, GOES_ON, GOES_ON).await?
                }
                Spared::Begun => self.is_stale(&upload, FIRST_PART, GOES_ON).await?,
            };
            if is_nobodys {
                self.abort_named(&upload.name).await?;
                aborted += 1;
            }
        }
        if aborted > 0 {
            tracing::info!(count = aborted, "uploads that were left open are aborted");
        }
        Ok(aborted)
    }

    fn is_under_way(&self, upload: &ListedUpload) -> bool {
        self.uploads.is_under_way(&upload.name.id)
    }

    /// Aborts an upload of ours; where the store does not let us, the next sweep does.
    pub(super) async fn abort(&self, upload: ActiveUpload<'_>) {
        match self.abort_named(upload.name()).await {
            Ok(()) => self.end(upload).await,
            Err(failure) => tracing::warn!(error = %failure, "upload not aborted, the next sweep tries again"),
        }
    }

    pub(super) async fn abort_named(&self, upload: &UploadName) -> Result<(), S3Error> {
        let abort = self.call(Operation::AbortUpload, 0, || {
            self.client.abort_multipart_upload(AbortMultipartUploadRequest {
                bucket: self.options.bucket.clone(),
                key: upload.key.clone(),
                upload_id: upload.id.clone(),
                ..Default::default()
            })
        });
        match abort.await {
            Ok(_) => Ok(()),
            Err(failure) if matches!(failure.kind, S3ErrorKind::NoUpload | S3ErrorKind::Missing) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Every open upload under keys that begin with `prefix`.
    pub(super) async fn open_uploads(&self, prefix: &str) -> Result<Vec<ListedUpload>, S3Error> {
        let (mut open, mut after) = (Vec::new(), Marker::default());
        for _ in 0..MOST_PAGES {
            let (page, next) = self.page_of_uploads(prefix, after).await?;
            open.extend(page);
            let Some(next) = next else { break };
            after = next;
        }
        Ok(open)
    }

    /// One page of them, at most a thousand, and what follows it.
    async fn page_of_uploads(
        &self,
        prefix: &str,
        after: Marker,
    ) -> Result<(Vec<ListedUpload>, Option<Marker>), S3Error> {
        let list = self.call(Operation::ListUploads, 0, || {
            self.client.list_multipart_uploads(ListMultipartUploadsRequest {
                bucket: self.options.bucket.clone(),
                prefix: (!prefix.is_empty()).then(|| prefix.to_owned()),
                key_marker: after.0.clone(),
                upload_id_marker: after.1.clone(),
                ..Default::default()
            })
        });
        let page = list.await?;
        let open = page.uploads.unwrap_or_default().into_iter().filter_map(ListedUpload::read).collect();
        let next = (page.next_key_marker.filter(|marker| !marker.is_empty()), page.next_upload_id_marker);
        let goes_on = page.is_truncated == Some(true) && next.0.is_some() && next != after;
        Ok((open, goes_on.then_some(next)))
    }

    /// Whether an upload was begun so long ago, and got its last part so long ago, that nobody works on it.
    async fn is_stale(&self, upload: &ListedUpload, begun: Duration, part: Duration) -> Result<bool, S3Error> {
        if !self.is_long_ago(upload.initiated, begun) {
            return Ok(false);
        }
        let mut marker = None;
        for _ in 0..MOST_PAGES {
            let list = self.call(Operation::ListParts, 0, || {
                self.client.list_parts(ListPartsRequest {
                    bucket: self.options.bucket.clone(),
                    key: upload.name.key.clone(),
                    upload_id: upload.name.id.clone(),
                    part_number_marker: marker,
                    ..Default::default()
                })
            });
            let page = match list.await {
                Ok(page) => page,
                // Finished or aborted meanwhile.
                Err(failure) if matches!(failure.kind, S3ErrorKind::NoUpload | S3ErrorKind::Missing) => {
                    return Ok(false);
                }
                Err(failure) => return Err(failure),
            };
            let mut parts = page.parts.into_iter().flatten();
            let last = |found: Part| found.last_modified.as_deref().and_then(time);
            if parts.any(|found| !last(found).is_some_and(|at| self.is_long_ago(at, part))) {
                return Ok(false);
            }
            if page.is_truncated != Some(true) || page.next_part_number_marker == marker {
                break;
            }
            marker = page.next_part_number_marker;
        }
        Ok(true)
    }

    /// By the clock of the store. Its `Date` has whole seconds, and counts to the end of its second.
    fn is_long_ago(&self, at: Timestamp, after: Duration) -> bool {
        let age = self.server_time.get().map(|now| now.duration_since(at).saturating_add(SignedDuration::from_secs(1)));
        age.is_some_and(|age| Duration::try_from(age).is_ok_and(|age| age >= after))
    }
}

/// An upload as the store lists it.
pub(super) struct ListedUpload {
    pub(super) name: UploadName,
    initiated: Timestamp,
}

impl ListedUpload {
    #[cfg(test)]
    pub(super) fn name(&self) -> &UploadName {
        &self.name
    }

    fn read(upload: MultipartUpload) -> Option<Self> {
        let name = UploadName { key: upload.key?, id: upload.upload_id? };
        // One whose beginning cannot be read is never old.
        let initiated = upload.initiated.as_deref().and_then(time).unwrap_or(Timestamp::MAX);
        Some(Self { name, initiated })
    }
}

fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// Whether a key is one of a recording, or the one of a check.
fn is_ours(key: &str) -> bool {
    let is_number = |text: &str, digits: usize| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    let Ok([tenant, year, month, day, id, file]) = <[&str; 6]>::try_from(key.split('/').collect::<Vec<_>>()) else {
        return key == PROBE_KEY;
    };
    let names_file = file.split_once('.').is_some_and(|(position, extension)| {
        position.parse::<u32>().is_ok_and(|number| number.to_string() == position)
            && extension.parse::<Extension>().is_ok()
    });
    tenant.parse::<TenantId>().is_ok()
        && is_number(year, 4)
        && is_number(month, 2)
        && is_number(day, 2)
        && id.parse::<ContactId>().is_ok()
        && names_file
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance;

    #[test]
    fn only_keys_of_recordings_are_ours() {
        assert!(is_ours(&conformance::key(698_800_000_001, 3).to_string()));
        assert!(is_ours(PROBE_KEY));
        for other in [
            "",
            "0.wav",
            "acme/2026/04/01/1/0",
            "acme/2026/04/01/1/0.wav/x",
            "acme/2026/4/1/1/0.wav",
            "acme/2026/04/01/one/0.wav",
            "acme/2026/04/01/1/+0.wav",
            "acme/2026/04/01/1/0.backup",
            "../2026/04/01/1/0.wav",
            "acme/2026/04/01/1/0.wav.tmp",
        ] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
