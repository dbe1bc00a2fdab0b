//! Bytes to [`Snapshot`], or every problem with file, line, column, caret and hint. The same load runs at start, on reload
//! and as `doorward check`. It reads files and the environment, never the network; it never panics, whatever the bytes.
//!
//! [`load`] parses TOML with places ([`diagnostic`] points at them), reads every key by its own type (`table`, `field`),
//! lays tenants over their presets, and then looks at what must hold across keys: nothing is used twice, every rule can be
//! met. [`reload`] is the same beside a configuration in force. A new key is one line in the reader of its table, and one in `conf/doorward.toml`.

mod assertion;
mod context;
pub mod diagnostic;
mod field;
mod header;
mod identity_keys;
pub mod known;
mod limits;
mod listeners;
mod material;
mod once;
mod places;
pub mod preset;
pub mod probed;
mod routes;
mod server;
mod sessions;
mod suggest;
mod table;
mod telemetry;
mod tenant;
mod tenants;
mod upstream;
mod upstreams;
pub mod watched;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use toml::Spanned;
use toml::de::DeTable;

use crate::clock::{self, UnixTime};
use crate::secret::Fingerprint;
use crate::snapshot::Snapshot;
use crate::tenant::{Tenant, Tenants};
use crate::token::keys::KeyUsage;
use context::{Context, Gathered, MAIN, start_of};
use diagnostic::{Code, Diagnostic, Document, Look, Severity, Site, render};
use table::Table;
use tenants::Settled;
use watched::Files;

/// A configuration that loaded.
#[derive(Debug)]
pub struct Loaded {
    /// What to put in force.
    pub snapshot: Snapshot,
    /// What an operator should know, rendered.
    pub warnings: Vec<String>,
    /// What it was made of: what to watch.
    pub files: Files,
    /// Every key in use, by its fingerprint: what to log at start.
    pub keys: Vec<KeyInUse>,
    /// Tenant files that are not part of it: empty but on [`reload`].
    pub refused: Vec<RefusedFile>,
    /// Every key that was asked for, by its path, such as `server.listen`: what the annotated example must show.
    pub known: BTreeMap<String, known::Key>,
}

/// A key in use, without its material.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInUse {
    /// Whose identity key; `None` for the gateway's own.
    pub tenant: Option<String>,
    /// The operator's name for it.
    pub id: String,
    /// What it is for: formats and algorithm.
    pub what: String,
    /// Names the material.
    pub fingerprint: Fingerprint,
}

impl KeyInUse {
    /// Logs it.
    pub fn log(&self) {
        let tenant = self.tenant.as_deref().unwrap_or_default();
        tracing::info!(tenant, id = self.id, what = self.what, fingerprint = %self.fingerprint, "key in use");
    }
}

/// A tenant file that a reload left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedFile {
    /// The file.
    pub path: PathBuf,
    /// The tenant that it gave before, which stays as it was.
    pub kept: Option<String>,
    /// Its errors, rendered.
    pub problems: Vec<String>,
}

/// Problems that are shown at most: each is cut from its whole file, and a generated file may have one for every tenant.
const MOST_SHOWN: usize = 100;

/// Every problem of a configuration, rendered for a terminal.
#[derive(Debug)]
pub struct Problems {
    /// Rendered diagnostics, in file order, warnings included: the first hundred, and how many more there are.
    pub rendered: Vec<String>,
    /// How many errors there are.
    pub errors: usize,
    /// How many warnings.
    pub warnings: usize,
    /// What was read all the same: what to watch for the repair.
    pub files: Files,
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rendered.join("\n\n"))
    }
}

/// Where a reload finds the usage counters of secrets that stay: by tenant id and secret id.
pub type UsageOf<'u> = &'u dyn Fn(&str, &str) -> Arc<KeyUsage>;

/// Loads a configuration file and everything it names.
///
/// # Errors
/// Every problem found, never just the first.
pub fn load(path: &Path, generation: u64, usage: UsageOf<'_>) -> Result<Loaded, Problems> {
    load_with(path, generation, usage, Look::Plain)
}

/// [`load`], with problems and warnings rendered for where they will be read.
///
/// # Errors
/// Every problem found, never just the first.
pub fn load_with(path: &Path, generation: u64, usage: UsageOf<'_>, look: Look) -> Result<Loaded, Problems> {
    run(path, generation, usage, look, None)
}

/// Loads while `before` is in force: tenant files with problems are left out, and the tenants that they gave stay as they
/// were ([`Loaded::refused`]).
///
/// # Errors
/// Every problem found, where the main file has one or claims what such a tenant holds.
pub fn reload(path: &Path, generation: u64, usage: UsageOf<'_>, before: &Tenants) -> Result<Loaded, Problems> {
    run(path, generation, usage, Look::Plain, Some(before))
}

