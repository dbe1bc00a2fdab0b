//! What one load gathers while it reads: problems, files to watch, keys that exist, and every piece of key material with
//! its purpose, so that none serves two (`threats` 41).

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::diagnostic::{Code, Diagnostic, Document, Severity, Site};
use super::{KeyInUse, UsageOf};
use crate::secret::KeyBytes;

/// One load.
pub(super) struct Context<'u> {
    /// Relative paths start here: the main file's directory.
    base: PathBuf,
    /// Counters of secrets that stay.
    pub(super) usage: UsageOf<'u>,
    problems: RefCell<Vec<Diagnostic>>,
    files: RefCell<BTreeSet<PathBuf>>,
    known: RefCell<BTreeSet<String>>,
    materials: RefCell<HashMap<KeyBytes, (String, Site, Sharing)>>,
    in_use: RefCell<Vec<KeyInUse>>,
}

/// Whether a second owner of the same material is safe.
#[derive(Clone, Debug)]
pub(super) enum Sharing {
    /// Never: whoever holds it can sign.
    Secret,
    /// A public key of this tenant, for tokens with one of these audiences: an issuer may serve two tenants only where its
    /// tokens say for which (`threats` 13).
    Public { tenant: String, audiences: Vec<String> },
}

impl Sharing {
    fn allows(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Public { tenant: a, audiences: mine }, Self::Public { tenant: b, audiences: theirs }) => {
                a != b && !mine.is_empty() && !theirs.is_empty() && !mine.iter().any(|audience| theirs.contains(audience))
            }
            _ => false,
        }
    }
}

impl<'u> Context<'u> {
    pub(super) fn new(main: &Path, usage: UsageOf<'u>) -> Self {
        Self {
            base: main.parent().unwrap_or(Path::new("")).to_owned(),
            usage,
            problems: RefCell::default(),
            files: RefCell::default(),
            known: RefCell::default(),
            materials: RefCell::default(),
            in_use: RefCell::default(),
        }
    }

    /// Records a problem.
    pub(super) fn report(&self, diagnostic: Diagnostic) {
        self.problems.borrow_mut().push(diagnostic);
    }

    /// Records that a key exists.
    pub(super) fn known(&self, path: &str) {
        let mut known = self.known.borrow_mut();
        if !known.contains(path) {
            known.insert(path.to_owned());
        }
    }

    /// A path of the configuration, seen from the main file, to be watched.
    pub(super) fn file(&self, written: &str) -> PathBuf {
        let path = self.base.join(written);
        self.watch(&path);
        path
    }

    /// Records a file or directory that the configuration is made of.
    pub(super) fn watch(&self, path: &Path) {
        self.files.borrow_mut().insert(path.to_owned());
    }

    /// Reads a text file, or says why not, pointing at where it is named.
    pub(super) fn text(&self, path: &Path, named_at: Site) -> Option<String> {
        self.watch(path);
        match std::fs::read(path).map_err(|e| e.to_string()).and_then(|b| String::from_utf8(b).map_err(|_| "not UTF-8".to_owned())) {
            Ok(text) => Some(text),
            Err(why) => {
                let title = format!("cannot read {}: {why}", path.display());
                let help = if named_at.document.is_read {
                    "relative paths start at the configuration file's directory; the process needs read permission"
                } else {
                    "give the configuration file with -c; conf/doorward.toml is one with every key explained"
                };
                self.report(Diagnostic::new(Code::Unreadable, named_at, title).help(help));
                None
            }
        }
    }

    /// Claims key material for one purpose.
    pub(super) fn claim(&self, owner: String, key: &KeyBytes, site: Site, sharing: Sharing) {
        let mut materials = self.materials.borrow_mut();
        if let Some((other, first, theirs)) = materials.get(key) {
            if !sharing.allows(theirs) {
                let title = format!("{owner} is the same key material as {other}");
                let help = match sharing {
                    Sharing::Secret => "one key, one purpose: make another with doorward secret new",
                    Sharing::Public { .. } => "tenants may share an issuer's key only where each lists its own claims.audiences",
                };
                self.report(Diagnostic::new(Code::SecretReused, site, title).beside(first.clone(), "first used here").help(help));
            }
            return;
        }
        materials.insert(key.clone(), (owner, site, sharing));
    }

    /// Records key material for the summary.
    pub(super) fn uses(&self, key: KeyInUse) {
        self.in_use.borrow_mut().push(key);
    }

    /// How many errors were recorded so far.
    pub(super) fn errors(&self) -> usize {
        self.problems.borrow().iter().filter(|d| d.code.severity() == Severity::Error).count()
    }

    /// What was gathered: problems in file order, files, key names, material.
    pub(super) fn into_parts(self) -> (Vec<Diagnostic>, Vec<PathBuf>, BTreeSet<String>, Vec<KeyInUse>) {
        let mut problems = self.problems.into_inner();
        problems.sort_by_cached_key(Diagnostic::sort_key);
        // Some keys are looked at twice.
        problems.dedup_by_key(|d| d.sort_key());
        (problems, self.files.into_inner().into_iter().collect(), self.known.into_inner(), self.in_use.into_inner())
    }
}

/// A document's first byte: where problems of the whole are shown.
pub(super) fn start_of(document: &Rc<Document>) -> Site {
    Site { document: Rc::clone(document), span: 0..0 }
}
