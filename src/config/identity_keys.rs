//! A tenant's `secrets`: shared secrets (`env`, `file`) and public keys (`pem`, `jwks`, `jwks_url`) that identity tokens are
//! verified with, each bound to one format and one algorithm. What a `jwks_url` publishes is fetched later, by [`crate::jwks`].

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;

use super::KeyInUse;
use super::diagnostic::{Code, Diagnostic, Site};
use super::field::{Id, IssuerUrl, TokenAlgorithm, unknown_word};
use super::material;
use super::once::{Sharing, Thing};
use super::server::duration_within;
use super::table::{Located, Table};
use crate::clock::UnixTime;
use crate::secret::Encoding;
use crate::tenant::Tenant;
use crate::token::FormatName;
use crate::token::keys::{IdentityKey, KeyRing};
use crate::token::public_keys::{PublicKey, from_jwks, from_pem};
use crate::token::remote::{Remote, Source};

/// How often an issuer is asked where nothing else is written.
const REFRESH: Duration = Duration::from_secs(600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What the keys of a tenant share.
pub(super) struct Shared<'t> {
    pub(super) tenant: &'t str,
    /// The formats that a shared secret without its own `format` verifies.
    pub(super) formats: Vec<FormatName>,
    /// `claims.audiences`: public keys may serve two tenants only where these differ.
    pub(super) audiences: &'t [String],
}

/// The formats of secrets that name none: the preset's first, or all of them where the operator states that users cannot
/// choose their ids (`threats` 7).
pub(super) fn formats(tenant: &Table<'_>) -> Vec<FormatName> {
    let host_generated = tenant.get::<bool>("host_generated_subjects");
    let mut formats: Vec<_> = tenant.list::<FormatName>("formats").unwrap_or_default().into_iter().map(|f| f.value).collect();
    if tenant.is_partial() {
        return FormatName::ALL.to_vec(); // the preset would say
    }
    let together = host_generated.as_ref().is_some_and(|h| h.value);
    if !together {
        formats.truncate(1);
    }
    if let Some(stated) = host_generated.filter(|h| h.value && formats.len() > 1) {
        let names = formats.iter().map(|f| f.as_str()).collect::<Vec<_>>().join(" and ");
        let title = format!("one secret signs {names}: a user who can choose their own id can be anybody");
        let help = "the HMAC of an id that looks like a payload is a valid token of the other format; true only where the host \
                    generates every id, otherwise give each format its own secret";
        tenant.report(Diagnostic::new(Code::HostGenerated, stated.site, title).help(help));
    }
    formats
}

/// Reads the keys.
pub(super) fn keys(tenant: &Table<'_>, shared: &Shared<'_>) -> KeyRing {
    let mut keys = Vec::new();
    let mut remotes = Vec::new();
    let mut ids = HashSet::new();
    for entry in tenant.tables("secrets") {
        let entry = entry.sensitive();
        let (not_before, not_after) = window(&entry);
        let id = entry.need::<Id>("id").map_or_else(String::new, |id| id.value.0);
        let (found, remote) = one(&entry, &id, shared);
        // The keys of a set are called ID/KID.
        let within = found.iter().map(|key| key.id.clone()).filter(|name| *name != id);
        for name in std::iter::once(id.clone()).chain(within).filter(|name| !name.is_empty()) {
            let title = format!("key {name} of tenant {} stands twice", shared.tenant);
            if !ids.insert(name) {
                entry.report(
                    Diagnostic::new(Code::DuplicateId, entry.site_of("id"), title).help("logs and metrics name keys: give each its own id"),
                );
            }
        }
        for mut key in found {
            key.usage = (entry.cx().usage)(shared.tenant, &key.id);
            (key.not_before, key.not_after) = (not_before, not_after);
            keys.push(Arc::new(key));
        }
        if let Some(mut remote) = remote {
            (remote.not_before, remote.not_after) = (not_before, not_after);
            remotes.push(remote);
        }
        entry.finish();
    }
    KeyRing::with_remotes(keys, remotes)
}

