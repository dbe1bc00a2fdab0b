//! The specification as tests, without sockets: every case file, the decision matrix, properties of parsers, the shape of the
//! source tree, and the manual against the code. `UPDATE_CASES=1` rewrites what is derived (never the matrix).
//! `cargo test --test spec -- threats/07` runs what matches.

// A test says what it expects by stopping where it is not so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::string_slice)]

mod again;
mod architecture;
mod case;
mod commands;
mod exchange;
mod files;
mod fixture;
mod fuzz;
mod manual;
mod matrix;
mod property;
mod reasons;
mod tokens;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    trials.extend(case::trials());
    trials.extend(again::trials());
    trials.extend(matrix::trials());
    trials.extend(reasons::trials());
    trials.extend(property::trials());
    trials.extend(fuzz::trials());
    trials.extend(architecture::trials());
    trials.extend(manual::trials());
    trials.extend(commands::trials());
    let conclusion = libtest_mimic::run(&arguments, trials);
    fixture::clean();
    conclusion.exit_code()
}

/// A test that fails by returning a message, or by panicking.
fn trial(name: impl Into<String>, test: impl FnOnce() -> Result<(), String> + Send + 'static) -> Trial {
    Trial::test(name, move || test().map_err(Into::into))
}

/// Whether derived expectations are to be rewritten instead of compared.
fn updating() -> bool {
    std::env::var_os("UPDATE_CASES").is_some_and(|v| v == "1")
}
