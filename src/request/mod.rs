//! What the client sent, parsed into one unambiguous reading; nothing is decided here. A request that two servers could
//! read differently never becomes a [`RequestHead`]. Called by the server before anything else looks at a request.

pub mod body;
pub mod credential;
pub mod embed_key;
pub mod forwarded;
pub mod origin;
pub mod original;
pub mod path;
pub mod query;
pub mod trace;

use http::header::{self, HeaderMap, HeaderName};
use http::{Method, Version};

use crate::reason::{Denied, Reason};
use origin::Origin;
use path::Path;
use query::Query;

/// Most header fields that a request may have (`threats` 30).
pub const MAX_FIELDS: usize = 100;
/// Most bytes of path and query (`threats` 30).
pub const MAX_TARGET_BYTES: usize = 8 * 1024;
/// Most bytes of header names and values that a request may have (`threats` 30).
pub const MAX_HEADER_BYTES: usize = 32 * 1024;

/// A request's head with every ambiguity refused: one Host, one Origin, one reading of path and query.
#[derive(Debug)]
pub struct RequestHead<'a> {
    /// The method, never TRACE or CONNECT.
    pub method: &'a Method,
    /// The one normalised path: matched by policy, signed, and sent.
    pub path: Path<'a>,
    /// The query as sent, and its decoded pairs.
    pub query: Query<'a>,
    /// The serialized origin (RFC 6454 §6.2), if the request has one.
    pub origin: Option<Origin<'a>>,
    /// A WebSocket handshake: GET with `Connection: Upgrade` and `Upgrade: websocket` (RFC 6455 §4.1).
    pub upgrade: bool,
    /// Whether the framing announces a body: by headers, on HTTP/2 by a stream that goes on.
    pub has_body: bool,
    /// `Content-Length`, where there is one.
    pub content_length: Option<u64>,
    headers: &'a HeaderMap,
}

impl<'a> RequestHead<'a> {
    /// Parses a request line and header section.
    ///
    /// # Errors
    /// A `request_*` or `origin_malformed` denial for anything with more than one reading.
    pub fn parse(parts: &'a http::request::Parts) -> Result<Self, Denied> {
        Self::parse_stream(parts, false)
    }

    /// Parses a header section whose stream may go on: on HTTP/2 that alone says whether there is a body (RFC 9113 §8.1).
    ///
    /// # Errors
    /// The same.
    pub fn parse_stream(parts: &'a http::request::Parts, goes_on: bool) -> Result<Self, Denied> {
        let headers = &parts.headers;
        if parts.uri.path() == "*" && parts.method != Method::OPTIONS {
            return Err(malformed("target * is for OPTIONS only")); // RFC 9112 §3.2.4
        }
        if matches!(parts.method, Method::TRACE | Method::CONNECT) {
            return Err(Reason::RequestMethodRefused.into());
        }
        if parts.uri.path().len() + parts.uri.query().map_or(0, |query| query.len() + 1) > MAX_TARGET_BYTES {
            return Err(Reason::TargetTooLong.into());
        }
        refuse_odd_fields(headers)?;
        refuse_connection_options(headers)?;
        if parts.version == Version::HTTP_2 {
            refuse_connection_fields(headers)?;
        }
        refuse_odd_host(parts)?;
        let (content_length, chunked) = framing(parts)?;
        Ok(Self {
            method: &parts.method,
            path: Path::parse(parts.uri.path())?,
            query: Query::parse(parts.uri.query())?,
            origin: Origin::of(headers)?,
            upgrade: upgrade(parts)?,
            has_body: chunked || goes_on || content_length.is_some_and(|n| n > 0),
            content_length,
            headers,
        })
    }

