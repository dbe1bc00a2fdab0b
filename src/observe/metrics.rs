//! Every metric, in base units with bounded labels, created at 0. A request touches handles that were made when its
//! configuration loaded: no lock, no label lookup.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{
    Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

pub use super::counts::{Counted, OTHER, Outcome, TenantMetrics, UNKNOWN};
use super::credentials::CredentialMetrics;
use super::key_sets::KeySetMetrics;
use super::lines::LostLines;
use super::recent::Recent;
use super::telemetry::TelemetryMetrics;
use crate::clock::UnixTime;
use crate::snapshot::{Snapshot, Upstreams};
use crate::tenant::Tenants;
use crate::token::keys::KeyUsage;
use crate::upstream::address::Standing;

/// Why a reload happened to end as it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// The new configuration is in force.
    Applied,
    /// It is, but for tenant files that were refused: the tenants that they gave stay as they were.
    Partial,
    /// It was refused; the last good stays.
    Refused,
}

impl Reload {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::Applied, Self::Partial, Self::Refused];

    /// As labelled.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Partial => "partial",
            Self::Refused => "refused",
        }
    }
}

/// Which number of connections was exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cap {
    /// `max_connections`.
    All,
    /// `max_connections_per_client`.
    Client,
}

/// Why a connection was closed on a client that was too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// `header_timeout`.
    Header,
    /// `body_min_rate`.
    Body,
}

/// What is counted about connections of clients.
#[derive(Clone, Debug)]
pub struct Connections {
    /// Those that are open.
    pub open: IntGauge,
    refused_all: IntCounter,
    refused_client: IntCounter,
    cut_header: IntCounter,
    cut_body: IntCounter,
}

impl Connections {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counters = |name: &str, help: &str, label: &str| registered(registry, IntCounterVec::new(Opts::new(name, help), &[label]));
        let refused =
            counters("doorward_connections_refused_total", "Connections closed on arrival, by the limit they exceeded.", "limit")?;
        let cut =
            counters("doorward_connections_cut_total", "Connections closed because the client was too slow, by what was late.", "late")?;
        Ok(Self {
            open: registered(registry, IntGauge::new("doorward_connections", "Connections of clients."))?,
            refused_all: refused.with_label_values(&["max_connections"]),
            refused_client: refused.with_label_values(&["max_connections_per_client"]),
            cut_header: cut.with_label_values(&["header"]),
            cut_body: cut.with_label_values(&["body"]),
        })
    }

    /// Counts a connection that was refused.
    pub fn refuse(&self, cap: Cap) {
        match cap {
            Cap::All => self.refused_all.inc(),
            Cap::Client => self.refused_client.inc(),
        }
    }

    /// Connections that were refused, and that were cut.
    pub fn turned_away(&self) -> (u64, u64) {
        (self.refused_all.get() + self.refused_client.get(), self.cut_header.get() + self.cut_body.get())
    }

    /// Counts a connection that was closed on a slow client.
    pub fn cut(&self, why: Cut) {
        match why {
            Cut::Header => self.cut_header.inc(),
            Cut::Body => self.cut_body.inc(),
        }
    }
}

/// What is shown about upstreams, by their names; filled when somebody looks.
#[derive(Debug)]
struct UpstreamMetrics {
    addresses: IntGaugeVec,
    in_flight: IntGaugeVec,
    ejections: IntCounterVec,
    retries: IntCounterVec,
}

impl UpstreamMetrics {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        let gauges = |name: &str, help: &str, labels: &[&str]| registered(registry, IntGaugeVec::new(Opts::new(name, help), labels));
        let counters = |name: &str, help: &str| registered(registry, IntCounterVec::new(Opts::new(name, help), &["upstream"]));
        Ok(Self {
            addresses: gauges(
                "doorward_upstream_addresses",
                "Addresses of an upstream, by how they are doing.",
                &["upstream", "standing"],
            )?,
            in_flight: gauges("doorward_upstream_requests_in_flight", "Requests at work at an upstream.", &["upstream"])?,
            ejections: counters("doorward_upstream_ejections_total", "Addresses left alone for their failures.")?,
            retries: counters("doorward_upstream_retries_total", "Other tries of requests.")?,
        })
    }

    fn show(&self, upstreams: &Upstreams) {
        self.addresses.reset();
        self.in_flight.reset();
        self.ejections.reset();
        self.retries.reset();
        for upstream in upstreams.all() {
            let (name, counters) = (upstream.settings.name.as_str(), upstream.pool.counters());
            let all = upstream.pool.status(Instant::now());
            for standing in Standing::ALL {
                let count = all.iter().filter(|address| address.standing == standing).count();
                self.addresses.with_label_values(&[name, standing.as_str()]).set(i64::try_from(count).unwrap_or(i64::MAX));
            }
            let in_flight = all.iter().map(|address| address.in_flight).sum::<usize>();
            self.in_flight.with_label_values(&[name]).set(i64::try_from(in_flight).unwrap_or(i64::MAX));
            self.ejections.with_label_values(&[name]).inc_by(counters.ejections());
            self.retries.with_label_values(&[name]).inc_by(counters.retries());
        }
    }
}

