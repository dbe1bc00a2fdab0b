//! `[assertion]` and the headers that are signed with it (`[upstream.headers]`, `upstream.remove_headers`).

use std::collections::HashSet;
use std::time::Duration;

use http::HeaderName;

use super::KeyInUse;
use super::diagnostic::{Code, Diagnostic, Site};
use super::field::{Complaint, Id, Word};
use super::header::{AnyHeader, OwnHeader};
use super::known::Shown;
use super::material;
use super::once::Sharing;
use super::server::duration;
use super::table::Table;
use crate::assertion::{AssertionKey, AssertionSettings, KeyAlgorithm, Mapped, Scheme, Signer};
use crate::secret::Encoding;

/// `[assertion]` or `[upstreams.NAME.assertion]`: what is the same for every upstream that is told by it.
#[derive(Clone)]
pub(super) struct Told {
    schemes: Vec<Scheme>,
    audience: String,
    issuer: String,
    lifetime_secs: u64,
    keys: Vec<AssertionKey>,
    /// Where each key stands, and where all of them do.
    sites: Vec<Site>,
    site: Site,
}

impl Told {
    /// The id of the secret that signs, where one does.
    pub(super) fn signing_secret(&self) -> Option<&str> {
        let secret = |key: &&AssertionKey| key.algorithm == KeyAlgorithm::Hs256;
        let by_signature = self.keys.iter().find(secret).filter(|_| self.schemes.contains(&Scheme::HttpMessageSignatures));
        let by_jwt = self.keys.first().filter(secret).filter(|_| self.schemes.contains(&Scheme::Jwt));
        by_signature.or(by_jwt).map(|key| key.id.as_str())
    }
}

/// Reads an assertion's table, that of the upstream `of` this name or everybody's. `ids` are those of keys so far: they are
/// published together.
pub(super) fn told(table: &Table<'_>, of: Option<&str>, ids: &mut HashSet<String>) -> Told {
    let schemes = schemes(table);
    let (keys, sites, declared) = keys(table, of, ids);
    refuse_unsigned(table, &schemes, &declared);
    let told = Told {
        schemes,
        audience: table.need::<Visible>("audience").map(|a| a.value.0).unwrap_or_default(),
        issuer: table.or("issuer", Visible("doorward".to_owned())).0,
        lifetime_secs: lifetime(table),
        keys,
        sites,
        site: table.site_of("keys"),
    };
    table.finish();
    told
}

/// Names that one upstream's table sets or removes: reserved towards every one.
#[derive(Default)]
pub(super) struct Reserved {
    mapped: Vec<HeaderName>,
    removed: Vec<HeaderName>,
}

impl Reserved {
    /// Adds those of an upstream's table.
    pub(super) fn add(&mut self, upstream: &Table<'_>) {
        self.mapped
            .extend(mapped(upstream).into_iter().map(|(name, _)| name).filter(|name| !self.mapped.contains(name)).collect::<Vec<_>>());
        self.removed.extend(upstream.list::<AnyHeader>("remove_headers").unwrap_or_default().into_iter().map(|h| h.value.0));
    }
}

/// Prepares the signer of one upstream; `None` where a problem was recorded since there were `before` errors.
pub(super) fn signer(upstream: &Table<'_>, told: &Told, reserved: &Reserved, before: usize) -> Option<Signer> {
    let mapped = mapped(upstream);
    let elsewhere = reserved.mapped.iter().filter(|name| !mapped.iter().any(|(own, _)| own == *name)).cloned().collect();
    let settings = AssertionSettings {
        schemes: told.schemes.clone(),
        audience: told.audience.clone(),
        issuer: told.issuer.clone(),
        lifetime_secs: told.lifetime_secs,
        keys: told.keys.clone(),
        mapped,
        elsewhere,
        removed: reserved.removed.clone(),
    };
    warn_unsigned(upstream, &settings);
    if upstream.cx().errors() > before {
        return None;
    }
    Signer::new(settings)
        .map_err(|(index, sentence)| {
            let site = index.and_then(|i| told.sites.get(i)).unwrap_or(&told.site).clone();
            upstream.report(Diagnostic::new(Code::AssertionKey, site, sentence).help("make one with doorward key new"));
        })
        .ok()
}

