use axum::{Router, http::StatusCode, routing::post};
use opentelemetry::trace::{Tracer, TracerProvider};

use super::*;

/// A collector that answers this for as long as its handle is held, and its sender.
async fn sender(answer: StatusCode) -> (Sender, AbortOnDropHandle<std::io::Result<()>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}/v1/traces", listener.local_addr().unwrap())).unwrap();
    let router = Router::new().route("/v1/traces", post(move || async move { answer }));
    let served = task::spawn("collector", async move { axum::serve(listener, router).await });
    let collector = Collector { client: client(None).unwrap(), url, headers: HeaderMap::new() };
    (Sender { collector, resource: ResourceAttributesWithSchema::from(&resource(None, "run")), trouble: None }, served)
}

/// Ends so many spans, and gives those that found a place among `room`.
fn ended(spans: u32, room: usize) -> mpsc::Receiver<SpanData> {
    let (sender, waiting) = mpsc::channel(room);
    let provider = SdkTracerProvider::builder().with_span_processor(WaitingSpans(sender)).build();
    let tracer = provider.tracer("test");
    (0..spans).for_each(|_| drop(tracer.start("upload")));
    waiting
}

#[tokio::test]
async fn what_finds_no_place_or_is_refused_is_lost_and_counted_and_nobody_waits() {
    let (_, before) = counts();
    let mut waiting = ended(10, 4);
    assert_eq!(counts().1 - before, 6, "six found no place");
    let mut batch = Vec::new();
    waiting.recv_many(&mut batch, 10).await;
    let (mut sender, _refuses) = sender(StatusCode::BAD_REQUEST).await;
    sender.send(batch, &CancellationToken::new()).await;
    assert_eq!(counts().1 - before, 10, "four were refused for good");
    assert!(sender.trouble.is_some());
    let (taken, _) = counts();
    let waiting = ended(3, 4);
    let (mut well, _takes) = self::sender(StatusCode::OK).await;
    well.trouble = sender.trouble;
    // All that is there is sent, and then it ends with the processor that it gets spans from.
    well.run(waiting, CancellationToken::new()).await;
    assert_eq!(counts().0 - taken, 3);
}

#[tokio::test]
async fn a_collector_that_is_away_is_told_of_once_and_does_not_hold_up_the_end() {
    let mut waiting = ended(1, 4);
    let mut batch = Vec::new();
    waiting.recv_many(&mut batch, 10).await;
    // Nobody listens at port 1.
    let url = Url::parse("http://127.0.0.1:1").unwrap();
    let collector = Collector { client: client(None).unwrap(), url, headers: HeaderMap::new() };
    let resource = ResourceAttributesWithSchema::from(&resource(None, "consumer"));
    let mut sender = Sender { collector, resource, trouble: None };
    let ending = CancellationToken::new();
    ending.cancel();
    sender.send(batch.clone(), &ending).await;
    let (told_at, _) = sender.trouble.expect("it was told");
    sender.send(batch, &ending).await;
    assert_eq!(sender.trouble.map(|(at, _)| at), Some(told_at), "once a minute");
}