type UsageKey = (String, String);

/// The registry and its handles.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    would_deny: IntCounterVec,
    tenants: ArcSwap<HashMap<String, Arc<TenantMetrics>>>,
    unknown: Arc<TenantMetrics>,
    /// Time from the parsed head to the decision, the wait for a held body left out.
    pub decision: Histogram,
    /// Time from forwarding to the end of the upstream's answer.
    pub upstream: Histogram,
    /// Requests being worked on.
    pub in_flight: IntGauge,
    /// Connections of clients.
    pub connections: Connections,
    /// Wall-clock steps beyond 60 s.
    pub clock_steps: IntCounter,
    /// Log lines that could not be written.
    pub lost_lines: LostLines,
    reloads: IntCounterVec,
    generation: IntGauge,
    last_success: Gauge,
    last_reload_successful: IntGauge,
    credentials: CredentialMetrics,
    /// Key sets of issuers.
    pub key_sets: KeySetMetrics,
    /// Spans.
    pub telemetry: TelemetryMetrics,
    usage: Mutex<HashMap<UsageKey, Arc<KeyUsage>>>,
    upstreams: UpstreamMetrics,
    /// The latest denials.
    pub recent: Recent,
    last_reload: Mutex<Option<LastReload>>,
}

/// The latest attempt to put another configuration in force.
#[derive(Clone, Debug)]
pub struct LastReload {
    /// How it ended.
    pub result: Reload,
    /// When.
    pub at: UnixTime,
    /// The generation in force since.
    pub generation: u64,
    /// The first problem, rendered, where there was one.
    pub problem: Option<String>,
}

