//! A body into the store: one PUT where it is smaller than a part, a multipart upload where it is not.
//!
//! Parts are sent while the next one is gathered. The upload is completed only after the body ended without an
//! error; before that nothing is to be seen under the key. A body or a store that fails aborts the upload.
//!
//! The object carries the SHA-256 of its content. S3 wants metadata before the content, and the hash of what streams is
//! known only at its end: what goes in one PUT carries it as metadata, what went in parts as a tag, which needs no
//! second version of the object. A crash before the tag leaves a whole object without it, of a call that is not ready:
//! the next delivery writes it again.

use std::pin::pin;
use std::sync::atomic::Ordering;

use base64::{Engine, prelude::BASE64_STANDARD};
use futures::{
    FutureExt,
    future::BoxFuture,
    stream,
    stream::{FuturesUnordered, StreamExt},
};
use md5::{Digest, Md5};
use runtime::task;
use rusoto_core::ByteStream;
use rusoto_s3::{
    CompleteMultipartUploadRequest, CompletedMultipartUpload, CompletedPart, CreateMultipartUploadRequest,
    PutObjectRequest, PutObjectTaggingRequest, S3, Tag, Tagging, UploadPartRequest,
};
use tokio::time::timeout;

use super::S3Store;
use super::body::{MOST_PARTS, Source};
use super::dispatcher::{Condition, under};
use super::error::{S3Error, S3ErrorKind};
use super::marks::UploadMark;
use super::memory::BodyPart;
use super::object::length_of;
use super::operation::Operation;
use super::uploads::{ActiveUpload, UploadName};
use crate::{CurrentObject, PutOutput, RecordingBody, RecordingStoreError};

/// Parts of one upload that are sent at once: a second one fills the pauses of the first.
const SENT_AT_ONCE: usize = 2;

/// The name of the metadata or tag that holds the SHA-256 of the content in hex.
pub(super) const SHA256: &str = "sha256";

impl S3Store {
    /// Stores `body` under `key`.
    pub(super) async fn store(
        &self,
        key: &str,
        content_type: &str,
        found: Option<&CurrentObject>,
        body: RecordingBody<'_>,
    ) -> Result<PutOutput, RecordingStoreError> {
        let mut source = Source::new(self, body);
        let first = source.part(1).await?;
        if first.is_last {
            let sha256 = source.sha256();
            let condition = self.before_put(key, found).await?;
            let e_tag = self.put_whole(key, content_type, &first, &sha256, condition).await?;
            // It is the MD5 of what was written, but where the store encrypts with keys of a key service.
            if e_tag.is_some_and(|tag| tag.trim_matches('"') == hex::encode(first.md5)) {
                return Ok(PutOutput { size_bytes: source.length, sha256 });
            }
            return self.verified(key, source.length, sha256).await;
        }
        self.abort_replaced(key).await?;
        let upload = self.create_upload(key, content_type).await?;
        match self.send_parts(&upload, &mut source, first).await {
            Ok(parts) => self.complete(upload, source.length, &parts, found).await?,
            Err(error) => {
                self.abort(upload).await;
                return Err(error);
            }
        }
        let sha256 = source.sha256();
        self.tag(key, &sha256).await?;
        self.verified(key, source.length, sha256).await
    }

    /// Gives the ETag of what was written; none where an attempt before has written it.
    pub(super) async fn put_whole(
        &self,
        key: &str,
        content_type: &str,
        part: &BodyPart,
        sha256: &str,
        condition: Option<Condition>,
    ) -> Result<Option<String>, S3Error> {
        let (encryption, kms_key_id) = self.options.encryption.headers();
        let put = self.call(Operation::Put, part.length as u64, || {
            let put = self.client.put_object(PutObjectRequest {
                bucket: self.options.bucket.clone(),
                key: key.to_owned(),
                body: Some(body_of(part)),
                content_md5: Some(BASE64_STANDARD.encode(part.md5)),
                content_type: Some(content_type.to_owned()),
                metadata: Some([(SHA256.to_owned(), sha256.to_owned())].into()),
                server_side_encryption: encryption.clone(),
                ssekms_key_id: kms_key_id.clone(),
                ..Default::default()
            });
            under(condition.clone(), put)
        });
        let failure = match put.await {
            Ok(done) => return named(Operation::Put, done.e_tag).map(Some),
            Err(failure) => failure,
        };
        // Where it is ours, an attempt before has stored it whose answer was lost.
        let object = match failure.kind {
            S3ErrorKind::Conflict => self.head(key).await?,
            _ => None,
        };
        let is_ours = object.is_some_and(|object| {
            length_of(&object) == Some(part.length as u64)
                && object.metadata.is_some_and(|metadata| metadata.get(SHA256).is_some_and(|hash| hash == sha256))
        });
        if is_ours { Ok(None) } else { Err(failure) }
    }

