//! A tenant's identity keys, ready to verify with: decoded, scheduled, each with the one algorithm it may be used for.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use hmac::{Hmac, KeyInit as _};
use jsonwebtoken::{Algorithm, DecodingKey};
use parking_lot::Mutex;
use sha2::Sha256;

use super::FormatName;
use super::public_keys::PublishedKey;
use super::remote::Remote;
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

/// A tenant's keys: its own, and those that issuers publish.
#[derive(Debug, Default)]
pub struct KeyRing {
    own: Vec<Arc<IdentityKey>>,
    remotes: Vec<Remote>,
    /// Both, where there are remotes.
    all: ArcSwap<Vec<Arc<IdentityKey>>>,
    /// Held while `all` is made anew, by the two fetches that may end at once; never on a request's path.
    writing: Mutex<()>,
}

impl KeyRing {
    /// Collects keys.
    pub fn new(keys: Vec<Arc<IdentityKey>>) -> Self {
        Self::with_remotes(keys, Vec::new())
    }

    /// Keys, and places where more are published. Those are empty until somebody calls [`KeyRing::put`].
    pub fn with_remotes(own: Vec<Arc<IdentityKey>>, remotes: Vec<Remote>) -> Self {
        let all = if remotes.is_empty() { ArcSwap::default() } else { ArcSwap::from_pointee(own.clone()) };
        Self { own, remotes, all, writing: Mutex::default() }
    }

    /// All keys, as they are now.
    pub fn all(&self) -> Keys<'_> {
        if self.remotes.is_empty() { Keys::Own(&self.own) } else { Keys::Now(self.all.load()) }
    }

    /// Those that the configuration holds itself.
    pub fn own(&self) -> &[Arc<IdentityKey>] {
        &self.own
    }

    /// Where more keys are published.
    pub fn remotes(&self) -> &[Remote] {
        &self.remotes
    }

    /// Whether tokens of this format can be verified, be it later: issuers publish keys for JWTs only.
    pub fn takes(&self, format: FormatName) -> bool {
        format == FormatName::Jwt && !self.remotes.is_empty() || self.all().iter().any(|key| key.formats.contains(&format))
    }

    /// Whether JWTs are told apart by their `kid`: the whole ring decides, so that the last key with one does not change the
    /// rule by expiring. Published keys have one each.
    pub fn goes_by_kid(&self) -> bool {
        !self.remotes.is_empty() || self.own.iter().any(|key| key.kid.is_some() && key.formats.contains(&FormatName::Jwt))
    }

    /// Whether an issuer never answered yet.
    pub fn is_waiting(&self) -> bool {
        self.remotes.iter().any(|remote| remote.fetched().is_none())
    }

    /// Wishes that every issuer be asked again: somebody showed a key that is not known.
    pub fn ask(&self) {
        self.remotes.iter().for_each(Remote::ask);
    }

    /// Puts what an issuer published in force for new requests. `index` is the remote's; see [`Remote::keys`] for `before`,
    /// the same remote's keys in the configuration before. Returns how many of the keys this tenant can use.
    pub fn put(&self, index: usize, published: &[PublishedKey], before: &[Arc<IdentityKey>], at: UnixTime) -> usize {
        let Some(remote) = self.remotes.get(index) else { return 0 };
        let _writing = self.writing.lock();
        remote.put(published, before, at);
        let mut all = self.own.clone();
        self.remotes.iter().for_each(|remote| all.extend_from_slice(&remote.keys()));
        self.all.store(Arc::new(all));
        remote.keys().len()
    }
}

/// Keys as they were at one moment.
pub enum Keys<'r> {
    /// They never change.
    Own(&'r [Arc<IdentityKey>]),
    /// They may be others the next time.
    Now(Guard<Arc<Vec<Arc<IdentityKey>>>>),
}

impl Keys<'_> {
    /// The keys that may verify `format` at this time.
    pub fn live(&self, format: FormatName, now: UnixTime) -> impl Iterator<Item = &Arc<IdentityKey>> {
        self.iter().filter(move |k| k.formats.contains(&format) && k.is_live(now))
    }
}

impl Deref for Keys<'_> {
    type Target = [Arc<IdentityKey>];

    fn deref(&self) -> &[Arc<IdentityKey>] {
        match self {
            Self::Own(keys) => keys,
            Self::Now(keys) => keys,
        }
    }
}
