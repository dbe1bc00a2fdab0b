//! A tenant's identity keys, ready to verify with: decoded, scheduled, each with the one algorithm it may be used for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hmac::{Hmac, KeyInit as _};
use jsonwebtoken::{Algorithm, DecodingKey};
use sha2::Sha256;

use super::FormatName;
use crate::clock::UnixTime;
use crate::secret::{Fingerprint, KeyBytes};

/// How often a secret verified a token, and when last: what tells an operator that an old one can go. Outlives reloads.
#[derive(Debug, Default)]
pub struct KeyUsage {
    hits: AtomicU64,
    last_millis: AtomicU64,
}

impl KeyUsage {
    /// Counts one use.
    pub fn hit(&self, now: UnixTime) {
        self.hits.fetch_add(1, Ordering::Relaxed);
        self.last_millis.fetch_max(now.millis(), Ordering::Relaxed);
    }

    /// Uses since the process started.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// The last use, if there was one.
    pub fn last(&self) -> Option<UnixTime> {
        Some(self.last_millis.load(Ordering::Relaxed)).filter(|ms| *ms > 0).map(UnixTime::from_millis)
    }
}

/// What a key verifies with.
#[derive(Clone)]
pub enum Material {
    /// A shared secret.
    Secret {
        /// HMAC-SHA256 with the key schedule done, for `hmac` and `karta-v2`; cloned per use.
        mac: Hmac<Sha256>,
        /// The same for JWTs.
        decoding: DecodingKey,
    },
    /// A public key: JWTs only.
    Public {
        /// The key.
        decoding: DecodingKey,
    },
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Secret { .. } => "Secret",
            Self::Public { .. } => "Public",
        })
    }
}

/// One identity key of a tenant.
#[derive(Debug)]
pub struct IdentityKey {
    /// The operator's name for it; in logs and metrics.
    pub id: String,
    /// What it may verify: one format, or several only under `host_generated_subjects`.
    pub formats: Vec<FormatName>,
    /// JWT algorithm, bound to the key (RFC 8725 §3.1).
    pub algorithm: Algorithm,
    /// JWT `kid` that names this key, where it has one.
    pub kid: Option<String>,
    /// Not used before this time.
    pub not_before: Option<UnixTime>,
    /// Not used from this time on.
    pub not_after: Option<UnixTime>,
    /// Names the material.
    pub fingerprint: Fingerprint,
    /// Counters.
    pub usage: Arc<KeyUsage>,
    material: Material,
}

impl IdentityKey {
    /// A shared secret. `algorithm` is one of HS256, HS384, HS512.
    pub fn secret(id: impl Into<String>, bytes: &KeyBytes, formats: Vec<FormatName>, algorithm: Algorithm) -> Self {
        // HMAC takes keys of any length (RFC 2104 §2), so the error arm cannot be reached; an unusable key verifies nothing.
        let mac = Hmac::new_from_slice(bytes.expose()).unwrap_or_else(|_| Hmac::new(&Default::default()));
        let material = Material::Secret { mac, decoding: DecodingKey::from_secret(bytes.expose()) };
        Self::new(id.into(), bytes.fingerprint(), formats, algorithm, material)
    }

    /// A public key for JWTs; `encoded` is what its fingerprint is taken of.
    pub fn public(id: impl Into<String>, encoded: &KeyBytes, decoding: DecodingKey, algorithm: Algorithm) -> Self {
        Self::new(id.into(), encoded.fingerprint(), vec![FormatName::Jwt], algorithm, Material::Public { decoding })
    }

    fn new(id: String, fingerprint: Fingerprint, formats: Vec<FormatName>, algorithm: Algorithm, material: Material) -> Self {
        Self { id, formats, algorithm, kid: None, not_before: None, not_after: None, fingerprint, usage: Arc::default(), material }
    }

    /// What it verifies with.
    pub fn material(&self) -> &Material {
        &self.material
    }

    /// Whether it may be used now.
    pub fn is_live(&self, now: UnixTime) -> bool {
        self.not_before.is_none_or(|from| from <= now) && self.not_after.is_none_or(|until| now < until)
    }
}

/// A tenant's keys.
#[derive(Debug, Default)]
pub struct KeyRing {
    keys: Vec<Arc<IdentityKey>>,
}

impl KeyRing {
    /// Collects keys.
    pub fn new(keys: Vec<Arc<IdentityKey>>) -> Self {
        Self { keys }
    }

    /// All keys.
    pub fn all(&self) -> &[Arc<IdentityKey>] {
        &self.keys
    }

    /// The keys that may verify `format` now.
    pub fn live(&self, format: FormatName, now: UnixTime) -> impl Iterator<Item = &Arc<IdentityKey>> {
        self.keys.iter().filter(move |k| k.formats.contains(&format) && k.is_live(now))
    }
}
