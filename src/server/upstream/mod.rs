//! One request's way to its backend: which address it is sent to, with every timeout set (the framework's defaults are none at
//! all), what is tried again, and what its outcome says about the address. Decides nothing about callers. Called by
//! [`super::proxy`] in the framework's phases.

pub(super) mod health;
pub(super) mod line;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::HOST;
use http::{HeaderMap, HeaderValue};
use pingora::protocols::Digest;
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use pingora::{Error, ErrorSource, ErrorType, Result};

use crate::reason::{Denied, Reason};
use crate::request::RequestHead;
use crate::request::forwarded::{self, Client};
use crate::snapshot::Upstream;
use crate::tenant::Place;
use crate::upstream::address::{Address, At, Lease};
use crate::upstream::tls::ClientTls;
use crate::upstream::{Backend, Balance, HostPolicy, UpstreamSettings, stable_hash};
use line::{Line, Lines, Watch};

/// Longest body, in bytes, that its head waits for.
const GATHERED: usize = 16 * 1024;

/// What a request has with its upstream.
#[derive(Debug)]
pub(super) struct Errand {
    upstream: Arc<Upstream>,
    /// Where the conversation belongs, where that counts.
    conversation: Option<u64>,
    /// Its address of this try.
    lease: Option<Lease>,
    /// The addresses that could not be reached, and the other tries so far.
    tried: Vec<Arc<Address>>,
    retries: u32,
    /// When it must be over; `None` for a stream.
    deadline: Option<Instant>,
    /// Its connection of this try.
    line: Option<Arc<Line>>,
    /// The answer was one that counts against the address.
    ill: bool,
    /// Nothing of an answer was seen yet.
    unanswered: bool,
    /// What was sent so far waits for the end of the body.
    gathers: bool,
}

impl Errand {
    /// An errand that begins now.
    pub(super) fn new(upstream: Arc<Upstream>, conversation: Option<u64>, is_stream: bool, now: Instant) -> Self {
        let deadline = if is_stream { None } else { now.checked_add(upstream.settings.timeouts.total) };
        let (lease, line) = (None, None);
        Self { upstream, conversation, lease, tried: Vec::new(), retries: 0, deadline, line, ill: false, unanswered: true, gathers: false }
    }

