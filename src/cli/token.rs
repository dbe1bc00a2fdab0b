//! `doorward token mint|explain`: identity tokens by hand, offline. `mint` signs as a host's backend would, for tests and
//! demonstrations; `explain` says what a token is and why it fails. Neither prints a secret.

mod explain;
mod mint;

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use jsonwebtoken::Algorithm;

use super::secret::fail;
use crate::clock;
use crate::token::FormatName;

/// Make identity tokens and find out why one fails, offline
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    Mint(mint::Mint),
    Explain(Box<explain::Explain>),
}

/// `format` as in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    Hmac,
    KartaV2,
    Jwt,
}

impl TokenArgs {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        let Ok(now) = clock::read() else { return fail("the clock shows a time before 2020") };
        match self.command {
            TokenCommand::Mint(mint) => mint.run(now),
            TokenCommand::Explain(explain) => explain.run(now),
        }
    }
}

impl FormatArg {
    fn name(self) -> FormatName {
        match self {
            Self::Hmac => FormatName::Hmac,
            Self::KartaV2 => FormatName::KartaV2,
            Self::Jwt => FormatName::Jwt,
        }
    }
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    const ACCEPTED: [&str; 6] = ["HS256", "HS384", "HS512", "RS256", "ES256", "EdDSA"];
    let parsed = ACCEPTED.contains(&text).then(|| text.parse().ok()).flatten();
    parsed.ok_or_else(|| format!("expected one of {}", ACCEPTED.join(", ")))
}

fn signed_duration(text: &str) -> Result<jiff::SignedDuration, String> {
    text.parse().map_err(|_| "expected a time such as 30s, 5m or 1h".to_owned())
}