    /// Begins an upload in parts.
    pub(super) async fn create_upload(&self, key: &str, content_type: &str) -> Result<ActiveUpload<'_>, S3Error> {
        let mark = self.mark(key).await;
        let (encryption, kms_key_id) = self.options.encryption.headers();
        let create = self.call_counted(Operation::CreateUpload, 0, || {
            self.client.create_multipart_upload(CreateMultipartUploadRequest {
                bucket: self.options.bucket.clone(),
                key: key.to_owned(),
                content_type: Some(content_type.to_owned()),
                server_side_encryption: encryption.clone(),
                ssekms_key_id: kms_key_id.clone(),
                ..Default::default()
            })
        });
        // Where it fails the mark stays: the store may begin the upload all the same, or later.
        let (created, attempts) = create.await?;
        let id = named(Operation::CreateUpload, created.upload_id)?;
        let upload = self.uploads.begin(UploadName { key: key.to_owned(), id }, mark);
        Ok(if attempts > 1 { upload.with_twins() } else { upload })
    }

    /// Notes that S3 does not have an upload any more. Where it was begun more than once, the others go too.
    pub(super) async fn end(&self, upload: ActiveUpload<'_>) {
        if upload.has_twins()
            && let Err(failure) = self.abort_replaced(&upload.name().key).await
        {
            tracing::warn!(error = %failure, "an upload that was begun twice is not aborted, the next sweep tries again");
        }
        upload.end();
    }

    /// A mark for an upload that is about to begin. It can do without.
    async fn mark(&self, key: &str) -> Option<UploadMark> {
        let (marks, key) = (self.marks.clone()?, key.to_owned());
        let set = task::blocking(move || marks.set(&key)).await;
        set.map_err(std::io::Error::other)
            .and_then(|set| set)
            .inspect_err(|error| tracing::warn!(%error, "upload not marked; after a crash it is known by its age only"))
            .ok()
    }

    /// Sends the whole body; returns the parts that S3 has now, in order.
    async fn send_parts(
        &self,
        upload: &ActiveUpload<'_>,
        source: &mut Source<'_>,
        first: BodyPart,
    ) -> Result<Vec<Sent>, RecordingStoreError> {
        let mut sending = FuturesUnordered::new();
        let sent = self.send_each(upload, source, first, &mut sending).await;
        if sent.is_err() {
            // A part that arrives after the abort stays for ever at some servers.
            let settled = timeout(self.options.request_timeout, sending.for_each(async |_| {})).await;
            if settled.is_err() {
                tracing::debug!("parts are still on their way, the upload is aborted all the same");
            }
        }
        sent
    }

    async fn send_each<'a>(
        &'a self,
        upload: &'a ActiveUpload<'_>,
        source: &mut Source<'_>,
        first: BodyPart,
        sending: &mut FuturesUnordered<BoxFuture<'a, Result<Sent, S3Error>>>,
    ) -> Result<Vec<Sent>, RecordingStoreError> {
        let mut sent = Vec::new();
        let mut part = first;
        for number in 1..=MOST_PARTS {
            while sending.len() >= SENT_AT_ONCE
                && let Some(one) = sending.next().await
            {
                sent.push(one?);
            }
            let is_last = part.is_last;
            sending.push(self.send_part(upload, number, part).boxed());
            if is_last {
                while let Some(one) = sending.next().await {
                    sent.push(one?);
                }
                sent.sort_unstable_by_key(|part: &Sent| part.number);
                return Ok(sent);
            }
            let mut next = pin!(source.part(number + 1));
            part = loop {
                tokio::select! {
                    biased;
                    part = &mut next => break part?,
                    Some(one) = sending.next() => sent.push(one?),
                }
            };
        }
        Err(RecordingStoreError::TooLarge("the recording is larger than S3 can hold in parts".to_owned()))
    }

    /// Sends one part.
    pub(super) async fn send_part(
        &self,
        upload: &ActiveUpload<'_>,
        number: u32,
        part: BodyPart,
    ) -> Result<Sent, S3Error> {
        let send = self.call(Operation::UploadPart, part.length as u64, || {
            self.client.upload_part(UploadPartRequest {
                bucket: self.options.bucket.clone(),
                key: upload.name().key.clone(),
                upload_id: upload.name().id.clone(),
                part_number: number.into(),
                body: Some(body_of(&part)),
                content_md5: Some(BASE64_STANDARD.encode(part.md5)),
                ..Default::default()
            })
        });
        let e_tag = named(Operation::UploadPart, send.await?.e_tag)?;
        Ok(Sent { number, e_tag, md5: part.md5 })
    }

    /// Makes an object of the parts. Ends the upload, one way or the other.
    async fn complete(
        &self,
        upload: ActiveUpload<'_>,
        length: u64,
        parts: &[Sent],
        found: Option<&CurrentObject>,
    ) -> Result<(), S3Error> {
        let condition = match self.before_complete(&upload.name().key, found).await {
            Ok(condition) => condition,
            Err(failure) => {
                self.abort(upload).await;
                return Err(failure);
            }
        };
        match self.put_together(&upload, length, parts, condition).await {
            Ok(()) => {
                self.end(upload).await;
                Ok(())
            }
            Err(failure) => {
                self.abort(upload).await;
                Err(failure)
            }
        }
    }

    /// Makes an object of the parts.
    pub(super) async fn put_together(
        &self,
        upload: &ActiveUpload<'_>,
        length: u64,
        parts: &[Sent],
        condition: Option<Condition>,
    ) -> Result<(), S3Error> {
        let complete = self.call(Operation::CompleteUpload, 0, || {
            let parts = parts
                .iter()
                .map(|part| CompletedPart { e_tag: Some(part.e_tag.clone()), part_number: Some(part.number.into()) });
            let complete = self.client.complete_multipart_upload(CompleteMultipartUploadRequest {
                bucket: self.options.bucket.clone(),
                key: upload.name().key.clone(),
                upload_id: upload.name().id.clone(),
                multipart_upload: Some(CompletedMultipartUpload { parts: Some(parts.collect()) }),
                ..Default::default()
            });
            under(condition.clone(), complete)
        });
        let failure = match complete.await.and_then(|done| named(Operation::CompleteUpload, done.e_tag)) {
            Ok(_) => return Ok(()),
            Err(failure) => failure,
        };
        // Completed by an attempt whose answer was lost, or by one whose answer does not say so (Ceph leaves the ETag
        // empty), or aborted by somebody: the object tells.
        let object = match failure.kind {
            S3ErrorKind::NoUpload | S3ErrorKind::Conflict | S3ErrorKind::Unsaid => {
                self.head(&upload.name().key).await?
            }
            S3ErrorKind::Busy
            | S3ErrorKind::Missing
            | S3ErrorKind::Refused
            | S3ErrorKind::Unable
            | S3ErrorKind::Rejected => None,
        };
        let is_ours = object.is_some_and(|object| {
            let e_tag = object.e_tag.as_deref().map(|tag| tag.trim_matches('"'));
            length_of(&object) == Some(length) && e_tag == Some(&e_tag_of(parts))
        });
        if is_ours { Ok(()) } else { Err(failure) }
    }

    /// What was stored, once it is seen to be there whole.
    async fn verified(&self, key: &str, size_bytes: u64, sha256: String) -> Result<PutOutput, RecordingStoreError> {
        let object = self.head(key).await?;
        match object.as_ref().and_then(length_of) {
            Some(held) if held == size_bytes => Ok(PutOutput { size_bytes, sha256 }),
            _ => Err(RecordingStoreError::unavailable("the recording store holds another length than was sent")),
        }
    }

    /// Writes the hash of an object beside it. A store that takes no tags does without; the recording's row has it.
    async fn tag(&self, key: &str, sha256: &str) -> Result<(), S3Error> {
        if !self.tags.load(Ordering::Relaxed) {
            return Ok(());
        }
        let tagged = self.call(Operation::Tag, 0, || {
            let tag = Tag { key: SHA256.to_owned(), value: sha256.to_owned() };
            self.client.put_object_tagging(PutObjectTaggingRequest {
                bucket: self.options.bucket.clone(),
                key: key.to_owned(),
                tagging: Tagging { tag_set: vec![tag] },
                ..Default::default()
            })
        });
        match tagged.await {
            Err(failure)
                if matches!(failure.kind, S3ErrorKind::Refused | S3ErrorKind::Unable | S3ErrorKind::Rejected) =>
            {
                if self.tags.swap(false, Ordering::Relaxed) {
                    let remedy = "recordings of a part size and more carry no sha256, their rows do; allow \
                                  s3:PutObjectTagging and start again if they shall";
                    tracing::warn!(error = %failure, remedy, "the recording store takes no tags");
                }
                Ok(())
            }
            tagged => tagged.map(drop),
        }
    }
}

/// A part that S3 has.
#[derive(Debug)]
pub(super) struct Sent {
    number: u32,
    e_tag: String,
    md5: [u8; 16],
}

/// The ETag of an object made of parts, as S3 makes it.
fn e_tag_of(parts: &[Sent]) -> String {
    let mut md5 = Md5::new();
    parts.iter().for_each(|part| md5.update(part.md5));
    format!("{}-{}", hex::encode(md5.finalize()), parts.len())
}

/// What a success must name.
fn named(operation: Operation, name: Option<String>) -> Result<String, S3Error> {
    let missing = || S3Error::new(operation, S3ErrorKind::Unsaid, "the answer does not say what was stored");
    name.filter(|name| !name.is_empty()).ok_or_else(missing)
}

fn body_of(part: &BodyPart) -> ByteStream {
    let pieces = part.pieces.clone();
    let pieces = stream::iter((0..pieces.len()).map(move |place| Ok(pieces[place].clone())));
    ByteStream::new_with_size(pieces, part.length)
}
