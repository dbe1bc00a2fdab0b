//! Connection targets, with every timeout set: the framework's defaults are none at all.

use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

use crate::resolver::Resolver;
use crate::snapshot::UpstreamSettings;

/// A connection target for this request; a `stream` may be silent for as long as it likes.
///
/// # Errors
/// `ConnectNoRoute` where the upstream's name never resolved.
pub(super) fn peer(resolver: &Resolver, settings: &UpstreamSettings, stream: bool) -> Result<Box<HttpPeer>> {
    let address = resolver.next(&settings.address);
    let address = address.ok_or_else(|| Error::explain(ErrorType::ConnectNoRoute, "upstream name not resolved"))?;
    let mut peer = HttpPeer::new(address, false, String::new());
    peer.options.connection_timeout = Some(settings.connect_timeout);
    peer.options.total_connection_timeout = Some(settings.connect_timeout);
    peer.options.read_timeout = (!stream).then_some(settings.read_timeout);
    peer.options.write_timeout = Some(settings.write_timeout);
    peer.options.idle_timeout = Some(settings.idle_timeout);
    Ok(Box::new(peer))
}
