//! Traces for whoever collects them: one server span per sampled request, in OpenTelemetry's terms, sent as OTLP over HTTP
//! in batches. Off unless `[telemetry]` names an endpoint. A request never waits for it: the queue is bounded, and what does
//! not fit is dropped and counted. A span says what the audit record says about method, path and outcome; never a token, a
//! claim, a subject, an address or a header of the client's.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, Version};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanExporter, SpanLinks, SpanProcessor as _};
use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use tokio::runtime::Handle;

use super::metrics::{Outcome, registered};
use crate::clock::UnixTime;
use crate::outbound::{Client, Roots};
use crate::reason::Reason;
use crate::request::trace::Trace;
use crate::snapshot::TelemetrySettings;

/// Most spans that wait, those on their way included.
const QUEUE: usize = 2048;
/// Most spans of one request to the collector.
const BATCH: usize = 512;
/// How often spans are sent where no batch is full.
const EVERY: Duration = Duration::from_secs(5);
/// Longest that a batch is tried for, retries included.
const EXPORT: Duration = Duration::from_secs(5);
/// Largest answer of a collector.
const ANSWER: usize = 64 * 1024;
/// Longest time for the last spans when the process ends.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// A collector that is down is mentioned this often.
const MENTION: Duration = Duration::from_secs(60);
/// Methods that go by their name (OpenTelemetry semantic conventions for HTTP); the rest could be any number of words.
const METHODS: [&str; 9] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "CONNECT", "TRACE"];

/// What became of spans.
#[derive(Clone, Debug)]
pub struct TelemetryMetrics {
    exported: IntCounter,
    failed: IntCounter,
    dropped: IntCounter,
}

impl TelemetryMetrics {
    /// Creates the metrics.
    ///
    /// # Errors
    /// When a name is taken: a bug that shows at start.
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let opts = Opts::new("doorward_telemetry_spans_total", "Spans of sampled requests, by what became of them.");
        let spans = registered(registry, IntCounterVec::new(opts, &["result"]))?;
        Ok(Self {
            exported: spans.with_label_values(&["exported"]),
            failed: spans.with_label_values(&["failed"]),
            dropped: spans.with_label_values(&["dropped"]),
        })
    }
}

/// What a span says of a request that is over.
#[derive(Debug)]
pub struct Ended<'r> {
    /// Its trace: sampled, or nothing is sent.
    pub trace: &'r Trace,
    /// The request's id, which its audit record has too.
    pub request_id: &'r str,
    /// The tenant, where it was known.
    pub tenant: Option<&'r str>,
    /// The method.
    pub method: &'r str,
    /// The path, without the query: tokens may travel there.
    pub path: &'r str,
    /// `http` or `https`, where that is known.
    pub scheme: Option<&'static str>,
    /// The client's version of HTTP.
    pub version: Version,
    /// The status that was answered, where one was.
    pub status: Option<u16>,
    /// How it ended.
    pub outcome: Outcome,
    /// What enforce would have said.
    pub would_deny: Option<Reason>,
    /// When it ended, and how long it took.
    pub at: UnixTime,
    /// From the parsed head to the end.
    pub latency: Duration,
}

/// Where spans go, if anywhere.
#[derive(Debug)]
pub struct Telemetry {
    pipeline: ArcSwapOption<Pipeline>,
    metrics: TelemetryMetrics,
}

impl Telemetry {
    /// Nowhere yet.
    pub fn new(metrics: TelemetryMetrics) -> Arc<Self> {
        Arc::new(Self { pipeline: ArcSwapOption::empty(), metrics })
    }

    /// Sends where these settings say from now on; spans that wait for another place still go there. Needs a tokio runtime,
    /// and reads the system's certificate authorities.
    pub fn follow(&self, settings: Option<&TelemetrySettings>) {
        let before = self.pipeline.load_full();
        if before.as_ref().map(|pipeline| &pipeline.settings) == settings {
            return;
        }
        let made = settings.map(|settings| Pipeline::start(settings.clone(), self.metrics.clone())).transpose();
        match made {
            Ok(pipeline) => self.pipeline.store(pipeline.map(Arc::new)),
            Err(why) => {
                tracing::error!(why, "spans cannot be exported");
                self.pipeline.store(None);
            }
        }
        if let Some(before) = before {
            tokio::task::spawn_blocking(move || before.stop());
        }
    }

    /// Sends a span for a request, where its trace is sampled and there is somewhere to send it.
    pub fn ended(&self, request: &Ended<'_>) {
        if !request.trace.is_sampled() {
            return;
        }
        if let Some(pipeline) = &*self.pipeline.load() {
            pipeline.take(span(request, &pipeline.scope));
        }
    }

    /// Sends what waits, for two seconds at most.
    pub async fn stop(&self) {
        let Some(pipeline) = self.pipeline.swap(None) else { return };
        let stopping = tokio::task::spawn_blocking(move || pipeline.stop());
        if tokio::time::timeout(LAST_WORDS + LAST_WORDS, stopping).await.is_err() {
            tracing::warn!("the last spans were not exported in time");
        }
    }
}

/// One endpoint's queue.
struct Pipeline {
    settings: TelemetrySettings,
    processor: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
    dropped: IntCounter,
    scope: InstrumentationScope,
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pipeline({})", self.settings.endpoint)
    }
}

