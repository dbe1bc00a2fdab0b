//! What the upstream is told, signed. Only an [`Admitted`] can be signed; applying the result first removes every header
//! that could be mistaken for it. A new scheme is one file and one arm in [`Signer::sign`].
//! Called by the server, last before a request goes upstream.

mod headers;
pub mod http_message_signatures;
pub mod jwt;
pub mod reserved;

use std::fmt;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Serialize, Serializer};

use crate::admission::Admitted;
use crate::clock::UnixTime;
use crate::reason::Denied;
use crate::secret::KeyBytes;
pub(crate) use headers::Identity;
use headers::{Collected, unsignable};
#[cfg(test)]
pub(crate) use headers::{Verified, Who};
use http_message_signatures::SharedKey;
use jwt::JwtKey;
use reserved::Reserved;

/// The request as it will be sent, which is what gets signed.
#[derive(Clone, Copy, Debug)]
pub struct Target<'t> {
    /// `@method`.
    pub method: &'t str,
    /// `@path`, normalised, as sent.
    pub path: &'t str,
    /// The query as sent, without `?`; `None` where there is none.
    pub query: Option<&'t str>,
    /// The whole body, where it was held.
    pub body: Option<&'t [u8]>,
    /// This request's id.
    pub request_id: &'t str,
}

/// How assertions are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// RFC 9421.
    HttpMessageSignatures,
    /// A JWT in one header.
    Jwt,
}

impl Scheme {
    /// Every scheme.
    pub const ALL: [Self; 2] = [Self::HttpMessageSignatures, Self::Jwt];

    /// As written in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HttpMessageSignatures => "http-message-signatures",
            Self::Jwt => "jwt",
        }
    }
}

/// Where a mapped header's value comes from (`[upstream.headers]`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mapped {
    /// `"subject"`.
    Subject,
    /// `"claim:NAME"`: a string, number or boolean claim; absent otherwise.
    Claim(String),
}

/// What an assertion key signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyAlgorithm {
    /// HMAC-SHA256: the material is the shared secret.
    Hs256,
    /// ECDSA P-256: the material is a PKCS#8 PEM.
    Es256,
    /// Ed25519: the material is a PKCS#8 PEM.
    EdDsa,
}

/// One of `[assertion] keys`.
#[derive(Clone, Debug)]
pub struct AssertionKey {
    /// `keyid` and `kid`.
    pub id: String,
    /// What it signs with.
    pub algorithm: KeyAlgorithm,
    /// Secret bytes, or PEM text.
    pub material: KeyBytes,
}

/// `[assertion]` and `[upstream.headers]`, checked.
#[derive(Clone, Debug)]
pub struct AssertionSettings {
    /// Which schemes, at least one.
    pub schemes: Vec<Scheme>,
    /// `X-Identity-Audience` and `aud`.
    pub audience: String,
    /// `iss` of the JWT scheme.
    pub issuer: String,
    /// How long an assertion is good for, in seconds; at most 60.
    pub lifetime_secs: u64,
    /// The first that a scheme can use signs; the others are published or accepted until they are removed.
    pub keys: Vec<AssertionKey>,
    /// Names that a backend reads itself, set at `verified` and above only, reserved in both directions.
    pub mapped: Vec<(HeaderName, Mapped)>,
    /// Names that other upstreams' backends read so: reserved towards this one too, and never set.
    pub elsewhere: Vec<HeaderName>,
    /// `X-HTTP-Method-Override` and its kin, removed by default; added to the built-in list.
    pub removed: Vec<HeaderName>,
}

/// Signs assertions.
#[derive(Debug)]
pub struct Signer {
    settings: AssertionSettings,
    reserved: Reserved,
    audience: HeaderValue,
    /// Signs by RFC 9421, where that scheme is on.
    shared: Option<SharedKey>,
    /// Signs JWTs, where that scheme is on.
    jwt: Option<JwtKey>,
    /// Public halves of all asymmetric keys.
    published: Vec<jsonwebtoken::jwk::Jwk>,
}

