//! Bytes to [`Snapshot`], or every problem with file, line, column, caret and hint.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::snapshot::Snapshot;
use crate::token::keys::KeyUsage;

/// A configuration that loaded.
#[derive(Debug)]
pub struct Loaded {
    /// What to put in force.
    pub snapshot: Snapshot,
    /// What an operator should know, rendered.
    pub warnings: Vec<String>,
    /// Every file that it was made of, secrets and tenant directories included: what to watch.
    pub files: Vec<PathBuf>,
}

/// Every problem of a configuration, rendered for a terminal.
#[derive(Debug)]
pub struct Problems {
    /// Rendered diagnostics, in file order.
    pub rendered: Vec<String>,
    /// Files that could be read all the same: what to watch for the repair.
    pub files: Vec<PathBuf>,
}

/// Where a reload finds the usage counters of secrets that stay: by tenant id and secret id.
pub type UsageOf<'u> = &'u dyn Fn(&str, &str) -> Arc<KeyUsage>;

/// Loads a configuration file and everything it names.
///
/// # Errors
/// Every problem found, never just the first.
pub fn load(_path: &Path, _generation: u64, _usage: UsageOf<'_>) -> Result<Loaded, Problems> {
    Err(Problems { rendered: Vec::new(), files: Vec::new() })
}
