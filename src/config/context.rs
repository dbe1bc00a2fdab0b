//! What one load gathers while it reads: problems, files to watch, keys that exist, and every claim to something that may
//! stand once. Each is noted with the file that was being read (its *scope*): on reload, a tenant file's problems are its own.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::diagnostic::{Code, Diagnostic, Document, Severity, Site};
use super::known::Key;
use super::once::{Claim, Sharing, Thing};
use super::watched::{Files, Held};
use super::{KeyInUse, UsageOf};
use crate::secret::KeyBytes;

/// The scope of the main file. A tenant file's is its place in the directory, from 1: the order of its [`Document`].
pub(super) const MAIN: usize = 0;

/// One load.
pub(super) struct Context<'u> {
    /// Relative paths start here: the main file's directory.
    base: PathBuf,
    /// Counters of secrets that stay.
    pub(super) usage: UsageOf<'u>,
    scope: Cell<usize>,
    problems: RefCell<Vec<(usize, Diagnostic)>>,
    files: RefCell<Files>,
    known: RefCell<BTreeMap<String, Key>>,
    claims: RefCell<Vec<Claim>>,
    in_use: RefCell<Vec<(usize, KeyInUse)>>,
}

/// What a load gathered.
pub(super) struct Gathered {
    /// In file order, each with its scope.
    pub(super) problems: Vec<(usize, Diagnostic)>,
    pub(super) files: Files,
    pub(super) known: BTreeMap<String, Key>,
    /// In reading order, each with its scope.
    pub(super) in_use: Vec<(usize, KeyInUse)>,
}

impl<'u> Context<'u> {
    pub(super) fn new(main: &Path, usage: UsageOf<'u>) -> Self {
        Self {
            base: main.parent().unwrap_or(Path::new("")).to_owned(),
            usage,
            scope: Cell::new(MAIN),
            problems: RefCell::default(),
            files: RefCell::default(),
            known: RefCell::default(),
            claims: RefCell::default(),
            in_use: RefCell::default(),
        }
    }

    /// Notes whatever `read` finds under a tenant file's scope.
    pub(super) fn within<T>(&self, scope: usize, read: impl FnOnce() -> T) -> T {
        let outer = self.scope.replace(scope);
        let found = read();
        self.scope.set(outer);
        found
    }

    /// Records a problem.
    pub(super) fn report(&self, diagnostic: Diagnostic) {
        self.problems.borrow_mut().push((self.scope.get(), diagnostic));
    }

    /// Records that a key exists, and what it takes.
    pub(super) fn known(&self, path: &str, key: Key) {
        let mut known = self.known.borrow_mut();
        match known.get_mut(path) {
            Some(before) => before.learn(key),
            None => {
                known.insert(path.to_owned(), key);
            }
        }
    }

    /// A path of the configuration, seen from the main file.
    pub(super) fn path(&self, written: &str) -> PathBuf {
        self.base.join(written)
    }

    /// The same, to be watched.
    pub(super) fn file(&self, written: &str) -> PathBuf {
        let path = self.path(written);
        self.watch(&path);
        path
    }

    /// Records a file or directory that the configuration is made of, and what it holds: before it is read, so that a change
    /// in between is seen as one.
    fn watch(&self, path: &Path) {
        let mut files = self.files.borrow_mut();
        if !files.contains_key(path) {
            files.insert(path.to_owned(), Held::now(path));
        }
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
        self.claim_thing(Thing::Material(key.fingerprint()), owner, site, sharing);
    }

    /// Claims something that may stand once.
    pub(super) fn claim_thing(&self, thing: Thing, owner: String, site: Site, sharing: Sharing) {
        self.claims.borrow_mut().push(Claim { thing, owner, sharing, scope: self.scope.get(), site: Some(site) });
    }

    /// Every claim so far, in reading order.
    pub(super) fn claims(&self) -> Vec<Claim> {
        self.claims.borrow().clone()
    }

    /// Records key material for the summary.
    pub(super) fn uses(&self, key: KeyInUse) {
        self.in_use.borrow_mut().push((self.scope.get(), key));
    }

    /// How many errors were recorded so far.
    pub(super) fn errors(&self) -> usize {
        self.problems.borrow().iter().filter(|(_, d)| d.code.severity() == Severity::Error).count()
    }

    /// The scopes that have errors.
    pub(super) fn broken(&self) -> BTreeSet<usize> {
        let problems = self.problems.borrow();
        problems.iter().filter(|(_, d)| d.code.severity() == Severity::Error).map(|(scope, _)| *scope).collect()
    }

    /// What was gathered.
    pub(super) fn into_gathered(self) -> Gathered {
        let mut problems = self.problems.into_inner();
        problems.sort_by_cached_key(|(_, d)| d.sort_key());
        // Some keys are looked at twice.
        problems.dedup_by_key(|(_, d)| d.sort_key());
        Gathered { problems, files: self.files.into_inner(), known: self.known.into_inner(), in_use: self.in_use.into_inner() }
    }
}

/// A document's first byte: where problems of the whole are shown.
pub(super) fn start_of(document: &Rc<Document>) -> Site {
    Site { document: Rc::clone(document), span: 0..0 }
}