    /// The value of a header that may be sent once. An empty value counts as absent.
    ///
    /// # Errors
    /// `request_header_refused` when it was sent twice or is not visible ASCII.
    pub fn header(&self, name: &HeaderName) -> Result<Option<&'a str>, Denied> {
        once(self.headers, name)
    }

    /// The credential of `Authorization: Bearer` (RFC 6750 §2.1), if there is one. Other schemes are no credential of
    /// ours; the header is removed all the same.
    ///
    /// # Errors
    /// `request_header_refused` when the header was sent twice or is not visible ASCII.
    pub fn bearer(&self) -> Result<Option<&'a str>, Denied> {
        let Some(value) = once(self.headers, &header::AUTHORIZATION)? else { return Ok(None) };
        let Some((scheme, token)) = value.split_once(' ') else { return Ok(None) };
        let token = token.trim_matches(' ');
        Ok((scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token))
    }

    /// The query parameter that may carry a session token, where a tenant allows it.
    pub const SESSION_PARAMETER: &'static str = "session_token";

    /// The session token among the subprotocols of a WebSocket handshake (`doorward.token.JWT`): a browser cannot set other
    /// headers there.
    ///
    /// # Errors
    /// `request_credential_ambiguous` for two of them.
    pub fn websocket_token(&self) -> Result<Option<&'a str>, Denied> {
        if !self.upgrade {
            return Ok(None);
        }
        let mut tokens = subprotocols(self.headers).filter_map(|offered| offered.strip_prefix(TOKEN_SUBPROTOCOL));
        match (tokens.next(), tokens.next()) {
            (Some(_), Some(_)) => Err(Denied::new(Reason::CredentialAmbiguous, "two token subprotocols")),
            (token, _) => Ok(token),
        }
    }

    /// A navigation by a browser (`Sec-Fetch-Mode`, Fetch Metadata §2.2): a link that somebody was made to follow.
    ///
    /// # Errors
    /// `request_header_refused` when the header was sent twice.
    pub fn is_navigation(&self) -> Result<bool, Denied> {
        Ok(self.header(&SEC_FETCH_MODE)?.is_some_and(|mode| mode.eq_ignore_ascii_case("navigate")))
    }

    /// A GET that asks for server-sent events and nothing else.
    ///
    /// # Errors
    /// `request_header_refused` when the header was sent twice.
    pub fn wants_event_stream(&self) -> Result<bool, Denied> {
        Ok(*self.method == Method::GET
            && self.header(&header::ACCEPT)?.is_some_and(|accept| accept.eq_ignore_ascii_case("text/event-stream")))
    }

    /// Whether the request comes from a page: browsers add these and scripts cannot remove them.
    pub fn is_from_a_page(&self) -> bool {
        self.origin.is_some() || self.headers.keys().any(|name| name.as_str().starts_with("sec-fetch-"))
    }

    /// All header fields, for removal and for the assertion's reserved names.
    pub fn headers(&self) -> &'a HeaderMap {
        self.headers
    }

    /// A preflight (Fetch §4.8): `OPTIONS` with `Origin` and `Access-Control-Request-Method`.
    pub fn is_preflight(&self) -> bool {
        *self.method == Method::OPTIONS && self.origin.is_some() && self.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    }
}

/// What a session token is prefixed with among WebSocket subprotocols.
pub const TOKEN_SUBPROTOCOL: &str = "doorward.token.";
/// The subprotocol that the gateway answers with where the upstream chose none.
pub const OWN_SUBPROTOCOL: &str = "doorward.v1";
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// The subprotocols that a handshake offers (RFC 6455 §11.3.4), in order.
pub fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).map(str::trim).filter(|p| !p.is_empty())
}

/// The only reader of a single-valued header: `HeaderMap::get` would hide a duplicate.
fn once<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Denied> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Denied::new(Reason::RequestHeaderRefused, format!("{name} sent twice")));
    }
    let text = first.to_str().map_err(|_| Denied::new(Reason::RequestHeaderRefused, format!("{name} is not visible ASCII")))?;
    let text = text.trim_matches([' ', '\t']);
    Ok((!text.is_empty()).then_some(text))
}

