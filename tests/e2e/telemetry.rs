//! Spans: what a collector gets, decoded by a library that nobody here wrote; and that no collector holds anybody up.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::gateway::{Gateway, KEY, ORIGIN, halo, in_seconds, jwt, until};
use crate::http::{self, Answer, Connection};
use crate::upstream::Upstream;
use crate::verifiers;

const PARENT: &str = "00f067aa0ba902b7";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Header fields and body of each.
type Requests = Arc<Mutex<Vec<(Vec<(String, String)>, Vec<u8>)>>>;

/// A collector: an axum server that takes OTLP over HTTP and keeps what it got.
struct Collector {
    address: SocketAddr,
    got: Requests,
    _runtime: tokio::runtime::Runtime,
}

impl Collector {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let got = Requests::default();
        let kept = Arc::clone(&got);
        let take = move |headers: axum::http::HeaderMap, body: axum::body::Bytes| {
            let lines = headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()));
            kept.lock().unwrap().push((lines.collect(), body.to_vec()));
            std::future::ready([("content-type", "application/x-protobuf")])
        };
        let router = axum::Router::new().route("/v1/traces", axum::routing::post(take));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { address, got, _runtime: runtime }
    }

    fn headers(&self) -> Vec<(String, String)> {
        self.got.lock().unwrap().iter().flat_map(|(headers, _)| headers.clone()).collect()
    }

    fn bodies(&self) -> Vec<Vec<u8>> {
        self.got.lock().unwrap().iter().map(|(_, body)| body.clone()).collect()
    }

    fn spans(&self) -> Vec<Value> {
        verifiers::spans(&self.bodies())
    }
}

fn config(upstream: SocketAddr, telemetry: &str) -> String {
    halo(upstream, "").replace("[upstream]", &format!("[telemetry]\n{telemetry}\n[upstream]"))
}

fn exporting(upstream: SocketAddr, collector: SocketAddr, more: &str) -> String {
    config(upstream, &format!("endpoint = \"http://{collector}\"\n{more}"))
}

fn ask(gateway: &Gateway, target: &str, more: &[(&str, &str)]) -> Answer {
    let key = format!("Bearer {KEY}");
    gateway.ask("GET", target, &[&[("Authorization", key.as_str()), ("Origin", ORIGIN)], more].concat(), b"")
}

/// Ends the gateway, which sends what waits.
#[track_caller]
fn end(gateway: &mut Gateway) {
    gateway.signal("TERM");
    assert_eq!(gateway.wait(), 0);
}

#[track_caller]
fn of<'s>(spans: &'s [Value], answer: &Answer) -> &'s Value {
    let id = answer.one("x-request-id");
    let mut found = spans.iter().filter(|span| span["attributes"]["doorward.request_id"] == id);
    let span = found.next().unwrap_or_else(|| panic!("no span for {id}: {spans:#?}"));
    assert!(found.next().is_none(), "two spans for {id}");
    span
}

