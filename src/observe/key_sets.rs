//! What is counted about the key sets of issuers: fetches by result, and per tenant and set how many keys it gave and when it
//! was last fetched.

use prometheus::{GaugeVec, IntCounter, IntCounterVec, Opts, Registry};

use super::metrics::registered;
use crate::clock::UnixTime;
use crate::tenant::Tenant;

/// How a fetch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetch {
    /// With a set that can be used.
    Fetched,
    /// Without an answer, or with another status than 200.
    Failed,
    /// With an answer that is no usable set.
    Refused,
}

/// The handles.
#[derive(Clone, Debug)]
pub struct KeySetMetrics {
    fetched: IntCounter,
    failed: IntCounter,
    refused: IntCounter,
    keys: GaugeVec,
    last_fetched: GaugeVec,
}

impl KeySetMetrics {
    /// Creates the metrics.
    ///
    /// # Errors
    /// When a name is taken: a bug that shows at start.
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let fetches = IntCounterVec::new(Opts::new("doorward_jwks_fetches_total", "Fetches of issuers' key sets by result."), &["result"]);
        let fetches = registered(registry, fetches)?;
        let gauge = |name: &str, help: &str| registered(registry, GaugeVec::new(Opts::new(name, help), &["tenant", "secret"]));
        Ok(Self {
            fetched: fetches.with_label_values(&["fetched"]),
            failed: fetches.with_label_values(&["failed"]),
            refused: fetches.with_label_values(&["refused"]),
            keys: gauge("doorward_jwks_keys", "Keys of an issuer's set that the tenant can use.")?,
            last_fetched: gauge("doorward_jwks_last_fetched_timestamp_seconds", "When an issuer's set was last fetched.")?,
        })
    }

    /// Counts a fetch.
    pub fn count(&self, fetch: Fetch) {
        match fetch {
            Fetch::Fetched => self.fetched.inc(),
            Fetch::Failed => self.failed.inc(),
            Fetch::Refused => self.refused.inc(),
        }
    }

    /// Shows what these tenants have, and nothing else.
    pub(super) fn show<'t>(&self, tenants: impl Iterator<Item = &'t Tenant>) {
        self.keys.reset();
        self.last_fetched.reset();
        for tenant in tenants {
            for remote in tenant.keys.remotes() {
                let labels = [tenant.id.as_str(), remote.id.as_str()];
                self.keys.with_label_values(&labels).set(remote.keys().len() as f64);
                self.last_fetched.with_label_values(&labels).set(remote.fetched().map_or(0.0, UnixTime::as_secs_f64));
            }
        }
    }
}
