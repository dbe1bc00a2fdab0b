//! Fixtures: configurations under `tests/fixtures/`, loaded by the program's own loader, with keys of their first tenant
//! changed where a case asks for it (`with audience = "users"`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use doorward::snapshot::Snapshot;

use crate::files;

type Loaded = Result<Arc<Snapshot>, String>;
/// One lock per configuration: loading reads secret files until they are stable, and cases run in parallel.
type Cache = Mutex<HashMap<(String, Vec<String>), Arc<OnceLock<Loaded>>>>;

/// Loads `tests/fixtures/NAME/doorward.toml` with `changes` (lines of TOML) merged into its first tenant.
pub(crate) fn load(name: &str, changes: &[String]) -> Loaded {
    static CACHE: OnceLock<Cache> = OnceLock::new();
    let slot = {
        let mut cache = CACHE.get_or_init(Cache::default).lock().unwrap();
        Arc::clone(cache.entry((name.to_owned(), changes.to_vec())).or_default())
    };
    slot.get_or_init(|| {
        let original = files::root().join("tests/fixtures").join(name).join("doorward.toml");
        let path = if changes.is_empty() { original } else { changed(name, &original, changes)? };
        let loaded = doorward::config::load(&path, 1, &|_, _| Arc::default());
        loaded.map(|l| Arc::new(l.snapshot)).map_err(|p| format!("fixture {name} {changes:?}:\n{}", p.rendered.join("\n")))
    })
    .clone()
}

/// A secret of `tests/fixtures/secrets/`, as the loader reads it. `NAME@hex` and `NAME@base64` are decoded.
pub(crate) fn secret(name: &str) -> Result<Vec<u8>, String> {
    let (file, encoding) = name.split_once('@').unwrap_or((name, "text"));
    let path = files::root().join("tests/fixtures/secrets").join(file);
    let mut bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    if bytes.ends_with(b"\n") {
        bytes.pop();
    }
    let encoding = match encoding {
        "text" => doorward::secret::Encoding::Text,
        "hex" => doorward::secret::Encoding::Hex,
        "base64" => doorward::secret::Encoding::Base64,
        other => return Err(format!("no encoding {other}")),
    };
    doorward::secret::decode(&bytes, encoding).map_err(|e| format!("{name}: {e:?}"))
}

/// Writes the changed configuration where its `../secrets/…` still lead to the secrets.
fn changed(name: &str, original: &Path, changes: &[String]) -> Result<PathBuf, String> {
    let mut config: toml::Table =
        std::fs::read_to_string(original).map_err(|e| e.to_string())?.parse().map_err(|e| format!("{name}: {e}"))?;
    let tenant = config.get_mut("tenant").and_then(|t| t.get_mut(0)).and_then(toml::Value::as_table_mut).ok_or("no [[tenant]]")?;
    for change in changes {
        let change: toml::Table = change.parse().map_err(|e| format!("with {change}: {e}"))?;
        merge(tenant, change);
    }
    let path = folder()?.join("doorward.toml");
    std::fs::write(&path, toml::to_string(&config).map_err(|e| e.to_string())?).map_err(|e| e.to_string())?;
    Ok(path)
}

/// A new folder in which `../secrets/…` leads to the secrets.
pub(crate) fn folder() -> Result<PathBuf, String> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let folder = scratch().join(NEXT.fetch_add(1, Ordering::Relaxed).to_string());
    std::fs::create_dir_all(&folder).map_err(|e| e.to_string())?;
    Ok(folder)
}

fn merge(into: &mut toml::Table, change: toml::Table) {
    for (key, value) in change {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(value)) => merge(inner, value),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

static SCRATCH: OnceLock<PathBuf> = OnceLock::new();

/// Removes what this process wrote.
pub(crate) fn clean() {
    if let Some(folder) = SCRATCH.get() {
        let _ = std::fs::remove_dir_all(folder);
    }
}

/// A folder of this process, with a copy of the secrets in it.
fn scratch() -> &'static Path {
    SCRATCH.get_or_init(|| {
        let top = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("spec-{}", std::process::id()));
        std::fs::create_dir_all(top.join("secrets")).unwrap();
        for entry in std::fs::read_dir(files::root().join("tests/fixtures/secrets")).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), top.join("secrets").join(entry.file_name())).unwrap();
        }
        top
    })
}
