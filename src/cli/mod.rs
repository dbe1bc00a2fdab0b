//! The command line: one file per subcommand. Each takes its arguments, prints, and returns an exit code: 0 for success, 1
//! for what failed while running, 2 for wrong usage or configuration.

pub mod embed_key;
pub mod key;
pub mod secret;
pub mod token;
