//! The uploads in parts that this process has open, and those that it gave up.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use runtime::Clock;

use super::marks::UploadMark;

/// Uploads given up are remembered so far; those beyond are found by their age.
const MOST_GIVEN_UP: usize = 1_000;

/// Those under way, and those given up that a sweep has to abort.
#[derive(Debug, Default)]
pub(super) struct Uploads(Mutex<UploadSets>);

#[derive(Debug, Default)]
struct UploadSets {
    under_way: HashSet<String>,
    given_up: Vec<UploadName>,
}

/// Names an upload.
#[derive(Debug)]
pub(super) struct UploadName {
    /// The key of the object that it is to become.
    pub(super) key: String,
    /// S3's id of it.
    pub(super) id: String,
}

impl Uploads {
    /// Notes an upload that was just created, or that is to be aborted.
    pub(super) fn begin(&self, name: UploadName, mark: Option<UploadMark>) -> ActiveUpload<'_> {
        self.open().under_way.insert(name.id.clone());
        ActiveUpload { uploads: self, name, mark, has_twins: false, is_over: false }
    }

    /// Whether this process works on it.
    pub(super) fn is_under_way(&self, id: &str) -> bool {
        self.open().under_way.contains(id)
    }

    fn give_up(&self, upload: UploadName) {
        let mut open = self.open();
        if open.given_up.len() < MOST_GIVEN_UP {
            open.given_up.push(upload);
        }
    }

    /// Those given up; the caller sees to them.
    pub(super) fn take_given_up(&self) -> Vec<UploadName> {
        std::mem::take(&mut self.open().given_up)
    }

    fn open(&self) -> MutexGuard<'_, UploadSets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An upload under way. Dropped before it is over, with the future that worked on it, it is given up.
#[derive(Debug)]
pub(super) struct ActiveUpload<'a> {
    uploads: &'a Uploads,
    name: UploadName,
    mark: Option<UploadMark>,
    has_twins: bool,
    is_over: bool,
}

impl ActiveUpload<'_> {
    /// Notes that it took several requests to begin it: each of them may have begun one, now or later.
    pub(super) fn with_twins(mut self) -> Self {
        self.has_twins = true;
        self
    }

    /// Whether others of the same key may be open that this put began.
    pub(super) fn has_twins(&self) -> bool {
        self.has_twins
    }

    /// Its name.
    pub(super) fn name(&self) -> &UploadName {
        &self.name
    }

    /// Notes that S3 does not have it any more.
    pub(super) fn end(mut self) {
        self.is_over = true;
        match self.mark.take() {
            // What the store has by now was aborted; the mark stays for what it begins late.
            Some(mark) if self.has_twins => mark.looked(Clock::system().now()),
            mark => mark.into_iter().for_each(UploadMark::remove),
        }
    }
}

impl Drop for ActiveUpload<'_> {
    fn drop(&mut self) {
        self.uploads.open().under_way.remove(&self.name.id);
        if !self.is_over {
            let name = UploadName { key: std::mem::take(&mut self.name.key), id: std::mem::take(&mut self.name.id) };
            self.uploads.give_up(name);
        }
    }
}
