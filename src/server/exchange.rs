//! One request's state, from the parsed head to the log line. An enum, so that nothing can be forwarded that was not
//! admitted.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use http::Uri;
use http::request::Parts;
use pingora::Result;
use rand::RngCore as _;

use super::hold::Replay;
use super::limits::Place;
use super::outgoing::internal;
use super::stream::{Parting, Stream};
use super::upstream::Errand;
use crate::admission::{Admitted, Denial, OwnAnswer};
use crate::assertion::SignedHeaders;
use crate::client::Script;
use crate::cors::PreflightAnswer;
use crate::limits::meter::Fields;
use crate::observe::metrics::InFlight;
use crate::reason::Denied;
use crate::request::forwarded::Client;
use crate::request::trace::Trace;
use crate::revocations::Revocations;
use crate::snapshot::Snapshot;

/// How far a request is.
#[derive(Debug)]
pub(super) enum State {
    /// Nothing decided.
    Received,
    /// Answered here.
    Denied(Denial),
    /// One of our own endpoints.
    Own(OwnAnswer),
    /// The page's script.
    Script(&'static Script),
    /// A preflight, answered here.
    Preflight(PreflightAnswer),
    /// On its way upstream.
    Admitted(Box<Forwarding>),
    /// Let through, for an ingress to send upstream.
    Vouched(Box<Vouched>),
}

/// An admitted request on its way.
#[derive(Debug)]
pub(super) struct Forwarding {
    /// The permit.
    pub(super) admitted: Admitted,
    /// Its way to the upstream.
    pub(super) errand: Errand,
    /// It changes nothing and has no body, so that it may be sent twice (RFC 9110 §9.2.1).
    pub(super) harmless: bool,
    /// The normalised path, as signed and sent.
    pub(super) path: String,
    /// The query as signed and sent.
    pub(super) query: Option<String>,
    /// A body that was read early.
    pub(super) replay: Option<Replay>,
    /// Whether it was read to its end, so that its digest is signed.
    pub(super) whole: bool,
    /// The next piece of body is the first of this try.
    pub(super) first_piece: bool,
    /// The stream that the answer is, where it may have to be ended.
    pub(super) stream: Option<Arc<Stream>>,
    /// How it is ended on HTTP/2.
    pub(super) parting: Parting,
    /// When it was handed on.
    pub(super) since: Instant,
    /// Interim answers (1xx) that came.
    pub(super) interim: u32,
    /// What went wrong on the way, if anything did.
    pub(super) failed: Option<Denied>,
}

impl Forwarding {
    /// The request target as signed and sent (RFC 9112 §3.2.1).
    pub(super) fn target(&self) -> Result<Uri> {
        let parsed = match &self.query {
            Some(query) => Uri::try_from(format!("{}?{query}", self.path)),
            None => Uri::try_from(self.path.as_str()),
        };
        parsed.map_err(|_| internal("target does not parse"))
    }
}

/// A request that an ingress asked about and may send on.
#[derive(Debug)]
pub(super) struct Vouched {
    /// The permit.
    pub(super) admitted: Admitted,
    /// What the ingress sets on the request, all of it.
    pub(super) headers: SignedHeaders,
}

/// The framework's per-request context.
pub(super) struct Exchange {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) revocations: Arc<Revocations>,
    pub(super) request_id: String,
    /// What a check is about, where this is one.
    pub(super) original: Option<Parts>,
    /// Where it came from, once its head was looked at.
    pub(super) client: Option<Client>,
    pub(super) received: Instant,
    pub(super) state: State,
    /// The trace that it belongs to, once its head was read.
    pub(super) trace: Option<Trace>,
    /// What its answer says of limits.
    pub(super) limits: Option<Fields>,
    /// Its place among the requests at work.
    pub(super) place: Option<Place>,
    _in_flight: InFlight,
}

impl Exchange {
    pub(super) fn new((snapshot, revocations): (Arc<Snapshot>, Arc<Revocations>), in_flight: InFlight) -> Self {
        let mut id = [0; 16];
        rand::rng().fill_bytes(&mut id);
        Self {
            snapshot,
            revocations,
            request_id: hex::encode(id),
            original: None,
            client: None,
            received: Instant::now(),
            state: State::Received,
            trace: None,
            limits: None,
            place: None,
            _in_flight: in_flight,
        }
    }

    /// The address that limits go by: the client's, as far as it can be told; none for a local process.
    pub(super) fn client_address(&self) -> Option<IpAddr> {
        self.client.as_ref()?.address
    }

    /// The request on its way, if it is.
    pub(super) fn forwarding(&mut self) -> Option<&mut Forwarding> {
        if let State::Admitted(forwarding) = &mut self.state { Some(forwarding) } else { None }
    }
}
