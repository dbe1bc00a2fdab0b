//! All tenants: those in the main file (`[[tenant]]`) and those in a directory of one file each (`tenants = "dir"`), and
//! what must hold between them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use toml::Spanned;
use toml::de::DeTable;

use super::context::Sharing;
use super::diagnostic::{Code, Diagnostic, Document, Site};
use super::preset::Preset;
use super::table::Table;
use super::tenant::{self, Read};
use crate::secret::KeyBytes;
use crate::tenant::Tenants;

/// The tenant files of the directory, by name. Names that start with a dot are skipped: editors and Kubernetes put their
/// own there.
pub(super) fn directory(root: &Table<'_>) -> Vec<Rc<Document>> {
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
    let open = |(index, path): (usize, &PathBuf)| {
        let text = root.cx().text(path, written.site.clone())?;
        Some(Document::new(path.display().to_string(), text, index + 1))
    };
    files.iter().enumerate().filter_map(open).collect()
}

fn is_tenant_file(path: &std::path::Path) -> bool {
    let hidden = path.file_name().and_then(|n| n.to_str()).is_none_or(|name| name.starts_with('.'));
    !hidden && path.extension().is_some_and(|e| e == "toml")
}

/// Reads every tenant; `None` where two collide.
pub(super) fn tenants<'t>(
    root: &Table<'t>,
    files: &'t [(&'t Rc<Document>, Spanned<DeTable<'t>>)],
    presets: &'t [Preset],
) -> Option<Tenants> {
    let inline = root.tables("tenant").into_iter();
    let own = files.iter().map(|(document, table)| Table::root(root.cx(), document, table.get_ref(), "tenant"));
    let read: Vec<Read> = inline.chain(own).map(|table| tenant::tenant(table, presets)).collect();
    refuse_doubles(root, &read);
    tenant::warn_shared(&read).into_iter().for_each(|warning| root.report(warning));
    if read.is_empty() && root.cx().errors() == 0 {
        let help = "add [[tenant]] with its id, embed_keys, origins and secrets, or tenants = \"directory\"";
        root.report(Diagnostic::new(Code::NoTenant, root.site(), "no tenant: every request is denied").help(help));
    }
    Tenants::new(read.into_iter().map(|r| Arc::new(r.tenant)).collect()).ok()
}

/// Ids and embed keys are unique over all tenants, and no secret is an embed key: those are public.
fn refuse_doubles(root: &Table<'_>, all: &[Read]) {
    let mut ids: HashMap<&str, &Site> = HashMap::new();
    let mut keys: HashMap<&str, (&str, &Site)> = HashMap::new();
    for Read { tenant, id_site, key_sites } in all {
        if let Some(first) = Some(&tenant.id).filter(|id| !id.is_empty()).and_then(|id| ids.insert(id, id_site)) {
            let diagnostic = Diagnostic::new(Code::DuplicateTenant, id_site.clone(), format!("tenant {} stands twice", tenant.id));
            root.report(diagnostic.beside(first.clone(), "first used here").help("give each tenant its own id"));
        }
        for (key, site) in tenant.embed_keys.iter().zip(key_sites) {
            if let Some((owner, first)) = keys.insert(key.as_str(), (&tenant.id, site)) {
                let title = format!("this embed key names tenant {owner} already");
                let diagnostic = Diagnostic::new(Code::DuplicateEmbedKey, site.clone(), title);
                root.report(
                    diagnostic
                        .beside(first.clone(), "first used here")
                        .help("an embed key names one tenant: make another with doorward embed-key new"),
                );
            } else {
                let bytes = KeyBytes::new(key.as_str().as_bytes());
                root.cx().claim(format!("an embed key of tenant {}", tenant.id), &bytes, site.clone(), Sharing::Secret);
            }
        }
    }
}
