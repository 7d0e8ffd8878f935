//! The file of a data extraction and the answers about its job. The first byte says in how long pieces the file comes,
//! which must make no difference.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use nice::{
    ExtractedRow,
    wire::extraction::{ExtractionTable, TableError, job_id, job_status},
};

fn read(file: &[u8], piece: usize) -> Result<Vec<ExtractedRow>, TableError> {
    let mut table = ExtractionTable::new();
    let mut rows = Vec::new();
    for chunk in file.chunks(piece) {
        let mut chunk = Bytes::copy_from_slice(chunk);
        while let Some(row) = table.next(&mut chunk)? {
            rows.push(row);
        }
    }
    while let Some(row) = table.finish()? {
        rows.push(row);
    }
    Ok(rows)
}

fuzz_target!(|body: &[u8]| {
    if let Ok(id) = job_id(body) {
        assert!(
            (1..=128).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        );
    }
    let _ = job_status(body);
    let Some((piece, file)) = body.split_first() else { return };
    let rows = read(file, usize::from(*piece).max(1));
    assert_eq!(rows, read(file, file.len().max(1)));
    for leg in rows.into_iter().flatten().flatten() {
        assert!(leg.contact_id.get() > 0 && leg.master_contact_id.get() > 0);
        assert!(leg.started_at.is_none() || leg.started_on.is_some());
    }
});
