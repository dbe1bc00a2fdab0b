//! What an upstream is: one backend under one name, at one address or several, and how it is reached, tried and told apart
//! from its kin. Settings are plain data made by [`crate::config`]; [`pool`] is what lives behind them: which addresses there
//! are, how they are doing, and which comes next. No framework, no sockets but the system's resolver; connecting is the
//! server's.

pub mod address;
pub mod pool;
pub mod rewrite;
pub mod tls;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use sha2::{Digest as _, Sha256};

use crate::tenant::Place;
use rewrite::Rewrite;
use tls::ClientTls;

/// One address as the operator wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// A host name or an IP address, without brackets, and a port. A name may stand for several addresses.
    Tcp {
        /// The host.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Which address comes next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The one with the fewest requests at work.
    LeastConnections,
    /// The one that the request's conversation belongs to: the first of these places that it has, else the verified subject,
    /// the session, the client's address.
    ConsistentHash(Vec<Place>),
}

impl Balance {
    /// As written in configuration.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastConnections => "least_connections",
            Self::ConsistentHash(_) => "consistent_hash",
        }
    }
}

/// How long what may take. Streams are exempt from `read` and `total`, by the rule that the server has for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until a connection is there, its TLS handshake included.
    pub connect: Duration,
    /// From the end of the request to the head of its answer.
    pub first_byte: Duration,
    /// Longest silence within an answer.
    pub read: Duration,
    /// Longest time in which the backend takes no bytes.
    pub write: Duration,
    /// The whole exchange, other tries included.
    pub total: Duration,
    /// How long an unused connection is kept.
    pub idle: Duration,
}

/// What `Host` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostPolicy {
    /// What the client said.
    #[default]
    Preserve,
    /// The address as it is written in the configuration.
    Address,
    /// Always this.
    Name(HeaderValue),
}

/// Active checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Asked with GET; `None`: whether a connection is taken is enough.
    pub path: Option<String>,
    /// From one check of an address to its next.
    pub interval: Duration,
    /// Deadline of one check.
    pub timeout: Duration,
    /// Checks in a row that must pass before an address is used again.
    pub healthy_after: u32,
    /// Checks in a row that must fail before it is not used any more.
    pub unhealthy_after: u32,
    /// Statuses that pass; empty: any 2xx.
    pub statuses: Vec<u16>,
}

/// When an address is left alone for its failures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row; 0: never.
    pub failures: u32,
    /// For how long at first; twice as long each time after.
    pub period: Duration,
    /// And at most.
    pub longest: Duration,
    /// Statuses that count as failures, beside connections that fail, break or time out.
    pub statuses: Vec<u16>,
}

/// `[upstream]` or `[upstreams.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// Its name; that of `[upstream]` is `default`.
    pub name: String,
    /// Where it is.
    pub backends: Vec<Backend>,
    /// Which address comes next.
    pub balance: Balance,
    /// How long what may take.
    pub timeouts: Timeouts,
    /// How many other tries a request has at most.
    pub retries: u32,
    /// What `Host` says.
    pub host: HostPolicy,
    /// What becomes of the path.
    pub path: Rewrite,
    /// TLS, where it is spoken.
    pub tls: Option<Arc<ClientTls>>,
    /// Active checks, where there are any.
    pub health: Option<Health>,
    /// Passive ones.
    pub ejection: Ejection,
}

/// A number that two processes make of the same bytes.
pub fn stable_hash(bytes: &[u8]) -> u64 {
    first_eight(Sha256::digest(bytes).into())
}

fn first_eight(digest: [u8; 32]) -> u64 {
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}