/// Longest lifetime of an assertion, in seconds: it is made for one request, now.
pub const MAX_LIFETIME_SECS: u64 = 60;

impl Signer {
    /// Prepares keys.
    ///
    /// # Errors
    /// A sentence that names the key (by index into `settings.keys`, where one is at fault) and the fix: no key that a
    /// scheme can use, a PEM that does not parse.
    pub fn new(settings: AssertionSettings) -> Result<Self, (Option<usize>, String)> {
        let fault = |why: &str| (None, why.to_owned());
        if settings.schemes.is_empty() {
            return Err(fault("no scheme; write schemes = [\"http-message-signatures\"]"));
        }
        if !(1..=MAX_LIFETIME_SECS).contains(&settings.lifetime_secs) {
            return Err(fault("an assertion lives 1 to 60 seconds"));
        }
        if settings.audience.is_empty() || !settings.audience.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(fault("audience is one word of visible ASCII, such as \"agent\""));
        }
        let audience = HeaderValue::from_str(&settings.audience).map_err(|_| fault("audience is no header value"))?;
        let ours = Reserved::new([]);
        if let Some((name, _)) = settings.mapped.iter().find(|(name, _)| is_framing(name) || ours.contains(name)) {
            return Err((None, format!("upstream.headers cannot set {name}: it frames the request, or is the gateway's own")));
        }
        let reserved = Reserved::new(settings.mapped.iter().map(|(name, _)| name).chain(&settings.elsewhere).chain(&settings.removed));
        let mut this = Self { reserved, audience, shared: None, jwt: None, published: Vec::new(), settings };
        this.prepare_keys()?;
        Ok(this)
    }

    fn prepare_keys(&mut self) -> Result<(), (Option<usize>, String)> {
        let on = |scheme| self.settings.schemes.contains(&scheme);
        for (index, key) in self.settings.keys.iter().enumerate() {
            let at = |why: String| (Some(index), why);
            // Quoted in `Signature-Input` (RFC 9651 §3.3.3) and compared by backends: nothing that needs an escape.
            if key.id.is_empty() || !key.id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
                return Err(at("a key's id has letters, digits, - _ and . only".to_owned()));
            }
            if on(Scheme::HttpMessageSignatures) && self.shared.is_none() && key.algorithm == KeyAlgorithm::Hs256 {
                let shared = SharedKey::new(key.id.clone(), &key.material).ok_or_else(|| at("is no HMAC key".to_owned()))?;
                self.shared = Some(shared);
            }
            let jwt = JwtKey::new(key).map_err(at)?;
            self.published.extend(jwt.public(&key.id));
            if on(Scheme::Jwt) && self.jwt.is_none() {
                self.jwt = Some(jwt);
            }
        }
        if on(Scheme::HttpMessageSignatures) && self.shared.is_none() {
            return Err((
                None,
                "the scheme http-message-signatures needs a shared secret among keys; make one with `doorward key new`".to_owned(),
            ));
        }
        if on(Scheme::Jwt) && self.jwt.is_none() {
            return Err((None, "the scheme jwt needs a key; make one with `doorward key new`".to_owned()));
        }
        Ok(())
    }

    /// The names that no client and no upstream may set.
    pub fn reserved(&self) -> &Reserved {
        &self.reserved
    }

    /// The public keys as JWKs (RFC 7517 §4); never an `oct` key.
    pub fn published(&self) -> impl Iterator<Item = serde_json::Value> {
        self.published.iter().map(|key| serde_json::json!(key))
    }

    /// The headers that tell the upstream who is talking.
    ///
    /// # Errors
    /// `gateway_internal` when a value cannot be signed: nothing unsigned is ever sent. `token_claims_too_large` or
    /// `request_header_too_large` when what the caller says about itself fits no header.
    pub fn sign(&self, who: &Admitted, target: &Target<'_>, now: UnixTime) -> Result<SignedHeaders, Denied> {
        self.sign_identity(&Identity::from(who), target, now)
    }

    /// The same for somebody else to set one by one: every reserved name that the gateway or a backend knows is there, empty
    /// where it does not apply, and covered like the others. An absent one would leave the client's copy in its place.
    ///
    /// # Errors
    /// The same.
    pub fn sign_every(&self, who: &Admitted, target: &Target<'_>, now: UnixTime) -> Result<SignedHeaders, Denied> {
        self.sign_fields(&Identity::from(who), target, now, true)
    }

    /// Every name that [`Self::sign_every`] gives a value.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        let mapped = self.settings.mapped.iter().map(|(name, _)| name);
        headers::KNOWN.iter().chain(mapped).chain(&self.settings.elsewhere).chain(&http_message_signatures::ITSELF)
    }

    pub(crate) fn sign_identity(&self, identity: &Identity<'_>, target: &Target<'_>, now: UnixTime) -> Result<SignedHeaders, Denied> {
        self.sign_fields(identity, target, now, false)
    }

    pub(crate) fn sign_fields(
        &self,
        identity: &Identity<'_>,
        target: &Target<'_>,
        now: UnixTime,
        every: bool,
    ) -> Result<SignedHeaders, Denied> {
        headers::refuse_long_ids(identity)?;
        if target.request_id.is_empty() || !target.request_id.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(unsignable("the request id"));
        }
        let settings = &self.settings;
        let mut to_send = Collected::new();
        if self.shared.is_some() {
            to_send.add_identity(identity, &self.audience)?;
        }
        to_send.add(headers::REQUEST_ID, HeaderValue::from_str(target.request_id).map_err(|_| unsignable("the request id"))?)?;
        to_send.add_mapped(identity, &settings.mapped)?;
        if let Some(key) = &self.jwt {
            let (name, value) = key.sign(identity, target, &settings.issuer, &settings.audience, now, settings.lifetime_secs)?;
            to_send.add(name, value)?;
        }
        if every {
            to_send.complete(headers::KNOWN.iter().chain(settings.mapped.iter().map(|(name, _)| name)).chain(&settings.elsewhere));
        }
        if let Some(key) = &self.shared {
            if let Some(body) = target.body {
                let digest = HeaderValue::try_from(http_message_signatures::content_digest(body)).map_err(|_| unsignable("a digest"))?;
                to_send.add(http_message_signatures::CONTENT_DIGEST, digest)?;
            }
            let signature = key.sign(target, &to_send.fields, now, settings.lifetime_secs)?;
            to_send.fields.extend(signature);
        } else if every {
            to_send.complete(&http_message_signatures::ITSELF);
        }
        Ok(SignedHeaders { fields: to_send.fields })
    }
}

