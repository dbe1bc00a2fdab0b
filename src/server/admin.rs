//! The admin listener (the status page at `/`, `/status`, `/metrics`, `/livez`, `/readyz`, `/jwks.json`) and the probes
//! listener (`/metrics`, `/livez`, `/readyz` only). Plain HTTP on addresses of their own; nothing here decides about a
//! proxied request. Who may look at what shows requests is [`crate::status::guard`]'s.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::Gateway;
use crate::client;
use crate::clock;
use crate::observe::history::History;
use crate::observe::metrics::Reload;
use crate::snapshot::Upstream;
use crate::status::{self, Sources, View, guard};
use crate::tenant::Tenant;
use crate::upstream::pool::AddressStatus;

/// How often the counters are looked at for the last hour.
const LOOK: Duration = Duration::from_secs(10);

/// What the admin listener shows.
#[derive(Clone, Debug)]
pub(super) struct Admin {
    gateway: Gateway,
    ready: Arc<AtomicBool>,
    /// Where it listens.
    address: SocketAddr,
    history: Arc<Mutex<History>>,
    started: Instant,
}

impl Admin {
    /// Starts to look at the counters.
    pub(super) fn start(gateway: Gateway, ready: Arc<AtomicBool>, address: SocketAddr) -> Self {
        let admin = Self { gateway, ready, address, history: Arc::default(), started: Instant::now() };
        admin.look();
        let looking = admin.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                looking.look();
            }
        });
        admin
    }

    fn look(&self) {
        let (snapshot, _) = self.gateway.live.load();
        self.history.lock().look(&self.gateway.metrics, &snapshot.tenants, self.started.elapsed());
    }

    /// What the probes say.
    fn ready(&self) -> Result<(), &'static str> {
        match (self.ready.load(Ordering::Relaxed), self.gateway.key_sets.settled()) {
            (true, true) => Ok(()),
            (true, false) => Err("fetching issuers' keys"),
            (false, _) => Err("draining"),
        }
    }
}

/// `/metrics`, `/livez`, `/readyz`.
pub(super) fn probes(admin: Admin) -> Router {
    Router::new().route("/metrics", get(metrics)).route("/livez", get(async || "alive\n")).route("/readyz", get(readyz)).with_state(admin)
}

/// Everything.
pub(super) fn admin(admin: Admin) -> Router {
    let pages = Router::new()
        .route("/", get(async |state| page(state, false).await))
        .route("/live", get(async |state| page(state, true).await))
        .route("/status", get(figures))
        .layer(middleware::from_fn_with_state(admin.clone(), own_pages))
        .with_state(admin.clone());
    let keys = Router::new().route("/jwks.json", get(jwks)).with_state(admin.clone());
    let plain = probes(admin.clone()).merge(keys);
    let all = pages.merge(plain).fallback(async || (StatusCode::NOT_FOUND, "There is nothing here. The status page is at /.\n"));
    all.layer(middleware::from_fn_with_state(admin, own_site))
}

/// What shows requests is for the operator's own browser: asked for by a name of ours, and without a query.
async fn own_pages(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let (snapshot, _) = admin.gateway.live.load();
    let names = &snapshot.settings.server.admin_hosts;
    let refused = guard::own_name(request.uri(), request.headers(), admin.address, names).and_then(|()| guard::no_query(request.uri()));
    match refused {
        Ok(()) => next.run(request).await,
        Err(refusal) => (refusal.status(), refusal.sentence()).into_response(),
    }
}

/// No page of another site asks here, and none shows what it gets. Where the listener is on loopback, whoever scrapes it is on
/// this machine and knows its name; opened to a network it is scraped by pod addresses and service names, and anybody there
/// can ask for the metrics directly.
async fn own_site(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let names = admin.gateway.live.load().0.settings.server.admin_hosts.clone();
    let local_metrics = admin.address.ip().is_loopback() && request.uri().path() == "/metrics";
    let named = if local_metrics { guard::own_name(request.uri(), request.headers(), admin.address, &names) } else { Ok(()) };
    let mut answer = match named.and_then(|()| guard::own_site(request.uri(), request.headers())) {
        Ok(()) => next.run(request).await,
        Err(refusal) => (refusal.status(), refusal.sentence()).into_response(),
    };
    const ALWAYS: [(HeaderName, &str); 5] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    let headers = answer.headers_mut();
    headers.extend(ALWAYS.map(|(name, value)| (name, HeaderValue::from_static(value))));
    if let Ok(policy) = HeaderValue::from_str(&status::POLICY) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    answer
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let (snapshot, _) = admin.gateway.live.load();
    match admin.gateway.metrics.render(&snapshot) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn readyz(State(admin): State<Admin>) -> Response {
    match admin.ready() {
        Ok(()) => "ready
"
        .into_response(),
        Err(why) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!(
                "{why}
"
            ),
        )
            .into_response(),
    }
}

async fn jwks(State(admin): State<Admin>) -> Response {
    let keys = admin.gateway.live.load().0.upstreams.jwks();
    ([(header::CONTENT_TYPE, "application/jwk-set+json"), (header::CACHE_CONTROL, "max-age=300")], keys.to_string()).into_response()
}

async fn page(State(admin): State<Admin>, live: bool) -> Response {
    admin.look();
    let (snapshot, revocations) = admin.gateway.live.load();
    let Ok(now) = clock::read() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "The gateway's clock shows a time before 2020.\n").into_response();
    };
    let upstreams = status::upstreams(&snapshot.upstreams, Instant::now());
    let view = View::of(&Sources {
        snapshot: &snapshot,
        revocations: revocations.len(),
        metrics: &admin.gateway.metrics,
        history: &admin.history.lock(),
        upstreams: &upstreams,
        ready: admin.ready(),
        running: admin.started.elapsed(),
        now,
    });
    match status::page(&view, live) {
        Ok(html) => ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response(),
        Err(error) => {
            tracing::error!(%error, "the status page cannot be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn figures(State(admin): State<Admin>) -> Response {
    let (snapshot, revocations) = admin.gateway.live.load();
    let metrics = &admin.gateway.metrics;
    let reloads: serde_json::Map<_, _> = Reload::ALL.iter().map(|r| (r.as_str().to_owned(), metrics.reloads(*r).into())).collect();
    let tenants: Vec<_> = snapshot.tenants.all().iter().map(|tenant| tenant_figures(&admin, tenant)).collect();
    let upstreams: Vec<_> = snapshot.upstreams.all().map(|upstream| upstream_figures(upstream)).collect();
    let body = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": admin.started.elapsed().as_secs(),
        "generation": snapshot.generation,
        "loaded_at": snapshot.loaded_at.secs(),
        "ready": admin.ready().is_ok(),
        "reloads": reloads,
        "revocations": revocations.len(),
        "scripts": client::scripts().iter().map(|s| json!({ "path": s.path, "integrity": s.integrity })).collect::<Vec<_>>(),
        "tenants": tenants,
        "upstreams": upstreams,
    });
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn upstream_figures(upstream: &Upstream) -> Value {
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

fn tenant_figures(admin: &Admin, tenant: &Arc<Tenant>) -> Value {
    let (forwarded, denied, would_deny) = admin.gateway.metrics.tenant(Some(&tenant.id)).totals();
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
