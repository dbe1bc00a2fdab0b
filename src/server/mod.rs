//! Listeners, runtimes, and the life of the process: bind or fail, serve, drain, stop, or hand over to the next one. The only
//! code that names the framework.

mod accept;
mod admin;
mod closing;
mod connections;
mod drain;
mod exchange;
mod forward_auth;
mod handover;
mod hold;
mod hygiene;
mod incoming;
mod inherited;
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
pub mod supervisor;
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
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clock;
use crate::jwks::KeySets;
use crate::limits::memory::Memory;
use crate::observe::audit::Journal;
use crate::observe::metrics::Metrics;
use crate::observe::telemetry::Telemetry;
use crate::snapshot::{Live, ServerSettings};
use connections::Connections;
use handover::{Offer, Predecessor, Successor};
pub use inherited::Inherited;
use listeners::Held;
pub use listeners::Listeners;
use upstream::line::Lines;

/// How often upstream names are looked up again.
const RESOLVE_EVERY: Duration = Duration::from_secs(10);
/// How often the end of a drain is looked for.
const DRAIN_LOOK: Duration = Duration::from_millis(20);
/// How long a connection may still wait for a request when the process stops: a busy client's next one comes within that time,
/// and a restart is not held up by connections that nobody uses.
const IDLE_STOP: Duration = Duration::from_secs(1);
/// The same when the next process serves already, and nobody waits.
const IDLE_HANDOVER: Duration = Duration::from_secs(10);
/// Longest wait for issuers' keys before this process takes over; less than the other waits for it.
const SETTLED: Duration = Duration::from_secs(60);
/// A connection is counted this long after it was accepted, at the latest.
const COUNTED: Duration = Duration::from_millis(100);

/// What the server works with.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// What is in force.
    pub live: Arc<Live>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Issuers' keys.
    pub key_sets: Arc<KeySets>,
    /// Where spans go.
    pub telemetry: Arc<Telemetry>,
    /// Where audit records go.
    pub journal: Journal,
}

/// Why the process ends.
enum End {
    Stop,
    Followed(Successor),
}

/// Serves until `stop` resolves, then drains: readiness falls, the listeners stay open for `drain_delay`, then requests in
/// flight may end within `grace`. Or until another process has taken the sockets over: then it drains at once. `ready` is called
/// when it serves. Returns whether all requests ended.
///
/// # Errors
/// The system's, when a bound socket cannot be used, or the process that this one follows did not make way.
pub async fn serve(gateway: Gateway, listeners: Listeners, stop: impl Future<Output = ()>, ready: impl FnOnce()) -> std::io::Result<bool> {
    let settings = gateway.live.load().0.settings.server.clone();
    let Listeners { proxy: bound, admin, probes, held, predecessor } = listeners;
    let follows = predecessor.is_some();
    let mut offer = if follows { None } else { offer(&settings, false)? };
    let allowed = limits::raise_descriptors(settings.limits.max_connections, settings.threads);
    let buckets = Arc::<Memory>::default();
    tokio::spawn(keep_house(gateway.clone(), Arc::clone(&buckets)));

    let lines = Arc::<Lines>::default();
    tokio::spawn(Lines::watch(Arc::downgrade(&lines)));
    tokio::spawn(upstream::health::watch(Arc::clone(&gateway.live)));

    // Each worker keeps its connections: no stealing, no lock between them.
    let runtime = Runtime::new_no_steal(settings.threads, "proxy");
    let drain = Arc::<drain::Drain>::default();
    let proxy = proxy::Proxy {
        live: Arc::clone(&gateway.live),
        metrics: Arc::clone(&gateway.metrics),
        lines,
        telemetry: Arc::clone(&gateway.telemetry),
        journal: gateway.journal.clone(),
        buckets,
        places: limits::Places::new(allowed),
        drain: Arc::clone(&drain),
    };
    let proxy = Arc::new(accept::bounded(http_proxy(&Arc::new(ServerConf::default()), proxy)));
    let mut fds = Fds::new();
    let connections = Arc::new(Connections::new(gateway.metrics.connections.clone(), drain, allowed));
    let mut services = Vec::new();
    for bound in bound {
        let mut service = Service::new("proxy".to_owned(), accept::Accept::new(&proxy, &gateway.live, &connections, &bound));
        service.set_connection_filter(Arc::new(accept::Door::new(&gateway.live, &connections)));
        service.add_listener(bound.into_framework(&mut fds));
        services.push(service);
    }
    if let Some(predecessor) = predecessor {
        settled(&gateway.key_sets).await;
        relieve(predecessor).await?;
        offer = self::offer(&settings, true).unwrap_or_else(|error| {
            tracing::error!(%error, "no other process can follow this one");
            None
        });
    }

    let is_ready = Arc::new(AtomicBool::new(true));
    let (followed, by_another) = watch::channel(false);
    let shown = admin::Admin::start(gateway.clone(), Arc::clone(&is_ready), admin.local_addr()?);
    spawn_http(admin, admin::admin(shown.clone()), by_another.clone())?;
    if let Some(probes) = probes {
        spawn_http(probes, admin::probes(shown), by_another)?;
    }
    let (closing, closed) = watch::channel(false);
    let fds = Arc::new(Mutex::new(fds));
    let mut serving = JoinSet::new();
    for mut service in services {
        let (fds, closed) = (Arc::clone(&fds), closed.clone());
        serving.spawn_on(async move { service.start_service(Some(fds), closed, 1).await }, runtime.get_handle());
    }
    drop(closed);
    ready();

    let end = tokio::select! {
        () = stop => End::Stop,
        successor = taken(offer.as_ref(), &held) => End::Followed(successor),
    };
    is_ready.store(false, Ordering::Relaxed);
    let settings = gateway.live.load().0.settings.server.clone();
    let (ours, idle): (Vec<&Held>, _) = match &end {
        End::Stop => {
            supervisor::stopping();
            drop(offer);
            tracing::info!("stopping: not ready any more, draining");
            tokio::time::sleep(settings.drain_delay).await;
            (held.iter().filter(|held| !held.kept).collect(), IDLE_STOP)
        }
        End::Followed(Successor { pid, took }) => {
            supervisor::followed_by(*pid);
            offer.into_iter().for_each(Offer::leave);
            tracing::info!(pid, "another process serves now: draining");
            followed.send_replace(true);
            (
                held.iter().enumerate().filter(|(index, held)| !took.contains(index) && !held.kept).map(|(_, held)| held).collect(),
                IDLE_HANDOVER,
            )
        }
    };
    closing::close(&ours).await;
    let _ = closing.send(true); // no receiver: the listener ended already
    connections.drain(idle, settings.grace);
    drop(held);
    let drained =
        tokio::time::timeout(settings.grace, drained(&gateway.metrics, &connections, serving, idle + settings.limits.header_timeout));
    let drained = drained.await.is_ok();
    tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_millis(100))).await?;
    Ok(drained)
}

