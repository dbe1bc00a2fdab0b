//! `doorward preset list|show`: the presets as they are compiled in. Decides nothing.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::config::preset::{PRESETS, text};

/// List the presets, or print one.
///
/// A preset is a vendor's conventions as data, in the same keys as a tenant's table. A tenant that names one starts from
/// it; what the tenant writes itself wins, key by key.
#[derive(Args, Debug)]
pub struct Preset {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do with presets.
#[derive(Subcommand, Debug)]
pub enum Action {
    /// Name every preset, with the vendor it follows.
    List,
    /// Print a preset: where its clients put things and what it accepts.
    Show {
        /// Its name, such as halo.
        name: String,
    },
}

impl Preset {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        match self.action {
            Action::List => print(&list()),
            Action::Show { name } => match text(&name) {
                Some(text) => print(text),
                None => {
                    drop(writeln!(io::stderr().lock(), "error: no preset \"{name}\"; there are:\n{}", list().trim_end()));
                    ExitCode::from(2)
                }
            },
        }
    }
}

/// One line a preset: its name, and the first line of its text.
pub fn list() -> String {
    let first = |text: &'static str| text.lines().next().unwrap_or_default().trim_start_matches(['#', ' ']);
    PRESETS.iter().map(|(name, text)| format!("{name:<20}{}\n", first(text))).collect()
}

fn print(text: &str) -> ExitCode {
    // A reader that closed the pipe has seen enough.
    drop(io::stdout().lock().write_all(text.as_bytes()));
    ExitCode::SUCCESS
}
