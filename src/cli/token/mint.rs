//! `doorward token mint`.

use std::process::ExitCode;

use clap::Args;
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde_json::{Map, Value, json};

use super::super::secret::{SecretSources, fail, misuse, print};
use super::{FormatArg, algorithm, signed_duration};
use crate::clock::UnixTime;
use crate::secret;
use crate::token::mint;

/// Print an identity token, signed as your own backend would sign it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  doorward token mint --format hmac --secret-env ACME_SECRET --subject user_123

  doorward token mint --format jwt --secret-env ACME_SECRET --subject user_123 \\
      --subject-claim user_id --claim email=ann@example.com --expires-in 5m

  doorward token mint --format karta-v2 --secret-file karta.secret --subject user_123 \\
      --stepped-up-now --aal mfa

Whoever holds the secret can be anybody: mint in tests and on your own machine, not in a page.")]
pub(super) struct Mint {
    /// What kind of token
    #[arg(long, value_enum)]
    format: FormatArg,
    #[command(flatten)]
    secrets: SecretSources,
    /// The user's id
    #[arg(long, value_name = "ID")]
    subject: String,
    /// The JWT claim that holds the id
    #[arg(long, value_name = "NAME", default_value = "sub")]
    subject_claim: String,
    /// A further JWT claim; the value is JSON where it reads as JSON, and text otherwise
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = named_value)]
    claims: Vec<(String, Value)>,
    /// How long a JWT is good for, such as 30s, 5m or 1h; negative makes an expired one, 'never' leaves exp out
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = expiry, allow_hyphen_values = true)]
    expires_in: Expiry,
    /// The JWT header's kid
    #[arg(long)]
    kid: Option<String>,
    /// The JWT's algorithm; --secret-file is a private key as PEM for RS256, ES256 and EdDSA
    #[arg(long, default_value = "HS256", value_parser = algorithm)]
    algorithm: Algorithm,
    /// Say that the user was authenticated anew just now (karta-v2: stepped_up_at, jwt: auth_time)
    #[arg(long)]
    stepped_up_now: bool,
    /// How strongly (karta-v2 and jwt: aal)
    #[arg(long)]
    aal: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expiry {
    /// Seconds from now.
    In(i64),
    Never,
}

impl Mint {
    /// Runs the command.
    pub(super) fn run(&self, now: UnixTime) -> ExitCode {
        if let Err(why) = self.misused() {
            return misuse(&why);
        }
        match self.token(now) {
            Ok(token) => print(&token, ""),
            Err(why) => fail(&why),
        }
    }

    /// Arguments that would be silently ignored are refused: the token would not be what was asked for.
    fn misused(&self) -> Result<(), String> {
        if self.secrets.sources().len() != 1 {
            return Err("name one secret with --secret-env or --secret-file".to_owned());
        }
        let is_jwt = self.format == FormatArg::Jwt;
        let jwt_only = !self.claims.is_empty() || self.kid.is_some() || self.algorithm != Algorithm::HS256;
        if !is_jwt && jwt_only {
            return Err("--claim, --kid and --algorithm are for --format jwt".to_owned());
        }
        if self.format == FormatArg::Hmac && (self.stepped_up_now || self.aal.is_some()) {
            return Err("a plain hmac token cannot show a step-up: use --format karta-v2 or jwt".to_owned());
        }
        if self.format == FormatArg::KartaV2 && !self.stepped_up_now {
            return Err("a karta-v2 token says when the user was authenticated anew: add --stepped-up-now".to_owned());
        }
        Ok(())
    }

    fn token(&self, now: UnixTime) -> Result<String, String> {
        let source = self.secrets.sources().into_iter().next().ok_or("no secret")?;
        if self.algorithm.family() != AlgorithmFamily::Hmac {
            let pem = secret::read(&source).map_err(|why| format!("{source} {why}"))?;
            return self.jwt(&pem, now);
        }
        let resolved = secret::resolve(&source, self.secrets.encoding.encoding()).map_err(|why| format!("{source} {why}"))?;
        let key = resolved.key.expose();
        match self.format {
            FormatArg::Hmac => Ok(mint::hmac(key, &self.subject)),
            FormatArg::KartaV2 => Ok(mint::karta_v2(key, &self.subject, now.secs(), self.aal.as_deref())),
            FormatArg::Jwt => self.jwt(key, now),
        }
    }