    pub(super) fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }

    /// A connection target for the next try; a stream's backend may be silent for as long as it likes, or as `silence` says.
    ///
    /// # Errors
    /// `ConnectNoRoute` where no address is known, or none is left.
    pub(super) fn peer(&mut self, lines: &Arc<Lines>, silence: Option<Duration>, upgrade: bool) -> Result<Box<HttpPeer>> {
        let now = Instant::now();
        let lease = self.upstream.pool.pick(self.conversation, &self.tried, now);
        let lease = lease.ok_or_else(|| Error::explain(ErrorType::ConnectNoRoute, "no address of the upstream is known"))?;
        let settings = &self.upstream.settings;
        let mut peer = target(settings, lease.address())?;
        let left = self.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(now));
        peer.options.connection_timeout = Some(settings.timeouts.connect.min(left));
        peer.options.total_connection_timeout = peer.options.connection_timeout;
        peer.options.read_timeout = silence; // the line's watch knows when silence is the backend's
        // After it, the framework waits for an answer all the same: but for what was upgraded, the line's watch is better.
        peer.options.write_timeout = upgrade.then_some(settings.timeouts.write);
        peer.options.idle_timeout = Some(settings.timeouts.idle);
        peer.options.custom_l4 = Some(Arc::clone(lines) as _);
        self.lease = Some(lease);
        Ok(Box::new(peer))
    }

    /// What `Host` is to say, where it is not the client's; and whether that was changed.
    pub(super) fn set_host(&self, fields: &mut HeaderMap) -> Result<()> {
        let value = match (&self.upstream.settings.host, &self.lease) {
            (HostPolicy::Preserve, _) | (_, None) => return Ok(()),
            (HostPolicy::Name(name), _) => name.clone(),
            (HostPolicy::Address, Some(lease)) => host_of(lease.address().backend(), self.upstream.settings.tls.is_some())?,
        };
        if let Some(asked) = fields.insert(HOST, value)
            && !fields.contains_key(forwarded::HOST)
        {
            fields.insert(forwarded::HOST, asked);
        }
        Ok(())
    }

    /// A connection is there, new or used before.
    ///
    /// # Errors
    /// Where it is none of ours, so that nothing could end it in time.
    pub(super) fn connected(&mut self, digest: Option<&Digest>) -> Result<()> {
        let line = line::of(digest).ok_or_else(|| Error::explain(ErrorType::InternalError, "an unwatched upstream connection"))?;
        let timeouts = &self.upstream.settings.timeouts;
        line.begin(Watch { deadline: self.deadline, silence: timeouts.read, write: timeouts.write });
        self.line = Some(line);
        self.unanswered = true;
        Ok(())
    }

    /// A piece of the request's body is sent.
    pub(super) fn sends(&self) {
        if let Some(line) = self.line.as_ref().filter(|_| self.unanswered) {
            line.sends(Instant::now());
        }
    }

    /// The head that is sent next waits for its body, where that is small: one packet less, which is a good part of what a
    /// request costs.
    pub(super) fn gather(&mut self, length: Option<usize>) {
        if let Some(line) = self.line.as_ref().filter(|_| length.is_some_and(|length| length <= GATHERED)) {
            line.gather(true);
            self.gathers = true;
        }
    }

    /// The request was sent to its end, or will be with the piece that is in hand: from now on the backend is waited for.
    pub(super) fn sent(&mut self) {
        if std::mem::take(&mut self.gathers)
            && let Some(line) = self.line.clone()
        {
            // Runs on this worker, right after the piece was written.
            tokio::spawn(async move { line.gather(false) });
        }
        if let Some(line) = self.line.as_ref().filter(|_| self.unanswered) {
            line.await_answer(Instant::now() + self.upstream.settings.timeouts.first_byte);
        }
    }

    /// The head of the answer came; `over` where nothing follows.
    pub(super) fn answered(&mut self, status: u16, is_stream: bool, over: bool) {
        self.unanswered = false;
        self.ill = self.upstream.pool.is_failure(status);
        let Some(line) = &self.line else { return };
        if is_stream || over {
            line.rest();
        } else {
            line.hears(Instant::now());
        }
    }

    /// A piece of the answer came.
    ///
    /// # Errors
    /// Where the end of the answer is ours: what looks complete is not.
    pub(super) fn piece(&self, is_end: bool) -> Result<()> {
        let Some(line) = &self.line else { return Ok(()) };
        if is_end {
            return match line.cut() {
                Some(why) => Err(Error::explain(ErrorType::ReadTimedout, why.as_str()).into_up()),
                None => {
                    line.rest();
                    Ok(())
                }
            };
        }
        line.hears(Instant::now());
        Ok(())
    }

    /// No connection came about. Another address may be tried: nothing was sent.
    pub(super) fn could_not_connect(&mut self, mut error: Box<Error>) -> Box<Error> {
        let now = Instant::now();
        let Some(lease) = self.lease.take() else { return error };
        // Our own lack of descriptors or ports is not the address's.
        if !matches!(error.etype(), ErrorType::InternalError | ErrorType::SocketError | ErrorType::BindError) {
            self.upstream.pool.failed(lease.address(), error.etype().as_str(), now);
        }
        self.tried.push(Arc::clone(lease.address()));
        let another = self.upstream.pool.addresses().iter().any(|address| !self.tried.iter().any(|tried| Arc::ptr_eq(tried, address)));
        error.set_retry(another && self.may_retry(now));
        error
    }

    /// The exchange broke off. It is tried again only where a connection that was kept had gone by the time that a request
    /// came which changes nothing and has no body: a backend closes what is idle, and then nobody saw the request.
    pub(super) fn broke_off(&mut self, mut error: Box<Error>, reused: bool, harmless: bool) -> Box<Error> {
        let now = Instant::now();
        let gone = matches!(error.etype(), ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError);
        let stale = reused && gone && self.unanswered && self.cut().is_none() && *error.esource() == ErrorSource::Upstream;
        error.set_retry(stale && harmless && self.may_retry(now));
        if let Some(lease) = self.lease.take_if(|_| *error.esource() == ErrorSource::Upstream)
            && !stale
            && self.cut() != Some(line::Cut::Total)
        {
            let what = self.cut().map_or(error.etype().as_str(), line::Cut::as_str);
            self.upstream.pool.failed(lease.address(), what, now);
        }
        error
    }

    fn may_retry(&mut self, now: Instant) -> bool {
        let may = self.retries < self.upstream.settings.retries && self.deadline.is_none_or(|deadline| now < deadline);
        if may {
            self.retries += 1;
            self.upstream.pool.retried();
        }
        may
    }

    /// Why the exchange was ended by us, if it was.
    pub(super) fn cut(&self) -> Option<line::Cut> {
        self.line.as_ref()?.cut()
    }

    /// The exchange is over; `well` unless it failed.
    pub(super) fn end(&mut self, well: bool) {
        self.line = None;
        let Some(lease) = self.lease.take().filter(|_| well) else { return };
        if self.ill {
            self.upstream.pool.failed(lease.address(), "a status that counts as a failure", Instant::now());
        } else {
            self.upstream.pool.succeeded(lease.address(), Instant::now());
        }
    }
}

