//! All upstreams: `[upstream]`, which is called `default`, and `[upstreams.NAME]`. Each is told who is talking by its own
//! assertion or by `[assertion]`; a secret that signs is shared with one backend only, since whoever knows it can sign too.
//! Reserved names are those of all of them: what one backend reads itself, no client may set towards another either.

use std::collections::HashSet;

use super::assertion::{self, Reserved, Told};
use super::diagnostic::{Code, Diagnostic, Site};
use super::field::{Id, Word as _};
use super::table::Table;
use super::upstream;
use crate::policy::UpstreamId;
use crate::snapshot::{Upstream, Upstreams};
use crate::upstream::UpstreamSettings;
use crate::upstream::pool::Pool;

/// Upstreams, and what tenants may call them.
pub(super) struct Read {
    /// `None` where a problem was recorded.
    pub(super) upstreams: Option<Upstreams>,
    /// Every name that stands in the file, and where.
    pub(super) names: Names,
}

/// What tenants and routes may name.
pub(super) struct Names(Vec<(String, Site)>);

impl Names {
    /// Whether there is one of this name.
    pub(super) fn has(&self, id: UpstreamId) -> bool {
        self.0.iter().any(|(name, _)| UpstreamId::of(name) == id)
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Warns of those that nobody goes to. One that is alone goes without saying.
    pub(super) fn warn_unused(&self, root: &Table<'_>, used: &HashSet<UpstreamId>) {
        for (name, site) in self.0.iter().filter(|(name, _)| self.0.len() > 1 && !used.contains(&UpstreamId::of(name))) {
            let help = "name it in a [[tenant]] or [[tenant.route]] with upstream = \"…\", or remove it";
            root.report(Diagnostic::new(Code::UpstreamUnused, site.clone(), format!("no tenant goes to upstream {name}")).help(help));
        }
    }
}

/// One table, half read.
struct Part<'t> {
    table: Table<'t>,
    site: Site,
    settings: UpstreamSettings,
    /// `[upstreams.NAME.assertion]`.
    own: Option<Told>,
}

/// Reads every upstream and prepares its signer.
pub(super) fn upstreams(root: &Table<'_>) -> Read {
    let before = root.cx().errors();
    let mut ids = HashSet::new();
    let parts = parts(root, &mut ids);
    let inherits = parts.iter().any(|part| part.own.is_none());
    let general = root.table("assertion");
    let general = (inherits || root.writes("assertion")).then(|| assertion::told(&general, None, &mut ids));
    let mut reserved = Reserved::default();
    parts.iter().for_each(|part| reserved.add(&part.table));
    if let Some(general) = &general {
        refuse_shared(root, &parts, general);
    }
    let mut all = Vec::new();
    let mut complete = true;
    let names = Names(parts.iter().map(|part| (part.settings.name.clone(), part.site.clone())).collect());
    for part in parts {
        let told = part.own.or_else(|| general.clone());
        let signer = told.and_then(|told| assertion::signer(&part.table, &told, &reserved, before));
        part.table.finish();
        match signer {
            Some(signer) => all.push(Upstream { pool: Pool::new(&part.settings), settings: part.settings, signer }),
            None => complete = false,
        }
    }
    let upstreams = (complete && root.cx().errors() == before).then(|| Upstreams::new(all));
    Read { upstreams, names }
}

fn parts<'t>(root: &Table<'t>, ids: &mut HashSet<String>) -> Vec<Part<'t>> {
    let mut parts = Vec::new();
    let named = root.named("upstreams", "upstream");
    let table = root.table("upstream");
    if root.writes("upstream") || named.is_empty() {
        let settings = upstream::settings(&table, UpstreamId::DEFAULT);
        parts.push(Part { site: table.site(), settings, own: None, table });
    }
    for (name, table) in named {
        if name.value == UpstreamId::DEFAULT {
            let title = "\"default\" is what [upstream] is called";
            let help = "give this upstream another name, or write it as [upstream]";
            root.report(Diagnostic::new(Code::DuplicateId, name.site.clone(), title).help(help));
        } else if let Err(complaint) = Id::parse(&name.value) {
            root.report(complaint.at("upstreams", name.site.clone()));
        }
        let settings = upstream::settings(&table, &name.value);
        let assertion = table.table("assertion").known_as("assertion");
        let own = table.writes("assertion").then(|| assertion::told(&assertion, Some(&name.value), ids));
        parts.push(Part { site: name.site, settings, own, table });
    }
    parts
}

/// Whoever can verify with a secret can sign with it: towards another backend, that would be somebody else's word.
fn refuse_shared(root: &Table<'_>, parts: &[Part<'_>], general: &Told) {
    let Some(key) = general.signing_secret() else { return };
    let mut sharing = parts.iter().filter(|part| part.own.is_none());
    let Some(first) = sharing.next() else { return };
    // Two names of one backend share nothing.
    for part in sharing.filter(|part| part.settings.backends != first.settings.backends) {
        let (name, other) = (&part.settings.name, &first.settings.name);
        let title = format!("upstream {name} would share the secret assertion key {key} with upstream {other}");
        let help = format!(
            "whoever verifies with a secret can sign with it: add [upstreams.{name}.assertion] with keys of its own, or sign with schemes = [\"jwt\"] and an EdDSA key"
        );
        let diagnostic = Diagnostic::new(Code::AssertionShared, part.site.clone(), title);
        root.report(diagnostic.beside(first.site.clone(), "shares it already").help(help));
    }
}
