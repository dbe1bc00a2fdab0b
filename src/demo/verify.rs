//! The reference verifier for backends: reads an identity from a request's covered header fields, or says why there is
//! none to read. Never reads a body, never asks the gateway. Called by the demo's agent; the examples for other languages
//! follow the same order. The rules are RFC 9421 §3.2 and `threats` 3 and 6.

use std::collections::HashMap;
use std::sync::Mutex;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};
use sfv::{BareItem, Dictionary, InnerList, ListEntry, Parser};
use sha2::Sha256;

use crate::assertion::http_message_signatures::{ALGORITHM, Base, LABEL, TAG, content_digest};
use crate::assertion::{MAX_LIFETIME_SECS, reserved};
use crate::clock::UnixTime;
use crate::json;
use crate::policy::Level;
use crate::secret::KeyBytes;

/// Clock difference between gateway and backend that is forgiven, in seconds.
const SKEW_SECS: u64 = 5;
/// Components without which a signature says nothing about this request or this caller.
const REQUIRED: [&str; 7] =
    ["@method", "@path", "@query", "x-identity-level", "x-identity-tenant", "x-identity-audience", "x-identity-request-id"];

/// A request as a backend got it.
#[derive(Clone, Copy, Debug)]
pub struct Received<'r> {
    /// The request line's method.
    pub method: &'r str,
    /// The request line's path, not decoded.
    pub path: &'r str,
    /// What follows the first `?`, not decoded.
    pub query: Option<&'r str>,
    /// All header fields.
    pub headers: &'r HeaderMap,
    /// The whole body; compared where its digest is covered.
    pub body: &'r [u8],
}

/// Who is talking, by the gateway's word.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// How sure the gateway is.
    pub level: Level,
    /// Whose page or app the caller uses.
    pub tenant: String,
    /// The gateway's id of this request.
    pub request_id: String,
    /// The page's origin.
    pub origin: Option<String>,
    /// The user, at `verified` and above only.
    pub subject: Option<String>,
    /// What the host signed about the user; empty below `verified`.
    pub claims: Map<String, Value>,
    /// The kind of token that proved it.
    pub method: Option<String>,
    /// Unix seconds of the step-up.
    pub stepped_up_at: Option<u64>,
    /// The authentication level of the step-up.
    pub aal: Option<String>,
    /// An id that nobody signed: metadata only.
    pub claimed_subject: Option<String>,
    /// Whether the body is the one that the gateway read.
    pub body_covered: bool,
}

/// Why a request names nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub &'static str);

/// What a backend is configured with.
#[derive(Debug)]
pub struct Verifier {
    key_id: String,
    mac: Hmac<Sha256>,
    audience: String,
    mapped: Vec<HeaderName>,
    /// Nonces until they expire, where replays are refused.
    seen: Option<Mutex<HashMap<String, u64>>>,
}

impl Verifier {
    /// Accepts what `key_id` signed with `key` for `audience`. `None` if the key is empty.
    pub fn new(key_id: &str, key: &KeyBytes, audience: &str) -> Option<Self> {
        let mac = Hmac::new_from_slice(key.expose()).ok().filter(|_| !key.expose().is_empty())?;
        Some(Self { key_id: key_id.to_owned(), mac, audience: audience.to_owned(), mapped: Vec::new(), seen: None })
    }

    /// Names of `[upstream.headers]` that this backend reads: they too must be covered.
    pub fn reading(mut self, mapped: Vec<HeaderName>) -> Self {
        self.mapped = mapped;
        self
    }

    /// Refuses a nonce that was seen before. Only for one process: several need a shared store.
    pub fn once(mut self) -> Self {
        self.seen = Some(Mutex::default());
        self
    }

