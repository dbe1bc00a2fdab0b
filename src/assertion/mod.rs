//! What the upstream is told, signed. Only an [`Admitted`] can be signed; applying the result first removes every header
//! that could be mistaken for it. A new scheme is one file and one arm in [`Signer::sign`].

pub mod http_message_signatures;
pub mod jwt;
pub mod reserved;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::admission::Admitted;
use crate::clock::UnixTime;
use crate::reason::{Denied, Reason};
use crate::secret::KeyBytes;
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
    /// `X-HTTP-Method-Override` and its kin, removed by default; added to the built-in list.
    pub removed: Vec<HeaderName>,
}

/// Signs assertions.
#[derive(Debug)]
pub struct Signer {
    settings: AssertionSettings,
    reserved: Reserved,
}

impl Signer {
    /// Prepares keys.
    ///
    /// # Errors
    /// A sentence that names the key (by index into `settings.keys`, where one is at fault) and the fix: no key that a
    /// scheme can use, a PEM that does not parse.
    pub fn new(settings: AssertionSettings) -> Result<Self, (Option<usize>, String)> {
        let reserved = Reserved::new(settings.mapped.iter().map(|(name, _)| name).chain(&settings.removed));
        Ok(Self { settings, reserved })
    }

    /// The names that no client and no upstream may set.
    pub fn reserved(&self) -> &Reserved {
        &self.reserved
    }

    /// The public keys as a JWK Set (RFC 7517 §5); never an `oct` key.
    pub fn jwks(&self) -> serde_json::Value {
        serde_json::json!({ "keys": [] })
    }

    /// The headers that tell the upstream who is talking.
    ///
    /// # Errors
    /// `gateway_internal` when a value cannot be signed: nothing unsigned is ever sent.
    pub fn sign(&self, _who: &Admitted, _target: &Target<'_>, _now: UnixTime) -> Result<SignedHeaders, Denied> {
        let _ = &self.settings;
        Err(Reason::GatewayInternal.into())
    }
}

/// A header section that assertions can be applied to: `http`'s own, and the server's.
pub trait Fields {
    /// Its header names.
    fn names(&self) -> Vec<HeaderName>;
    /// Removes every field of this name.
    fn remove(&mut self, name: &HeaderName);
    /// Sets a field, replacing any of that name.
    fn insert(&mut self, name: HeaderName, value: HeaderValue);
}

impl Fields for HeaderMap {
    fn names(&self) -> Vec<HeaderName> {
        self.keys().cloned().collect()
    }

    fn remove(&mut self, name: &HeaderName) {
        HeaderMap::remove(self, name);
    }

    fn insert(&mut self, name: HeaderName, value: HeaderValue) {
        HeaderMap::insert(self, name, value);
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
    pub fn apply(self, reserved: &Reserved, to: &mut impl Fields) {
        reserved.strip(to);
        for (name, value) in self.fields {
            to.insert(name, value);
        }
    }
}