/// The reason and its detail for what went wrong on the way, by the framework's error and by what we did ourselves.
pub(super) fn why(error: &Error, cut: Option<line::Cut>, otherwise: Reason) -> Denied {
    match (error.esource(), cut, error.etype()) {
        (ErrorSource::Downstream, _, _) => otherwise.into(),
        (_, Some(cut), _) => Denied::new(Reason::UpstreamTimeout, cut.as_str()),
        (_, None, ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert | ErrorType::HandshakeError) => {
            // Names, dates and alerts: nothing secret.
            let context = error.context.as_ref().map(|context| context.as_str().to_owned());
            Denied::new(Reason::UpstreamTls, context.unwrap_or_default())
        }
        (_, None, ErrorType::ReadError | ErrorType::WriteError) if alert(error).is_some() => {
            Denied::new(Reason::UpstreamTls, alert(error).unwrap_or_default())
        }
        (_, None, ErrorType::ConnectTimedout) => Denied::new(Reason::UpstreamTimeout, "no connection within connect_timeout"),
        (_, None, ErrorType::WriteTimedout) => Denied::new(Reason::UpstreamTimeout, "took no bytes within write_timeout"),
        (_, None, _) => otherwise.into(),
    }
}

/// What a backend said against our certificate: in TLS 1.3, only when the handshake is over for us (RFC 8446 §4.4.2.4).
fn alert(error: &Error) -> Option<String> {
    let cause = error.cause.as_ref()?.downcast_ref::<std::io::Error>()?;
    match cause.get_ref()?.downcast_ref::<rustls::Error>()? {
        said @ rustls::Error::AlertReceived(_) => Some(said.to_string()),
        _ => None,
    }
}

/// Where the request's conversation belongs: what the upstream hashes, where it balances by that.
pub(super) fn conversation(
    settings: &UpstreamSettings,
    head: &RequestHead<'_>,
    (subject, session): (Option<&str>, Option<&str>),
    client: Option<&Client>,
) -> Option<u64> {
    let Balance::ConsistentHash(places) = &settings.balance else { return None };
    let hash = |text: &str| Some(stable_hash(text.as_bytes()));
    for place in places {
        // What stands twice names no conversation: the next place may.
        let found = match place {
            Place::Header(name) => head.header(name).ok().flatten().and_then(hash),
            Place::Query(name) => head.query.one(name).ok().flatten().and_then(|value| hash(&value)),
            Place::Path(pattern) => pattern.captures(&head.path).and_then(|captured| hash(&captured)),
            Place::Bearer => None,
        };
        if found.is_some() {
            return found;
        }
    }
    subject.or(session).and_then(hash).or_else(|| hash(&client?.address?.to_string()))
}

/// Where a connection goes and what it must show, without timeouts.
fn target(settings: &UpstreamSettings, address: &Address) -> Result<HttpPeer> {
    let tls = settings.tls.as_deref();
    let name = tls.map_or(String::new(), |tls| server_name(tls, address).to_owned());
    if tls.is_some() && name.is_empty() {
        return Error::e_explain(ErrorType::InternalError, "an empty name would switch verification off");
    }
    let mut peer = match address.at() {
        At::Tcp(at) => HttpPeer::new(*at, tls.is_some(), name),
        At::Unix(path) => HttpPeer::new_uds(&path.to_string_lossy(), tls.is_some(), name)?,
    };
    if let Some(tls) = tls {
        let prepared = tls.prepared(Prepared::new);
        let prepared = prepared.ok_or_else(|| Error::explain(ErrorType::InternalError, "TLS was prepared by somebody else"))?;
        peer.options.ca.clone_from(&prepared.authorities);
        peer.client_cert_key.clone_from(&prepared.own);
        peer.group_key = tls.group(); // the framework tells neither authorities nor keys apart
    }
    Ok(peer)
}

fn server_name<'a>(tls: &'a ClientTls, address: &'a Address) -> &'a str {
    let host = match address.backend() {
        Backend::Tcp { host, .. } => host.as_str(),
        Backend::Unix(_) => "",
    };
    tls.server_name().unwrap_or(host)
}

/// An address as `Host` says it: without the port that the scheme has anyway (RFC 9110 §4.2).
fn host_of(backend: &Backend, secure: bool) -> Result<HeaderValue> {
    let text = match backend {
        Backend::Unix(_) => "localhost".to_owned(),
        Backend::Tcp { host, port } if *port != if secure { 443 } else { 80 } => {
            if host.contains(':') {
                format!("[{host}]:{port}")
            } else {
                format!("{host}:{port}")
            }
        }
        Backend::Tcp { host, .. } if host.contains(':') => format!("[{host}]"),
        Backend::Tcp { host, .. } => host.clone(),
    };
    HeaderValue::try_from(text).map_err(|_| Error::explain(ErrorType::InternalError, "an address is no header value"))
}

/// What the framework wants for TLS.
struct Prepared {
    authorities: Option<Arc<[WrappedX509]>>,
    own: Option<Arc<CertKey>>,
}

impl Prepared {
    fn new(tls: &ClientTls) -> Self {
        let authorities: Arc<[_]> = tls.authorities().iter().map(|der| WrappedX509::new(der.clone(), parse_x509)).collect();
        let own = tls.own().map(|(chain, key)| Arc::new(CertKey::new(chain.to_vec(), key.to_vec())));
        Self { authorities: Some(authorities).filter(|all| !all.is_empty()), own }
    }
}