/// Keys, or where they are published.
fn one(entry: &Table<'_>, id: &str, shared: &Shared<'_>) -> (Vec<IdentityKey>, Option<Remote>) {
    let format = entry.get::<FormatName>("format");
    let algorithm = entry.get::<TokenAlgorithm>("algorithm");
    let kid = entry.get::<String>("kid");
    let pem = entry.get::<String>("pem");
    let jwks = entry.get::<String>("jwks");
    let url = entry.get::<IssuerUrl>("jwks_url");
    let written: Vec<_> = ["env", "file", "pem", "jwks", "jwks_url"].into_iter().filter(|key| entry.writes(key)).collect();
    let whose = format!("key {id} of tenant {}", shared.tenant);
    // Asked for on every path, so that they are known keys wherever they stand.
    entry.get::<Encoding>("encoding");
    let refresh = duration_within(entry, "refresh", Duration::from_secs(1)..=DAY);
    entry.get::<String>("ca");
    if written.len() != 1 {
        entry.get::<super::field::EnvName>("env");
        entry.get::<String>("file");
        let title = format!("{whose} has {}", if written.is_empty() { "no source" } else { "more than one source" });
        let help =
            "write exactly one of env = \"NAME\", file = \"path\", pem = \"public.pem\", jwks = \"keys.json\" or jwks_url = \"https://…\"";
        entry.report(Diagnostic::new(Code::SecretSource, entry.site(), title).help(help));
        return (Vec::new(), None);
    }
    if !entry.writes("jwks_url") {
        for key in ["refresh", "ca"].into_iter().filter(|key| entry.writes(key)) {
            let title = format!("`{key}` does nothing without jwks_url");
            entry.report(Diagnostic::new(Code::NoEffect, entry.site_of(key), title).help("nothing is fetched for this key: remove it"));
        }
    }
    if written == ["env"] || written == ["file"] {
        return (shared_key(entry, id, &whose, format, algorithm, kid, shared).into_iter().collect(), None);
    }
    let public = Public { entry, id, whose: &whose, shared };
    public.refuse_unused(&["encoding"]);
    if format.as_ref().is_some_and(|f| f.value != FormatName::Jwt) {
        let title = "a public key verifies format \"jwt\" only";
        entry.report(Diagnostic::new(Code::PublicKey, entry.site_of("format"), title).help("write format = \"jwt\", or leave it out"));
    }
    match (pem, jwks) {
        (Some(pem), _) => (public.pem(&pem, algorithm, kid), None),
        (None, Some(jwks)) => (public.jwks(&jwks), None),
        (None, None) => (Vec::new(), url.and_then(|url| public.remote(&url, algorithm, refresh.unwrap_or(REFRESH)))),
    }
}

fn window(entry: &Table<'_>) -> (Option<UnixTime>, Option<UnixTime>) {
    let (from, until) = (entry.get::<UnixTime>("not_before"), entry.get::<UnixTime>("not_after"));
    if let (Some(from), Some(until)) = (&from, &until)
        && until.value <= from.value
    {
        let diagnostic =
            Diagnostic::new(Code::KeyWindow, until.site.clone(), "`not_after` is not after `not_before`: the key is never used");
        entry.report(diagnostic.beside(from.site.clone(), "starts here").help("a key is used from not_before until just before not_after"));
    }
    (from.map(|t| t.value), until.map(|t| t.value))
}

fn shared_key(
    entry: &Table<'_>,
    id: &str,
    whose: &str,
    format: Option<Located<FormatName>>,
    algorithm: Option<Located<TokenAlgorithm>>,
    kid: Option<Located<String>>,
    shared: &Shared<'_>,
) -> Option<IdentityKey> {
    let formats = format.map_or_else(|| shared.formats.clone(), |f| vec![f.value]);
    if formats.is_empty() && !entry.writes("format") {
        let title = format!("{whose} does not say what it signs");
        let help = "write format = \"jwt\", \"hmac\" or \"karta-v2\", or choose a preset that has one";
        entry.report(Diagnostic::new(Code::FormatMissing, entry.site(), title).help(help));
    }
    let signs_jwt = formats.contains(&FormatName::Jwt);
    let no_effect = |key: &'static str, site: Site| {
        let title = format!("`{key}` does nothing for format \"{}\"", formats.first().map_or("", |f| f.as_str()));
        entry.report(Diagnostic::new(Code::NoEffect, site, title).help("it belongs to format \"jwt\": remove it, or write that format"));
    };
    let mut bits = Algorithm::HS256;
    if let Some(algorithm) = algorithm {
        match algorithm.value.0 {
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 if signs_jwt => bits = algorithm.value.0,
            Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => no_effect("algorithm", algorithm.site),
            _ => {
                let complaint = unknown_word(&format!("{:?}", algorithm.value.0), &["HS256", "HS384", "HS512"]);
                let complaint = complaint.help("a shared secret takes HS256, HS384 or HS512; a public key is named by pem or jwks");
                entry.report(complaint.at("algorithm", algorithm.site));
            }
        }
    }
    if let Some(kid) = kid.as_ref().filter(|_| !signs_jwt) {
        no_effect("kid", kid.site.clone());
    }
    // RFC 7518 §3.2: a key as long as the hash.
    let good = if bits == Algorithm::HS512 {
        64
    } else if bits == Algorithm::HS384 {
        48
    } else {
        32
    };
    let found = material::shared_secret(entry, whose, good)?;
    entry.cx().claim(whose.to_owned(), &found.value.key, found.site, Sharing::Never);
    let mut key = IdentityKey::secret(id, &found.value.key, formats, bits);
    key.kid = kid.map(|k| k.value);
    remember(entry, &key, shared.tenant);
    Some(key)
}

fn remember(entry: &Table<'_>, key: &IdentityKey, tenant: &str) {
    entry.cx().uses(described(key, tenant));
}

/// A tenant's keys, as they are logged.
pub(super) fn in_use(tenant: &Tenant) -> Vec<KeyInUse> {
    tenant.keys.own().iter().map(|key| described(key, &tenant.id)).collect()
}

