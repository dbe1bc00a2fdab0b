//! CORS (Fetch §3.3) belongs to the gateway: preflights are answered from bounded lists without asking anybody, and the
//! upstream's own headers cannot widen ours. No credentials mode exists, and `*` is never sent.

use http::{HeaderName, HeaderValue, header};

use crate::request::origin::Origin;
use crate::tenant::{Tenant, Tenants};

/// Request headers that any page may send, beside the tenants' own.
const ALLOWED_HEADERS: [&str; 4] = ["authorization", "content-type", "last-event-id", "traceparent"];
/// Methods that any page may use.
const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
/// How long a browser may remember a preflight, in seconds: short, so that a removed header name is soon forgotten.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
/// Response headers that any page may read, beside the tenant's own.
const EXPOSED: &str = "x-request-id, x-doorward-reason, www-authenticate, retry-after, ratelimit, ratelimit-policy";

/// The answer to a preflight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreflightAnswer {
    /// Header fields of a 204.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Answers a preflight from an allowed origin.
pub(crate) fn preflight(origin: Origin<'_>, tenants: &Tenants) -> PreflightAnswer {
    let mut allowed = tenants.request_headers().clone();
    allowed.extend(ALLOWED_HEADERS.map(str::to_owned));
    let allowed = allowed.into_iter().collect::<Vec<_>>().join(", ");
    let mut headers = vec![(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS), (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE)];
    headers.extend(HeaderValue::try_from(origin.as_str()).map(|o| (header::ACCESS_CONTROL_ALLOW_ORIGIN, o)));
    headers.extend(HeaderValue::try_from(allowed).map(|a| (header::ACCESS_CONTROL_ALLOW_HEADERS, a)));
    PreflightAnswer { headers }
}

/// The CORS fields of an answer that a page of `origin` may read.
pub fn readable_by(origin: &str, tenant: Option<&Tenant>) -> Vec<(HeaderName, HeaderValue)> {
    let mut exposed = EXPOSED.to_owned();
    for name in tenant.iter().flat_map(|t| &t.cors.expose_headers) {
        exposed.push_str(", ");
        exposed.push_str(name.as_str());
    }
    let origin = HeaderValue::try_from(origin).map(|o| (header::ACCESS_CONTROL_ALLOW_ORIGIN, o));
    let exposed = HeaderValue::try_from(exposed).map(|e| (header::ACCESS_CONTROL_EXPOSE_HEADERS, e));
    origin.into_iter().chain(exposed).collect()
}

/// Whether a response header is CORS's own, and so never the upstream's to set.
pub fn is_ours(name: &HeaderName) -> bool {
    name.as_str().starts_with("access-control-")
}
