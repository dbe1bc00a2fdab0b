//! Subcommands: one file each, with its arguments and `run(self) -> ExitCode`.

pub mod check;
pub mod preset;
