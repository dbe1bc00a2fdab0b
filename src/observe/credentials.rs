//! What is counted about credentials: per tenant and secret how often and when it last verified a token and when it ends, and
//! when each certificate ends that the gateway shows. Filled when somebody looks; names only, never a key.

use prometheus::{GaugeVec, IntCounterVec, Opts, Registry};

use super::metrics::registered;
use crate::clock::UnixTime;
use crate::snapshot::{Listener, Upstreams};
use crate::tenant::Tenant;
use crate::tls::Ending;

/// The handles.
#[derive(Clone, Debug)]
pub(super) struct CredentialMetrics {
    uses: IntCounterVec,
    last_used: GaugeVec,
    expires: GaugeVec,
    certificate_expires: GaugeVec,
}

impl CredentialMetrics {
    /// Creates the metrics.
    ///
    /// # Errors
    /// When a name is taken: a bug that shows at start.
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        const SECRET: [&str; 2] = ["tenant", "secret"];
        let gauge = |name: &str, help: &str, labels: &[&str]| registered(registry, GaugeVec::new(Opts::new(name, help), labels));
        let uses = IntCounterVec::new(Opts::new("doorward_secret_uses_total", "Tokens verified by secret."), &SECRET);
        Ok(Self {
            uses: registered(registry, uses)?,
            last_used: gauge("doorward_secret_last_used_timestamp_seconds", "When a secret last verified a token.", &SECRET)?,
            expires: gauge("doorward_secret_expires_timestamp_seconds", "When a secret is no longer used, where it says so.", &SECRET)?,
            certificate_expires: gauge(
                "doorward_certificate_expires_timestamp_seconds",
                "When a certificate ends that a listener shows, or the gateway shows an upstream.",
                &["listener", "upstream", "name"],
            )?,
        })
    }

    /// Shows the secrets of these tenants, and nothing else.
    pub(super) fn show<'t>(&self, tenants: impl Iterator<Item = &'t Tenant>) {
        self.uses.reset();
        self.last_used.reset();
        self.expires.reset();
        for tenant in tenants {
            for key in tenant.keys.all().iter() {
                let labels = [tenant.id.as_str(), key.id.as_str()];
                self.uses.with_label_values(&labels).inc_by(key.usage.hits());
                let last = key.usage.last().map_or(0.0, UnixTime::as_secs_f64);
                self.last_used.with_label_values(&labels).set(last);
                if let Some(until) = key.not_after {
                    self.expires.with_label_values(&labels).set(until.as_secs_f64());
                }
            }
        }
    }

    /// Shows the certificates of these listeners and upstreams, and nothing else.
    pub(super) fn show_certificates(&self, listeners: &[Listener], upstreams: &Upstreams) {
        self.certificate_expires.reset();
        for listener in listeners {
            let place = listener.place.to_string();
            for ending in listener.tls.iter().flat_map(|tls| tls.endings()) {
                self.show_certificate(&place, "", ending);
            }
        }
        for upstream in upstreams.all() {
            if let Some(ending) = upstream.settings.tls.as_ref().and_then(|tls| tls.ending()) {
                self.show_certificate("", &upstream.settings.name, ending);
            }
        }
    }

    /// Of several with one name (an ECDSA and an RSA one), the first to end counts.
    fn show_certificate(&self, listener: &str, upstream: &str, ending: &Ending) {
        let shown = self.certificate_expires.with_label_values(&[listener, upstream, ending.name.as_str()]);
        let at = ending.not_after as f64;
        if shown.get() == 0.0 || at < shown.get() {
            shown.set(at);
        }
    }
}