fn refuse_odd_fields(headers: &HeaderMap) -> Result<(), Denied> {
    let mut bytes = 0;
    for (name, value) in headers {
        bytes += name.as_str().len() + value.len();
        // `_` and `.` become `-` in CGI-like backends, so `x_identity_subject` would be read as ours (`threats` 1).
        // No early end in either look: without one they run over many bytes at once.
        if !name.as_str().bytes().fold(true, |plain, b| plain & (b.is_ascii_alphanumeric() | (b == b'-'))) {
            return Err(Denied::new(Reason::RequestHeaderRefused, "a header name has a character other than letters, digits and dashes"));
        }
        if value.as_bytes().iter().fold(false, |odd, b| odd | ((*b < b' ') & (*b != b'\t')) | (*b == 0x7f)) {
            return Err(Denied::new(Reason::RequestMalformed, format!("control character in {name}")));
        }
    }
    if headers.len() > MAX_FIELDS || bytes > MAX_HEADER_BYTES {
        return Err(Reason::HeaderFieldsTooLarge.into());
    }
    Ok(())
}

/// `Connection: X` makes proxies drop header X: a client could have ours dropped (`threats` 2).
fn refuse_connection_options(headers: &HeaderMap) -> Result<(), Denied> {
    for value in headers.get_all(header::CONNECTION) {
        for option in value.as_bytes().split(|b| *b == b',') {
            let option = option.trim_ascii();
            let known = [&b"close"[..], b"keep-alive", b"upgrade"];
            if !option.is_empty() && !known.iter().any(|k| k.eq_ignore_ascii_case(option)) {
                return Err(Reason::RequestConnectionRefused.into());
            }
        }
    }
    Ok(())
}

/// RFC 9113 §8.2.2: HTTP/2 has none of them, and an HTTP/1.1 backend would obey them.
fn refuse_connection_fields(headers: &HeaderMap) -> Result<(), Denied> {
    const FIELDS: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
    if FIELDS.iter().any(|name| headers.contains_key(*name)) {
        return Err(malformed("a connection-specific header in HTTP/2"));
    }
    if headers.get_all(header::TE).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        return Err(malformed("TE other than trailers in HTTP/2"));
    }
    Ok(())
}

fn malformed(detail: &'static str) -> Denied {
    Denied::new(Reason::RequestMalformed, detail)
}

/// RFC 9112 §3.2: exactly one Host, a plain authority, and the same one as in an absolute-form target.
fn refuse_odd_host(parts: &http::request::Parts) -> Result<(), Denied> {
    let target = parts.uri.authority().map(http::uri::Authority::as_str);
    let mut values = parts.headers.get_all(header::HOST).iter();
    let host = match (values.next(), values.next()) {
        (Some(host), None) => host.to_str().map_err(|_| malformed("Host is not ASCII"))?,
        (None, None) if parts.version == Version::HTTP_2 => target.ok_or(malformed("no authority"))?,
        (None, _) => return Err(malformed("no Host")),
        (Some(_), Some(_)) => return Err(malformed("two Hosts")),
    };
    if !is_authority(host) {
        return Err(malformed("Host is not a host and an optional port"));
    }
    if target.is_some_and(|target| !target.eq_ignore_ascii_case(host)) {
        return Err(malformed("Host differs from the target's authority"));
    }
    Ok(())
}

/// `host [":" port]` (RFC 3986 §3.2 without userinfo): no comma, path, userinfo, space or percent-encoding.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((v6, "")) => (v6, None),
            Some((v6, rest)) => (v6, rest.strip_prefix(':').or(Some("x"))),
            None => return false,
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let host_ok = if text.starts_with('[') {
        host.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
    };
    host_ok && port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok())
}

