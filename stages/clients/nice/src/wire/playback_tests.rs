use super::*;

const SPEC: &str = r#"{"contactId":"11e766de-0000-0000-0000-0242ac110004","acdcontactId":"698800000000",
 "elevatedInteraction":false,"interactions":[{"mediaType":"voice-only","channelType":"PHONE_CALL","@type":"call",
  "startTime":"2026-04-01T16:29:49.000Z","endTime":"2026-04-01T16:31:19.000Z","data":{
   "fileToPlayUrl":"https://storage.example/voice.mp4?signature=abc","videoImageUrl":"x",
   "waveformDataList":[{"channel":1,"normalizedPcmData":[0.1]}],
   "participantDataList":[{"participantType":"AGENT","agentName":"Ada","segmentId":"s-1","userId":"u-1","channel":1},
     {"participantType":"CUSTOMER","channel":"2","segmentId":null}],
   "segmentsDataList":[{"segmentId":"s-1","startTime":"2026-04-01T16:29:49.000Z","endTime":"2026-04-01T16:31:19.000Z"},
     {"segmentId":""}]}}]}"#;

fn there(body: &str) -> Playback {
    playback(body.as_bytes()).unwrap().unwrap()
}

fn links(body: &str) -> Vec<Option<String>> {
    there(body).interactions.into_iter().map(|interaction| interaction.link.map(|link| link.0)).collect()
}

#[test]
fn the_documented_shape() {
    let playback = there(SPEC);
    let interaction = &playback.interactions[0];
    assert_eq!(interaction.link.as_ref().unwrap().0, "https://storage.example/voice.mp4?signature=abc");
    assert_eq!(interaction.ended_at.unwrap().to_string(), "2026-04-01T16:31:19Z");
    assert_eq!(interaction.segments.len(), 1);
    assert_eq!(interaction.segments[0].id.as_str(), "s-1");
    assert!(interaction.participants[0].is_agent && !interaction.participants[1].is_agent);
    assert_eq!(interaction.participants[0].user_id.as_deref(), Some("u-1"));
    assert_eq!(interaction.participants[1].channel, Some(2));
    assert!(!format!("{playback:?}").contains("signature") && !format!("{playback:?}").contains("Ada"));
}

