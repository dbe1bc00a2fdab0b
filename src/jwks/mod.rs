//! Keys that issuers publish (`jwks_url`): fetched in the background, one fetch at a time and URL however many tenants name it,
//! never on a request's path. Decides when to fetch and keeps the last good set across reloads; which keys can be used is
//! [`crate::token::public_keys`]'s to say, and requests read them from their tenant's ring. Nothing is kept on disk: a key
//! that an issuer took back must not come again with a restart.

mod fetch;
mod schedule;
mod set;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use crate::observe::metrics::Metrics;
use crate::outbound::{Client, Roots};
use crate::tenant::Tenants;
use crate::token::remote::Source;
use fetch::{Fetched, Problem};
use set::{Reader, Set};

/// Most fetches at once.
const AT_ONCE: usize = 16;
/// How long certificate authorities are held before they are read again: systems renew theirs.
const ROOTS_LAST: Duration = Duration::from_secs(3600);

/// With the time they were made.
type Clients = HashMap<Option<Arc<str>>, (Client, Instant)>;

/// Every key set of the configuration in force.
#[derive(Debug)]
pub struct KeySets {
    sets: Mutex<HashMap<Source, (Arc<Set>, AbortHandle)>>,
    /// By their authorities.
    clients: Mutex<Clients>,
    places: Semaphore,
    settled: AtomicBool,
    metrics: Arc<Metrics>,
}

impl KeySets {
    /// No set yet.
    pub fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            sets: Mutex::default(),
            clients: Mutex::default(),
            places: Semaphore::new(AT_ONCE),
            settled: AtomicBool::new(false),
            metrics,
        })
    }

    /// Fetches what these tenants name from now on, and hands them what is known of it at once. Called for a configuration
    /// right before it is put in force; sets that it does not name are forgotten. Needs a tokio runtime.
    pub fn follow(self: &Arc<Self>, tenants: &Tenants) {
        let mut wanted = BTreeMap::<Source, (Duration, Vec<Reader>)>::new();
        for tenant in tenants.all() {
            for (index, remote) in tenant.keys.remotes().iter().enumerate() {
                let (refresh, readers) = wanted.entry(remote.source.clone()).or_insert((remote.refresh, Vec::new()));
                *refresh = remote.refresh.min(*refresh);
                readers.push((Arc::clone(tenant), index));
            }
        }
        let mut sets = self.sets.lock();
        let mut before = std::mem::take(&mut *sets);
        for (source, (refresh, readers)) in wanted {
            let (set, task) = match before.remove(&source) {
                Some((set, task)) if set.refresh == refresh => (set, task),
                other => {
                    let set = Arc::new(Set::new(source.clone(), refresh, other.as_ref().map(|(set, _)| &**set)));
                    other.into_iter().for_each(|(_, task)| task.abort());
                    let task = tokio::spawn(Arc::clone(&set).keep(Arc::clone(self))).abort_handle();
                    (set, task)
                }
            };
            set.read_by(readers);
            sets.insert(source, (set, task));
        }
        before.into_values().for_each(|(_, task)| task.abort());
        self.clients.lock().retain(|ca, _| sets.keys().any(|source| source.ca == *ca));
    }

    /// Whether every issuer was asked once, well or badly: before that a gateway that just started would refuse users whom
    /// others serve. Stays true, so a new tenant's issuer takes nobody out of service.
    pub fn settled(&self) -> bool {
        let tried = || self.sets.lock().values().all(|(set, _)| set.tried.load(Ordering::Relaxed));
        if !self.settled.load(Ordering::Relaxed) && tried() {
            self.settled.store(true, Ordering::Relaxed);
        }
        self.settled.load(Ordering::Relaxed)
    }

    async fn fetch(&self, source: &Source) -> Result<Fetched, Problem> {
        let _place = self.places.acquire().await; // fails only if it is closed, which it never is
        let client = self.client(source).await.map_err(Problem::Failed)?;
        fetch::fetch(&client, &source.url).await
    }

    async fn client(&self, source: &Source) -> Result<Client, String> {
        let known = self.clients.lock().get(&source.ca).filter(|(_, made)| made.elapsed() < ROOTS_LAST).map(|(client, _)| client.clone());
        if let Some(client) = known {
            return Ok(client);
        }
        let ca = source.ca.clone();
        let made = move || Client::new(ca.map_or_else(Roots::system, |ca| Roots::pem(&ca))?, 0);
        let client = tokio::task::spawn_blocking(made).await.map_err(|e| e.to_string())??;
        self.clients.lock().insert(source.ca.clone(), (client.clone(), Instant::now()));
        Ok(client)
    }
}
