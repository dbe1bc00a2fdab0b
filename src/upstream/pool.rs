//! The addresses of one upstream: which there are, and which the next request goes to. Names are looked up in the background
//! and before a configuration is put in force, never on the request path; the last good answer stays when a lookup fails.
//! Where no address is available, all are taken for available: a gateway that is wrong about its backend must not be what
//! stands in the way.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::address::{Address, At, Lease, Standing, Trouble};
use super::{Backend, Balance, Ejection, UpstreamSettings};

/// Most addresses of one upstream: a name that resolves to more is cut off here.
pub const MOST_ADDRESSES: usize = 256;

/// What is counted about an upstream for as long as there is one of its name.
#[derive(Debug, Default)]
pub struct Counters {
    retries: AtomicU64,
    ejections: AtomicU64,
}

impl Counters {
    /// Other tries of requests.
    pub fn retries(&self) -> u64 {
        self.retries.load(Relaxed)
    }

    /// Addresses that were left alone for their failures.
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Relaxed)
    }
}

/// How one address is doing, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressStatus {
    /// Where it is: `10.0.0.1:3000`, `unix:/run/agent.sock`.
    pub address: String,
    /// As the operator wrote it.
    pub backend: String,
    /// Whether it takes requests.
    pub standing: Standing,
    /// Requests at work there.
    pub in_flight: usize,
    /// What last went wrong, where anything did.
    pub trouble: Option<Arc<Trouble>>,
}

/// The addresses of one upstream.
#[derive(Debug)]
pub struct Pool {
    name: String,
    backends: Vec<Backend>,
    balance: Balance,
    ejection: Ejection,
    checked: bool,
    addresses: ArcSwap<Vec<Arc<Address>>>,
    turn: AtomicUsize,
    counters: ArcSwap<Counters>,
}

impl Pool {
    /// A pool that knows the addresses that need no lookup.
    pub fn new(settings: &UpstreamSettings) -> Self {
        let pool = Self {
            name: settings.name.clone(),
            backends: settings.backends.clone(),
            balance: settings.balance.clone(),
            ejection: settings.ejection.clone(),
            checked: settings.health.is_some(),
            addresses: ArcSwap::default(),
            turn: AtomicUsize::new(0),
            counters: ArcSwap::default(),
        };
        let known = pool.backends.iter().flat_map(|backend| fixed(backend).map(|at| (at, backend.clone()))).collect();
        pool.settle(known);
        pool
    }

    /// Takes over what the pool of the same name before a reload knows: how the addresses are doing that stay, and what names
    /// that stay resolved to.
    pub fn take_over(&self, before: &Self) {
        self.counters.store(before.counters.load_full());
        let old = before.addresses.load_full();
        let of = |backend: &Backend| -> Vec<(At, Backend)> {
            match fixed(backend) {
                Some(at) => vec![(at, backend.clone())],
                None => old.iter().filter(|a| a.backend() == backend).map(|a| (a.at().clone(), backend.clone())).collect(),
            }
        };
        self.settle_with(self.backends.iter().flat_map(of).collect(), &old);
    }

    /// Looks every name up. Returns what failed: those keep what they had.
    pub async fn resolve(&self) -> Vec<(String, std::io::Error)> {
        self.resolve_by(async |host, port| Ok(tokio::net::lookup_host((host, port)).await?.collect())).await
    }

    async fn resolve_by(&self, lookup: impl AsyncFn(&str, u16) -> std::io::Result<Vec<SocketAddr>>) -> Vec<(String, std::io::Error)> {
        let mut known = Vec::new();
        let mut failed = Vec::new();
        for backend in &self.backends {
            let Backend::Tcp { host, port } = backend else {
                known.extend(fixed(backend).map(|at| (at, backend.clone())));
                continue;
            };
            if let Some(at) = fixed(backend) {
                known.push((at, backend.clone()));
                continue;
            }
            match lookup(host, *port).await {
                Ok(mut found) if !found.is_empty() => {
                    found.sort_unstable();
                    known.extend(found.into_iter().map(|at| (At::Tcp(at), backend.clone())));
                }
                result => {
                    let error = result.err().unwrap_or_else(|| std::io::Error::other("the name has no address"));
                    failed.push((backend.to_string(), error));
                    let stays = self.addresses.load();
                    known.extend(stays.iter().filter(|a| a.backend() == backend).map(|a| (a.at().clone(), backend.clone())));
                }
            }
        }
        self.settle(known);
        failed
    }

    fn settle(&self, known: Vec<(At, Backend)>) {
        let old = self.addresses.load_full();
        self.settle_with(known, &old);
    }

