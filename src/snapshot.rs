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
use crate::request::forwarded::Trusted;
use crate::request::original::Convention;
use crate::request::trace::SampleRatio;
use crate::revocations::Revocations;
use crate::secret::KeyBytes;
use crate::tenant::Tenants;
use crate::tls::Tls;
use crate::token::session::Sessions;

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

/// `[server]`. Only addresses, threads and `upgrade_socket` need a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Where clients connect: `listen` first, then every `[[server.listener]]`.
    pub listeners: Vec<Listener>,
    /// Whose word about clients is believed.
    pub trusted: Trusted,
    /// Metrics, probes, status, JWKS; loopback by default.
    pub admin: SocketAddr,
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

/// `[upstream]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// `host:port`; a name is resolved off the request path.
    pub address: String,
    /// Deadline of the TCP connect.
    pub connect_timeout: Duration,
    /// Longest silence of the upstream before the first byte and between bytes.
    pub read_timeout: Duration,
    /// Longest time that the upstream takes no bytes.
    pub write_timeout: Duration,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
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
    /// `[upstream]`.
    pub upstream: UpstreamSettings,
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
    /// How the upstream is told.
    pub signer: Signer,
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
