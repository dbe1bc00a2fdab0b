//! Bytes to [`Snapshot`], or every problem with file, line, column, caret and hint. The same load runs at start, on reload
//! and as `doorward check`. It reads files and the environment, never the network; it never panics, whatever the bytes.
//!
//! [`load`] parses TOML with places ([`diagnostic`] points at them), reads every key by its own type (`table`, `field`),
//! lays tenants over their presets, and then looks at what must hold across keys: nothing is used twice, every rule can be
//! met. A new key is one line in the reader of its table, and one in `conf/doorward.toml`.

mod assertion;
mod context;
pub mod diagnostic;
mod field;
mod header;
mod identity_keys;
mod material;
mod places;
pub mod preset;
mod public_keys;
mod routes;
mod server;
mod sessions;
mod suggest;
mod table;
mod tenant;
mod tenants;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use toml::Spanned;
use toml::de::DeTable;

use crate::clock::{self, UnixTime};
use crate::secret::Fingerprint;
use crate::snapshot::Snapshot;
use crate::token::keys::KeyUsage;
use context::{Context, start_of};
use diagnostic::{Code, Diagnostic, Document, Look, Severity, Site, render};
use table::Table;

/// A configuration that loaded.
#[derive(Debug)]
pub struct Loaded {
    /// What to put in force.
    pub snapshot: Snapshot,
    /// What an operator should know, rendered.
    pub warnings: Vec<String>,
    /// Every file that it was made of, secrets and tenant directories included: what to watch.
    pub files: Vec<PathBuf>,
    /// Every key in use, by its fingerprint: what to log at start.
    pub keys: Vec<KeyInUse>,
    /// The path of every key that was asked for, such as `server.listen`: what the annotated example must show.
    pub known: BTreeSet<String>,
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

/// Every problem of a configuration, rendered for a terminal.
#[derive(Debug)]
pub struct Problems {
    /// Rendered diagnostics, in file order, warnings included.
    pub rendered: Vec<String>,
    /// How many of them are errors.
    pub errors: usize,
    /// Files that could be read all the same: what to watch for the repair.
    pub files: Vec<PathBuf>,
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
    let cx = Context::new(path, usage);
    let snapshot = snapshot(&cx, path, generation);
    let (problems, files, known, keys) = cx.into_parts();
    let rendered = |severity| {
        let those = problems.iter().filter(move |d| d.code.severity() == severity);
        those.map(|d| render(d, look)).collect::<Vec<_>>()
    };
    match snapshot {
        Some(snapshot) if problems.iter().all(|d| d.code.severity() == Severity::Warning) => {
            Ok(Loaded { snapshot, warnings: rendered(Severity::Warning), files, keys, known })
        }
        _ => {
            let errors = problems.iter().filter(|d| d.code.severity() == Severity::Error).count();
            Err(Problems { rendered: problems.iter().map(|d| render(d, look)).collect(), errors, files })
        }
    }
}

/// `None` only where a problem was recorded.
fn snapshot(cx: &Context<'_>, path: &Path, generation: u64) -> Option<Snapshot> {
    let text = cx.text(path, start_of(&Document::unread(path.display().to_string())))?;
    let document = Document::new(path.display().to_string(), text, 0);
    let parsed = parse(cx, &document)?;
    let presets = preset::parsed();
    let root = Table::root(cx, &document, parsed.get_ref(), "");
    let upstream = root.table("upstream");
    let signer = assertion::signer(&root, &upstream);
    let settings = server::settings(&root, &upstream);
    let sessions = sessions::sessions(&root);
    let directory = tenants::directory(&root);
    let files: Vec<_> = directory.iter().filter_map(|file| Some((file, parse(cx, file)?))).collect();
    let tenants = tenants::tenants(&root, &files, &presets);
    root.finish();
    // A wrong clock denies every request by itself; it is no reason not to load.
    let loaded_at = clock::read().unwrap_or(UnixTime::from_millis(0));
    Some(Snapshot { generation, loaded_at, tenants: tenants?, signer: signer?, sessions, settings })
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
