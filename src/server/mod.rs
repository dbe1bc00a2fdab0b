//! Listeners, runtimes, and the life of the process: bind or fail, serve, drain, stop. The only code that names the
//! framework.

mod accept;
mod admin;
mod connections;
mod exchange;
mod forward_auth;
mod hold;
mod hygiene;
mod incoming;
mod judge;
mod limits;
mod listeners;
mod outgoing;
mod proxy;
mod proxy_protocol;
mod record;
mod respond;
mod stream;
mod streams;
mod upstream;
mod wire;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use pingora::proxy::http_proxy;
use pingora::server::Fds;
use pingora::server::configuration::ServerConf;
use pingora::services::Service as _;
use pingora::services::listening::Service;
use pingora_runtime::Runtime;
use tokio::sync::watch;

use crate::clock;
use crate::limits::memory::Memory;
use crate::observe::metrics::Metrics;
use crate::resolver::Resolver;
use crate::snapshot::Live;
pub use listeners::Listeners;

/// How often upstream names are looked up again.
const RESOLVE_EVERY: Duration = Duration::from_secs(10);
/// How often the end of a drain is looked for.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// What the server works with.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// What is in force.
    pub live: Arc<Live>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Upstream addresses.
    pub resolver: Arc<Resolver>,
}

/// Serves until `stop` resolves, then drains: readiness falls, the listeners stay open for `drain_delay`, then requests in
/// flight may end within `grace`. Returns whether all of them did.
///
/// # Errors
/// The system's, when a bound socket cannot be used.
pub async fn serve(gateway: Gateway, listeners: Listeners, stop: impl Future<Output = ()>) -> std::io::Result<bool> {
    let settings = gateway.live.load().0.settings.server.clone();
    let ready = Arc::new(AtomicBool::new(true));
    let (closing, closed) = watch::channel(false);
    let shown = admin::Admin { live: Arc::clone(&gateway.live), metrics: Arc::clone(&gateway.metrics), ready: Arc::clone(&ready) };
    spawn_http(listeners.admin, admin::admin(shown.clone()))?;
    if let Some(probes) = listeners.probes {
        spawn_http(probes, admin::probes(shown))?;
    }
    let allowed = limits::raise_descriptors(settings.limits.max_connections, settings.threads);
    let buckets = Arc::<Memory>::default();
    tokio::spawn(keep_house(gateway.clone(), Arc::clone(&buckets)));

    // Each worker keeps its connections: no stealing, no lock between them.
    let runtime = Runtime::new_no_steal(settings.threads, "proxy");
    let proxy = proxy::Proxy {
        live: Arc::clone(&gateway.live),
        metrics: Arc::clone(&gateway.metrics),
        resolver: Arc::clone(&gateway.resolver),
        buckets,
        places: limits::Places::new(allowed),
    };
    let proxy = Arc::new(accept::bounded(http_proxy(&Arc::new(ServerConf::default()), proxy)));
    let mut fds = Fds::new();
    let connections = Arc::new(connections::Connections::new(gateway.metrics.connections.clone(), allowed));
    let mut services = Vec::new();
    for bound in listeners.proxy {
        let mut service = Service::new("proxy".to_owned(), accept::Accept::new(&proxy, &gateway.live, &connections, &bound));
        service.set_connection_filter(Arc::new(accept::Door::new(&gateway.live, &connections)));
        service.add_listener(bound.into_framework(&mut fds));
        services.push(service);
    }
    let fds = Arc::new(Mutex::new(fds));
    let mut serving = tokio::task::JoinSet::new();
    for mut service in services {
        let (fds, closed) = (Arc::clone(&fds), closed.clone());
        serving.spawn_on(async move { service.start_service(Some(fds), closed, 1).await }, runtime.get_handle());
    }
    drop(closed);

    stop.await;
    tracing::info!("stopping: not ready any more, draining");
    ready.store(false, Ordering::Relaxed);
    let settings = gateway.live.load().0.settings.server.clone();
    tokio::time::sleep(settings.drain_delay).await;
    let _ = closing.send(true); // no receiver: the listener ended already
    let drained = tokio::time::timeout(settings.grace, async {
        while serving.join_next().await.is_some() {}
        while gateway.metrics.in_flight.get() > 0 {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    });
    let drained = drained.await.is_ok();
    tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_millis(100))).await?;
    Ok(drained)
}

fn spawn_http(listener: TcpListener, router: axum::Router) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "the admin listener ended");
        }
    });
    Ok(())
}

/// Looks upstream names up again, forgets full buckets, and notices when the wall clock jumps.
async fn keep_house(gateway: Gateway, buckets: Arc<Memory>) {
    let mut clock = clock::Watch::new();
    loop {
        if let Some(step) = clock.look() {
            tracing::warn!(seconds = step, "the wall clock was set: tokens are judged by the new time");
            gateway.metrics.clock_steps.inc();
        }
        let address = gateway.live.load().0.settings.upstream.address.clone();
        if let Err(error) = gateway.resolver.resolve(&address).await {
            tracing::warn!(%error, address, "the upstream's name does not resolve; the last known addresses stay");
        }
        if let Ok(now) = clock::read() {
            buckets.forget(now);
        }
        tokio::time::sleep(RESOLVE_EVERY).await;
    }
}
