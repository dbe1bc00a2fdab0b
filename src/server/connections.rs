//! Counts connections, in all and by client, and refuses those that are too many (`threats` 30). Asked by
//! [`super::accept`] as soon as a connection comes, before any handshake; its place is free again when the connection is dropped.
//! Wakes all of them when the process is about to end.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant};

use atomic_waker::AtomicWaker;
use parking_lot::Mutex;

use super::drain::{Begun, Drain};
use crate::limits::prefix;
use crate::observe::metrics::{Cap, Connections as Counters, Cut};
use crate::snapshot::ServerLimits;

/// The connections that there are.
#[derive(Debug)]
pub(super) struct Connections {
    table: Mutex<Table>,
    counters: Counters,
    /// There are never more, whatever is configured.
    most: usize,
    drain: Arc<Drain>,
}

#[derive(Debug, Default)]
struct Table {
    /// Those that were accepted, and that nobody has looked at yet.
    waiting: usize,
    /// By a number that counts up: what wakes each.
    open: HashMap<u64, Arc<AtomicWaker>>,
    next: u64,
    by_client: HashMap<IpAddr, usize>,
}

impl Connections {
    /// As many as there are descriptors for.
    pub(super) fn new(counters: Counters, drain: Arc<Drain>, most: usize) -> Self {
        Self { table: Mutex::default(), counters, drain, most }
    }

    /// How many there are.
    pub(super) fn open_now(&self) -> usize {
        let table = self.table.lock();
        table.open.len() + table.waiting
    }

    /// Begins the drain, and wakes every connection for it.
    pub(super) fn drain(&self, idle: Duration, grace: Duration) {
        self.drain.begin(Instant::now(), idle, grace);
        let bells: Vec<_> = self.table.lock().open.values().cloned().collect();
        bells.iter().for_each(|bell| bell.wake());
    }

    /// Whether one more may wait for its place. They are accepted faster than they are looked at, so that without this a flood of
    /// them would take every descriptor before any cap is asked.
    pub(super) fn arrive(&self, limits: &ServerLimits) -> bool {
        let mut table = self.table.lock();
        let enough = table.open.len() + table.waiting < limits.max_connections.min(self.most);
        if enough {
            table.waiting += 1;
        } else {
            self.counters.refuse(Cap::All);
        }
        enough
    }

    /// One that [arrived](Self::arrive) is looked at.
    pub(super) fn arrived(&self) {
        let mut table = self.table.lock();
        table.waiting = table.waiting.saturating_sub(1);
    }

    /// A place for one more; those without an address, on a Unix socket, and trusted proxies, for which there is none, count in all only.
    pub(super) fn open(self: &Arc<Self>, client: Option<IpAddr>, limits: &ServerLimits) -> Option<Place> {
        let client = client.map(prefix);
        let mut table = self.table.lock();
        let theirs = client.map_or(0, |client| table.by_client.get(&client).copied().unwrap_or_default());
        let refused = match (table.open.len() >= limits.max_connections.min(self.most), theirs >= limits.max_connections_per_client) {
            (true, _) => Some(Cap::All),
            (false, true) => Some(Cap::Client),
            (false, false) => None,
        };
        if let Some(cap) = refused {
            self.counters.refuse(cap);
            return None;
        }
        let (number, bell) = (table.next, Arc::<AtomicWaker>::default());
        table.next += 1;
        table.open.insert(number, Arc::clone(&bell));
        if let Some(client) = client {
            table.by_client.insert(client, theirs + 1);
        }
        self.counters.open.set(i64::try_from(table.open.len()).unwrap_or(i64::MAX));
        drop(table);
        Some(Place { connections: Arc::clone(self), client, number, bell })
    }

    fn close(&self, number: u64, client: Option<IpAddr>) {
        let mut table = self.table.lock();
        table.open.remove(&number);
        if let Some(client) = client
            && let Some(theirs) = table.by_client.get_mut(&client)
        {
            *theirs -= 1;
            if *theirs == 0 {
                table.by_client.remove(&client);
            }
        }
        self.counters.open.set(i64::try_from(table.open.len()).unwrap_or(i64::MAX));
    }
}

/// One connection's place.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    client: Option<IpAddr>,
    number: u64,
    bell: Arc<AtomicWaker>,
}

impl Place {
    /// What is known of the drain; the connection that asks is woken when one begins.
    pub(super) fn drain(&self, cx: &Context<'_>) -> Option<Begun> {
        self.bell.register(cx.waker());
        self.connections.drain.begun() // only after registering, or its beginning could be missed
    }

    /// Counts that the connection was closed because its client was too slow.
    pub(super) fn cut(&self, why: Cut) {
        self.connections.counters.cut(why);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.close(self.number, self.client);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::Metrics;
    use std::time::Duration;

    #[test]
    fn places_are_counted_in_all_and_by_client_and_given_back() {
        let second = Duration::from_secs(1);
        let limits = ServerLimits {
            header_timeout: second,
            keepalive_timeout: second,
            keepalive_requests: 1,
            body_min_rate: 1,
            body_rate_window: second,
            send_timeout: second,
            max_connections: 4,
            max_connections_per_client: 2,
            max_in_flight: 1,
        };
        let metrics = Metrics::new().unwrap();
        let connections = Arc::new(Connections::new(metrics.connections.clone(), Arc::default(), 100));
        let open = |client: &str| connections.open(Some(client.parse().unwrap()), &limits);
        let (first, second) = (open("192.0.2.1"), open("192.0.2.1"));
        assert!(first.is_some() && second.is_some() && open("192.0.2.1").is_none());
        drop(first);
        let third = open("::ffff:192.0.2.1");
        assert!(third.is_some() && open("192.0.2.1").is_none(), "the same client by its other name");
        let network = (open("2001:db8::1"), open("2001:db8::2"));
        assert!(network.0.is_some() && network.1.is_some());
        assert!(open("192.0.2.9").is_none() && connections.open(None, &limits).is_none(), "four in all");
        drop((second, third, network));
        assert!(connections.table.lock().by_client.is_empty());
        assert_eq!((connections.open_now(), metrics.connections.open.get()), (0, 0));
        assert!((0..4).map(|_| connections.open(None, &limits)).collect::<Vec<_>>().iter().all(Option::is_some));
    }
}