#[test]
fn the_other_spellings() {
    let one = r#"{"mediaType":"voice-only","data":{"fileToPlayUrl":"https://a"}}"#;
    assert_eq!(links(&format!(r#"{{"Interactions":[{one}]}}"#)), [Some("https://a".to_owned())]);
    assert_eq!(
        links(&format!(r#"{{"value":{{"contactId":"x","Interactions":[{{"Interaction":{one}}}]}}}}"#)),
        [Some("https://a".to_owned())]
    );
    assert_eq!(links(r#"{"interactions":[{"fileToPlayUrl":"https://flat"}]}"#), [Some("https://flat".to_owned())]);
}

#[test]
fn an_answer_that_is_only_a_link() {
    assert_eq!(links(r#"{"redirectUrl":"https://a","fileToPlayUrl":"https://b"}"#), [Some("https://a".to_owned())]);
    assert_eq!(links(r#"{"fileToPlayUrl":" https://b "}"#), [Some("https://b".to_owned())]);
    assert_eq!(links(r#"{"redirectUrl":"https://a","interactions":[{"data":{}}]}"#), [Some("https://a".to_owned())]);
    assert_eq!(
        links(r#"{"redirectUrl":"https://a","interactions":[{"data":{"fileToPlayUrl":"https://own"}}]}"#),
        [Some("https://own".to_owned())]
    );
}

#[test]
fn nothing_yet() {
    for body in ["", "{}", r#"{"interactions":[]}"#, r#"{"interactions":null}"#, r#"{"redirectUrl":""}"#] {
        assert!(playback(body.as_bytes()).unwrap().is_none(), "{body}");
    }
    assert_eq!(links(r#"{"interactions":[{"mediaType":"voice-only","data":{}}]}"#), [None]);
    assert_eq!(links(r#"{"interactions":[{"mediaType":"voice-only"}]}"#), [None]);
}

#[test]
fn only_voices_are_taken() {
    let body = r#"{"elevatedInteraction":true,"interactions":[
        {"mediaType":"chat","data":{"messages":[],"fileToPlayUrl":"https://chat"}},
        {"mediaType":"voice-and-screen","data":{"fileToPlayUrl":"https://a"}},
        {"channelType":"PHONE_CALL","data":{"fileToPlayUrl":"https://b"}},
        {"channelType":"EMAIL","data":{"fileToPlayUrl":"https://mail"}}]}"#;
    assert_eq!(links(body), [Some("https://a".to_owned()), Some("https://b".to_owned())]);
    assert!(playback(br#"{"interactions":[{"mediaType":"email"}]}"#).unwrap().is_none());
}

#[test]
fn what_comes_over_the_phone_is_a_voice_whatever_its_type() {
    for medium in ["BE", "BE_AND_SCREEN", "be"] {
        let data = r#""data":{"fileToPlayUrl":"https://a"}"#;
        let own = format!(r#"{{"interactions":[{{"mediaType":"{medium}","channelType":"PHONE_CALL",{data}}}]}}"#);
        assert_eq!(links(&own), [Some("https://a".to_owned())], "{medium}");
        assert_eq!(there(&own).skipped, 0);
        let of_a_segment = format!(
            r#"{{"interactions":[{{"mediaType":"{medium}","data":{{"fileToPlayUrl":"https://a",
               "segmentsDataList":[{{"segmentId":"s-1","channelType":"EMAIL"}},
                                   {{"segmentId":"s-2","channelType":"phone_call"}}]}}}}]}}"#
        );
        assert_eq!(links(&of_a_segment), [Some("https://a".to_owned())], "{medium}");
    }
}

#[test]
fn what_may_hold_a_voice_and_is_skipped_is_counted() {
    let skipped = |interactions: &str| {
        let answered = read(format!(r#"{{"interactions":[{interactions}]}}"#).as_bytes()).unwrap();
        let playback = answered.playback.map(|playback| (playback.interactions.len(), playback.skipped));
        (playback, answered.passed_over)
    };
    // Nothing but what holds no voice: as if nothing were there.
    assert_eq!(skipped(r#"{"mediaType":"chat"},{"mediaType":"WORKITEM"}"#), (None, vec!["chat", "WORKITEM"]));
    assert_eq!(skipped(r#"{"mediaType":"BE","channelType":"EMAIL"}"#), (None, vec!["BE"]));
    assert_eq!(skipped(r#"{"mediaType":"chat","channelType":"PHONE_CALL"}"#), (None, vec!["chat"]));
    assert_eq!(skipped(r#"{"channelType":"EMAIL"}"#), (None, vec!["other"]));
    assert_eq!(skipped(r#"{"mediaType":"fax","channelType":"FAX"}"#), (None, vec!["other"]));
    // What does not tell, and what NICE has invented since.
    assert_eq!(skipped(r#"{"mediaType":"be_and_screen"}"#), (Some((0, 1)), vec!["BE_AND_SCREEN"]));
    assert_eq!(skipped(r#"{"mediaType":"hologram"}"#), (Some((0, 1)), vec!["other"]));
    assert_eq!(
        skipped(r#"{"mediaType":"hologram","channelType":"PHONE_CALL"},{"mediaType":"voice-only"},{"mediaType":"BE"}"#),
        (Some((1, 2)), vec!["other", "BE"])
    );
    assert_eq!(skipped(r#"{"mediaType":"voice-only"}"#), (Some((1, 0)), vec![]));
}

#[test]
fn what_cannot_be_read_is_said() {
    for (body, expected) in [
        (r#"{"interactions":{}}"#, None),
        (r#"{"interactions":[7]}"#, None),
        (r#"{"interactions":[{"data":{"segmentsDataList":[{"segmentId":"../x"}]}}]}"#, Some("a segment id")),
        (r#"{"interactions":[{"data":{"participantDataList":[{"segmentId":"a b"}]}}]}"#, Some("a segment id")),
        (r#"{"interactions":[{"data":{"segmentsDataList":[{"segmentId":{}}]}}]}"#, Some("a segment id")),
    ] {
        let error = playback(body.as_bytes()).unwrap_err();
        assert_eq!(matches!(error, ShapeError::Grammar(_)), expected.is_some(), "{body}");
    }
    assert_eq!(playback(&SPEC.as_bytes()[..300]).unwrap_err(), ShapeError::NotJson);
    assert_eq!(playback(b"<html>").unwrap_err(), ShapeError::Html);
}

proptest::proptest! {
    #[test]
    fn a_mangled_answer_never_makes_it_panic(at in 0..SPEC.len(), byte in proptest::prelude::any::<u8>()) {
        let mut body = SPEC.as_bytes().to_vec();
        body[at] = byte;
        drop(playback(&body));
    }
}