/// Fields that say what the request is, where it goes or where it ends: reserving one would remove the client's.
fn is_framing(name: &HeaderName) -> bool {
    use http::header::{AUTHORIZATION, CONNECTION, COOKIE, EXPECT, HOST, ORIGIN, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
    let whole = [AUTHORIZATION, CONNECTION, COOKIE, EXPECT, HOST, ORIGIN, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
    whole.contains(name) || name.as_str().starts_with("content-") || name.as_str().starts_with("sec-")
}

/// 128 random bits, shown as base64url.
struct Nonce(u128);

/// A fresh nonce from the thread's cryptographic generator, which asks the system for a seed only now and then.
fn nonce() -> Nonce {
    Nonce(rand::random())
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        base64::display::Base64Display::new(&self.0.to_be_bytes(), &URL_SAFE_NO_PAD).fmt(f)
    }
}

impl Serialize for Nonce {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Header fields to send, made by [`Signer::sign`] only.
#[derive(Debug)]
pub struct SignedHeaders {
    fields: Vec<(HeaderName, HeaderValue)>,
}

impl SignedHeaders {
    /// The fields.
    pub fn fields(&self) -> &[(HeaderName, HeaderValue)] {
        &self.fields
    }

    /// Removes every reserved name, then sets ours.
    pub fn apply(self, reserved: &Reserved, to: &mut HeaderMap) {
        reserved.strip(to);
        for (name, value) in self.fields {
            to.insert(name, value); // in place of any: extending would add to it
        }
    }
}

#[cfg(test)]
mod tests;