/// Waits until no connection is left; or, after `patience`, until none has a request: an HTTP/2 client that is gone never
/// answers the GOAWAY, and one that is slow with its head had its time.
async fn drained(metrics: &Metrics, connections: &Connections, mut serving: JoinSet<()>, patience: Duration) {
    while serving.join_next().await.is_some() {}
    tokio::time::sleep(COUNTED).await;
    let start = Instant::now();
    while connections.open_now() > 0 && (metrics.in_flight.get() > 0 || start.elapsed() < patience) {
        tokio::time::sleep(DRAIN_LOOK).await;
    }
}

fn offer(settings: &ServerSettings, replace: bool) -> std::io::Result<Option<Offer>> {
    let Some(path) = &settings.upgrade_socket else { return Ok(None) };
    let failed =
        |e: std::io::Error| std::io::Error::new(e.kind(), format!("cannot listen on {} (server.upgrade_socket): {e}", path.display()));
    Offer::bind(path, replace).map(Some).map_err(failed)
}

async fn taken(offer: Option<&Offer>, sockets: &[Held]) -> Successor {
    match offer {
        Some(offer) => offer.taken(sockets).await,
        None => std::future::pending().await,
    }
}

/// Waits for the issuers' keys, which the running process has.
async fn settled(key_sets: &KeySets) {
    let start = Instant::now();
    while !key_sets.settled() && start.elapsed() < SETTLED {
        tokio::time::sleep(DRAIN_LOOK).await;
    }
}

async fn relieve(predecessor: Predecessor) -> std::io::Result<()> {
    let failed = |e| std::io::Error::other(format!("the running process did not make way and goes on: {e}"));
    tokio::task::spawn_blocking(move || predecessor.relieve()).await?.map_err(failed)
}

/// Serves until the process ends, or another one serves in its place.
fn spawn_http(listener: TcpListener, router: axum::Router, mut followed: watch::Receiver<bool>) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    tokio::spawn(async move {
        let followed = async move {
            if followed.wait_for(|followed| *followed).await.is_err() {
                std::future::pending().await
            }
        };
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(followed).await {
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
        let (snapshot, _) = gateway.live.load();
        snapshot.upstreams.resolve().await;
        drop(snapshot);
        if let Ok(now) = clock::read() {
            buckets.forget(now);
        }
        tokio::time::sleep(RESOLVE_EVERY).await;
    }
}
