//! Upstream names and the addresses they resolve to. Looked up in the background and before a configuration is put in
//! force, never on the request path. The last good answer stays when a lookup fails.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;

/// Resolved addresses by `host:port`.
#[derive(Debug, Default)]
pub struct Resolver {
    resolved: ArcSwap<HashMap<String, Vec<SocketAddr>>>,
    turn: AtomicUsize,
}

impl Resolver {
    /// Looks a `host:port` up and remembers what it found.
    ///
    /// # Errors
    /// The system resolver's; what was known before stays known.
    pub async fn resolve(&self, address: &str) -> std::io::Result<()> {
        let mut found: Vec<_> = tokio::net::lookup_host(address).await?.collect();
        found.sort_unstable();
        if found.is_empty() {
            return Err(std::io::Error::other("the name has no address"));
        }
        if self.resolved.load().get(address) != Some(&found) {
            self.resolved.rcu(|known| {
                let mut known = HashMap::clone(known);
                known.insert(address.to_owned(), found.clone());
                known
            });
        }
        Ok(())
    }

    /// Every address that a name resolved to; none where it never did.
    pub fn addresses(&self, address: &str) -> Vec<SocketAddr> {
        self.resolved.load().get(address).cloned().unwrap_or_default()
    }

    /// The next address of a name, in turn; `None` where it never resolved.
    pub fn next(&self, address: &str) -> Option<SocketAddr> {
        let resolved = self.resolved.load();
        let addresses = resolved.get(address)?;
        let turn = if addresses.len() > 1 { self.turn.fetch_add(1, Ordering::Relaxed) % addresses.len() } else { 0 };
        addresses.get(turn).copied()
    }
}
