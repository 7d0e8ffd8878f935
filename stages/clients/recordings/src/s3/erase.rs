//! Everything under a conversation's prefix is deleted, for good.
//!
//! Uploads in parts are aborted first, so that none becomes an object after the objects were listed. Then each version
//! of each object goes, delete markers too, by its version id: a delete without one would only hide it. A bucket that
//! keeps no versions lists each object as the one version `null`. Repeated until the listing is empty, since others may
//! still write; whoever asks for it looks again later.

use rusoto_s3::{DeleteObjectRequest, ListObjectVersionsRequest, S3};

use super::S3Store;
use super::error::{S3Error, S3ErrorKind};
use super::operation::Operation;

/// Listings that are read and emptied, of up to a thousand versions each. A conversation has some recordings.
const MOST_PAGES: usize = 100;

/// A version of an object, or a mark that it was deleted.
struct Version {
    key: String,
    id: Option<String>,
}

impl S3Store {
    /// Deletes everything under keys that begin with `prefix`, and counts the versions.
    pub(super) async fn erase_prefix(&self, prefix: &str) -> Result<u64, S3Error> {
        for upload in self.open_uploads(prefix).await? {
            self.abort_named(&upload.name).await?;
        }
        self.erase_objects(prefix).await
    }

    /// The same, but for uploads that are open.
    pub(super) async fn erase_objects(&self, prefix: &str) -> Result<u64, S3Error> {
        let mut erased = 0;
        for _ in 0..MOST_PAGES {
            let versions = self.versions(prefix).await?;
            if versions.is_empty() {
                return Ok(erased);
            }
            for version in versions {
                self.delete(version).await?;
                erased += 1;
            }
        }
        Err(S3Error::new(Operation::ListVersions, S3ErrorKind::Rejected, "objects appear as fast as they are deleted"))
    }

    /// The first page of what lies under a prefix.
    async fn versions(&self, prefix: &str) -> Result<Vec<Version>, S3Error> {
        let list = self.call(Operation::ListVersions, 0, || {
            self.client.list_object_versions(ListObjectVersionsRequest {
                bucket: self.options.bucket.clone(),
                prefix: Some(prefix.to_owned()),
                ..Default::default()
            })
        });
        let page = list.await?;
        let versions = page.versions.into_iter().flatten().map(|version| (version.key, version.version_id));
        let markers = page.delete_markers.into_iter().flatten().map(|marker| (marker.key, marker.version_id));
        let named = |(key, id): (Option<String>, Option<String>)| Some(Version { key: key?, id });
        // Nothing else is ever deleted, whatever a store lists.
        let ours = |version: &Version| version.key.starts_with(prefix);
        Ok(versions.chain(markers).filter_map(named).filter(ours).collect())
    }

    async fn delete(&self, version: Version) -> Result<(), S3Error> {
        let delete = self.call(Operation::Delete, 0, || {
            self.client.delete_object(DeleteObjectRequest {
                bucket: self.options.bucket.clone(),
                key: version.key.clone(),
                version_id: version.id.clone().filter(|id| !id.is_empty()),
                ..Default::default()
            })
        });
        match delete.await {
            Ok(_) => Ok(()),
            Err(failure) if failure.kind == S3ErrorKind::Missing => Ok(()),
            Err(failure) => Err(failure),
        }
    }
}