#[test]
fn a_collector_gets_one_span_a_request_with_the_ids_that_the_upstream_saw() {
    let (upstream, collector) = (Upstream::plain(), Collector::start());
    // The environment may give headers, and nothing else.
    let environment = "export OTEL_EXPORTER_OTLP_HEADERS=api-key=s3cret-of-the-collector OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:9 \
                       OTEL_SERVICE_NAME=other OTEL_RESOURCE_ATTRIBUTES=a=b OTEL_TRACES_SAMPLER=always_off OTEL_BSP_MAX_QUEUE_SIZE=1 \
                       OTEL_EXPORTER_OTLP_PROTOCOL=grpc OTEL_SDK_DISABLED=true HTTP_PROXY=http://127.0.0.1:9";
    let mut gateway = Gateway::start_by(environment, &exporting(upstream.address(), collector.address, "service_name = \"edge\""), &[]);
    let token = jwt(&json!({ "user_id": "user_in_secret", "email": "ann@example.com", "exp": in_seconds(600) }));
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let continued = ask(
        &gateway,
        "/a?key=hidden_in_query",
        &[("traceparent", &parent), ("tracestate", "vendor=hidden_in_state"), ("X-User-Token", &token)],
    );
    assert_eq!(continued.status, 200, "{}", continued.text());
    let seen = upstream.last();
    let started = ask(&gateway, "/b", &[]);
    let started_seen = upstream.last();
    let denied = gateway.ask("POST", "/c", &[("Authorization", "Bearer pk_live_unknown_0123456789"), ("Origin", ORIGIN)], b"");
    let odd = gateway.ask("PURGE", "/d", &[("Authorization", &format!("Bearer {KEY}")), ("Origin", ORIGIN)], b"");
    let unsampled = ask(&gateway, "/e", &[("traceparent", &format!("00-{TRACE}-{PARENT}-00"))]);
    assert!(upstream.last().one("traceparent").ends_with("-00"));
    gateway.counted("doorward_requests_in_flight", 0.0);
    end(&mut gateway);

    let spans = collector.spans();
    assert_eq!(spans.len(), 4, "{spans:#?}");
    let span = of(&spans, &continued);
    let ids = |span: &Value| format!("00-{}-{}-01", span["traceId"].as_str().unwrap(), span["spanId"].as_str().unwrap());
    assert_eq!(ids(span), seen.one("traceparent"), "the upstream's parent is the gateway's span");
    assert_eq!((&span["traceId"], &span["parentSpanId"]), (&json!(TRACE), &json!(PARENT)));
    assert_eq!((&span["kind"], &span["name"], &span["scope"]), (&json!("SPAN_KIND_SERVER"), &json!("GET"), &json!("doorward")));
    let expected = json!({
        "http.request.method": "GET", "url.path": "/a", "url.scheme": "http", "network.protocol.version": "1.1",
        "http.response.status_code": "200", "doorward.outcome": "forwarded", "doorward.tenant": "acme",
        "doorward.request_id": continued.one("x-request-id"),
    });
    assert_eq!(span["attributes"], expected);
    assert_eq!(
        (&span["resource"]["service.name"], &span["resource"]["service.version"]),
        (&json!("edge"), &json!(env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(span["resource"].get("a"), None, "the environment's attributes are not taken");
    let nanos = |name: &str| span[name].as_str().unwrap().parse::<u64>().unwrap();
    let took = nanos("endTimeUnixNano").checked_sub(nanos("startTimeUnixNano")).expect("it ends after it starts");
    assert!(took > 0 && Duration::from_nanos(took) < http::PATIENCE, "{took} ns");
    assert!(nanos("endTimeUnixNano").abs_diff(u64::try_from(in_seconds(0)).unwrap() * 1_000_000_000) < 120_000_000_000);

    let span = of(&spans, &started);
    assert_eq!(ids(span), started_seen.one("traceparent"));
    assert_eq!(span["parentSpanId"], "", "a trace that starts here has no parent");
    let span = of(&spans, &denied);
    assert_eq!(
        (&span["attributes"]["doorward.reason"], &span["attributes"]["http.response.status_code"]),
        (&json!("embed_key_unknown"), &json!("403"))
    );
    assert_eq!(span.get("status"), Some(&json!({})), "a refusal is no error of the server's: {span}");
    let span = of(&spans, &odd);
    assert_eq!((&span["name"], &span["attributes"]["http.request.method"]), (&json!("HTTP"), &json!("_OTHER")));
    assert!(!spans.iter().any(|span| span["attributes"]["doorward.request_id"] == unsampled.one("x-request-id")), "the caller said no");

    let sent = collector.headers();
    assert!(sent.contains(&("api-key".to_owned(), "s3cret-of-the-collector".to_owned())), "{sent:?}");
    assert!(sent.contains(&("content-type".to_owned(), "application/x-protobuf".to_owned())), "{sent:?}");
    let bytes = collector.bodies().concat();
    let all = String::from_utf8_lossy(&bytes);
    for secret in ["user_in_secret", "ann@example.com", "hidden_in_query", "hidden_in_state", KEY, "127.0.0.1", &token, "s3cret"] {
        assert!(!all.contains(secret), "{secret} was exported");
    }
    assert!(!gateway.log().contains("s3cret"), "{}", gateway.log());
}

#[test]
fn the_ratio_is_for_traces_that_start_here() {
    let (upstream, collector) = (Upstream::plain(), Collector::start());
    let mut gateway = Gateway::start(&exporting(upstream.address(), collector.address, "sample_ratio = 0"));
    for _ in 0..20 {
        assert_eq!(ask(&gateway, "/a", &[]).status, 200);
        assert!(upstream.last().one("traceparent").ends_with("-00"), "the backend is told the same");
    }
    let chosen = ask(&gateway, "/b", &[("traceparent", &format!("00-{TRACE}-{PARENT}-01"))]);
    assert!(upstream.last().one("traceparent").ends_with("-01"));
    gateway.counted("doorward_requests_in_flight", 0.0);
    end(&mut gateway);
    let spans = collector.spans();
    assert_eq!(spans.len(), 1, "{spans:#?}");
    of(&spans, &chosen);
}

#[test]
fn a_failing_upstream_is_an_error_in_its_span_and_a_reload_turns_it_on_and_off() {
    let (upstream, collector) = (Upstream::answering("not HTTP at all\r\n\r\n"), Collector::start());
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    let before = ask(&gateway, "/before", &[]);
    gateway.write("doorward.toml", &exporting(upstream.address(), collector.address, ""));
    gateway.generation(2);
    let failed = ask(&gateway, "/a", &[]);
    assert_eq!(failed.reason(), "upstream_protocol");
    gateway.counted("doorward_requests_in_flight", 0.0);
    gateway.write("doorward.toml", &halo(upstream.address(), ""));
    gateway.generation(3);
    let after = ask(&gateway, "/after", &[]);
    gateway.counted(r#"doorward_telemetry_spans_total{result="exported"}"#, 1.0);
    let spans = collector.spans();
    let span = of(&spans, &failed);
    assert_eq!((&span["status"]["code"], &span["attributes"]["error.type"]), (&json!("STATUS_CODE_ERROR"), &json!("upstream_protocol")));
    for other in [before, after] {
        assert!(!spans.iter().any(|span| span["attributes"]["doorward.request_id"] == other.one("x-request-id")));
    }
}

/// Takes connections and reads; answers nothing.
struct BlackHole {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl BlackHole {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), Arc::<AtomicBool>::default());
        let stopping = Arc::clone(&stop);
        thread::spawn(move || {
            let mut held = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                if stopping.load(Ordering::SeqCst) {
                    return;
                }
                held.push(stream);
            }
        });
        Self { address, stop }
    }
}

impl Drop for BlackHole {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1)); // wakes accept()
    }
}

