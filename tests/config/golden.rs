//! Every diagnostic as an operator sees it: `tests/config/NAME.toml` loads to what `NAME.stderr` says. `UPDATE_GOLDEN=1`
//! rewrites the expectations; a diagnostic without one fails.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use doorward::config::diagnostic::{Code, Severity};
use doorward::config::load;

const DIR: &str = "tests/config";

/// Files in the directory with this extension, by name.
fn files(extension: &str) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(DIR).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|e| e == extension)).collect()
}

fn said(path: &Path) -> String {
    let lines = match load(path, 1, &|_, _| Arc::default()) {
        Ok(loaded) => loaded.warnings,
        Err(problems) => problems.rendered,
    };
    lines.iter().map(|text| format!("{text}\n\n")).collect()
}

/// Set by whoever means to change the expectations.
fn updating() -> bool {
    #[allow(clippy::disallowed_methods)] // a switch of the test run, not of the program
    std::env::var("UPDATE_GOLDEN").is_ok()
}

#[test]
fn every_file_says_what_its_golden_says() {
    let mut wrong = Vec::new();
    for path in files("toml") {
        let said = said(&path);
        let golden = path.with_extension("stderr");
        if updating() {
            std::fs::write(&golden, &said).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != said {
            wrong.push(format!("{}:\n{said}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "UPDATE_GOLDEN=1 rewrites these:\n{}", wrong.join("\n"));
}

#[test]
fn every_golden_has_its_file() {
    let expected: BTreeSet<_> = files("toml").iter().map(|path| path.with_extension("stderr")).collect();
    assert_eq!(files("stderr"), expected);
}

#[test]
fn every_diagnostic_has_a_golden() {
    let all: String = files("stderr").iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let shown = |code: &Code| {
        let level = if code.severity() == Severity::Error { "error" } else { "warning" };
        all.contains(&format!("{level}[{}]", code.as_str()))
    };
    let missing: Vec<_> = Code::ALL.iter().filter(|code| !shown(code)).map(|code| code.as_str()).collect();
    assert!(missing.is_empty(), "no golden for {missing:?}");
}

#[test]
fn a_good_file_says_nothing() {
    assert_eq!(said(Path::new("tests/config/good.toml")), "");
}

#[test]
fn pasted_secrets_are_never_shown() {
    let said = said(Path::new("tests/config/secret_pasted.toml"));
    assert!(said.contains("****") && !said.contains("hunter2") && !said.contains("9d1c"), "{said}");
}

#[test]
fn two_loads_say_the_same() {
    for path in files("toml") {
        assert_eq!(said(&path), said(&path), "{}", path.display());
    }
}
