//! `doorward run`.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::log;
use crate::config::{self, watched::Files};
use crate::jwks::KeySets;
use crate::observe::metrics::Metrics;
use crate::observe::telemetry::Telemetry;
use crate::reload::{self, Reloader};
use crate::server::{self, Gateway, Inherited, Listeners, supervisor};
use crate::snapshot::Live;

/// Run the gateway.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Signals:\n  SIGTERM, SIGINT  stop: not ready at once, then drain within server.grace\n  SIGHUP           reload the configuration\n  SIGUSR2          start the binary anew with --upgrade: it takes over without a lost connection\n\nExample:\n  doorward run -c conf/doorward.toml"
)]
pub struct Run {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Take the sockets of the process that runs with this configuration's server.upgrade_socket; it drains once this one serves,
    /// and goes on if this one does not get that far.
    #[arg(long)]
    upgrade: bool,
}

impl Run {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        gateway(&self.config, self.upgrade, |_, _| Ok(()))
    }
}

/// Loads, binds, serves until SIGTERM or SIGINT; on an `upgrade`, in the place of the process that runs. `ready` is called with
/// the gateway's and the admin listener's address once both are bound.
pub(super) fn gateway(config: &Path, upgrade: bool, ready: impl FnOnce(SocketAddr, SocketAddr) -> io::Result<()>) -> ExitCode {
    let metrics = match Metrics::new() {
        Ok(metrics) => Arc::new(metrics),
        Err(error) => return failed(&format!("metrics: {error}")),
    };
    let loaded = match config::load(config, 1, &|tenant, secret| metrics.usage(tenant, secret)) {
        Ok(loaded) => loaded,
        Err(problems) => {
            for problem in &problems.rendered {
                eprintln!("{problem}\n");
            }
            return ExitCode::from(2);
        }
    };
    let revocations = match reload::read_revocations(loaded.snapshot.settings.revocations.as_deref()) {
        Ok(revocations) => revocations,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::from(2);
        }
    };
    let settings = &loaded.snapshot.settings.server;
    let inherited = match (upgrade, &settings.upgrade_socket) {
        (false, _) => Inherited::from_system(),
        (true, Some(path)) => Inherited::from_running(path),
        (true, None) => Err("--upgrade needs [server] upgrade_socket, where the running process listens".to_owned()),
    };
    let listeners = match inherited.and_then(|inherited| Listeners::bind(settings, inherited)) {
        Ok(listeners) => listeners,
        Err(why) => return failed(&why),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    let (journal, _guards) = match log::start(&metrics.lost_lines) {
        Ok(started) => started,
        Err(error) => return failed(&format!("standard output and error: {error}")),
    };
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    loaded.keys.iter().for_each(config::KeyInUse::log);
    metrics.prepare(&loaded.snapshot.tenants, loaded.snapshot.settings.max_tenants);
    metrics.in_force(1, loaded.snapshot.loaded_at);
    let live = Arc::new(Live::new(loaded.snapshot, revocations));
    let key_sets = KeySets::new(Arc::clone(&metrics));
    let telemetry = Telemetry::new(metrics.telemetry.clone());
    let gateway = Gateway { live, metrics, key_sets, telemetry: Arc::clone(&telemetry), journal };
    let serving = async {
        let stop = stopped()?; // first: who is told that it is ready may send a signal
        ready(listeners.proxy_address()?, listeners.admin_address()?)?;
        let served = serve(config.to_path_buf(), gateway, listeners, loaded.files, stop).await;
        telemetry.stop().await;
        served
    };
    let served = runtime.block_on(serving);
    // A name lookup that hangs holds nobody up.
    runtime.shutdown_background();
    match served {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            tracing::warn!("requests were still in flight when the grace period ended");
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::FAILURE
}

/// Resolves on SIGTERM or SIGINT, from now on.
fn stopped() -> io::Result<impl Future<Output = ()>> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

async fn serve(path: PathBuf, gateway: Gateway, listeners: Listeners, files: Files, stop: impl Future<Output = ()>) -> io::Result<bool> {
    let snapshot = gateway.live.load().0;
    gateway.key_sets.follow(&snapshot.tenants);
    gateway.telemetry.follow(snapshot.settings.telemetry.as_ref());
    snapshot.upstreams.resolve_soon().await;
    drop(snapshot);
    let (hangup, hangups) = mpsc::channel(1);
    let mut hup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hup.recv().await.is_some() {
            let (asks, over) = oneshot::channel::<()>();
            supervisor::reloading();
            if hangup.send(asks).await.is_ok() {
                let _ = over.await; // dropped when it is
            }
            supervisor::ready();
        }
    });
    let mut usr2 = signal(SignalKind::user_defined2())?;
    let can_upgrade = gateway.live.load().0.settings.server.upgrade_socket.is_some();
    tokio::spawn(async move {
        while usr2.recv().await.is_some() {
            if can_upgrade {
                start_successor();
            } else {
                tracing::error!("SIGUSR2 starts an upgrade, which needs [server] upgrade_socket");
            }
        }
    });
    let reloader = Reloader {
        path,
        live: Arc::clone(&gateway.live),
        metrics: Arc::clone(&gateway.metrics),
        key_sets: Arc::clone(&gateway.key_sets),
        telemetry: Arc::clone(&gateway.telemetry),
    };
    tokio::spawn(reloader.run(files, hangups));
    for (place, tls) in listeners.places() {
        tracing::info!(address = %place, tls, "listening");
    }
    let (listen, admin) = (listeners.proxy_address()?, listeners.admin_address()?);
    server::serve(gateway, listeners, stop, || {
        tracing::info!(%listen, %admin, version = env!("CARGO_PKG_VERSION"), "serving");
        supervisor::ready();
    })
    .await
}

/// Starts the program once more, as it was started, to follow this process: found by the name that it was called by, so that a
/// replaced file or a moved link is the new one.
fn start_successor() {
    let mut words = std::env::args_os();
    let Some(program) = words.next() else { return };
    let mut arguments: Vec<_> = words.collect();
    if !arguments.iter().any(|word| word == "--upgrade") {
        arguments.push("--upgrade".into());
    }
    match Command::new(&program).args(arguments).spawn() {
        Ok(mut child) => {
            tracing::info!(pid = child.id(), "started the next process");
            // It must not stay behind as a zombie, and a thread of its own keeps nobody from ending.
            std::thread::spawn(move || match child.wait() {
                Ok(status) => tracing::error!(%status, "the next process ended"),
                Err(error) => tracing::error!(%error, "the next process is lost"),
            });
        }
        Err(error) => tracing::error!(%error, program = %program.display(), "the next process does not start"),
    }
}
