use super::*;

const HEADER: &str = "ACD Call ID (Master),Segment ID,Start Date,Voice Recording Status,Agent 1 ACD ID,Agent 1 Name,\
                      ACD Agent 1 Contact Number,ANI";

/// Reads a file that arrives in pieces of this length.
fn read_in(file: &[u8], piece: usize) -> Result<Vec<ExtractedRow>, TableError> {
    let mut table = ExtractionTable::new();
    let mut rows = Vec::new();
    for chunk in file.chunks(piece) {
        let mut chunk = Bytes::copy_from_slice(chunk);
        while let Some(row) = table.next(&mut chunk)? {
            rows.push(row);
        }
        assert!(chunk.is_empty());
    }
    while let Some(row) = table.finish()? {
        rows.push(row);
    }
    Ok(rows)
}

/// Reads a file whole and in pieces of several lengths, which must make no difference.
fn read(file: impl AsRef<[u8]>) -> Result<Vec<ExtractedRow>, TableError> {
    let file = file.as_ref();
    let whole = read_in(file, file.len().max(1));
    for piece in [1, 2, 3, 7, 4096] {
        assert_eq!(read_in(file, piece), whole, "in pieces of {piece}");
    }
    whole
}

fn with_header(rows: &str) -> Vec<ExtractedRow> {
    read(format!("{HEADER}\r\n{rows}")).unwrap()
}

fn only(row: &str) -> ExtractedRow {
    let mut rows = with_header(row);
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows.remove(0)
}

fn reason(row: &str) -> String {
    only(row).unwrap_err().reason
}

#[test]
fn a_row_is_read_by_the_names_of_its_columns() {
    let leg = only("698800000000,s-1,2026-04-01T16:29:31.443Z,Success,999999,Ada,698800000001,5555558888").unwrap();
    assert_eq!(leg.contact_id.get(), 698_800_000_001);
    assert_eq!(leg.master_contact_id.get(), 698_800_000_000);
    assert_eq!(leg.agent_id.unwrap().get(), 999_999);
    assert_eq!(leg.started_on.unwrap().to_string(), "2026-04-01");
    assert_eq!(leg.started_at.unwrap().to_string(), "2026-04-01T16:29:31.443Z");
    assert!(leg.has_voice);
}

#[test]
fn columns_stand_in_any_order_and_case() {
    let rows = read(" agent 1 contact number (acd) ,AGENT 1 ACD ID,acd call id\n7,5,6\n").unwrap();
    let leg = rows[0].as_ref().unwrap();
    assert_eq!((leg.contact_id.get(), leg.master_contact_id.get(), leg.agent_id.unwrap().get()), (7, 6, 5));
    assert!(leg.has_voice, "nothing says that there is none");
    assert_eq!((leg.started_on, leg.started_at), (None, None));
}

