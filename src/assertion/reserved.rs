//! Names that no client may set on a request and no upstream on an answer, compared after folding every character that
//! some backend folds. Says nothing about who is talking. Called when an assertion is applied, and on every answer.

use std::collections::{BTreeSet, HashSet};

use http::{HeaderMap, HeaderName};

use crate::reason::{Denied, Reason};

/// Removed by default beside the reserved namespace: they make backends run another handler or believe another user.
pub const REMOVED: [&str; 10] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
    "remote-user",
    "x-forwarded-user",
    "signature",
    "signature-input",
    "accept-signature",
];

/// Prefixes that are ours (or, for `x-auth-request`, some other proxy's word about identity).
const PREFIXES: [&str; 3] = ["xidentity", "xdoorward", "xauthrequest"];

/// The reserved names of one configuration.
#[derive(Clone, Debug)]
pub struct Reserved {
    folded: HashSet<String>,
    /// What folded names and prefixes begin with: most names of a request need no more than this look.
    first: Vec<u8>,
}

impl Reserved {
    /// The built-in names and these.
    pub fn new<'n>(more: impl IntoIterator<Item = &'n HeaderName>) -> Self {
        let built_in = REMOVED.iter().map(|name| fold(name));
        let folded: HashSet<_> = built_in.chain(more.into_iter().map(|name| fold(name.as_str()))).collect();
        let all = folded.iter().map(String::as_str).chain(PREFIXES);
        let first: BTreeSet<_> = all.filter_map(|name| name.bytes().next()).collect();
        Self { folded, first: first.into_iter().collect() }
    }

    /// Whether a name, in any spelling, is reserved.
    pub fn contains(&self, name: &HeaderName) -> bool {
        self.may_contain(name) && self.contains_folded(&fold(name.as_str()))
    }

    fn may_contain(&self, name: &HeaderName) -> bool {
        let first = name.as_str().bytes().find(u8::is_ascii_alphanumeric);
        first.is_some_and(|first| self.first.contains(&first.to_ascii_lowercase()))
    }

    fn contains_folded(&self, folded: &str) -> bool {
        PREFIXES.iter().any(|prefix| folded.starts_with(prefix)) || self.folded.contains(folded)
    }

    /// Refuses a request that has one: for where it cannot be removed.
    ///
    /// # Errors
    /// `forward_auth_reserved`.
    pub fn refuse<'n>(&self, mut names: impl Iterator<Item = &'n HeaderName>) -> Result<(), Denied> {
        match names.find(|name| self.contains(name)) {
            Some(name) => Err(Denied::new(Reason::ForwardAuthReserved, format!("{name} came through the ingress"))),
            None => Ok(()),
        }
    }

    /// Removes every reserved name.
    pub fn strip(&self, from: &mut HeaderMap) {
        let found: Vec<_> = from.keys().filter(|name| self.contains(name)).cloned().collect();
        for name in found {
            from.remove(name);
        }
    }
}

/// Whether a name, in any spelling, belongs to the namespace that says who is talking.
pub fn is_identity(name: &HeaderName) -> bool {
    let folded = fold(name.as_str());
    folded.starts_with("xidentity") || folded.starts_with("xdoorward")
}

/// Whether a backend that folds separators reads these two as one name.
pub fn is_same(one: &HeaderName, other: &HeaderName) -> bool {
    folding(one.as_str()).eq(folding(other.as_str()))
}

/// Letters and digits only: what is left when a backend maps every separator to one character (`threats` 1).
fn fold(name: &str) -> String {
    folding(name).collect()
}

fn folding(name: &str) -> impl Iterator<Item = char> {
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase())
}