pub(super) fn registered<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> prometheus::Result<C> {
    let metric = made?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

/// Buckets of the decision: from a microsecond (its usual cost is two) to 16 ms.
const DECISION_BUCKETS: [f64; 8] = [1e-6, 2e-6, 4e-6, 8e-6, 16e-6, 64e-6, 1e-3, 16e-3];

impl Metrics {
    /// Creates every metric.
    ///
    /// # Errors
    /// When two metrics have one name: a bug that shows at start.
    pub fn new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let r = &registry;
        let counters = |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let requests = registered(
            r,
            counters(
                "doorward_requests_total",
                "Requests by tenant, outcome, reason and level.",
                &["tenant", "outcome", "reason", "level"],
            ),
        )?;
        let would_deny = registered(
            r,
            counters("doorward_would_deny_total", "Requests of tenants in monitor mode that enforce would deny.", &["tenant", "reason"]),
        )?;
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets));
        let unknown = TenantMetrics::new(UNKNOWN, &requests, &would_deny);
        let metrics = Self {
            tenants: ArcSwap::default(),
            unknown: Arc::new(unknown),
            decision: registered(r, histogram("doorward_decision_seconds", "Time spent deciding.", DECISION_BUCKETS.to_vec()))?,
            upstream: registered(
                r,
                histogram(
                    "doorward_upstream_seconds",
                    "Time from forwarding a request to the end of its answer.",
                    vec![0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0],
                ),
            )?,
            in_flight: registered(r, IntGauge::new("doorward_requests_in_flight", "Requests being worked on."))?,
            connections: Connections::new(r)?,
            clock_steps: registered(r, IntCounter::new("doorward_clock_steps_total", "Wall-clock steps beyond the default leeway."))?,
            lost_lines: LostLines::new(r)?,
            reloads: registered(r, counters("doorward_reloads_total", "Configuration reloads by result.", &["result"]))?,
            generation: registered(r, IntGauge::new("doorward_config_generation", "Generation of the configuration in force."))?,
            last_success: registered(
                r,
                Gauge::new("doorward_config_last_success_timestamp_seconds", "When a configuration was last put in force."),
            )?,
            last_reload_successful: registered(
                r,
                IntGauge::new("doorward_config_last_reload_successful", "Whether the latest configuration was put in force whole."),
            )?,
            credentials: CredentialMetrics::new(r)?,
            key_sets: KeySetMetrics::new(r)?,
            telemetry: TelemetryMetrics::new(r)?,
            usage: Mutex::default(),
            upstreams: UpstreamMetrics::new(r)?,
            recent: Recent::default(),
            last_reload: Mutex::default(),
            registry: registry.clone(),
            requests,
            would_deny,
        };
        let build = registered(r, GaugeVec::new(Opts::new("doorward_build_info", "Constant 1, labelled by version."), &["version"]))?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        for result in Reload::ALL {
            metrics.reloads.with_label_values(&[result.as_str()]).inc_by(0);
        }
        Ok(metrics)
    }

    /// Makes handles for the tenants of a configuration that is about to be in force.
    pub fn prepare(&self, tenants: &Tenants, max_tenants: usize) {
        let before = self.tenants.load();
        let mut handles: HashMap<String, Arc<TenantMetrics>> = HashMap::new();
        for (index, tenant) in tenants.all().iter().enumerate() {
            let label = if index < max_tenants { tenant.id.as_str() } else { OTHER };
            let handle = before.get(label).or_else(|| handles.get(label)).cloned();
            let handle = handle.unwrap_or_else(|| Arc::new(TenantMetrics::new(label, &self.requests, &self.would_deny)));
            if label == OTHER {
                handles.insert(OTHER.to_owned(), Arc::clone(&handle));
            }
            handles.insert(tenant.id.clone(), handle);
        }
        self.tenants.store(Arc::new(handles));
    }

    /// Notes that a configuration was put in force or refused.
    pub fn reloaded(&self, result: Reload, generation: u64, now: UnixTime) {
        self.reloads.with_label_values(&[result.as_str()]).inc();
        match result {
            Reload::Applied | Reload::Partial => self.in_force(generation, now),
            Reload::Refused => {}
        }
        self.last_reload_successful.set((result == Reload::Applied).into());
    }

    /// Notes when a reload was tried, and what was wrong with it.
    pub fn tried(&self, reload: LastReload) {
        *self.last_reload.lock() = Some(reload);
    }

    /// The latest reload, if there was one.
    pub fn last_reload(&self) -> Option<LastReload> {
        self.last_reload.lock().clone()
    }

    /// Notes which configuration is in force, and since when.
    pub fn in_force(&self, generation: u64, now: UnixTime) {
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.last_success.set(now.as_secs_f64());
        self.last_reload_successful.set(1);
    }

    /// Reloads so far that ended like this.
    pub fn reloads(&self, result: Reload) -> u64 {
        self.reloads.with_label_values(&[result.as_str()]).get()
    }

    /// The counters of a tenant; those of no tenant where it is not known.
    pub fn tenant(&self, id: Option<&str>) -> Arc<TenantMetrics> {
        id.and_then(|id| self.tenants.load().get(id).cloned()).unwrap_or_else(|| Arc::clone(&self.unknown))
    }

    /// The counters of every label, each once: those of no tenant, then the tenants' in no order.
    pub fn all(&self) -> Vec<Arc<TenantMetrics>> {
        let tenants = self.tenants.load();
        // Tenants beyond `max_tenants` share one.
        let own = tenants.iter().filter(|(id, handle)| **id == *handle.label()).map(|(_, handle)| Arc::clone(handle));
        std::iter::once(Arc::clone(&self.unknown)).chain(own).collect()
    }

    /// The usage counters of a secret, the same across reloads.
    pub fn usage(&self, tenant: &str, secret: &str) -> Arc<KeyUsage> {
        Arc::clone(self.usage.lock().entry((tenant.to_owned(), secret.to_owned())).or_default())
    }

    /// The text exposition format (version 0.0.4), with the secrets, certificates and upstreams of this configuration only.
    ///
    /// # Errors
    /// When a metric cannot be encoded.
    pub fn render(&self, live: &Snapshot) -> prometheus::Result<Vec<u8>> {
        self.upstreams.show(&live.upstreams);
        self.credentials.show_certificates(&live.settings.server.listeners, &live.upstreams);
        let labelled = || live.tenants.all().iter().take(live.settings.max_tenants).map(|tenant| &**tenant);
        self.credentials.show(labelled());
        self.key_sets.show(labelled());
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// Lowers the in-flight gauge when the request is over, however it ends.
#[derive(Debug)]
pub struct InFlight(IntGauge);

impl InFlight {
    /// Raises it.
    pub fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Seconds of a duration, as Prometheus wants them.
pub fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