/// RFC 9112 §6: one Content-Length of digits, or one `Transfer-Encoding: chunked`, never both.
fn framing(parts: &http::request::Parts) -> Result<(Option<u64>, bool), Denied> {
    let mut encodings = parts.headers.get_all(header::TRANSFER_ENCODING).iter();
    let encoding = encodings.next();
    let mut lengths = parts.headers.get_all(header::CONTENT_LENGTH).iter();
    let length = lengths.next();
    if encodings.next().is_some() || lengths.next().is_some() {
        return Err(malformed("framing header sent twice"));
    }
    if encoding.is_some() && (length.is_some() || parts.version != Version::HTTP_11) {
        return Err(malformed("Transfer-Encoding beside Content-Length, or not in HTTP/1.1"));
    }
    if encoding.is_some_and(|e| !e.as_bytes().eq_ignore_ascii_case(b"chunked")) {
        return Err(malformed("Transfer-Encoding other than chunked"));
    }
    let length = length
        .map(|v| {
            let digits = v.as_bytes();
            let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
            plain.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten().ok_or(malformed("Content-Length is not a number"))
        })
        .transpose()?;
    Ok((length, encoding.is_some()))
}

/// Whether this is a WebSocket handshake; an upgrade to anything else is refused, so that h2c never passes (`threats` 26).
fn upgrade(parts: &http::request::Parts) -> Result<bool, Denied> {
    let mut protocols = parts.headers.get_all(header::UPGRADE).iter();
    let Some(protocol) = protocols.next() else { return Ok(false) };
    let named = parts
        .headers
        .get_all(header::CONNECTION)
        .iter()
        .any(|v| v.as_bytes().split(|b| *b == b',').any(|o| o.trim_ascii().eq_ignore_ascii_case(b"upgrade")));
    let websocket = protocols.next().is_none() && protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
    if websocket && named && parts.method == Method::GET && parts.version == Version::HTTP_11 {
        Ok(true)
    } else {
        Err(malformed("Upgrade to something other than a WebSocket by GET"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(version: Version, target: &str, fields: &[(&str, &str)]) -> http::request::Parts {
        let mut request = http::Request::builder().method("POST").version(version).uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn http_2_says_by_its_stream_whether_there_is_a_body() {
        let (bare, empty) = (parts(Version::HTTP_2, "https://h/", &[]), parts(Version::HTTP_2, "https://h/", &[("content-length", "0")]));
        for (parts, goes_on, has_body) in [(&bare, true, true), (&bare, false, false), (&empty, false, false)] {
            let head = RequestHead::parse_stream(parts, goes_on).unwrap();
            assert_eq!((head.has_body, head.upgrade), (has_body, false));
        }
        let known = parts(Version::HTTP_2, "https://h/", &[("content-length", "5")]);
        assert_eq!(RequestHead::parse_stream(&known, true).unwrap().content_length, Some(5));
    }

    #[test]
    fn the_authority_stands_for_the_host_in_http_2_and_must_not_differ_from_it() {
        for (target, host, good) in [
            ("https://h:8443/", None, true),
            ("https://h:8443/", Some("h:8443"), true),
            ("https://h/", Some("H"), true),
            ("https://h/", Some("g"), false),
            ("https://h:8443/", Some("h"), false),
            ("https://user@h/", None, false),
            ("/", Some("h"), true),
            ("/", None, false),
        ] {
            let fields: Vec<_> = host.into_iter().map(|host| ("host", host)).collect();
            assert_eq!(RequestHead::parse(&parts(Version::HTTP_2, target, &fields)).is_ok(), good, "{target} {host:?}");
        }
    }

    #[test]
    fn http_2_has_no_connection_specific_headers() {
        for (field, good) in [
            (("te", "trailers"), true),
            (("te", "Trailers"), true),
            (("te", "gzip"), false),
            (("te", "trailers, deflate"), false),
            (("connection", "close"), false),
            (("connection", ""), false),
            (("keep-alive", "timeout=5"), false),
            (("proxy-connection", "keep-alive"), false),
            (("transfer-encoding", "chunked"), false),
            (("upgrade", "websocket"), false),
        ] {
            assert_eq!(RequestHead::parse(&parts(Version::HTTP_2, "https://h/", &[field])).is_ok(), good, "{field:?}");
        }
        assert!(RequestHead::parse(&parts(Version::HTTP_11, "/", &[("host", "h"), ("connection", "close")])).is_ok());
    }
}
