//! The request behind a check: an ingress asks whether a request may pass (`auth_request`, ForwardAuth, `forward_auth`,
//! ext_authz), and says in its own convention what that request is. Only the named convention is read; what it lacks or says
//! twice is refused, and so is what could only be forwarded after a change, since nobody here forwards it. The result is
//! parsed and decided like any other request. Called by the server for listeners with `forward_auth`.

use std::str::FromStr as _;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Uri, Version};

use super::once;
use super::path::Path;
use crate::reason::{Denied, Reason};

/// How an ingress says which request it asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Convention {
    /// nginx `auth_request`: `X-Original-Method` and `X-Original-URI`, which its configuration sets.
    Nginx,
    /// Traefik ForwardAuth: `X-Forwarded-Method`, `-Proto`, `-Host` and `-Uri`.
    Traefik,
    /// Caddy `forward_auth`: the same four.
    Caddy,
    /// Envoy ext_authz over HTTP: the check's own method, path and headers.
    Envoy,
}

impl Convention {
    /// As written in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Traefik => "traefik",
            Self::Caddy => "caddy",
            Self::Envoy => "envoy",
        }
    }

    /// The headers by which it says what the request is.
    pub fn headers(self) -> &'static [HeaderName] {
        static ORIGINAL: [HeaderName; 2] = [ORIGINAL_METHOD, ORIGINAL_URI];
        static FORWARDED: [HeaderName; 4] = [FORWARDED_METHOD, FORWARDED_URI, FORWARDED_HOST, FORWARDED_PROTO];
        match self {
            Self::Nginx => &ORIGINAL,
            Self::Traefik | Self::Caddy => &FORWARDED,
            Self::Envoy => &[],
        }
    }
}

const ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
const FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// What the connection between client and ingress was, or that between ingress and us is, and how a body was framed that is
/// not here.
static HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    HeaderName::from_static("keep-alive"),
];

/// Reads the request that a check is about. Its header section is the check's, less what belongs to the convention or the
/// connection; it has no body, whatever its framing said.
///
/// # Errors
/// `forward_auth_malformed` where the convention's headers are not there exactly once each and in their form;
/// `request_path_ambiguous` where the path is not in normal form.
pub fn read(convention: Convention, check: &Parts) -> Result<Parts, Denied> {
    let said = |name: &HeaderName| -> Result<&str, Denied> {
        once(&check.headers, name).ok().flatten().ok_or_else(|| malformed(format!("{name} is not there exactly once, with a value")))
    };
    let (method, target, host) = match convention {
        Convention::Nginx => (said(&ORIGINAL_METHOD)?, said(&ORIGINAL_URI)?, None),
        Convention::Traefik | Convention::Caddy => {
            if !matches!(said(&FORWARDED_PROTO)?, "http" | "https" | "ws" | "wss") {
                return Err(malformed("x-forwarded-proto is no scheme of the web"));
            }
            (said(&FORWARDED_METHOD)?, said(&FORWARDED_URI)?, Some(said(&FORWARDED_HOST)?))
        }
        Convention::Envoy => {
            let target = check.uri.path_and_query().map_or("", PathAndQuery::as_str);
            (check.method.as_str(), target, None)
        }
    };
    let host = host.or_else(|| check.uri.authority().map(http::uri::Authority::as_str));
    let mut request = http::Request::new(()).into_parts().0;
    request.method = Method::from_bytes(method.as_bytes()).map_err(|_| malformed("the method is no token"))?;
    request.uri = uri(target)?;
    request.version = Version::HTTP_11;
    request.headers = fields(convention, &check.headers, &request.method)?;
    if let Some(host) = host {
        request.headers.insert(header::HOST, HeaderValue::from_str(host).map_err(|_| malformed("the host is no header value"))?);
    }
    Ok(request)
}

/// The target that the ingress will send upstream, byte for byte: the signature is about it.
fn uri(target: &str) -> Result<Uri, Denied> {
    let odd = || malformed("the target is no path of visible ASCII");
    if !(target.starts_with('/') || target == "*") || !target.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err(odd());
    }
    let parsed = PathAndQuery::from_str(target).ok().filter(|parsed| parsed.as_str() == target).ok_or_else(odd)?;
    if Path::parse(parsed.path())?.as_str() != parsed.path() {
        // A gateway would forward the normal form. An ingress forwards what it got.
        return Err(Denied::new(Reason::RequestPathAmbiguous, "the path is not in normal form, and a check cannot change it"));
    }
    Uri::builder().path_and_query(parsed).build().map_err(|_| odd())
}

