//! The command line: one file per subcommand. Each takes its arguments, prints, and returns an exit code: 0 for success, 1
//! for what failed while running, 2 for bad configuration or usage.

pub mod check;
pub mod demo;
pub mod embed_key;
pub mod explain;
pub mod health;
pub mod key;
pub mod log;
pub mod preset;
pub mod run;
pub mod secret;
pub mod token;
