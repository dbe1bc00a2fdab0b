//! All tenants: those in the main file (`[[tenant]]`) and those in a directory of one file each (`tenants = "dir"`). On
//! reload, a file that is refused does not hold back the rest: the tenant that it gave before stays as it was.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use toml::Spanned;
use toml::de::DeTable;

use super::context::MAIN;
use super::diagnostic::{Code, Diagnostic, Document};
use super::once::{self, Sharing, Thing};
use super::preset::Preset;
use super::table::Table;
use super::tenant::{self, Read};
use super::upstreams::Names;
use crate::secret::KeyBytes;
use crate::tenant::{Tenant, Tenants};

/// One file of the directory.
pub(super) struct TenantFile {
    pub(super) path: PathBuf,
    /// The scope of its problems.
    pub(super) scope: usize,
    /// Its text, where it could be read.
    pub(super) document: Option<Rc<Document>>,
}

/// A tenant file and what was parsed of it.
pub(super) type Parsed<'t> = (&'t TenantFile, Option<Spanned<DeTable<'t>>>);

/// The tenants of a load, and the files that gave none of them because they are refused.
pub(super) struct Settled {
    pub(super) tenants: Tenants,
    /// Scope and path of each refused file, and the tenant that stays.
    pub(super) refused: Vec<(usize, PathBuf, Option<Arc<Tenant>>)>,
}

/// The tenant files of the directory, by name. Names that start with a dot are skipped: editors and Kubernetes put their
/// own there.
pub(super) fn directory(root: &Table<'_>) -> Vec<TenantFile> {
    let Some(written) = root.get::<String>("tenants") else { return Vec::new() };
    let path = root.cx().file(&written.value);
    let mut files: Vec<PathBuf> = match std::fs::read_dir(&path) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).filter(|p| is_tenant_file(p)).collect(),
        Err(why) => {
            let title = format!("cannot read the directory {}: {why}", path.display());
            let help = "tenants names a directory with one .toml file per tenant, seen from the configuration file's directory";
            root.report(Diagnostic::new(Code::Unreadable, written.site, title).help(help));
            return Vec::new();
        }
    };
    files.sort();
    let open = |(index, path): (usize, PathBuf)| {
        let scope = MAIN + 1 + index;
        let text = root.cx().within(scope, || root.cx().text(&path, written.site.clone()));
        let document = text.map(|text| Document::new(path.display().to_string(), text, scope));
        TenantFile { path, scope, document }
    };
    files.into_iter().enumerate().map(open).collect()
}

fn is_tenant_file(path: &Path) -> bool {
    let hidden = path.file_name().and_then(|n| n.to_str()).is_none_or(|name| name.starts_with('.'));
    !hidden && path.extension().is_some_and(|e| e == "toml")
}

/// What the rest of the configuration says that tenants are read by.
pub(super) struct Beside<'n> {
    /// Where they may go.
    pub(super) upstreams: &'n Names,
    /// Whether requests are decided about without their bodies too, on a forward-auth listener.
    pub(super) checks: bool,
}

