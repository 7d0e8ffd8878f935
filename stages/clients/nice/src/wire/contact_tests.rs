use proptest::prelude::*;

use super::*;

const NEW: &str = r#"{
  "businessUnitId": 1, "lastPollTime": "2026-04-01T16:35:00.000Z", "totalRecords": 2,
  "_links": {"self": "https://a", "next": "https://api-c42.nice-incontact.com/x?skip=1", "previous": null},
  "completedContacts": [{
    "contactId": 698800000001, "masterContactId": 698800000000, "contactStartDate": "2026-04-01T16:29:31.443Z",
    "lastUpdateTime": "2026-04-01T16:34:25.990Z", "totalDurationSeconds": 295, "agentId": 999999,
    "firstName": "Ada", "lastName": "L.", "mediaTypeId": 4, "mediaSubTypeId": null, "isOutbound": false,
    "isActive": false, "fromAddress": "5555558888", "toAddress": "5555550000", "tags": [{"tagId": 1}],
    "somethingNew": {"deep": [1, 2]}
  }]}"#;

const OLD: &str = r#"{"resultSet": {
  "businessUnitId": "1", "lastPollTime": "2016-09-13T16:35:00.000Z", "totalRecords": "1", "_links": {"next": ""},
  "completedContacts": [{
    "ContactId": "698800000001", "MasterContactId": "698800000000", "contactStart": "2016-09-13T16:29:31.443Z",
    "lastUpdateTime": "2016-09-13T16:34:25.990Z", "totalDurationSeconds": "295", "agentId": "999999",
    "mediaType": "4", "isOutbound": "False", "isActive": "False", "fromAddr": "5555558888", "toAddr": "5555550000"
  }]}}"#;

fn only(body: &str) -> ContactRow {
    completed(body.as_bytes()).unwrap().rows.remove(0)
}