    /// Reads the identity of a request.
    ///
    /// # Errors
    /// [`Refused`] for anything that is not exactly what the gateway signs.
    pub fn verify(&self, request: &Received<'_>, now: UnixTime) -> Result<Verified, Refused> {
        let input_text = one(request.headers, "signature-input")?.ok_or(Refused("no Signature-Input"))?;
        let signature_text = one(request.headers, "signature")?.ok_or(Refused("no Signature"))?;
        let input = Input::parse(input_text)?;
        input.expect(&self.key_id, now)?;
        for name in REQUIRED {
            if !input.covers(name) {
                return Err(Refused("a required component is not covered"));
            }
        }
        self.refuse_uncovered(request.headers, &input)?;
        let base = input.base(request)?;
        let signature = signature(signature_text)?;
        // Constant time, and before anything that was signed is believed.
        self.mac.clone().chain_update(base.as_bytes()).verify_slice(&signature).map_err(|_| Refused("the signature does not match"))?;
        if one(request.headers, "x-identity-audience")? != Some(self.audience.as_str()) {
            return Err(Refused("made for another audience"));
        }
        let body_covered = input.covers("content-digest");
        if body_covered && one(request.headers, "content-digest")? != Some(content_digest(request.body).as_str()) {
            return Err(Refused("the body is not the one that was signed"));
        }
        self.refuse_replay(&input, now)?;
        identity(request.headers, body_covered)
    }

    /// An identity header that is not covered was added on the way (`threats` 3): no verifier library looks for it.
    fn refuse_uncovered(&self, headers: &HeaderMap, input: &Input) -> Result<(), Refused> {
        for name in headers.keys() {
            let ours = reserved::is_identity(name) || self.mapped.iter().any(|mapped| reserved::is_same(mapped, name));
            if ours && !input.covers(name.as_str()) {
                return Err(Refused("an identity header is not covered"));
            }
        }
        Ok(())
    }

    fn refuse_replay(&self, input: &Input, now: UnixTime) -> Result<(), Refused> {
        let Some(seen) = &self.seen else { return Ok(()) };
        let Ok(mut seen) = seen.lock() else { return Err(Refused("the replay cache is broken")) };
        seen.retain(|_, expires| expires.saturating_add(SKEW_SECS) >= now.secs());
        match seen.insert(input.nonce.clone(), input.expires) {
            None => Ok(()),
            Some(_) => Err(Refused("the nonce was seen before")),
        }
    }
}

/// A parsed `Signature-Input` with the gateway's label and nothing else.
struct Input {
    covered: Vec<String>,
    /// Everything after the list of components, as received: part of the signature base.
    parameters: String,
    created: u64,
    expires: u64,
    nonce: String,
    key_id: String,
    algorithm: String,
    tag: String,
}

impl Input {
    fn parse(text: &str) -> Result<Self, Refused> {
        let malformed = Refused("Signature-Input is not the gateway's");
        let list = member(text, malformed)?;
        let ListEntry::InnerList(InnerList { items, params }) = list else { return Err(malformed) };
        let mut covered = Vec::with_capacity(items.len());
        for item in items {
            let name = item.bare_item.as_string().map(|s| s.as_str().to_owned()).ok_or(malformed)?;
            let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'@'));
            if !plain || !item.params.is_empty() || covered.contains(&name) {
                return Err(malformed);
            }
            covered.push(name);
        }
        let time = |name: &str| {
            let seconds = params.get(name).and_then(BareItem::as_integer).ok_or(malformed)?;
            u64::try_from(i64::from(seconds)).map_err(|_| malformed)
        };
        let string = |name: &str| params.get(name).and_then(|p| Some(p.as_string()?.as_str().to_owned())).ok_or(malformed);
        let (_, parameters) = text.split_once(')').ok_or(malformed)?; // no component name has one: see above
        let input = Self {
            parameters: parameters.to_owned(),
            created: time("created")?,
            expires: time("expires")?,
            nonce: string("nonce")?,
            key_id: string("keyid")?,
            algorithm: string("alg")?,
            tag: string("tag")?,
            covered,
        };
        // One way to write it: what a lenient parser forgives is refused here.
        let mut canonical = Base::new();
        input.covered.iter().for_each(|name| canonical.cover(name, ""));
        let (canonical, _) = canonical.finish(format_args!("{parameters}"));
        if text.strip_prefix(LABEL).and_then(|t| t.strip_prefix('=')) == Some(&*canonical) { Ok(input) } else { Err(malformed) }
    }

    fn expect(&self, key_id: &str, now: UnixTime) -> Result<(), Refused> {
        if self.algorithm != ALGORITHM || self.tag != TAG {
            return Err(Refused("another algorithm or tag"));
        }
        if self.key_id != key_id {
            return Err(Refused("an unknown key"));
        }
        if self.created > now.secs().saturating_add(SKEW_SECS) {
            return Err(Refused("signed in the future"));
        }
        if self.expires.saturating_add(SKEW_SECS) < now.secs() {
            return Err(Refused("expired"));
        }
        if self.expires <= self.created || self.expires - self.created > MAX_LIFETIME_SECS {
            return Err(Refused("lives too long"));
        }
        Ok(())
    }

    fn covers(&self, name: &str) -> bool {
        self.covered.iter().any(|covered| covered == name)
    }

    /// The signature base of this request (RFC 9421 §2.5).
    fn base(&self, request: &Received<'_>) -> Result<String, Refused> {
        let mut base = Base::new();
        let query = format!("?{}", request.query.unwrap_or_default());
        for name in &self.covered {
            let value = match name.as_str() {
                "@method" => request.method,
                "@path" => request.path,
                "@query" => &query,
                derived if derived.starts_with('@') => return Err(Refused("a component that the gateway never covers")),
                field => one(request.headers, field)?.ok_or(Refused("a covered header is missing"))?,
            };
            base.cover(name, value);
        }
        Ok(base.finish(format_args!("{}", self.parameters)).1)
    }
}

