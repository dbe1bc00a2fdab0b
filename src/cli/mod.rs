//! The command line: one file per subcommand. Exit codes: 0, 1 for a runtime failure, 2 for bad configuration or usage.

pub mod demo;
pub mod explain;
pub mod log;
pub mod run;