#[test]
fn a_black_holed_collector_costs_spans_and_nothing_else() {
    let (upstream, hole) = (Upstream::plain(), BlackHole::start());
    let mut gateway = Gateway::start(&exporting(upstream.address(), hole.address, ""));
    let request = http::request("GET", "/a", &[("Authorization", &format!("Bearer {KEY}")), ("Origin", ORIGIN)], b"");
    let dropped = r#"doorward_telemetry_spans_total{result="dropped"}"#;
    let begun = Instant::now();
    // More than the queue takes, however often a batch is given up meanwhile.
    while gateway.metric(dropped) < 1.0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "the queue never filled up");
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut connection = Connection::open(gateway.address);
                    for _ in 0..600 {
                        connection.send(&request).unwrap();
                        assert_eq!(connection.answer("GET").unwrap().status, 200);
                    }
                });
            }
        });
    }
    assert_eq!(gateway.metric(r#"doorward_telemetry_spans_total{result="exported"}"#), 0.0);
    let ending = Instant::now();
    end(&mut gateway);
    // Two seconds for the last spans; the rest is for a machine that is busy.
    assert!(ending.elapsed() < Duration::from_secs(15), "shutdown took {:?}", ending.elapsed());
    until("the loss to be logged", || gateway.log().contains("the last spans were not exported").then_some(()));
}

#[test]
fn a_collector_that_is_down_or_refuses_is_mentioned_once() {
    let upstream = Upstream::plain();
    let refusing = Upstream::answering("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (collector, says) in [(refusing.address(), "the collector answers 401"), (closed, "Connection refused")] {
        let mut gateway = Gateway::start(&exporting(upstream.address(), collector, ""));
        assert_eq!(ask(&gateway, "/a", &[]).status, 200);
        gateway.counted("doorward_requests_in_flight", 0.0);
        end(&mut gateway);
        until(says, || gateway.log().contains(says).then_some(()));
        let log = gateway.log();
        assert_eq!(log.matches("spans were not exported; requests are served all the same").count(), 1, "{log}");
    }
}