    /// Puts addresses in force; those that were there before go on as they are.
    fn settle_with(&self, mut known: Vec<(At, Backend)>, old: &[Arc<Address>]) {
        let mut seen = HashSet::new();
        known.retain(|(at, backend)| seen.insert((at.to_string(), backend.clone())));
        if known.len() > MOST_ADDRESSES {
            tracing::warn!(
                upstream = self.name,
                addresses = known.len(),
                most = MOST_ADDRESSES,
                "too many addresses: the rest is not used"
            );
            known.truncate(MOST_ADDRESSES);
        }
        let current = self.addresses.load();
        let same = current.len() == known.len() && current.iter().zip(&known).all(|(a, (at, backend))| a.is(at, backend));
        if same && std::ptr::eq(current.as_slice(), old) {
            return;
        }
        let address = |(at, backend): (At, Backend)| {
            let stays = old.iter().find(|address| address.is(&at, &backend)).cloned();
            stays.unwrap_or_else(|| Arc::new(Address::new(at, backend)))
        };
        self.addresses.store(Arc::new(known.into_iter().map(address).collect()));
    }

    /// The next address for a request of this conversation (used by consistent hashing only), other than those it `tried`;
    /// `None` where none is left.
    pub fn pick(&self, conversation: Option<u64>, tried: &[Arc<Address>], now: Instant) -> Option<Lease> {
        let all = self.addresses.load();
        let untried = |address: &&Arc<Address>| !tried.iter().any(|tried| Arc::ptr_eq(tried, address));
        let available = |address: &&Arc<Address>| untried(address) && address.standing(self.checked, now) == Standing::Available;
        let found = self.choose(&all, conversation, available).or_else(|| self.choose(&all, conversation, untried));
        found.map(|address| Lease::new(Arc::clone(address)))
    }

    fn choose<'a>(
        &self,
        all: &'a [Arc<Address>],
        conversation: Option<u64>,
        may: impl Fn(&&'a Arc<Address>) -> bool,
    ) -> Option<&'a Arc<Address>> {
        match (&self.balance, conversation) {
            (Balance::ConsistentHash(_), Some(conversation)) => all.iter().filter(may).max_by_key(|a| a.weight(conversation)),
            (Balance::LeastConnections, _) => {
                // From another one each time, so that equals take turns.
                let start = self.turn(all.len());
                let turned = all.iter().skip(start).chain(all.iter().take(start));
                turned.filter(may).min_by_key(|address| address.in_flight())
            }
            (Balance::RoundRobin | Balance::ConsistentHash(_), _) => {
                let how_many = all.iter().filter(&may).count();
                all.iter().filter(may).nth(self.turn(how_many))
            }
        }
    }

    fn turn(&self, of: usize) -> usize {
        if of > 1 { self.turn.fetch_add(1, Relaxed) % of } else { 0 }
    }

    /// A request ended well at an address.
    pub fn succeeded(&self, address: &Address, now: Instant) {
        address.succeeded(now);
    }

    /// A request failed at an address, and not by the client's doing. The last available address is never left alone.
    pub fn failed(&self, address: &Address, what: &str, now: Instant) {
        let another = || {
            let all = self.addresses.load();
            let others = all.iter().filter(|other| !std::ptr::eq(other.as_ref(), address));
            others.map(|other| other.standing(self.checked, now)).any(|standing| standing == Standing::Available)
        };
        if let Some(period) = address.failed(&self.ejection, what.to_owned(), another, now) {
            self.counters.load().ejections.fetch_add(1, Relaxed);
            let seconds = period.as_secs_f64();
            tracing::warn!(upstream = self.name, address = %address.at(), seconds, why = what, "an address failed too often and is left alone");
        }
    }

    /// Whether a status of an answer counts as a failure of its address.
    pub fn is_failure(&self, status: u16) -> bool {
        self.ejection.statuses.contains(&status)
    }

    /// Counts another try of a request.
    pub fn retried(&self) {
        self.counters.load().retries.fetch_add(1, Relaxed);
    }

    /// What is counted.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.load_full()
    }

    /// Every address.
    pub fn addresses(&self) -> Arc<Vec<Arc<Address>>> {
        self.addresses.load_full()
    }

    /// How every address is doing. Cheap: reads atomics.
    pub fn status(&self, now: Instant) -> Vec<AddressStatus> {
        let one = |address: &Arc<Address>| AddressStatus {
            address: address.at().to_string(),
            backend: address.backend().to_string(),
            standing: address.standing(self.checked, now),
            in_flight: address.in_flight(),
            trouble: address.trouble(),
        };
        self.addresses.load().iter().map(one).collect()
    }
}

/// Longest wait for names while a configuration is put in force.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Where a backend is, if that needs no lookup.
fn fixed(backend: &Backend) -> Option<At> {
    match backend {
        Backend::Unix(path) => Some(At::Unix(path.clone())),
        Backend::Tcp { host, port } => host.parse::<IpAddr>().ok().map(|ip| At::Tcp(SocketAddr::new(ip, *port))),
    }
}

#[cfg(test)]
mod tests;
