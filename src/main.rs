//! argv → command → exit code.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use doorward::cli;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A gateway that stands in front of an AI chat backend and enforces who is talking.
#[derive(Parser, Debug)]
#[command(version, arg_required_else_help = true, after_help = "Exit codes: 0, 1 for a runtime failure, 2 for bad configuration or usage.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Run(cli::run::Run),
    Check(cli::check::Check),
    Health(cli::health::Health),
    Demo(cli::demo::Demo),
    Token(cli::token::TokenArgs),
    Secret(cli::secret::SecretArgs),
    Key(cli::key::KeyArgs),
    EmbedKey(cli::embed_key::EmbedKeyArgs),
    Preset(cli::preset::Preset),
    Explain(cli::explain::Explain),
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    doorward::install_crypto();
    match Cli::parse().command {
        Command::Run(run) => run.run(),
        Command::Check(check) => check.run(),
        Command::Health(health) => health.run(),
        Command::Demo(demo) => demo.run(),
        Command::Token(token) => token.run(),
        Command::Secret(secret) => secret.run(),
        Command::Key(key) => key.run(),
        Command::EmbedKey(embed_key) => embed_key.run(),
        Command::Preset(preset) => preset.run(),
        Command::Explain(explain) => explain.run(),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "doorward", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
    }
}
