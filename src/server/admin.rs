//! The admin listener (`/metrics`, `/livez`, `/readyz`, `/status`, `/jwks.json`) and the probes listener (the first three
//! only). Plain HTTP on addresses of their own; nothing here decides about a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

use crate::client;
use crate::jwks::KeySets;
use crate::observe::metrics::{Metrics, Reload};
use crate::snapshot::{Live, Upstream};
use crate::tenant::Tenant;
use crate::upstream::pool::AddressStatus;

/// What the admin listener shows.
#[derive(Clone, Debug)]
pub(super) struct Admin {
    pub(super) live: Arc<Live>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) ready: Arc<AtomicBool>,
    pub(super) key_sets: Arc<KeySets>,
}

/// `/metrics`, `/livez`, `/readyz`.
pub(super) fn probes(admin: Admin) -> Router {
    Router::new().route("/metrics", get(metrics)).route("/livez", get(async || "alive\n")).route("/readyz", get(readyz)).with_state(admin)
}

/// Everything.
pub(super) fn admin(admin: Admin) -> Router {
    let more = Router::new().route("/status", get(status)).route("/jwks.json", get(jwks)).with_state(admin.clone());
    probes(admin).merge(more)
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let (snapshot, _) = admin.live.load();
    match admin.metrics.render(&snapshot.tenants, snapshot.settings.max_tenants, &snapshot.upstreams) {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn readyz(State(admin): State<Admin>) -> Response {
    if admin.ready.load(Ordering::Relaxed) && admin.key_sets.settled() {
        "ready\n".into_response()
    } else if admin.ready.load(Ordering::Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, "fetching issuers' keys\n").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response()
    }
}

async fn jwks(State(admin): State<Admin>) -> Response {
    let keys = admin.live.load().0.upstreams.jwks();
    ([(CONTENT_TYPE, "application/jwk-set+json"), (CACHE_CONTROL, "max-age=300")], keys.to_string()).into_response()
}

async fn status(State(admin): State<Admin>) -> Response {
    let (snapshot, revocations) = admin.live.load();
    let reloads: serde_json::Map<_, _> = Reload::ALL.iter().map(|r| (r.as_str().to_owned(), admin.metrics.reloads(*r).into())).collect();
    let tenants: Vec<_> = snapshot.tenants.all().iter().map(|tenant| tenant_status(&admin, tenant)).collect();
    let upstreams: Vec<_> = snapshot.upstreams.all().map(|upstream| upstream_status(upstream)).collect();
    let body = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "generation": snapshot.generation,
        "loaded_at": snapshot.loaded_at.secs(),
        "ready": admin.ready.load(Ordering::Relaxed) && admin.key_sets.settled(),
        "reloads": reloads,
        "revocations": revocations.len(),
        "scripts": client::scripts().iter().map(|s| json!({ "path": s.path, "integrity": s.integrity })).collect::<Vec<_>>(),
        "tenants": tenants,
        "upstreams": upstreams,
    });
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], body.to_string()).into_response()
}

fn upstream_status(upstream: &Upstream) -> Value {
    let counters = upstream.pool.counters();
    let address = |status: AddressStatus| {
        json!({
            "address": status.address,
            "backend": status.backend,
            "standing": status.standing.as_str(),
            "in_flight": status.in_flight,
            "last_error": status.trouble.as_ref().map(|trouble| json!({ "at": trouble.at.secs(), "what": trouble.what })),
        })
    };
    json!({
        "name": upstream.settings.name,
        "balance": upstream.settings.balance.as_str(),
        "addresses": upstream.pool.status(Instant::now()).into_iter().map(address).collect::<Vec<_>>(),
        "retries": counters.retries(),
        "ejections": counters.ejections(),
    })
}

fn tenant_status(admin: &Admin, tenant: &Arc<Tenant>) -> Value {
    let (forwarded, denied, would_deny) = admin.metrics.tenant(Some(&tenant.id)).totals();
    let secrets: Vec<_> = tenant
        .keys
        .all()
        .iter()
        .map(|key| {
            json!({
                "id": key.id,
                "fingerprint": key.fingerprint.to_string(),
                "formats": key.formats.iter().map(|f| f.as_str()).collect::<Vec<_>>(),
                "uses": key.usage.hits(),
                "last_used": key.usage.last().map(|t| t.secs()),
            })
        })
        .collect();
    let key_sets = tenant.keys.remotes().iter().map(|remote| {
        json!({
            "id": remote.id,
            "url": remote.source.url,
            "keys": remote.keys().len(),
            "last_fetched": remote.fetched().map(|t| t.secs()),
        })
    });
    json!({
        "id": tenant.id,
        "preset": tenant.preset,
        "mode": tenant.mode.as_str(),
        "forwarded": forwarded,
        "denied": denied,
        "would_deny": would_deny,
        "secrets": secrets,
        "key_sets": key_sets.collect::<Vec<_>>(),
    })
}
