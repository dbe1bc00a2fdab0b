//! Active checks: every address of an upstream that asks for them is tried in the background, by a connection of its own each
//! time, and taken out or in by what it says. A check carries no identity: its path must need none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora::connectors::http::v1::Connector;
use pingora::http::RequestHeader;
use pingora::{Error, ErrorType, Result};

use super::{host_of, target};
use crate::snapshot::{Live, Upstream};
use crate::upstream::address::Address;
use crate::upstream::{Health, HostPolicy};

/// How often due checks are looked for.
const LOOK: Duration = Duration::from_millis(100);
/// Tells checks from requests in the backend's log.
const USER_AGENT: &str = concat!("doorward-health/", env!("CARGO_PKG_VERSION"));

/// Checks for as long as the process lives. Only what is in force is checked.
pub(in crate::server) async fn watch(live: Arc<Live>) {
    let mut connector = None;
    loop {
        let (snapshot, _) = live.load();
        for upstream in snapshot.upstreams.all() {
            let Some(rule) = &upstream.settings.health else { continue };
            for address in upstream.pool.addresses().iter().filter(|address| address.check_is_due(rule, Instant::now())) {
                // Made for the first check: it reads the system's authorities.
                let connector = connector.get_or_insert_with(|| Arc::new(Connector::new(None)));
                tokio::spawn(check(Arc::clone(connector), Arc::clone(upstream), Arc::clone(address), rule.clone()));
            }
        }
        drop(snapshot);
        tokio::time::sleep(LOOK).await;
    }
}

async fn check(connector: Arc<Connector>, upstream: Arc<Upstream>, address: Arc<Address>, rule: Health) {
    let outcome = match tokio::time::timeout(rule.timeout, ask(&connector, &upstream, &address, &rule)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(match error.etype() {
            ErrorType::CustomCode(_, status) => format!("the check got {status}"),
            other => format!("the check failed: {}", other.as_str()),
        }),
        Err(_) => Err("the check took too long".to_owned()),
    };
    let why = outcome.as_ref().err().cloned();
    if address.checked(&rule, outcome) {
        let (upstream, address) = (&upstream.settings.name, address.at());
        match why {
            None => tracing::info!(upstream, %address, "an address is healthy again"),
            Some(why) => tracing::warn!(upstream, %address, why, "an address is unhealthy and gets no requests"),
        }
    }
}

async fn ask(connector: &Connector, upstream: &Upstream, address: &Address, rule: &Health) -> Result<()> {
    let settings = &upstream.settings;
    let mut peer = target(settings, address)?;
    peer.options.total_connection_timeout = Some(rule.timeout);
    let (mut session, _) = connector.get_http_session(&peer).await?;
    let Some(path) = &rule.path else { return Ok(()) };
    let mut request = RequestHeader::build("GET", path.as_bytes(), Some(4))?;
    let host = match &settings.host {
        HostPolicy::Name(name) => name.clone(),
        HostPolicy::Preserve | HostPolicy::Address => host_of(address.backend(), settings.tls.is_some())?,
    };
    request.insert_header("host", host)?;
    request.insert_header("user-agent", USER_AGENT)?;
    request.insert_header("connection", "close")?;
    session.write_request_header(Box::new(request)).await?;
    session.finish_body().await?;
    session.read_response().await?;
    let status = session.get_status().map_or(0, |status| status.as_u16());
    let good = if rule.statuses.is_empty() { (200..300).contains(&status) } else { rule.statuses.contains(&status) };
    if good { Ok(()) } else { Error::e_explain(ErrorType::CustomCode("status", status), "of a check") }
}