#[test]
fn a_missing_column_is_named() {
    let error = |header: &str| read(format!("{header}\n1,2,3\n")).unwrap_err();
    assert_eq!(error("ACD Call ID,Agent 1 ACD ID,x"), TableError::NoColumn("Agent 1 Contact Number"));
    assert_eq!(error("Agent 1 Contact Number,Agent 1 ACD ID"), TableError::NoColumn("ACD Call ID"));
    let text = error("ACD Call ID,Agent 1 Contact Number").to_string();
    assert!(text.contains("no column Agent 1 ACD ID"), "{text}");
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_name() {
    for header in ["ACD Call ID", "\"ACD Call ID\""] {
        let file = format!("\u{feff}{header},Agent 1 ACD ID,Agent 1 Contact Number\n1,2,3");
        assert_eq!(read(file).unwrap().len(), 1, "{header}");
    }
    assert_eq!(read("\u{feff}\u{feff}"), Err(TableError::NoColumn(MASTER)), "one mark is one mark");
}

#[test]
fn quotes_hold_commas_quotes_and_line_ends() {
    let rows = with_header(
        "1,s,2026-04-01,Success,5,\"O'Neil, \"\"Ada\"\"\r\n2,s,,Success,5,x,9,\",7,\"555\n5\"\r\n\r\n3,s,,,,\"\",8,\n",
    );
    let ids: Vec<_> = rows.iter().map(|row| row.as_ref().unwrap().contact_id.get()).collect();
    assert_eq!(ids, [7, 8]);
}

#[test]
fn the_last_row_needs_no_line_end() {
    assert_eq!(with_header("1,s,,,5,x,7,").len(), 1);
    assert_eq!(with_header("1,s,,,5,x,7,\"\"").len(), 1);
    assert_eq!(with_header("").len(), 0);
}

#[test]
fn voice_is_there_when_nice_says_success_in_any_case() {
    for (status, has_voice) in [
        ("Success", true),
        ("SUCCESS", true),
        (" success ", true),
        ("Failed", false),
        ("", false),
        ("Succes\0s", false),
    ] {
        assert_eq!(only(&format!("1,s,,{status},5,x,7,")).unwrap().has_voice, has_voice, "{status}");
    }
}

#[test]
fn a_start_is_a_date_or_a_moment_of_utc_and_never_a_guess() {
    for (text, day, moment) in [
        ("2026-04-01", Some("2026-04-01"), None),
        ("2026-04-01T23:30:00Z", Some("2026-04-01"), Some("2026-04-01T23:30:00Z")),
        ("2026-04-01T23:30:00-02:00", Some("2026-04-02"), Some("2026-04-02T01:30:00Z")),
        ("2026-04-01 23:30:00", Some("2026-04-01"), Some("2026-04-01T23:30:00Z")),
        ("04/05/2026", None, None),
        ("2026-02-30", None, None),
        ("soon", None, None),
        ("", None, None),
    ] {
        let leg = only(&format!("1,s,{text},,5,x,7,")).unwrap();
        assert_eq!(leg.started_on.map(|day| day.to_string()).as_deref(), day, "{text}");
        assert_eq!(leg.started_at.map(|moment| moment.to_string()).as_deref(), moment, "{text}");
    }
}

#[test]
fn a_leg_may_lack_an_agent_and_a_call() {
    let leg = only(",s,,,,x,7,").unwrap();
    assert_eq!((leg.agent_id, leg.master_contact_id.get()), (None, 7));
    assert_eq!(only("0,s,,,0,x,7,").unwrap().agent_id, None);
}

#[test]
fn a_bad_row_spares_its_neighbours_and_repeats_nothing() {
    let rows = with_header("1,s,,,5,x,7,\n1,s,,,5,x,../../canary,\n1,s,,,5,x,8,\n");
    assert!(rows[0].is_ok() && rows[2].is_ok());
    assert_eq!(rows[1].as_ref().unwrap_err().reason, "the contact number breaks the grammar");
    assert_eq!(reason("1,s,,,5,x,,canary"), "the row has no contact number");
    assert_eq!(reason("1,s,,,5,x,7\0,"), "the contact number breaks the grammar");
    assert_eq!(reason("1,s,,,-5,x,7,"), "the agent id breaks the grammar");
    assert_eq!(reason("1e3,s,,,5,x,7,"), "the call id breaks the grammar");
    assert_eq!(reason("1,s,,,5,x,12345678901234567890,"), "the contact number breaks the grammar");
    for row in ["1,s,,,5,x,7", "1,s,,,5,x,7,,", "canary"] {
        assert_eq!(reason(row), "the row has not as many fields as there are columns");
    }
}

#[test]
fn bytes_that_are_no_text_harm_only_their_field() {
    let mut file = format!("{HEADER}\n1,s,,,5,").into_bytes();
    file.extend_from_slice(b"\xff\xfe,7,\n1,s,,,5,x,\xff7,\n");
    let rows = read(file).unwrap();
    assert!(rows[0].is_ok());
    assert_eq!(rows[1].as_ref().unwrap_err().reason, "the contact number breaks the grammar");
}

#[test]
fn a_file_without_columns_is_told() {
    assert_eq!(read(""), Err(TableError::Empty));
    assert_eq!(read("\u{feff}"), Err(TableError::Empty));
    assert_eq!(read("\r\n\r\n"), Err(TableError::Empty));
    assert_eq!(read("<?xml version=\"1.0\"?>\n<Error/>"), Err(TableError::NotCsv));
}

#[test]
fn an_endless_line_is_given_up_with_one_row_in_memory() {
    for start in ["\"", "", "1,s,,,5,\"never closed,7,\n"] {
        let mut table = ExtractionTable::new();
        let mut header = Bytes::from(format!("{HEADER}\n{start}"));
        assert_eq!(table.next(&mut header), Ok(None));
        let piece = Bytes::from(vec![b'x'; 64 * 1024]);
        let gib = (1 << 30) / piece.len();
        let read = (0..gib).position(|_| table.next(&mut piece.clone()) == Err(TableError::RowTooLong));
        assert!(read.is_some_and(|pieces| pieces <= MAX_ROW / piece.len()), "{start}: {read:?}");
        assert_eq!(table.row.len(), MAX_ROW);
    }
}

#[test]
fn a_row_of_commas_is_given_up() {
    let file = format!("{HEADER}\n{}", ",".repeat(MAX_FIELDS + 1));
    assert_eq!(read(file), Err(TableError::RowTooLong));
}

#[test]
fn the_rows_of_a_file_are_counted() {
    let mut table = ExtractionTable::new();
    assert_eq!(table.next(&mut Bytes::from(format!("{HEADER}\n"))), Ok(None));
    table.rows = MAX_ROWS - 1;
    let mut rows = Bytes::from_static(b"1,s,,,5,x,7,\nbad\n");
    assert!(matches!(table.next(&mut rows), Ok(Some(Ok(_)))));
    assert_eq!(table.next(&mut rows), Err(TableError::TooManyRows));
}

#[test]
fn a_job_id_fits_into_a_path() {
    assert_eq!(job_id(b"\"5b2f-1\"").as_deref(), Ok("5b2f-1"));
    assert_eq!(job_id(b"17").as_deref(), Ok("17"));
    for body in ["\"\"", "\"../x\"", "\"a/b\"", "\"a\\u0000\"", "\"a b\""] {
        assert_eq!(job_id(body.as_bytes()), Err(ShapeError::Grammar("a job id")), "{body}");
    }
    assert!(job_id(format!("\"{}\"", "a".repeat(129)).as_bytes()).is_err());
    for body in ["", "{}", "[]", "null", "\"a", "<html>"] {
        assert!(job_id(body.as_bytes()).is_err(), "{body}");
    }
}

#[test]
fn the_status_of_a_job_is_read() {
    let read = |body: &str| job_status(body.as_bytes());
    let succeeded = r#"{"jobStatus":{"id":"a","status":"SUCCEEDED","result":{"url":"https://b"}}}"#;
    assert_eq!(read(succeeded), Ok(JobStatus::Succeeded("https://b".into())));
    assert_eq!(read(r#"{"status":"failed","result":{"errorMessage":"x"}}"#), Ok(JobStatus::Ended("FAILED")));
    for word in ["CANCELLED", "EXPIRED"] {
        assert_eq!(read(&format!(r#"{{"jobStatus":{{"status":"{word}"}}}}"#)), Ok(JobStatus::Ended(word)));
    }
    for word in ["RUNNING", "PENDING"] {
        assert_eq!(read(&format!(r#"{{"jobStatus":{{"status":"{word}"}}}}"#)), Ok(JobStatus::Running));
    }
    assert!(read(r#"{"jobStatus":{"status":"SUCCEEDED"}}"#).is_err());
    assert!(read("{}").is_err());
}
