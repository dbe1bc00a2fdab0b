//! Everything a request is judged by, as one value. A request loads it once and keeps it to its end, so a reload is atomic
//! for every request (`threats` 32). Revocations are loaded beside it: they must apply while a new configuration is refused.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::assertion::Signer;
use crate::clock::UnixTime;
use crate::policy::UpstreamId;
use crate::request::forwarded::Trusted;
use crate::request::original::Convention;
use crate::request::trace::SampleRatio;
use crate::revocations::Revocations;
use crate::secret::KeyBytes;
use crate::tenant::Tenants;
use crate::tls::Tls;
use crate::token::session::Sessions;
use crate::upstream::UpstreamSettings;
use crate::upstream::pool::{PATIENCE, Pool};

/// Where a listener is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix {
        /// Its path.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One place where clients connect. All but the place applies to new connections at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub place: Place,
    /// How it speaks TLS, where it does.
    pub tls: Option<Tls>,
    /// HTTP/2 in clear text, for connections that start with its preface (RFC 9113 §3.3).
    pub h2c: bool,
    /// Every connection starts with a PROXY protocol header, and its sender is a trusted proxy.
    pub proxy_protocol: bool,
    /// Nothing is forwarded from here: an ingress of this convention asks whether its requests may pass.
    pub forward_auth: Option<Convention>,
}

impl Listener {
    /// Plain HTTP/1.1.
    pub fn plain(address: SocketAddr) -> Self {
        Self { place: Place::Tcp(address), tls: None, h2c: false, proxy_protocol: false, forward_auth: None }
    }
}

/// `[server]`. [`with_a_restart`](Self::with_a_restart) knows what a reload leaves as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Where clients connect: `listen` first, then every `[[server.listener]]`.
    pub listeners: Vec<Listener>,
    /// Whose word about clients is believed.
    pub trusted: Trusted,
    /// Metrics, probes, status, JWKS; loopback by default.
    pub admin: SocketAddr,
    /// Names under which the status page answers, beside `localhost` and the listener's address.
    pub admin_hosts: Vec<String>,
    /// Probes and metrics only, where Kubernetes and Prometheus can reach them.
    pub probes: Option<SocketAddr>,
    /// Worker threads of the proxy; default: the number of cores.
    pub threads: usize,
    /// Largest body that is held before deciding, in bytes.
    pub body_hold: usize,
    /// One deadline for the whole hold.
    pub body_timeout: Duration,
    /// How long requests in flight may go on after SIGTERM.
    pub grace: Duration,
    /// How long the listeners stay open after readiness fell.
    pub drain_delay: Duration,
    /// Where the next process asks this one for its sockets; nobody can where there is none.
    pub upgrade_socket: Option<PathBuf>,
    /// `[server.limits]`.
    pub limits: ServerLimits,
}

impl ServerSettings {
    /// What a reload leaves as it was, since it belongs to the process: keys, and whether `next` has another value there.
    pub fn with_a_restart(&self, next: &Self) -> [(&'static [&'static str], bool); 5] {
        let places = |settings: &Self| settings.listeners.iter().map(|l| l.place.clone()).collect::<Vec<_>>();
        [
            (&["listen", "listener.address", "listener.unix", "listener.mode"], places(self) != places(next)),
            (&["admin"], self.admin != next.admin),
            (&["probes"], self.probes != next.probes),
            (&["threads"], self.threads != next.threads),
            (&["upgrade_socket"], self.upgrade_socket != next.upgrade_socket),
        ]
    }
}

/// `[server.limits]`: what any client may take of the process (`threats` 30).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Deadline of a whole request head, from its first byte, or from the connection's start.
    pub header_timeout: Duration,
    /// Longest idle time between two requests of one connection.
    pub keepalive_timeout: Duration,
    /// Most requests of one connection.
    pub keepalive_requests: u32,
    /// Least bytes per second of a body that is waited for; 0: any.
    pub body_min_rate: u64,
    /// What that rate is measured over.
    pub body_rate_window: Duration,
    /// Longest time in which a client takes no more of an answer.
    pub send_timeout: Duration,
    /// Most connections.
    pub max_connections: usize,
    /// Most connections of one client: an IPv4 address or an IPv6 /64.
    pub max_connections_per_client: usize,
    /// Most requests at once, streams included.
    pub max_in_flight: usize,
}

/// An upstream: where it is, how it is told who is talking, and how its addresses are doing.
#[derive(Debug)]
pub struct Upstream {
    /// `[upstream]` or `[upstreams.NAME]`.
    pub settings: UpstreamSettings,
    /// How it is told: `[upstreams.NAME.assertion]`, or `[assertion]`.
    pub signer: Signer,
    /// Its addresses.
    pub pool: Pool,
}

