//! The page's script: its rules against a gateway in memory (Node), and what a real browser makes of it with the real binary.
//! The tests themselves are in tests/browser; `cargo test --test browser` installs what they need under target/browser. The
//! browser is the system's: `sh .ci/deps test`, or CHROMIUM=/path.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // in a test a panic is the answer

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

fn here() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser"))
}

fn install() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let status = Command::new("sh").arg(here().join("install.sh")).status().expect("a shell");
        assert!(status.success(), "tests/browser/install.sh failed: {status}");
    });
}

/// Runs the test files of a directory, and fails with all that Node said.
fn run(directory: &str) {
    install();
    let mut files: Vec<_> = std::fs::read_dir(here().join(directory)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_string_lossy().ends_with(".test.mjs"));
    files.sort();
    assert!(!files.is_empty(), "no tests in {directory}");
    let output = Command::new("node")
        .arg("--test")
        .args(&files)
        .env("DOORWARD", env!("CARGO_BIN_EXE_doorward"))
        .stdin(Stdio::null())
        .output()
        .expect("node is installed: sh .ci/deps test");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("# fail 0") && !said.contains("# pass 0"), "{said}");
}

#[test]
fn rules_of_the_script() {
    run("unit");
}

#[test]
fn in_a_real_browser() {
    run("suite");
}
