//! `doorward run`.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::log;
use crate::config::{self, watched::Files};
use crate::observe::metrics::Metrics;
use crate::reload::{self, Reloader};
use crate::resolver::Resolver;
use crate::server::{self, Gateway, Listeners};
use crate::snapshot::Live;

/// Run the gateway.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Signals:\n  SIGTERM, SIGINT  stop: not ready at once, then drain within server.grace\n  SIGHUP           reload the configuration\n\nExample:\n  doorward run -c conf/doorward.toml"
)]
pub struct Run {
    /// The configuration file.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
}

impl Run {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        gateway(&self.config, |_, _| Ok(()))
    }
}

/// Loads, binds, serves until SIGTERM or SIGINT. `ready` is called with the gateway's and the admin listener's address once
/// both are bound.
pub(super) fn gateway(config: &Path, ready: impl FnOnce(SocketAddr, SocketAddr) -> io::Result<()>) -> ExitCode {
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
    let listeners = match Listeners::bind(&loaded.snapshot.settings.server) {
        Ok(listeners) => listeners,
        Err(why) => return failed(&why),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.to_string()),
    };
    let _guards = match log::start(&metrics.lost_lines) {
        Ok(guards) => guards,
        Err(error) => return failed(&format!("standard output and error: {error}")),
    };
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    loaded.keys.iter().for_each(config::KeyInUse::log);
    metrics.prepare(&loaded.snapshot.tenants, loaded.snapshot.settings.max_tenants);
    metrics.in_force(1, loaded.snapshot.loaded_at);
    let live = Arc::new(Live::new(loaded.snapshot, revocations));
    let gateway = Gateway { live, metrics, resolver: Arc::default() };
    let serving = async {
        ready(listeners.proxy_address()?, listeners.admin_address()?)?;
        serve(config.to_path_buf(), gateway, listeners, loaded.files).await
    };
    match runtime.block_on(serving) {
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

async fn serve(path: PathBuf, gateway: Gateway, listeners: Listeners, files: Files) -> io::Result<bool> {
    let upstream = gateway.live.load().0.settings.upstream.address.clone();
    if let Err(error) = gateway.resolver.resolve(&upstream).await {
        tracing::warn!(%error, address = upstream, "the upstream's name does not resolve yet");
    }
    let (hangup, hangups) = mpsc::channel(1);
    let mut hup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hup.recv().await.is_some() {
            let _ = hangup.try_send(()); // full: a reload is due already
        }
    });
    let reloader = Reloader {
        path,
        live: Arc::clone(&gateway.live),
        metrics: Arc::clone(&gateway.metrics),
        resolver: Arc::<Resolver>::clone(&gateway.resolver),
    };
    tokio::spawn(reloader.run(files, hangups));
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    for (place, tls) in listeners.places() {
        tracing::info!(address = %place, tls, "listening");
    }
    tracing::info!(listen = %listeners.proxy_address()?, admin = %listeners.admin_address()?, version = env!("CARGO_PKG_VERSION"), "serving");
    server::serve(gateway, listeners, async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
    .await
}