/// The one member of a dictionary, which has our label (RFC 9421 §4.1).
fn member(text: &str, malformed: Refused) -> Result<ListEntry, Refused> {
    let mut members: Dictionary = Parser::new(text).parse().map_err(|_| malformed)?;
    if members.len() != 1 {
        return Err(malformed);
    }
    members.swap_remove(LABEL).ok_or(malformed)
}

fn signature(text: &str) -> Result<Vec<u8>, Refused> {
    let malformed = Refused("Signature is not the gateway's");
    let ListEntry::Item(item) = member(text, malformed)? else { return Err(malformed) };
    let bytes = item.bare_item.as_byte_sequence().filter(|_| item.params.is_empty()).ok_or(malformed)?;
    let canonical = format!("{LABEL}=:{}:", base64::engine::general_purpose::STANDARD.encode(bytes));
    if text == canonical { Ok(bytes.to_vec()) } else { Err(malformed) }
}

/// The one value of a field; two are refused, whatever they say.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Refused> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Refused("a covered header was sent twice"));
    }
    first.to_str().map(Some).map_err(|_| Refused("a covered header is not visible ASCII"))
}

/// Reads fields that are known to be covered. An empty one does not apply: behind a forward-auth listener every name is there.
fn identity(headers: &HeaderMap, body_covered: bool) -> Result<Verified, Refused> {
    let malformed = Refused("an identity header does not decode");
    let one = |name: &str| Ok(one(headers, name)?.filter(|value| !value.is_empty()));
    let text = |name: &str| {
        let Some(value) = one(name)? else { return Ok(None) };
        percent_decode_str(value).decode_utf8().map(|decoded| Some(decoded.into_owned())).map_err(|_| malformed)
    };
    let level = one("x-identity-level")?;
    let level = Level::ALL.into_iter().find(|l| Some(l.as_str()) == level).ok_or(malformed)?;
    let subject = text("x-identity-subject")?;
    if subject.is_some() != (level >= Level::Verified) {
        return Err(Refused("level and subject contradict each other"));
    }
    let claims = match one("x-identity-claims")? {
        Some(encoded) => {
            let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| malformed)?;
            json::object(&bytes).map_err(|_| malformed)?
        }
        None => Map::new(),
    };
    let stepped_up_at = one("x-identity-stepped-up-at")?.map(|t| t.parse().map_err(|_| malformed)).transpose()?;
    Ok(Verified {
        level,
        tenant: text("x-identity-tenant")?.ok_or(malformed)?,
        request_id: text("x-identity-request-id")?.ok_or(malformed)?,
        origin: text("x-identity-origin")?,
        subject,
        claims,
        method: text("x-identity-method")?,
        stepped_up_at,
        aal: text("x-identity-aal")?,
        claimed_subject: text("x-identity-claimed-subject")?,
        body_covered,
    })
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
