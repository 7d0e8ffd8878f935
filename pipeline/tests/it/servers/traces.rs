//! One trace for each call, over both services: from NICE's row to the analysis queue.

use nice_sim::CallSpec;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use super::bed::{ServerBed, terminate};
use super::calls::small;
use crate::collector::{AUTHORIZATION, Collector, Received};
use crate::harness::sized;

const PRODUCER: &str = "nice-knovvu-producer";
const CONSUMER: &str = "nice-knovvu-consumer";

/// The one span of this name among those of a call.
fn one<'a>(spans: &'a [Received], name: &str) -> &'a Received {
    let found: Vec<_> = spans.iter().filter(|received| received.span.name == name).collect();
    assert_eq!(found.len(), 1, "{name}: {:#?}", spans.iter().map(|known| &known.span.name).collect::<Vec<_>>());
    found[0]
}

fn is_below(child: &Received, parent: &Received) {
    assert_eq!(child.span.parent_span_id, parent.span.span_id, "{} below {}", child.span.name, parent.span.name);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_one_trace_over_both_services() {
    let mut bed = ServerBed::new(small(1020, 0)).await;
    let collector = Collector::start().await;
    bed.set("TRACES__ENDPOINT", &collector.endpoint);
    bed.set("TRACES__HEADERS", format!("Authorization={}", AUTHORIZATION.replace(' ', "%20")));
    let producer = bed.producer();
    let consumers = bed.consumers(1);
    let agents = bed.sim().group(1001);
    let ids: Vec<_> = (0..sized(5, 200))
        .map(|number| bed.sim().add_call(CallSpec::new(agents[number % agents.len()])).contact_ids[0])
        .collect();
    bed.quiet().await;
    let log = consumers[0].logged();
    terminate(consumers.into_iter().chain([producer]));
    // What is left is sent at the end of each service.
    let live = format!("{}.live", bed.prefix);
    let all = collector.until(|spans| {
        ids.iter().all(|id| {
            let of_call = |known: &&Received| known.attribute("conversation.id") == Some(id.to_string());
            spans.iter().filter(of_call).any(|known| known.span.name == format!("process {live}"))
        })
    });
    let all = all.await;
    for id in ids {
        let id = id.to_string();
        let root = all
            .iter()
            .find(|known| known.span.name == "source" && known.attribute("conversation.id") == Some(id.clone()));
        let root = root.expect("the producer has taken it");
        let spans: Vec<_> = all.iter().filter(|known| known.span.trace_id == root.span.trace_id).cloned().collect();
        assert!(root.span.parent_span_id.is_empty() && root.service == PRODUCER);
        assert_eq!(root.attribute("tenant").as_deref(), Some("acme"));

        let enqueue = one(&spans, "enqueue");
        is_below(enqueue, root);
        let send = one(&spans, &format!("send {live}"));
        is_below(send, enqueue);
        assert_eq!((send.span.kind(), send.service.as_str()), (SpanKind::Producer, PRODUCER));
        assert_eq!(send.attribute("messaging.operation.name").as_deref(), Some("send"));

        // A call whose recording is not ready comes again: each attempt is a span below the same message.
        let name = format!("process {live}");
        let attempts: Vec<_> = spans.iter().filter(|known| known.span.name == name).collect();
        for attempt in &attempts {
            is_below(attempt, send);
            assert_eq!((attempt.span.kind(), attempt.service.as_str()), (SpanKind::Consumer, CONSUMER));
            for (key, value) in [
                ("messaging.system", "rabbitmq"),
                ("messaging.destination.name", live.as_str()),
                ("messaging.operation.name", "process"),
                ("messaging.operation.type", "process"),
            ] {
                assert_eq!(attempt.attribute(key).as_deref(), Some(value));
            }
        }
        let last = attempts.iter().max_by_key(|attempt| attempt.span.start_time_unix_nano).expect("it was worked on");
        let below = |parent: &Received| -> Vec<Received> {
            spans.iter().filter(|known| known.span.parent_span_id == parent.span.span_id).cloned().collect()
        };
        let stages = below(last);
        for stage in ["dequeue", "await_recording", "fetch_metadata", "download_recording", "persist", "upload"] {
            assert_eq!(one(&stages, stage).span.kind(), SpanKind::Internal);
        }
        let analysis = below(one(&stages, "upload"));
        assert_eq!(one(&analysis, "send analysis_queue").span.kind(), SpanKind::Producer);
        let asked = below(one(&stages, "fetch_metadata"));
        // For a token, too, by whoever needs one first.
        let contact = one(&asked, "GET contact");
        assert_eq!(contact.span.kind(), SpanKind::Client);
        assert_eq!(contact.attribute("http.request.method").as_deref(), Some("GET"));
        assert_eq!(contact.attribute("http.response.status_code").as_deref(), Some("200"));
        assert_eq!(contact.attribute("server.address").as_deref(), Some("127.0.0.1"));
        let put = analysis.iter().find(|known| known.span.name == "PUT recordings");
        assert!(put.is_some_and(|put| put.span.kind() == SpanKind::Client), "{analysis:#?}");

        let trace_id: String = root.span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(log.contains(&format!("trace_id=\"{trace_id}\"")), "the log does not name {trace_id}");
        let told = bed.json(&["trace", &id, "--json"]);
        assert_eq!(told["trace_id"], trace_id, "{told:#}");
    }
    let text = format!("{all:?}");
    assert!(!text.contains("canary") && !text.contains("http://") && !text.contains("X-Amz"), "a span holds a secret");
}