/// A value that stands in a header: visible ASCII.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Visible(String);

impl Word for Visible {
    const EXAMPLE: &'static str = "\"agent\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        if !text.is_empty() && text.len() <= 256 && text.bytes().all(|b| b.is_ascii_graphic()) {
            return Ok(Self(text.to_owned()));
        }
        Err(Complaint::new(Code::BadValue, "cannot stand in a header").help("write 1 to 256 visible ASCII characters without spaces"))
    }
}

impl Shown for Visible {
    fn shown(&self) -> String {
        format!("\"{}\"", self.0)
    }
}

fn schemes(table: &Table<'_>) -> Vec<Scheme> {
    let Some(found) = table.list::<Scheme>("schemes") else { return vec![Scheme::HttpMessageSignatures] };
    let mut schemes = Vec::new();
    for scheme in &found {
        if schemes.contains(&scheme.value) {
            let title = format!("scheme \"{}\" stands twice", scheme.value.as_str());
            table.report(Diagnostic::new(Code::DuplicateId, scheme.site.clone(), title).help("list each scheme once"));
        } else {
            schemes.push(scheme.value);
        }
    }
    if table.is_empty_list("schemes") {
        let title = "`assertion.schemes` is empty: the upstream would be told nothing";
        let help = "write schemes = [\"http-message-signatures\"], or \"jwt\", or both";
        table.report(Diagnostic::new(Code::BadValue, table.site_of("schemes"), title).help(help));
    }
    schemes
}

/// Whole seconds, at most 60: an assertion that lives longer can be replayed for longer.
fn lifetime(table: &Table<'_>) -> u64 {
    let default = Duration::from_secs(30);
    let found = duration(table, "lifetime", default, Duration::from_secs(1)..=Duration::from_secs(60));
    if found.subsec_nanos() != 0 {
        let diagnostic = Diagnostic::new(Code::OutOfRange, table.site_of("lifetime"), "`assertion.lifetime` is no whole number of seconds");
        table.report(diagnostic.help("times in assertions are whole seconds (RFC 9421 section 2.3)"));
    }
    found.as_secs()
}

/// The keys, where each stands, and the algorithms that stand there, those of unusable keys included.
fn keys(table: &Table<'_>, of: Option<&str>, ids: &mut HashSet<String>) -> (Vec<AssertionKey>, Vec<Site>, Vec<KeyAlgorithm>) {
    let mut declared = Vec::new();
    let mut keys: Vec<AssertionKey> = Vec::new();
    let mut sites = Vec::new();
    for entry in table.tables("keys") {
        let entry = entry.sensitive();
        let id = entry.need::<Id>("id").map_or_else(String::new, |id| id.value.0);
        if !id.is_empty() && !ids.insert(id.clone()) {
            let title = format!("assertion key {id} stands twice");
            let help = "backends find a key by its id: give each its own";
            entry.report(Diagnostic::new(Code::DuplicateId, entry.site_of("id"), title).help(help));
        }
        let algorithm = entry.or("algorithm", KeyAlgorithm::Hs256);
        declared.push(algorithm);
        let whose = of.map_or_else(|| format!("assertion key {id}"), |name| format!("assertion key {id} of upstream {name}"));
        let found = match algorithm {
            KeyAlgorithm::Hs256 => material::shared_secret(&entry, &whose, 32),
            KeyAlgorithm::Es256 | KeyAlgorithm::EdDsa => private_key(&entry, &whose),
        };
        entry.finish();
        if let Some(found) = found {
            entry.cx().claim(whose, &found.value.key, found.site, Sharing::Never);
            let towards = of.map(|name| format!(" for upstream {name}")).unwrap_or_default();
            let what = format!("assertion {}{towards}", name_of(algorithm));
            entry.cx().uses(KeyInUse { tenant: None, id: id.clone(), what, fingerprint: found.value.key.fingerprint() });
            keys.push(AssertionKey { id, algorithm, material: found.value.key });
            sites.push(entry.site());
        }
    }
    (keys, sites, declared)
}

