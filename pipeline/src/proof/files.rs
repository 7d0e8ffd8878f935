//! Which files of a folder are signed days, and what stands in them.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use jiff::civil::Date;

/// A larger file is none of ours: ten thousand exceptions take a megabyte.
const MOST_BYTES: u64 = 16 * 1024 * 1024;

/// The files of a folder that are named by a day, the oldest first.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let cannot = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let path = entry.map_err(cannot)?.path();
        if day_of(&path).is_some() {
            files.push(path);
        }
    }
    files.sort_by_key(|file| day_of(file));
    Ok(files)
}

/// The day that a file is named by.
pub(super) fn day_of(file: &Path) -> Option<Date> {
    let name = file.file_name()?.to_str()?.strip_suffix(".json")?;
    let day: Date = name.parse().ok()?;
    // A day may be written in more than one way, and a file has one name.
    (day.to_string() == name).then_some(day)
}

pub(super) fn read(file: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| format!("{}: {error}", file.display());
    let mut bytes = Vec::new();
    File::open(file).map_err(cannot)?.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
    match bytes.len() as u64 > MOST_BYTES {
        true => Err(format!("{}: it is larger than any signed day", file.display())),
        false => Ok(bytes),
    }
}
