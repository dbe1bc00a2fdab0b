//! Header names of the configuration: which can be used for what.

use http::HeaderName;

use super::diagnostic::Code;
use super::field::{Complaint, Word};
use crate::assertion::reserved::Reserved;

/// Fields that belong to the connection or the message's framing (RFC 9110 §7.6.1), to the browser, or to the gateway.
const MANAGED: [&str; 18] = [
    "authorization",
    "connection",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "origin",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-request-id",
    "sec-websocket-protocol",
];

/// A header that clients, tenants and backends may give a meaning of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnHeader(pub(super) HeaderName);

impl Word for OwnHeader {
    const EXAMPLE: &'static str = "\"X-User-Email\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let name = plain(text)?;
        let bad = |sentence: &str, help: &str| Err(Complaint::new(Code::BadHeader, format!("{text}: {sentence}")).help(help));
        let lower = name.as_str();
        if MANAGED.contains(&lower) || lower.starts_with("content-") || lower.starts_with("access-control-") {
            return bad("the connection, the browser or the gateway sets this header", "choose a name of your own, like X-User-Email");
        }
        if Reserved::new([]).contains(&name) {
            return bad(
                "this name is reserved for the gateway",
                "X-Identity-*, X-Doorward-*, Signature and their kin are never a client's",
            );
        }
        Ok(Self(name))
    }
}

/// A header that pages may be allowed to send or read: not CORS's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PageHeader(pub(super) HeaderName);

impl Word for PageHeader {
    const EXAMPLE: &'static str = "\"X-Session-Id\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let name = plain(text)?;
        let closed = name.as_str().starts_with("access-control-") || matches!(name.as_str(), "cookie" | "set-cookie" | "host" | "origin");
        if closed || Reserved::new([]).contains(&name) && !name.as_str().starts_with("x-doorward-") {
            return Err(Complaint::new(Code::BadHeader, format!("{text}: pages never send or read this header")).help("leave it out"));
        }
        Ok(Self(name))
    }
}

/// A header to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AnyHeader(pub(super) HeaderName);

impl Word for AnyHeader {
    const EXAMPLE: &'static str = "\"X-Legacy-User\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        let name = plain(text)?;
        let framing = ["connection", "content-length", "content-type", "host", "transfer-encoding", "upgrade"];
        if framing.contains(&name.as_str()) {
            let help = "removing it would change what the request means";
            return Err(Complaint::new(Code::BadHeader, format!("{text}: belongs to the message itself")).help(help));
        }
        Ok(Self(name))
    }
}

/// Letters, digits and dashes: the gateway refuses every other header name, so one that is configured would never be seen.
fn plain(text: &str) -> Result<HeaderName, Complaint> {
    let clean = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    Some(text).filter(|_| clean).and_then(|t| t.parse().ok()).ok_or_else(|| {
        let help = "letters, digits and dashes only: requests with other header names are refused, since backends fold _ into -";
        Complaint::new(Code::BadHeader, format!("\"{text}\" is no header name that can pass")).help(help)
    })
}