/// A PEM: text, and no warning about the newline that every PEM ends in.
fn private_key(entry: &Table<'_>, whose: &str) -> Option<super::table::Located<crate::secret::Resolved>> {
    if entry.writes("encoding") && entry.or("encoding", Encoding::Text) != Encoding::Text {
        let title = "`encoding` does nothing beside a PEM key";
        entry.report(Diagnostic::new(Code::NoEffect, entry.site_of("encoding"), title).help("remove it: a PEM says its own encoding"));
    }
    let source = material::source(entry, whose)?;
    let resolved = material::read(entry, whose, &source, Encoding::Text)?;
    Some(super::table::Located { value: resolved, site: source.site })
}

fn name_of(algorithm: KeyAlgorithm) -> &'static str {
    match algorithm {
        KeyAlgorithm::Hs256 => "HS256",
        KeyAlgorithm::Es256 => "ES256",
        KeyAlgorithm::EdDsa => "EdDSA",
    }
}

/// Every scheme has a key that it can sign with.
fn refuse_unsigned(table: &Table<'_>, schemes: &[Scheme], declared: &[KeyAlgorithm]) {
    let title = if declared.is_empty() {
        "no assertion key: nothing could be signed"
    } else if schemes.contains(&Scheme::HttpMessageSignatures) && !declared.contains(&KeyAlgorithm::Hs256) {
        "scheme \"http-message-signatures\" signs with hmac-sha256 and finds no HS256 key"
    } else {
        return;
    };
    let help = format!(
        "add keys = [{{ id = \"a1\", env = \"DOORWARD_ASSERTION_KEY\" }}] to [{}]: a secret that this upstream alone shares",
        table.full_path()
    );
    table.report(Diagnostic::new(Code::AssertionKey, table.site_of("keys"), title).help(help));
}

/// `[upstream.headers]`: names that a backend reads itself.
fn mapped(upstream: &Table<'_>) -> Vec<(HeaderName, Mapped)> {
    let mut mapped: Vec<(HeaderName, Mapped)> = Vec::new();
    for (name, from) in upstream.entries::<From>("headers") {
        let header = match OwnHeader::parse(&name.value) {
            Ok(header) => header.0,
            Err(complaint) => {
                upstream.report(complaint.at(&upstream.full("headers"), name.site));
                continue;
            }
        };
        if mapped.iter().any(|(other, _)| *other == header) {
            let title = format!("header {header} is mapped twice");
            upstream.report(Diagnostic::new(Code::DuplicateId, name.site, title).help("header names ignore case: map each once"));
            continue;
        }
        mapped.push((header, from.value.0));
    }
    mapped
}

/// The `jwt` scheme signs itself and nothing beside it.
fn warn_unsigned(upstream: &Table<'_>, settings: &AssertionSettings) {
    if settings.mapped.is_empty() || settings.schemes.contains(&Scheme::HttpMessageSignatures) {
        return;
    }
    let title = "scheme \"jwt\" covers no headers: what [upstream.headers] sets goes unsigned";
    let help = "read the claims in X-Identity-Assertion instead, or add \"http-message-signatures\" to assertion.schemes";
    upstream.report(Diagnostic::new(Code::MappedUnsigned, upstream.site_of("headers"), title).help(help));
}

/// Where a mapped header's value comes from.
struct From(Mapped);

impl Word for From {
    const EXAMPLE: &'static str = "\"claim:email\"";

    fn parse(text: &str) -> Result<Self, Complaint> {
        match text.split_once(':') {
            None if text == "subject" => Ok(Self(Mapped::Subject)),
            Some(("claim", name)) if !name.is_empty() => Ok(Self(Mapped::Claim(name.to_owned()))),
            _ => Err(Complaint::new(Code::UnknownValue, format!("does not take \"{text}\"")).help("write \"subject\" or \"claim:NAME\"")),
        }
    }
}