fn run(path: &Path, generation: u64, usage: UsageOf<'_>, look: Look, before: Option<&Tenants>) -> Result<Loaded, Problems> {
    let cx = Context::new(path, usage);
    let snapshot = snapshot(&cx, path, generation, before);
    let Gathered { problems, files, known, in_use } = cx.into_gathered();
    let rendered = |wanted: &dyn Fn(usize) -> bool, severity| -> Vec<String> {
        let those = problems.iter().filter(|(scope, d)| wanted(*scope) && d.code.severity() == severity);
        those.map(|(_, d)| render(d, look)).collect()
    };
    let fatal = |scope| before.is_none() || scope == MAIN;
    match snapshot {
        Some((snapshot, refused)) if !problems.iter().any(|(scope, d)| fatal(*scope) && d.code.severity() == Severity::Error) => {
            let left_out = |scope: usize| refused.iter().any(|(those, _, _)| *those == scope);
            let mut keys: Vec<_> = in_use.into_iter().filter(|(scope, _)| !left_out(*scope)).map(|(_, key)| key).collect();
            keys.extend(refused.iter().flat_map(|(_, _, kept)| kept).flat_map(|tenant| identity_keys::in_use(tenant)));
            let warnings = rendered(&|scope| !left_out(scope), Severity::Warning);
            let refused = refused.iter().map(|(those, path, kept)| RefusedFile {
                path: path.clone(),
                kept: kept.as_ref().map(|tenant| tenant.id.clone()),
                problems: rendered(&|scope| scope == *those, Severity::Error),
            });
            Ok(Loaded { snapshot, warnings, files, keys, known, refused: refused.collect() })
        }
        _ => {
            let errors = problems.iter().filter(|(_, d)| d.code.severity() == Severity::Error).count();
            let mut rendered: Vec<_> = problems.iter().take(MOST_SHOWN).map(|(_, d)| render(d, look)).collect();
            if problems.len() > MOST_SHOWN {
                rendered.push(format!("and {} more problems; repair these first", problems.len() - MOST_SHOWN));
            }
            Err(Problems { rendered, errors, warnings: problems.len() - errors, files })
        }
    }
}

/// A refused file's scope and path, and the tenant that stays.
type Refused = (usize, PathBuf, Option<Arc<Tenant>>);

/// `None` only where a problem was recorded.
fn snapshot(cx: &Context<'_>, path: &Path, generation: u64, before: Option<&Tenants>) -> Option<(Snapshot, Vec<Refused>)> {
    let text = cx.text(path, start_of(&Document::unread(path.display().to_string())))?;
    let document = Document::new(path.display().to_string(), text, 0);
    let parsed = parse(cx, &document)?;
    let presets = preset::parsed();
    let root = Table::root(cx, &document, parsed.get_ref(), "");
    let read = upstreams::upstreams(&root);
    let settings = server::settings(&root);
    let sessions = sessions::sessions(&root);
    let directory = tenants::directory(&root);
    let files: Vec<_> = directory.iter().map(|file| (file, cx.within(file.scope, || parse(cx, file.document.as_ref()?)))).collect();
    let checks = settings.server.listeners.iter().any(|listener| listener.forward_auth.is_some());
    let settled = tenants::tenants(&root, &files, &presets, before, &tenants::Beside { upstreams: &read.names, checks });
    root.finish();
    let Settled { tenants, refused } = settled?;
    // A wrong clock denies every request by itself; it is no reason not to load.
    let loaded_at = clock::read().unwrap_or(UnixTime::from_millis(0));
    Some((Snapshot { generation, loaded_at, tenants, upstreams: read.upstreams?, sessions, settings }, refused))
}

/// Parses a document. Keys that stand twice are reported and the rest is read all the same; after any other error nothing
/// is, since what follows would be guesses.
fn parse<'d>(cx: &Context<'_>, document: &'d Rc<Document>) -> Option<Spanned<DeTable<'d>>> {
    let (table, errors) = DeTable::parse_recoverable(&document.text);
    let mut readable = true;
    for error in errors {
        let site = Site { document: Rc::clone(document), span: error.span().unwrap_or(0..0) };
        let diagnostic = if error.message().starts_with("duplicate key") {
            Diagnostic::new(Code::DuplicateKey, site, "this key stands twice")
                .help("keep one of them; [table]s are written once, [[lists]] once per entry")
        } else {
            readable = false;
            Diagnostic::new(Code::Syntax, site, format!("not TOML: {}", error.message())).help("see https://toml.io/en/v1.1.0")
        };
        cx.report(diagnostic);
    }
    readable.then_some(table)
}