impl Pipeline {
    fn start(settings: TelemetrySettings, metrics: TelemetryMetrics) -> Result<Self, String> {
        let roots = match &settings.ca {
            Some(ca) => Roots::pem(ca)?,
            None if settings.endpoint.starts_with("https:") => Roots::system()?,
            None => Roots::none(),
        };
        let door = Door { client: Client::new(roots, 1)?, runtime: Handle::current(), mentioned: Mutex::default() };
        // Written down here, so that the environment does not speak for them; headers are the one thing taken from there.
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(door)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&settings.endpoint)
            .with_timeout(EXPORT)
            .build()
            .map_err(|e| e.to_string())?;
        let waiting = Arc::<AtomicUsize>::default();
        let dropped = metrics.dropped.clone();
        let counting = Counting { exporter, waiting: Arc::clone(&waiting), metrics };
        let batches =
            BatchConfigBuilder::default().with_max_queue_size(QUEUE).with_max_export_batch_size(BATCH).with_scheduled_delay(EVERY).build();
        let mut processor = BatchSpanProcessor::new(counting, batches);
        let named =
            [KeyValue::new("service.name", settings.service_name.clone()), KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))];
        opentelemetry_sdk::trace::SpanProcessor::set_resource(&mut processor, &Resource::builder_empty().with_attributes(named).build());
        tracing::info!(endpoint = settings.endpoint, "exporting spans");
        let scope = InstrumentationScope::builder("doorward").with_version(env!("CARGO_PKG_VERSION")).build();
        Ok(Self { settings, processor, waiting, dropped, scope })
    }

    fn take(&self, span: SpanData) {
        // Counted here: what the library drops it only mentions when it ends.
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= QUEUE {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.dropped.inc();
            return;
        }
        self.processor.on_end(span);
    }

    /// Sends what waits. Blocks for [`LAST_WORDS`] at most.
    fn stop(&self) {
        let sent = self.processor.shutdown_with_timeout(LAST_WORDS);
        let lost = self.waiting.load(Ordering::Relaxed);
        if sent.is_err() || lost > 0 {
            tracing::warn!(endpoint = self.settings.endpoint, lost, "the last spans were not exported");
        }
    }
}

/// Counts what becomes of batches.
#[derive(Debug)]
struct Counting {
    exporter: opentelemetry_otlp::SpanExporter,
    waiting: Arc<AtomicUsize>,
    metrics: TelemetryMetrics,
}

impl SpanExporter for Counting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
        let counter = if result.is_ok() { &self.metrics.exported } else { &self.metrics.failed };
        counter.inc_by(spans as u64);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// The way out: the library's own thread asks, the runtime's sends.
#[derive(Debug)]
struct Door {
    client: Client,
    runtime: Handle,
    mentioned: Mutex<Option<Instant>>,
}

impl Door {
    fn mention(&self, why: &str) {
        let mut mentioned = self.mentioned.lock();
        if mentioned.is_none_or(|at| at.elapsed() >= MENTION) {
            *mentioned = Some(Instant::now());
            tracing::warn!(why, "spans were not exported; requests are served all the same");
        }
    }
}

#[async_trait]
impl HttpClient for Door {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let answer = self.runtime.spawn(async move { client.send(request, ANSWER, EXPORT).await }).await?;
        let answer = answer.inspect_err(|failure| self.mention(&failure.to_string()))?;
        if !answer.status.is_success() {
            self.mention(&format!("the collector answers {}", answer.status.as_u16()));
        }
        let mut response = Response::new(answer.body);
        (*response.status_mut(), *response.headers_mut()) = (answer.status, answer.headers);
        Ok(response)
    }
}

/// The span of a request: OpenTelemetry's semantic conventions for HTTP servers, and how the gateway decided.
fn span(request: &Ended<'_>, scope: &InstrumentationScope) -> SpanData {
    let (trace, own, parent) = request.trace.ids();
    let context = SpanContext::new(TraceId::from_bytes(trace), SpanId::from_bytes(own), TraceFlags::SAMPLED, false, TraceState::NONE);
    let end_time = UNIX_EPOCH + Duration::from_millis(request.at.millis());
    let known = METHODS.contains(&request.method);
    let method = if known { request.method.to_owned() } else { "_OTHER".to_owned() };
    let reason = request.outcome.reason().map(Reason::code);
    let mut attributes = vec![
        KeyValue::new("http.request.method", method.clone()),
        KeyValue::new("url.path", request.path.to_owned()),
        KeyValue::new("doorward.request_id", request.request_id.to_owned()),
        KeyValue::new("doorward.outcome", request.outcome.as_str()),
    ];
    let mut add = |name: &'static str, value: Option<opentelemetry::Value>| {
        attributes.extend(value.map(|value| KeyValue::new(name, value)));
    };
    add("url.scheme", request.scheme.map(Into::into));
    add("network.protocol.version", version(request.version).map(Into::into));
    add("http.response.status_code", request.status.map(|status| i64::from(status).into()));
    add("doorward.tenant", request.tenant.map(|tenant| tenant.to_owned().into()));
    add("doorward.reason", reason.map(Into::into));
    add("doorward.would_deny", request.would_deny.map(|reason| reason.code().into()));
    // The conventions call 4xx the client's fault, and so no error of the server's.
    let failed = request.status.filter(|status| *status >= 500);
    add("error.type", failed.map(|status| reason.map_or_else(|| status.to_string().into(), Into::into)));
    SpanData {
        span_context: context,
        parent_span_id: parent.map_or(SpanId::INVALID, SpanId::from_bytes),
        parent_span_is_remote: parent.is_some(),
        span_kind: SpanKind::Server,
        // Without a route's name the conventions want the method alone: a path could be anything.
        name: if known { method.into() } else { "HTTP".into() },
        start_time: end_time.checked_sub(request.latency).unwrap_or(end_time),
        end_time,
        attributes,
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: if failed.is_some() { Status::error("") } else { Status::Unset },
        instrumentation_scope: scope.clone(),
    }
}

fn version(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("1.0"),
        Version::HTTP_11 => Some("1.1"),
        Version::HTTP_2 => Some("2"),
        _ => None,
    }
}
