//! Listeners, runtimes, and the life of the process: bind or fail, serve, drain, stop. The only code that names the
//! framework.

mod admin;
mod connections;
mod exchange;
mod hold;
mod hygiene;
mod limits;
mod proxy;
mod respond;
mod stream;
mod streams;
mod upstream;
mod wire;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd as _;
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
use crate::snapshot::{Live, ServerSettings};

/// How often upstream names are looked up again.
const RESOLVE_EVERY: Duration = Duration::from_secs(10);
/// How often the end of a drain is looked for.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Sockets that are bound and listening: what follows cannot fail for an address in use.
#[derive(Debug)]
pub struct Listeners {
    proxy: TcpListener,
    admin: TcpListener,
    probes: Option<TcpListener>,
}

impl Listeners {
    /// Binds every address of `[server]`.
    ///
    /// # Errors
    /// A sentence with the address and the system's error: a process that cannot listen must not live on.
    pub fn bind(settings: &ServerSettings) -> Result<Self, String> {
        let bind = |name: &str, address: SocketAddr| {
            let listener = TcpListener::bind(address).and_then(|l| l.set_nonblocking(true).map(|()| l));
            listener.map_err(|e| format!("cannot listen on {address} (server.{name}): {e}"))
        };
        Ok(Self {
            proxy: bind("listen", settings.listen)?,
            admin: bind("admin", settings.admin)?,
            probes: settings.probes.map(|address| bind("probes", address)).transpose()?,
        })
    }

    /// The address clients connect to, with the port that the system chose for port 0.
    ///
    /// # Errors
    /// The system's.
    pub fn proxy_address(&self) -> std::io::Result<SocketAddr> {
        self.proxy.local_addr()
    }

    /// The admin listener's address.
    ///
    /// # Errors
    /// The system's.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.admin.local_addr()
    }
}

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
    limits::raise_descriptors(settings.limits.max_connections);
    let buckets = Arc::<Memory>::default();
    tokio::spawn(keep_house(gateway.clone(), Arc::clone(&buckets)));

    // Each worker keeps its connections: no stealing, no lock between them.
    let runtime = Runtime::new_no_steal(settings.threads, "proxy");
    let proxy = proxy::Proxy {
        live: Arc::clone(&gateway.live),
        metrics: Arc::clone(&gateway.metrics),
        resolver: Arc::clone(&gateway.resolver),
        buckets,
        places: limits::Places::default(),
    };
    let name = listeners.proxy.local_addr()?.to_string();
    let mut fds = Fds::new();
    fds.add(name.clone(), listeners.proxy.into_raw_fd());
    let strict = wire::Strict {
        proxy: Arc::new(http_proxy(&Arc::new(ServerConf::default()), proxy)),
        live: Arc::clone(&gateway.live),
        connections: Arc::new(connections::Connections::new(gateway.metrics.connections.clone())),
    };
    let mut service = Service::new("proxy".to_owned(), strict);
    service.add_tcp(&name);
    let serving = runtime.get_handle().spawn(async move { service.start_service(Some(Arc::new(Mutex::new(fds))), closed, 1).await });

    stop.await;
    tracing::info!("stopping: not ready any more, draining");
    ready.store(false, Ordering::Relaxed);
    let settings = gateway.live.load().0.settings.server.clone();
    tokio::time::sleep(settings.drain_delay).await;
    let _ = closing.send(true); // no receiver: the listener ended already
    let drained = tokio::time::timeout(settings.grace, async {
        let _ = serving.await;
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
