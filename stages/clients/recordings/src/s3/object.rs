//! Objects that lie in the store: their bytes, and what is known of them.

use futures::stream::{self, StreamExt};
use rusoto_core::ByteStream;
use rusoto_s3::{GetObjectRequest, HeadObjectOutput, HeadObjectRequest, S3};
use tokio::time::timeout;

use super::S3Store;
use super::error::{S3Error, S3ErrorKind};
use super::operation::Operation;
use crate::{RecordingBody, RecordingStoreError};

impl S3Store {
    /// The bytes of an object, if it is there.
    pub(super) async fn get(&self, key: &str) -> Result<Option<RecordingBody<'static>>, S3Error> {
        let get = self.call(Operation::Get, 0, || {
            let (bucket, key) = (self.options.bucket.clone(), key.to_owned());
            self.client.get_object(GetObjectRequest { bucket, key, ..Default::default() })
        });
        let object = match get.await {
            Ok(object) => object,
            Err(failure) if failure.kind == S3ErrorKind::Missing => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let body = object.body.unwrap_or_else(|| ByteStream::from(Vec::new()));
        let limit = self.options.request_timeout;
        let pieces = stream::unfold(Some(body), move |body| async move {
            let mut body = body?;
            let broken = |what| {
                let failure = S3Error::new(Operation::Get, S3ErrorKind::Busy, what);
                Some((Err(RecordingStoreError::from(failure).into()), None))
            };
            match timeout(limit, body.next()).await {
                Ok(Some(Ok(piece))) => Some((Ok(piece), Some(body))),
                Ok(Some(Err(_))) => broken("the object broke off"),
                Ok(None) => None,
                Err(_) => broken("the object stalls"),
            }
        });
        Ok(Some(pieces.boxed()))
    }

    /// What is known of an object, if it is there.
    pub(super) async fn head(&self, key: &str) -> Result<Option<HeadObjectOutput>, S3Error> {
        let head = self.call(Operation::Head, 0, || {
            let (bucket, key) = (self.options.bucket.clone(), key.to_owned());
            self.client.head_object(HeadObjectRequest { bucket, key, ..Default::default() })
        });
        match head.await {
            Ok(object) => Ok(Some(object)),
            Err(failure) if failure.kind == S3ErrorKind::Missing => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

/// The length of an object.
pub(super) fn length_of(object: &HeadObjectOutput) -> Option<u64> {
    object.content_length.and_then(|length| length.try_into().ok())
}
