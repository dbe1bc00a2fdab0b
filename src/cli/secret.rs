//! `doorward secret new`, and the arguments by which other commands name secrets. Prints new key material to standard output
//! and nothing else there; what to do with it goes to standard error.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use clap::{Args, Subcommand, ValueEnum};

use crate::secret::{self, KeyBytes, MIN_BYTES, Source};

/// Make secrets that a host's backend and the gateway share
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct SecretArgs {
    #[command(subcommand)]
    command: SecretCommand,
}

#[derive(Debug, Subcommand)]
enum SecretCommand {
    New(NewSecret),
}

/// Print a new random secret
///
/// The secret alone goes to standard output, without a newline unless that is a terminal, so it can be piped into a file or
/// a secret store; its fingerprint and the line for the configuration go to standard error.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  doorward secret new                              43 characters, used as they stand (encoding = \"text\")
  doorward secret new --encoding hex > acme.hex    64 hex digits; declare encoding = \"hex\"
  doorward secret new | kubectl create secret generic acme --from-file=identity=/dev/stdin

Use a secret for one thing only: one tenant, one token format. The same material twice in a configuration is refused.")]
struct NewSecret {
    /// How many random bytes
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(MIN_BYTES as i64..=1024))]
    bytes: u16,
    /// How to write them: text is used as it stands, hex and base64 are decoded first
    #[arg(long, value_enum, default_value_t = EncodingArg::Text)]
    encoding: EncodingArg,
}

/// `encoding` as in the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum EncodingArg {
    /// The text's own bytes.
    #[default]
    Text,
    /// Two hex digits a byte.
    Hex,
    /// base64 or base64url, padded or not.
    Base64,
}

impl EncodingArg {
    /// As the library names it.
    pub fn encoding(self) -> secret::Encoding {
        match self {
            Self::Text => secret::Encoding::Text,
            Self::Hex => secret::Encoding::Hex,
            Self::Base64 => secret::Encoding::Base64,
        }
    }
}

/// Where secrets come from. Never a command-line value: process lists and shell histories keep those.
#[derive(Debug, Args)]
pub struct SecretSources {
    /// Environment variable that holds the secret
    #[arg(long, value_name = "NAME")]
    secret_env: Vec<String>,
    /// File that holds the secret; one newline at its end is not part of it
    #[arg(long, value_name = "FILE")]
    secret_file: Vec<PathBuf>,
    /// How the secret's text stands for bytes
    #[arg(long, value_enum, default_value_t = EncodingArg::Text)]
    pub encoding: EncodingArg,
}

impl SecretSources {
    /// The sources, variables before files, each in the order given.
    pub fn sources(&self) -> Vec<Source> {
        let variables = self.secret_env.iter().cloned().map(Source::Env);
        variables.chain(self.secret_file.iter().cloned().map(Source::File)).collect()
    }
}

impl SecretArgs {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        let SecretCommand::New(new) = self.command;
        match new.make() {
            Ok((text, note)) => print_secret(&text, &note),
            Err(why) => fail(&why),
        }
    }
}

impl NewSecret {
    /// The secret's text, and what to do with it.
    fn make(&self) -> Result<(String, String), String> {
        let bytes = random(usize::from(self.bytes))?;
        let text = match self.encoding {
            EncodingArg::Text => URL_SAFE_NO_PAD.encode(&bytes), // printable; its own characters are the key
            EncodingArg::Hex => hex::encode(&bytes),
            EncodingArg::Base64 => STANDARD.encode(&bytes),
        };
        let key = secret::decode(text.as_bytes(), self.encoding.encoding()).map_err(|why| why.to_string())?;
        let encoding = match self.encoding {
            EncodingArg::Text => "",
            EncodingArg::Hex => ", encoding = \"hex\"",
            EncodingArg::Base64 => ", encoding = \"base64\"",
        };
        let note = format!(
            "fingerprint {}\nkeep it in a variable or file and name that in the configuration:\n  secrets = [{{ id = \"s1\", env = \"IDENTITY_SECRET\"{encoding} }}]\n",
            KeyBytes::new(key).fingerprint()
        );
        Ok((text, note))
    }
}

/// Random bytes from the operating system.
pub(super) fn random(count: usize) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; count];
    getrandom::fill(&mut bytes).map_err(|why| format!("the system has no random numbers: {why}"))?;
    Ok(bytes)
}

/// Prints a result to standard output and a note to standard error. A closed pipe is the reader's business.
pub(super) fn print(result: &str, note: &str) -> ExitCode {
    let _ = write!(std::io::stderr(), "{note}");
    if result.is_empty() {
        return ExitCode::SUCCESS;
    }
    match writeln!(std::io::stdout(), "{}", result.trim_end_matches('\n')) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The same for a secret. In a file or a pipe it stands alone: a newline would be part of it for some readers and not for
/// others. A terminal gets one, for the prompt that follows.
pub(super) fn print_secret(secret: &str, note: &str) -> ExitCode {
    let _ = write!(std::io::stderr(), "{note}");
    let mut out = std::io::stdout();
    let end = if out.is_terminal() { "\n" } else { "" };
    match write!(out, "{secret}{end}").and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Says what failed while running.
pub(super) fn fail(why: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {why}");
    ExitCode::FAILURE
}

/// Says what was asked for wrongly.
pub(super) fn misuse(why: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {why}");
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_secrets_decode_to_good_keys_and_never_repeat() {
        for encoding in [EncodingArg::Text, EncodingArg::Hex, EncodingArg::Base64] {
            let new = NewSecret { bytes: 32, encoding };
            let ((first, note), (second, _)) = (new.make().unwrap(), new.make().unwrap());
            assert_ne!(first, second);
            assert!(!note.contains(&first));
            let key = secret::decode(first.as_bytes(), encoding.encoding()).unwrap();
            assert!(key.len() >= secret::GOOD_BYTES, "{first}");
            assert!(note.contains(&KeyBytes::new(key).fingerprint().to_string()));
        }
    }
}
