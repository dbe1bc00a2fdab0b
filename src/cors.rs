//! CORS (Fetch §3.3) belongs to the gateway: preflights are answered from bounded lists without asking anybody, and the
//! upstream's own headers cannot widen ours. No credentials mode exists, and `*` is never sent.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::request::origin::Origin;
use crate::tenant::{CorsNames, Tenant, Tenants};

/// Methods that any page may use.
const ALLOWED_METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
/// How long a browser may remember a preflight, in seconds: short, so that a removed header name is soon forgotten.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
/// The answer to a preflight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreflightAnswer {
    /// Header fields of a 204.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Answers a preflight from an allowed origin.
pub(crate) fn preflight(origin: Origin<'_>, tenants: &Tenants) -> PreflightAnswer {
    let mut headers = vec![(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOWED_METHODS), (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE)];
    headers.extend(tenants.request_headers().map(|names| (header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone())));
    headers.extend(HeaderValue::from_str(origin.as_str()).map(|origin| (header::ACCESS_CONTROL_ALLOW_ORIGIN, origin)));
    PreflightAnswer { headers }
}

/// Sets the CORS fields of an answer that a page of `origin` may read.
pub fn readable_by(origin: &str, tenant: Option<&Tenant>, answer: &mut HeaderMap) {
    if let Ok(origin) = HeaderValue::from_str(origin) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, tenant.map_or(CorsNames::EXPOSED, |tenant| tenant.cors.exposed.clone()));
}

/// Whether a response header is CORS's own, and so never the upstream's to set.
pub fn is_ours(name: &HeaderName) -> bool {
    name.as_str().starts_with("access-control-")
}
