//! `doorward embed-key new`: a publishable key in a vendor's spelling. It names a tenant and proves nothing.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};

use super::secret::{fail, print, random};

/// Make embed keys, the publishable keys that stand in a page's HTML
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct EmbedKeyArgs {
    #[command(subcommand)]
    command: EmbedKeyCommand,
}

#[derive(Debug, Subcommand)]
enum EmbedKeyCommand {
    New(NewEmbedKey),
}

/// Print a new embed key
///
/// An embed key is no secret: everybody who opens the page has it. It says which tenant is meant; the page's origin and the
/// user's identity token are judged separately.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  doorward embed-key new                    pk_…
  doorward embed-key new --preset karta     pk_live_…
  doorward embed-key new --preset halo      ab_live_…

Put it into the configuration as embed_keys = [\"…\"], and into the page.")]
struct NewEmbedKey {
    /// Whose spelling
    #[arg(long, value_enum, default_value_t = Vendor::None)]
    preset: Vendor,
}

/// Presets whose clients expect a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Vendor {
    Karta,
    AgenticTrustHmac,
    AgenticTrustJwt,
    Halo,
    Widgent,
    None,
}

impl Vendor {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Karta => "pk_live_",
            Self::AgenticTrustHmac | Self::AgenticTrustJwt => "lum_pk_",
            Self::Halo => "ab_live_",
            Self::Widgent | Self::None => "pk_",
        }
    }
}

impl EmbedKeyArgs {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        let EmbedKeyCommand::New(new) = self.command;
        match new.make() {
            Ok(key) => print(&key, ""),
            Err(why) => fail(&why),
        }
    }
}

impl NewEmbedKey {
    fn make(&self) -> Result<String, String> {
        // 120 bits: nobody guesses one, and it cannot be taken for a 64-digit token.
        Ok(format!("{}{}", self.preset.prefix(), hex::encode(random(15)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::embed_key::EmbedKey;

    #[test]
    fn every_preset_gets_keys_that_the_gateway_takes() {
        for preset in Vendor::value_variants() {
            let new = NewEmbedKey { preset: *preset };
            let (first, second) = (new.make().unwrap(), new.make().unwrap());
            assert_ne!(first, second);
            assert!(first.starts_with(preset.prefix()));
            assert!(EmbedKey::parse(&first).is_ok(), "{first}");
        }
    }
}