fn fields(convention: Convention, check: &HeaderMap, method: &Method) -> Result<HeaderMap, Denied> {
    let mut fields = check.clone();
    for name in convention.headers().iter().chain(&HOP) {
        fields.remove(name);
    }
    // Most ingresses keep a handshake's connection to themselves. Its key stays, and no plain request has one (RFC 6455 §4.1).
    let handshake = *method == Method::GET && fields.contains_key(header::SEC_WEBSOCKET_KEY);
    if handshake && !fields.contains_key(header::UPGRADE) {
        fields.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    if fields.contains_key(header::UPGRADE) {
        fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    Ok(fields)
}

fn malformed(detail: impl Into<std::borrow::Cow<'static, str>>) -> Denied {
    Denied::new(Reason::ForwardAuthMalformed, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::RequestHead;

    const ALL: [Convention; 4] = [Convention::Nginx, Convention::Traefik, Convention::Caddy, Convention::Envoy];

    fn check(target: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().uri(target).header("host", "auth.test");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    const SAYS: &[(&str, &str)] = &[
        ("x-original-method", "PUT"),
        ("x-original-uri", "/nginx?a=%20b"),
        ("x-forwarded-method", "DELETE"),
        ("x-forwarded-uri", "/go?c"),
        ("x-forwarded-host", "go.test"),
        ("x-forwarded-proto", "https"),
        ("x-embed-key", "k"),
        ("content-length", "5"),
        ("transfer-encoding", "chunked"),
    ];

    #[test]
    fn only_the_named_convention_is_read() {
        for (convention, line, host) in [
            (Convention::Nginx, "PUT /nginx?a=%20b", "auth.test"),
            (Convention::Traefik, "DELETE /go?c", "go.test"),
            (Convention::Caddy, "DELETE /go?c", "go.test"),
            (Convention::Envoy, "GET /envoy?d=1", "auth.test"),
        ] {
            let original = read(convention, &check("/envoy?d=1", SAYS)).unwrap();
            assert_eq!(format!("{} {}", original.method, original.uri), line, "{convention:?}");
            let head = RequestHead::parse(&original).unwrap();
            assert!(!head.has_body && !head.upgrade && head.content_length.is_none(), "{convention:?}");
            assert_eq!(head.header(&header::HOST).unwrap(), Some(host));
            assert_eq!(head.header(&HeaderName::from_static("x-embed-key")).unwrap(), Some("k"));
            for name in convention.headers() {
                assert!(!original.headers.contains_key(name), "{name}");
            }
        }
    }

    #[test]
    fn what_the_convention_names_is_there_once_and_in_its_form() {
        for convention in ALL {
            for name in convention.headers() {
                let without: Vec<_> = SAYS.iter().copied().filter(|(n, _)| n != name).collect();
                let (_, value) = *SAYS.iter().find(|(n, _)| n == name).unwrap();
                let twice = [&without[..], &[(name.as_str(), value), (name.as_str(), value)]].concat();
                let empty = [&without[..], &[(name.as_str(), "")]].concat();
                let listed = format!("{value}, {value}");
                let listed = [&without[..], &[(name.as_str(), &listed)]].concat();
                for fields in [&without, &twice, &empty, &listed] {
                    let read = read(convention, &check("/", fields));
                    // What is no authority is refused by the parser, as any Host is.
                    let why = read.and_then(|original| RequestHead::parse(&original).map(drop)).unwrap_err();
                    let malformed = why.reason == Reason::ForwardAuthMalformed || *name == FORWARDED_HOST;
                    assert!(malformed, "{convention:?} {name} {fields:?}: {why:?}");
                }
            }
        }
        for (method, target) in
            [("G T", "/"), ("GET", "x"), ("GET", "http://h/"), ("GET", "/a b"), ("GET", "/a#b"), ("GET", "/\u{e9}"), ("GET", "?a")]
        {
            let fields = [("x-original-method", method), ("x-original-uri", target)];
            let why = read(Convention::Nginx, &check("/", &fields)).unwrap_err();
            assert_eq!(why.reason, Reason::ForwardAuthMalformed, "{method} {target}");
        }
    }

    #[test]
    fn a_path_that_would_have_to_be_changed_is_refused() {
        for (target, good) in [
            ("/a%20b", true),
            ("/%C3%A9", true),
            ("/a?b=%7e&c=//..;", true),
            ("/%c3%a9", false),
            ("/%7Eada", false),
            ("/%61dmin", false),
            ("/a/../b", false),
            ("//a", false),
            ("/a%2Fb", false),
            ("/a;b", false),
        ] {
            let fields = [("x-original-method", "GET"), ("x-original-uri", target)];
            let read = read(Convention::Nginx, &check("/", &fields));
            assert_eq!(read.as_ref().err().map(|why| why.reason), (!good).then_some(Reason::RequestPathAmbiguous), "{target}");
            if let Ok(original) = read {
                assert_eq!(original.uri, target);
            }
        }
    }

    #[test]
    fn a_handshake_is_known_by_its_key_where_the_ingress_keeps_the_upgrade() {
        for (method, fields, upgrade) in [
            ("GET", &[("sec-websocket-key", "x")][..], Some(true)),
            ("GET", &[("sec-websocket-key", "x"), ("upgrade", "WebSocket"), ("connection", "keep-alive, Upgrade")], Some(true)),
            ("GET", &[("upgrade", "websocket")], Some(true)),
            ("GET", &[("connection", "upgrade")], Some(false)),
            ("POST", &[("sec-websocket-key", "x")], Some(false)),
            ("GET", &[("sec-websocket-key", "x"), ("upgrade", "h2c")], None),
            ("POST", &[("upgrade", "websocket")], None),
        ] {
            let said = [("x-original-method", method), ("x-original-uri", "/ws")];
            let original = read(Convention::Nginx, &check("/", &[&said[..], fields].concat())).unwrap();
            assert_eq!(RequestHead::parse(&original).ok().map(|head| head.upgrade), upgrade, "{method} {fields:?}");
        }
    }
}