/// Reads every tenant, and keeps those of `before`, the tenants in force, whose files are refused. `None` where two collide.
pub(super) fn tenants<'t>(
    root: &Table<'t>,
    files: &'t [Parsed<'t>],
    presets: &'t [Preset],
    before: Option<&Tenants>,
    beside: &Beside<'_>,
) -> Option<Settled> {
    let main = root.tables("tenant").into_iter();
    let mut read: Vec<(usize, Read)> = main.map(|table| (MAIN, tenant::tenant(table, presets, beside.upstreams))).collect();
    for (file, parsed) in files {
        let (Some(document), Some(parsed)) = (&file.document, parsed) else { continue };
        let one = || tenant::tenant(Table::root(root.cx(), document, parsed.get_ref(), "tenant"), presets, beside.upstreams);
        let mut one = root.cx().within(file.scope, one);
        one.tenant.source = Some(file.path.clone());
        read.push((file.scope, one));
    }
    read.iter().for_each(|(scope, one)| root.cx().within(*scope, || claim(root, one)));
    if beside.checks {
        read.iter().for_each(|(scope, one)| root.cx().within(*scope, || tenant::refuse_unseen(root, one)));
    }
    let before = before.map(|tenants| given_by(files, tenants));
    let refused = once::settle(root.cx(), before.as_ref());
    read.retain(|(scope, _)| !refused.contains(scope));
    let refused = files.iter().filter(|(file, _)| refused.contains(&file.scope)).map(|(file, _)| {
        let kept = before.as_ref().and_then(|before| before.get(&file.scope)).cloned();
        (file.scope, file.path.clone(), kept)
    });
    let refused: Vec<_> = refused.collect();
    let kept = refused.iter().filter_map(|(scope, _, kept)| Some((*scope, Arc::clone(kept.as_ref()?))));
    let mut all: Vec<_> = kept.collect();
    refuse_gone(root, beside.upstreams, &all);
    let others: Vec<_> = all.iter().map(|(_, tenant)| tenant.as_ref()).collect();
    tenant::warn_shared(&read.iter().map(|(_, one)| one).collect::<Vec<_>>(), &others).into_iter().for_each(|w| root.report(w));
    all.extend(read.into_iter().map(|(scope, one)| (scope, Arc::new(one.tenant))));
    all.sort_by_key(|(scope, _)| *scope); // stable: the main file's in file order, then the directory's
    if root.cx().errors() == 0 && !all.is_empty() {
        beside.upstreams.warn_unused(root, &all.iter().flat_map(|(_, tenant)| tenant.policy.upstreams()).collect());
    }
    if all.is_empty() && root.cx().errors() == 0 {
        let help = "add [[tenant]] with its id, embed_keys, origins and secrets, or tenants = \"directory\"";
        root.report(Diagnostic::new(Code::NoTenant, root.site(), "no tenant: every request is denied").help(help));
    }
    let tenants = Tenants::new(all.into_iter().map(|(_, tenant)| tenant).collect()).ok()?;
    Some(Settled { tenants, refused })
}

/// A tenant that stays as it was goes where it went: nothing can be put in force where that is gone.
fn refuse_gone(root: &Table<'_>, upstreams: &Names, kept: &[(usize, Arc<Tenant>)]) {
    for (_, tenant) in kept.iter().filter(|(_, tenant)| !tenant.policy.upstreams().all(|id| upstreams.has(id))) {
        let title = format!("tenant {} stays in force while its file is refused, and an upstream that it goes to is gone", tenant.id);
        let help = "repair or remove the tenant's file first, or keep the upstream until then";
        root.report(Diagnostic::new(Code::UpstreamUnknown, root.site(), title).help(help));
    }
}

/// What each file of the directory gave to the configuration in force.
fn given_by(files: &[Parsed<'_>], before: &Tenants) -> BTreeMap<usize, Arc<Tenant>> {
    let by_file = |tenant: &&Arc<Tenant>, path: &Path| tenant.source.as_deref() == Some(path);
    let given = |(file, _): &Parsed<'_>| Some((file.scope, Arc::clone(before.all().iter().find(|t| by_file(t, &file.path))?)));
    files.iter().filter_map(given).collect()
}

/// Ids and embed keys are unique over all tenants, and no secret is an embed key: those are public.
fn claim(root: &Table<'_>, Read { tenant, id_site, key_sites, .. }: &Read) {
    let (cx, id) = (root.cx(), &tenant.id);
    if !id.is_empty() {
        cx.claim_thing(Thing::Id(id.clone()), format!("tenant {id}"), id_site.clone(), Sharing::Never);
    }
    for (key, site) in tenant.embed_keys.iter().zip(key_sites) {
        let bytes = KeyBytes::new(key.as_str().as_bytes());
        cx.claim(format!("an embed key of tenant {id}"), &bytes, site.clone(), Sharing::EmbedKey { tenant: id.clone() });
    }
}