fn described(key: &IdentityKey, tenant: &str) -> KeyInUse {
    let formats = key.formats.iter().map(|f| f.as_str()).collect::<Vec<_>>().join("+");
    let what = if key.formats.contains(&FormatName::Jwt) { format!("{formats} {:?}", key.algorithm) } else { formats };
    KeyInUse { tenant: Some(tenant.to_owned()), id: key.id.clone(), what, fingerprint: key.fingerprint }
}

/// A public key's entry.
struct Public<'p, 't> {
    entry: &'p Table<'t>,
    id: &'p str,
    whose: &'p str,
    shared: &'p Shared<'p>,
}

impl Public<'_, '_> {
    fn pem(&self, pem: &Located<String>, algorithm: Option<Located<TokenAlgorithm>>, kid: Option<Located<String>>) -> Vec<IdentityKey> {
        let path = self.entry.cx().file(&pem.value);
        let Some(text) = self.entry.cx().text(&path, pem.site.clone()) else { return Vec::new() };
        let Some(algorithm) = algorithm else {
            if !self.entry.writes("algorithm") {
                let title = format!("{} does not say its algorithm", self.whose);
                let diagnostic = Diagnostic::new(Code::PublicKey, pem.site.clone(), title);
                self.entry.report(diagnostic.help("write algorithm = \"RS256\", \"ES256\" or \"EdDSA\": the token never chooses it"));
            }
            return Vec::new();
        };
        match from_pem(&text, algorithm.value.0) {
            Ok(key) => vec![self.identity(key, self.id.to_owned(), kid.map(|k| k.value), pem.site.clone())],
            Err(why) => self.refuse(pem.site.clone(), &why),
        }
    }

    /// Every key of a set becomes one of ours, named after its `kid`.
    fn jwks(&self, jwks: &Located<String>) -> Vec<IdentityKey> {
        self.refuse_unused(&["algorithm", "kid"]);
        let path = self.entry.cx().file(&jwks.value);
        let Some(text) = self.entry.cx().text(&path, jwks.site.clone()) else { return Vec::new() };
        match from_jwks(&text) {
            Ok(keys) => {
                keys.into_iter().map(|(kid, key)| self.identity(key, format!("{}/{kid}", self.id), Some(kid), jwks.site.clone())).collect()
            }
            Err(why) => self.refuse(jwks.site.clone(), &why),
        }
    }

    /// What is published at a URL. The URL stands for its keys: two tenants may share it only as they may share a key.
    fn remote(&self, url: &Located<IssuerUrl>, algorithm: Option<Located<TokenAlgorithm>>, refresh: Duration) -> Option<Remote> {
        self.refuse_unused(&["kid"]);
        if let Some(symmetric) = algorithm.as_ref().filter(|a| matches!(a.value.0, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512))
        {
            let title = format!("{} cannot be used with {:?}, which wants a shared secret", self.whose, symmetric.value.0);
            let help = "write \"RS256\", \"ES256\" or \"EdDSA\" for published keys that do not say their algorithm, or leave it out";
            self.entry.report(Diagnostic::new(Code::PublicKey, symmetric.site.clone(), title).help(help));
        }
        let ca = material::authorities(self.entry, "ca", "write a PEM file with the certificates that sign the issuer's").map(Arc::from);
        let sharing = Sharing::Public { tenant: self.shared.tenant.to_owned(), audiences: self.shared.audiences.to_vec() };
        let owner = format!("key {} of tenant {}", self.id, self.shared.tenant);
        self.entry.cx().claim_thing(Thing::Url(url.value.0.clone()), owner, url.site.clone(), sharing);
        let source = Source { url: url.value.0.clone(), ca };
        let mut remote = Remote::new(self.id, source, refresh);
        remote.algorithm = algorithm.map(|a| a.value.0);
        Some(remote)
    }

    fn identity(&self, key: PublicKey, id: String, kid: Option<String>, site: Site) -> IdentityKey {
        let sharing = Sharing::Public { tenant: self.shared.tenant.to_owned(), audiences: self.shared.audiences.to_vec() };
        self.entry.cx().claim(format!("key {id} of tenant {}", self.shared.tenant), &key.thumbprint, site, sharing);
        let mut identity = IdentityKey::public(id, &key.thumbprint, key.decoding, key.algorithm);
        identity.kid = kid;
        remember(self.entry, &identity, self.shared.tenant);
        identity
    }

    fn refuse(&self, site: Site, why: &str) -> Vec<IdentityKey> {
        let title = format!("{}{} {why}", self.whose, if why.starts_with("entry") { ":" } else { "" });
        let help = "RS256 with 2048 bits or more, ES256 (P-256) and EdDSA (Ed25519) public keys can be used";
        self.entry.report(Diagnostic::new(Code::PublicKey, site, title).help(help));
        Vec::new()
    }

    fn refuse_unused(&self, keys: &[&'static str]) {
        for key in keys.iter().filter(|key| self.entry.writes(key)) {
            let title = format!("`{key}` does nothing beside this public key");
            self.entry.report(Diagnostic::new(Code::NoEffect, self.entry.site_of(key), title).help("remove it: the file says it"));
        }
    }
}