fn with(member: &str) -> ContactRow {
    single(format!(r#"{{"contactId":7{member}}}"#).as_bytes()).unwrap()
}

#[test]
fn both_vintages_mean_the_same() {
    let (new, old) = (only(NEW).unwrap(), only(OLD).unwrap());
    for contact in [&new, &old] {
        assert_eq!(contact.contact_id.get(), 698_800_000_001);
        assert_eq!(contact.master_contact_id.get(), 698_800_000_000);
        assert_eq!(contact.agent_id.unwrap().get(), 999_999);
        assert_eq!(contact.total_duration.unwrap().as_secs(), 295);
        assert_eq!(contact.media_type_id, Some(4));
        assert_eq!(contact.is_outbound, Some(false));
        assert_eq!(contact.is_active, Some(false));
        assert_eq!(contact.from_address.as_deref(), Some("5555558888"));
        assert_eq!(contact.to_address.as_deref(), Some("5555550000"));
        assert!(contact.is_phone_call());
    }
    assert_eq!(new.ended_at().unwrap().to_string(), "2026-04-01T16:34:26.443Z");
    assert_eq!(old.ended_at().unwrap().to_string(), "2016-09-13T16:34:26.443Z");
    assert_eq!(new.first_name.as_deref(), Some("Ada"));
}

#[test]
fn the_page_around_the_rows_is_read() {
    let page = completed(NEW.as_bytes()).unwrap();
    assert_eq!(page.total, Some(2));
    assert_eq!(page.last_poll_time.unwrap().to_string(), "2026-04-01T16:35:00Z");
    assert_eq!(page.next.as_deref(), Some("https://api-c42.nice-incontact.com/x?skip=1"));
    let page = completed(OLD.as_bytes()).unwrap();
    assert_eq!((page.total, page.next), (Some(1), None));
    let page = completed(br#"{"completedContacts":[],"_links":{"next":{"href":"https://b"}}}"#).unwrap();
    assert_eq!(page.next.as_deref(), Some("https://b"));
}

#[test]
fn raw_is_what_nice_sent() {
    let raw = single(NEW.as_bytes()).unwrap().unwrap().raw;
    assert_eq!(raw["somethingNew"]["deep"][1], 2);
    assert_eq!(raw["mediaSubTypeId"], Value::Null);
    let raw = single(OLD.as_bytes()).unwrap().unwrap().raw;
    assert_eq!(raw["totalDurationSeconds"], "295");
}

#[test]
fn nobody_took_the_call() {
    for member in ["", ",\"agentId\":null", ",\"agentId\":0", ",\"agentId\":\"0\"", ",\"agentId\":\"\""] {
        assert_eq!(with(member).unwrap().agent_id, None, "{member}");
    }
}

#[test]
fn an_absent_master_is_the_contact_itself() {
    for member in ["", ",\"masterContactId\":null", ",\"masterContactId\":0"] {
        assert_eq!(with(member).unwrap().master_contact_id.get(), 7, "{member}");
    }
}

#[test]
fn a_bad_row_names_the_id_and_spares_its_neighbours() {
    let body = r#"{"completedContacts":[
        {"contactId":1}, {"contactId":"../etc"}, {"contactId":-5}, {"contactId":1.5}, {"contactId":"12345678901234567890"},
        {"contactId":null}, {}, null, 7, [], {"contactId":[1]}, {"contactId":2,"agentId":"a b"},
        {"contactId":2,"masterContactId":"x"}, {"contactId":3}]}"#;
    let rows = completed(body.as_bytes()).unwrap().rows;
    assert_eq!(rows.len(), 14);
    for (at, row) in rows.iter().enumerate() {
        match row {
            Ok(_) => assert!(at == 0 || at == 13, "{at}"),
            Err(bad) => assert!(!bad.reason.contains("etc"), "{bad}"),
        }
    }
}

#[test]
fn a_list_that_is_not_there_is_not_an_empty_list() {
    assert!(completed(b"{}").is_err());
    assert!(completed(br#"{"completedContacts":null,"totalRecords":3}"#).is_err());
    assert!(completed(br#"{"completedContacts":{}}"#).is_err());
    assert!(completed(br#"{"totalRecords":0}"#).unwrap().rows.is_empty());
    assert!(completed(br#"{"completedContacts":[]}"#).unwrap().rows.is_empty());
}

#[test]
fn cut_json_and_html_are_told_apart() {
    assert_eq!(completed(&NEW.as_bytes()[..NEW.len() / 2]).unwrap_err(), ShapeError::NotJson);
    assert_eq!(completed(b"<html>maintenance</html>").unwrap_err(), ShapeError::Html);
}

#[test]
fn one_contact_is_found_wherever_it_is_nested() {
    for body in [
        r#"{"contactId":7,"agentId":5}"#,
        r#"{"resultSet":{"contactId":"7","agentId":"5"}}"#,
        r#"{"contactId":{"contactId":7,"agentId":5}}"#,
        r#"{"totalRecords":1,"contact":{"contactId":7,"agentId":5}}"#,
        r#"{"contacts":[{"contactId":7,"agentId":5}]}"#,
        r#"{"resultSet":{"contacts":[{"ContactID":"7","agentId":5}]}}"#,
    ] {
        let contact = single(body.as_bytes()).unwrap().unwrap();
        assert_eq!((contact.contact_id.get(), contact.agent_id.unwrap().get()), (7, 5), "{body}");
    }
    assert!(single(b"{}").is_err());
    assert!(single(br#"{"a":{"b":{"c":{"d":{"e":{"contactId":7}}}}}}"#).is_err());
    assert!(single(br#"{"contactId":"seven"}"#).unwrap().is_err());
}

#[test]
fn the_hierarchy_holds_the_master_once() {
    let body = br#"{"masterContactId":1,"childContacts":[
        {"contactId":2,"startTime":"2026-04-01T16:00:00Z","endTime":"2026-04-01T16:01:00Z"},{"contactId":"3"}]}"#;
    let legs = hierarchy(body).unwrap();
    assert_eq!(legs.iter().map(|leg| leg.contact_id.get()).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(legs[1].ended_at.unwrap().to_string(), "2026-04-01T16:01:00Z");
    let legs = hierarchy(br#"{"masterContactId":"2","childContacts":[{"contactId":2}]}"#).unwrap();
    assert_eq!(legs.len(), 1);
    assert_eq!(hierarchy(br#"{"masterContactId":2}"#).unwrap().len(), 1);
    assert_eq!(hierarchy(br#"{"childContacts":null}"#).unwrap(), []);
    assert_eq!(hierarchy(br#"{"childContacts":[{"contactId":"x"}]}"#).unwrap_err(), ShapeError::Grammar("an id"));
    assert!(hierarchy(br#"{"childContacts":[7]}"#).is_err());
}

#[test]
fn nul_is_stripped_at_every_depth() {
    let contact = with(r#","fromAddress":"1\u00002","x":{"a\u0000b":["c\u0000d"]}"#).unwrap();
    assert_eq!(contact.from_address.as_deref(), Some("12"));
    assert_eq!(contact.raw["x"]["ab"][0], "cd");
    assert!(!contact.raw.to_string().contains("\\u0000"));
    // Found by fuzzing: a text that merely spells the escape is not NUL.
    assert_eq!(with(r#","x":"\\u0000""#).unwrap().raw["x"], "\\u0000");
}

/// Found by fuzzing: read by the faster way of parsing, this number came out as ...6e61 or ...8e61.
#[test]
fn a_number_is_kept_to_its_last_digit() {
    for number in ["1.7777777777777776e61", "1.7777777777777778e61", "0.1", "123456789012345678"] {
        let raw = with(&format!(",\"x\":{number}")).unwrap().raw.to_string();
        let again: Value = serde_json::from_str(&raw).unwrap();
        assert_eq!(again["x"].to_string().replace("e+", "e"), number, "{raw}");
    }
}

#[test]
fn raw_is_capped_and_the_contact_remains() {
    let long = "x".repeat(20_000);
    let contact = with(&format!(",\"notes\":\"{long}\",\"agentId\":5")).unwrap();
    assert_eq!(contact.agent_id.unwrap().get(), 5);
    assert!(contact.raw.get("notes").is_none());
    assert_eq!(contact.raw["contactId"], 7);
    assert_eq!(contact.raw["_omitted"], serde_json::json!(["notes"]), "what is left out is said");
    assert!(with(",\"notes\":\"short\"").unwrap().raw.get("_omitted").is_none());
    let many = (0..100).map(|n| format!(",\"n{n}\":\"{}\"", "x".repeat(1_000))).collect::<String>();
    assert!(with(&many).unwrap().raw.to_string().len() <= MAX_RAW + 1_024);
}

#[test]
fn a_name_that_is_no_plain_word_is_not_told() {
    let long = "x".repeat(20_000);
    for name in ["Ann Lee", "+49301234", "caf\u{e9}", "a\\u0000b", "", &"n".repeat(65)] {
        let contact = with(&format!(",\"{name}\":\"{long}\"")).unwrap();
        assert_eq!(contact.raw["_omitted"], serde_json::json!(["?"]), "{name}");
    }
    let many = (0..200).map(|n| format!(",\"n{n}\":\"{long}\"")).collect::<String>();
    assert_eq!(with(&many).unwrap().raw["_omitted"].as_array().unwrap().len(), MAX_OMITTED);
}

#[test]
fn a_row_of_a_page_keeps_nothing_but_what_it_is_asked_for() {
    assert_eq!(only(NEW).unwrap(), Contact { raw: Value::Null, ..single(NEW.as_bytes()).unwrap().unwrap() });
}

#[test]
fn depth_in_a_row_harms_that_member_only() {
    let deep = format!(",\"x\":{}{}", "[".repeat(5_000), "]".repeat(5_000));
    if let Ok(contact) = with(&deep) {
        assert!(contact.raw.get("x").is_none());
        assert_eq!(contact.raw["_omitted"], serde_json::json!(["x"]));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = (completed(&body).is_ok(), single(&body).is_ok(), hierarchy(&body).is_ok());
    }

    #[test]
    fn a_mangled_page_never_makes_it_panic(at in 0..NEW.len(), byte in any::<u8>(), cut in 0..NEW.len()) {
        let mut body = NEW.as_bytes().to_vec();
        body[at] = byte;
        drop(completed(&body));
        drop(completed(&body[..cut]));
    }

    #[test]
    fn every_id_of_the_grammar_is_read_as_number_and_as_text(id in 1..=9_999_999_999_999_999_999_u64) {
        for shown in [format!("{id}"), format!("\"{id}\"")] {
            let contact = only(&format!("{{\"completedContacts\":[{{\"contactId\":{shown},\"agentId\":{shown}}}]}}"));
            let contact = contact.unwrap();
            prop_assert_eq!(contact.contact_id.get(), id);
            prop_assert_eq!(contact.agent_id.unwrap().get(), id);
        }
    }
}

#[test]
fn a_damaged_row_leaves_its_neighbours_unharmed() {
    let page = |damage: &str| {
        let body = format!(
            r#"{{"totalRecords":3,"completedContacts":[{{"contactId":1}},{{"contactId":2,{damage}}},{{"contactId":3}}]}}"#
        );
        completed(body.as_bytes())
    };
    for damage in ["\"holdSeconds\":1e", "\"note\":\"a\nb\"", "\"holdSeconds\":01", "\"x\" 5"] {
        let page = page(damage).unwrap();
        assert_eq!(page.total, Some(3), "{damage}");
        let ids: Vec<_> = page.rows.iter().map(|row| row.as_ref().map(|row| row.contact_id.get()).ok()).collect();
        assert_eq!(ids, [Some(1), None, Some(3)], "{damage}");
        assert_eq!(page.rows[1].as_ref().unwrap_err().contact_id.map(ContactId::get), Some(2), "{damage}");
    }
    let cut = br#"{"totalRecords":3,"completedContacts":[{"contactId":1},{"contactId":2,"#;
    assert!(matches!(completed(cut), Err(ShapeError::NotJson)), "what is missing of a cut body is not known");
}