    fn jwt(&self, key: &[u8], now: UnixTime) -> Result<String, String> {
        let mut claims = Map::new();
        claims.insert(self.subject_claim.clone(), json!(self.subject));
        claims.insert("iat".to_owned(), json!(now.secs()));
        if let Expiry::In(secs) = self.expires_in {
            claims.insert("exp".to_owned(), json!(now.secs().saturating_add_signed(secs)));
        }
        if self.stepped_up_now {
            claims.insert("auth_time".to_owned(), json!(now.secs()));
        }
        claims.extend(self.aal.iter().map(|aal| ("aal".to_owned(), json!(aal))));
        claims.extend(self.claims.iter().cloned()); // last, so that a test can say any claim it wants
        mint::jwt(key, self.algorithm, self.kid.as_deref(), &Value::Object(claims)).map_err(|why| why.to_string())
    }
}

fn named_value(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| json!(value))))
}

fn expiry(text: &str) -> Result<Expiry, String> {
    if text == "never" {
        return Ok(Expiry::Never);
    }
    signed_duration(text).map(|duration| Expiry::In(duration.as_secs()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::super::token::{TokenArgs, TokenCommand};
    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        token: TokenArgs,
    }

    /// What a command line mints at 1750000000 with the vendors' test secret in a file.
    fn minted(line: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "test_secret_0123456789abcdef0123\n").unwrap();
        let words = ["token", "mint", "--secret-file", path.to_str().unwrap()].into_iter().chain(line.split(' '));
        let TokenCommand::Mint(mint) = Line::try_parse_from(words).map_err(|why| why.to_string())?.token.command else { panic!("mint") };
        mint.misused()?;
        mint.token(UnixTime::from_secs(1_750_000_000))
    }

    #[test]
    fn tokens_are_the_vendors_own() {
        assert_eq!(minted("--format hmac --subject user_123").unwrap(), "a5976e12891ea362e524c0357e3dd1ed9dfc60a0b5ab8ebee37a3467db004564");
        assert_eq!(
            minted("--format karta-v2 --subject user_123 --stepped-up-now --aal mfa").unwrap(),
            "v2.eyJ1c2VyX2lkIjoidXNlcl8xMjMiLCJzdGVwcGVkX3VwX2F0IjoxNzUwMDAwMDAwLCJhYWwiOiJtZmEifQ.51e421726cf99a3157e5e83b8d9c129f777fd2c4cb0f3a2577105f8c9f1ed614"
        );
    }

    #[test]
    fn jwt_claims_are_as_asked() {
        let token = minted("--format jwt --subject u1 --subject-claim user_id --kid k1 --claim role=admin --claim n=5 --claim zip=01 --expires-in -1m --stepped-up-now --aal mfa").unwrap();
        let claims = crate::token::explain::unproven_claims(&token).unwrap();
        let expected = json!({"user_id": "u1", "role": "admin", "n": 5, "zip": "01", "iat": 1_750_000_000, "exp": 1_749_999_940, "auth_time": 1_750_000_000, "aal": "mfa"});
        assert_eq!(Value::Object(claims), expected);
        let never = minted("--format jwt --subject u1 --expires-in never").unwrap();
        assert!(!crate::token::explain::unproven_claims(&never).unwrap().contains_key("exp"));
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        for line in [
            "--format hmac --subject u1 --claim a=b",
            "--format hmac --subject u1 --aal mfa",
            "--format hmac --subject u1 --secret-env B",
            "--format karta-v2 --subject u1",
            "--format karta-v2 --subject u1 --stepped-up-now --kid k",
            "--format jwt --subject u1 --algorithm none",
            "--format jwt --subject u1 --expires-in soon",
            "--format jwt --subject u1 --claim a",
        ] {
            assert!(minted(line).is_err(), "{line}");
        }
        assert!(minted("--format jwt --subject u1 --algorithm ES256").unwrap_err().contains("cannot sign"));
    }
}
