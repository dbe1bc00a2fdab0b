//! What each file held when the configuration was made of it: how [`crate::reload`] knows that one has changed since, even
//! between being read and being watched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// Every file that a load was made of, secrets and tenant directories included.
pub type Files = BTreeMap<PathBuf, Held>;

/// What a file holds, as one value; a directory stands for its listing, an unreadable file for why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held([u8; 32]);

impl Held {
    /// What it holds now.
    pub fn now(path: &Path) -> Self {
        Self(match contents(path) {
            Ok(bytes) => Sha256::digest(&bytes).into(),
            Err(error) => Sha256::digest(format!("{:?}", error.kind())).into(),
        })
    }
}

/// What the same files hold now.
pub fn again(files: &Files) -> Files {
    files.keys().map(|path| (path.clone(), Held::now(path))).collect()
}

fn contents(path: &Path) -> std::io::Result<Vec<u8>> {
    if !path.is_dir() {
        return std::fs::read(path);
    }
    let mut names = std::fs::read_dir(path)?.map(|e| e.map(|e| e.file_name())).collect::<Result<Vec<_>, _>>()?;
    names.sort();
    Ok(names.iter().flat_map(|n| n.as_encoded_bytes().iter().copied().chain([0])).collect())
}