/// Every upstream of a configuration, by its name's id.
#[derive(Debug)]
pub struct Upstreams(Vec<(UpstreamId, Arc<Upstream>)>);

impl Upstreams {
    /// In configuration order.
    pub fn new(all: Vec<Upstream>) -> Self {
        Self(all.into_iter().map(|upstream| (UpstreamId::of(&upstream.settings.name), Arc::new(upstream))).collect())
    }

    /// The upstream with this id. Configurations load only where every tenant's are there.
    pub fn get(&self, id: UpstreamId) -> Option<&Arc<Upstream>> {
        self.0.iter().find(|(of, _)| *of == id).map(|(_, upstream)| upstream)
    }

    /// All of them, in configuration order.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.0.iter().map(|(_, upstream)| upstream)
    }

    /// Takes over what is known about addresses that stay.
    pub fn take_over(&self, before: &Self) {
        for (id, upstream) in &self.0 {
            if let Some(before) = before.get(*id) {
                upstream.pool.take_over(&before.pool);
            }
        }
    }

    /// Looks every name up, all at once, and logs what fails.
    pub async fn resolve(&self) {
        let mut lookups = tokio::task::JoinSet::new();
        for upstream in self.all().cloned() {
            lookups.spawn(async move {
                for (address, error) in upstream.pool.resolve().await {
                    let upstream = &upstream.settings.name;
                    tracing::warn!(%error, upstream, address, "an upstream's name does not resolve; the last known addresses stay");
                }
            });
        }
        while lookups.join_next().await.is_some() {}
    }

    /// The same before they are used for the first time, for no longer than [`PATIENCE`].
    pub async fn resolve_soon(&self) {
        if tokio::time::timeout(PATIENCE, self.resolve()).await.is_err() {
            tracing::warn!(seconds = PATIENCE.as_secs(), "not every upstream's name resolved in time; they are tried again");
        }
    }

    /// The public halves of all assertion keys as one JWK Set (RFC 7517 §5), each once.
    pub fn jwks(&self) -> serde_json::Value {
        let mut keys: Vec<serde_json::Value> = Vec::new();
        for key in self.all().flat_map(|upstream| upstream.signer.published()) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        serde_json::json!({ "keys": keys })
    }
}

/// How the audit record names a subject.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AuditSubject {
    /// As it is.
    #[default]
    Plain,
    /// Hex HMAC-SHA256 under a key of its own.
    Hashed(KeyBytes),
    /// Not at all.
    Omitted,
}

/// `[telemetry]`, where it names an endpoint: one span per request goes there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetrySettings {
    /// Where traces are sent, `/v1/traces` included.
    pub endpoint: String,
    /// The authorities of its certificate as PEM; the system's where there is none.
    pub ca: Option<Arc<str>>,
    /// What the gateway is called there.
    pub service_name: String,
    /// How many of the traces that start here are sampled.
    pub sample_ratio: SampleRatio,
}

/// What the process listens on, forwards to and writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `[server]`.
    pub server: ServerSettings,
    /// `[audit] subject`.
    pub audit_subject: AuditSubject,
    /// `[metrics] max_tenants`: the rest is labelled `other`.
    pub max_tenants: usize,
    /// `[telemetry]`, where it is on.
    pub telemetry: Option<TelemetrySettings>,
    /// `revocations`, where there is one.
    pub revocations: Option<PathBuf>,
}

/// One loaded configuration.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts successful loads, from 1.
    pub generation: u64,
    /// When it was loaded.
    pub loaded_at: UnixTime,
    /// Who may call.
    pub tenants: Tenants,
    /// Where requests go.
    pub upstreams: Upstreams,
    /// Our own session tokens.
    pub sessions: Sessions,
    /// The rest.
    pub settings: Settings,
}

/// The configuration in force.
#[derive(Debug)]
pub struct Live {
    snapshot: ArcSwap<Snapshot>,
    revocations: ArcSwap<Revocations>,
}

impl Live {
    /// Puts a first configuration in force.
    pub fn new(snapshot: Snapshot, revocations: Revocations) -> Self {
        Self { snapshot: ArcSwap::from_pointee(snapshot), revocations: ArcSwap::from_pointee(revocations) }
    }

    /// What a new request is judged by.
    pub fn load(&self) -> (Arc<Snapshot>, Arc<Revocations>) {
        (self.snapshot.load_full(), self.revocations.load_full())
    }

    /// Puts another configuration in force for new requests.
    pub fn swap(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }

    /// Puts other revocations in force for new requests.
    pub fn revoke(&self, revocations: Revocations) {
        self.revocations.store(Arc::new(revocations));
    }
}
