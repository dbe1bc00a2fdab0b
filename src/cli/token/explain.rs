//! `doorward token explain`.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};

use super::super::secret::{SecretSources, fail, misuse, print};
use super::{FormatArg, algorithm, signed_duration};
use crate::clock::UnixTime;
use crate::request::credential::Form;
use crate::secret::{self, KeyBytes};
use crate::token::claims::{ClaimRules, VerifiedSubject};
use crate::token::explain::{Candidate, Explanation, Question, unproven_claims, unproven_kid};
use crate::token::public_keys::{self, PublicKey};

/// Say what a token is, whether a gateway would take it, and if not, why
///
/// Judges by the same code as the gateway, then tries the mistakes that people make: key and message swapped, the email in
/// place of the id, an id changed on the way, encodings of secret and output, a newline in the secret, another platform's
/// secret, times in milliseconds, clocks that differ. Exit code 0 if the token is good, 1 if not.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  doorward token explain a5976e…4564 --secret-env ACME_SECRET \\
      --subject user_123 --email ann@example.com

  doorward token explain \"$TOKEN\" --secret-env ACME_SECRET --secret-env INTERCOM_SECRET

  doorward token explain - --algorithm ES256 --public-key host.pem < token.txt

  curl -sS https://login.example.com/.well-known/jwks.json > keys.json
  doorward token explain \"$TOKEN\" --jwks keys.json   (nothing is fetched: this command works offline)

The first secret is the tenant's; the others are ones that it may have been confused with.")]
pub(super) struct Explain {
    /// The token as the page sends it, or - to read it from standard input
    token: String,
    #[command(flatten)]
    secrets: SecretSources,
    /// A public key as PEM, in place of secrets
    #[arg(long, value_name = "FILE", conflicts_with_all = ["secret_env", "secret_file"])]
    public_key: Option<PathBuf>,
    /// A JWK Set, as an issuer publishes it at the tenant's jwks_url, in place of secrets; the token's kid picks the key
    #[arg(long, value_name = "FILE", conflicts_with_all = ["secret_env", "secret_file", "public_key"])]
    jwks: Option<PathBuf>,
    /// The algorithm that the tenant's JWT key is bound to
    #[arg(long, default_value = "HS256", value_parser = algorithm)]
    algorithm: Algorithm,
    /// The user id that the page sends beside the token
    #[arg(long, value_name = "ID")]
    subject: Option<String>,
    /// The user's email address, in case that was signed
    #[arg(long)]
    email: Option<String>,
    /// The format that the tenant's secret is for
    #[arg(long, value_enum)]
    format: Option<FormatArg>,
    /// Subject claims of a JWT, in order; by default user_id where the token has one, else sub
    #[arg(long, value_name = "NAME")]
    subject_claim: Vec<String>,
    /// Accepted audiences
    #[arg(long, value_name = "AUD")]
    audience: Vec<String>,
    /// Accepted issuers
    #[arg(long, value_name = "ISS")]
    issuer: Vec<String>,
    /// Clock difference that is forgiven
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    leeway: Duration,
}

impl Explain {
    /// Runs the command.
    pub(super) fn run(&self, now: UnixTime) -> ExitCode {
        if self.secrets.sources().is_empty() && self.public_key.is_none() && self.jwks.is_none() {
            return misuse("name the tenant's secret with --secret-env or --secret-file, its --public-key, or its issuer's --jwks");
        }
        let token = match self.token.as_str() {
            "-" => {
                let mut text = String::new();
                if let Err(why) = std::io::stdin().take(1 << 20).read_to_string(&mut text) {
                    return fail(&format!("standard input: {why}"));
                }
                text.trim_end_matches(['\r', '\n']).to_owned()
            }
            token => token.to_owned(),
        };
        match self.explanation(&token, now) {
            Ok(explanation) => {
                let good = explanation.verdict.is_ok();
                let printed = print(&self.report(&explanation), "");
                if good { printed } else { ExitCode::FAILURE }
            }
            Err(why) => fail(&why),
        }
    }

    fn explanation(&self, token: &str, now: UnixTime) -> Result<Explanation, String> {
        let mut secrets = Vec::new();
        for source in self.secrets.sources() {
            let text = secret::read(&source).map_err(|why| format!("{source} {why}"))?;
            secrets.push(Candidate { label: source.to_string(), text, encoding: self.secrets.encoding.encoding() });
        }
        let mut algorithm = self.algorithm;
        let public_key = match (&self.public_key, &self.jwks) {
            (None, None) => None,
            (Some(path), _) => {
                let pem = std::fs::read(path).map_err(|why| format!("{}: {why}", path.display()))?;
                let key = decoding_key(&pem, self.algorithm).map_err(|why| format!("{}: {why}", path.display()))?;
                Some((KeyBytes::new(pem), key))
            }
            (None, Some(path)) => {
                let set = std::fs::read(path).map_err(|why| format!("{}: {why}", path.display()))?;
                let key = published_key(&set, token).map_err(|why| format!("{}: {why}", path.display()))?;
                algorithm = key.algorithm;
                Some((key.thumbprint, key.decoding))
            }
        };
        let usual = if unproven_claims(token).is_some_and(|claims| claims.contains_key("user_id")) { "user_id" } else { "sub" };
        let subject_claims = if self.subject_claim.is_empty() { vec![usual.to_owned()] } else { self.subject_claim.clone() };
        let rules = ClaimRules {
            subject: subject_claims,
            expiry_required: false,
            leeway: self.leeway,
            issuers: self.issuer.clone(),
            audiences: self.audience.clone(),
            ..ClaimRules::default()
        };
        let question = Question {
            token,
            secrets: &secrets,
            public_key,
            algorithm,
            subject: self.subject.as_deref(),
            email: self.email.as_deref(),
            format: self.format.map(FormatArg::name),
            rules: &rules,
            now,
        };
        Ok(question.explain())
    }

    fn report(&self, explanation: &Explanation) -> String {
        let mut text = String::new();
        let mut line = |name: &str, says: &str| {
            let _ = writeln!(text, "{name:<12}{says}");
        };
        line("form", &form_sentence(explanation));
        for (name, json) in &explanation.decoded {
            line(name, &printable(json));
        }
        for (label, fingerprint) in &explanation.secrets {
            match fingerprint {
                Ok(fingerprint) => line("secret", &format!("{label}, fingerprint {fingerprint}")),
                Err(why) => line("secret", &format!("{label} {why}")),
            }
        }
        match &explanation.verdict {
            Ok(subject) => line("verdict", &good_sentence(subject)),
            Err(denied) => {
                let detail = if denied.detail.is_empty() { String::new() } else { format!(" ({})", denied.detail) };
                line("verdict", &format!("refused: {}{detail}", denied.reason));
                line("", denied.reason.row().sentence);
            }
        }
        for finding in &explanation.findings {
            let with = finding.secret.as_ref().map(|label| format!(" [with {label}]")).unwrap_or_default();
            let all: Vec<_> = finding.mistakes.iter().map(|mistake| mistake.sentence()).collect();
            line("because", &format!("{}{with}", all.join("; and ")));
        }
        if explanation.verdict.is_err() && explanation.findings.is_empty() {
            line("because", self.unexplained(explanation));
        }
        text
    }

    /// What to try where no known mistake explains the token.
    fn unexplained(&self, explanation: &Explanation) -> &'static str {
        match (&explanation.form, &self.subject) {
            (Ok(Form::Hmac), None) => "an hmac token proves the id beside it: add --subject, and --email in case that was signed",
            (Ok(_) | Err(_), _) => {
                "no known mistake explains it: compare the secrets' fingerprints on both sides, or try another --secret-env"
            }
        }
    }
}

/// A token's text for a terminal: whoever made it must not move the cursor.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn form_sentence(explanation: &Explanation) -> String {
    match &explanation.form {
        Ok(Form::Hmac) => "hmac: 64 lowercase hex digits".to_owned(),
        Ok(Form::KartaV2) => "karta-v2: v2.<payload>.<mac>".to_owned(),
        Ok(Form::Jwt) => "jwt: three segments".to_owned(),
        Ok(Form::Session) => "one of the gateway's own session tokens".to_owned(),
        Err(denied) => format!("none: {}", denied.detail),
    }
}

fn good_sentence(subject: &VerifiedSubject) -> String {
    let mut text = format!("good: {:?} by {}", subject.subject(), subject.format().as_str());
    if let Some(at) = subject.expires_at() {
        let _ = write!(text, ", until {at}");
    }
    if let Some(step_up) = subject.stepped_up() {
        let _ = write!(text, ", stepped up at {}{}", step_up.at, step_up.aal.as_ref().map(|aal| format!(" ({aal})")).unwrap_or_default());
    }
    text
}

fn decoding_key(pem: &[u8], algorithm: Algorithm) -> Result<DecodingKey, String> {
    let key = match algorithm.family() {
        AlgorithmFamily::Hmac => return Err("a public key goes with --algorithm RS256, ES256 or EdDSA".to_owned()),
        AlgorithmFamily::Rsa => DecodingKey::from_rsa_pem(pem),
        AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem),
        AlgorithmFamily::Ed => DecodingKey::from_ed_pem(pem),
    };
    key.map_err(|why| format!("is no public key for {algorithm:?}: {why}"))
}

/// The key of a set that a token's `kid` names.
fn published_key(set: &[u8], token: &str) -> Result<PublicKey, String> {
    let published = public_keys::from_published(set)?;
    let kid = unproven_kid(token).ok_or("the token has no kid that could name one of these keys")?;
    let known = published.keys.iter().map(|key| printable(&key.kid)).collect::<Vec<_>>().join(", ");
    let found = published.keys.into_iter().find(|key| key.kid == kid);
    let left_out = if published.left_out.is_empty() { String::new() } else { format!("; left out: {}", published.left_out.join("; ")) };
    let missing = || format!("the token's kid {} names none of its keys ({known}{left_out})", printable(&kid));
    found.map(|published| published.key).ok_or_else(missing)
}

fn duration(text: &str) -> Result<Duration, String> {
    Duration::try_from(signed_duration(text)?).map_err(|_| "a time that is not negative is meant".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::super::token::{TokenArgs, TokenCommand};
    use super::*;
    use crate::token::mint;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        token: TokenArgs,
    }

    const SECRET: &str = "test_secret_0123456789abcdef0123";

    /// What a command line prints at 1750000000 with the vendors' test secret in a file.
    fn report(token: &str, line: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, SECRET).unwrap();
        let words = ["token", "explain", token, "--secret-file", path.to_str().unwrap()].into_iter().chain(line.split_whitespace());
        let TokenCommand::Explain(explain) = Line::try_parse_from(words).unwrap().token.command else { panic!("explain") };
        let report = explain.report(&explain.explanation(token, UnixTime::from_secs(1_750_000_000)).unwrap());
        assert!(!report.contains(SECRET), "{report}");
        report
    }

    #[test]
    fn a_good_token() {
        let report = report(&mint::hmac(SECRET.as_bytes(), "user_123"), "--subject user_123");
        assert!(report.contains("form        hmac") && report.contains("verdict     good: \"user_123\" by hmac"), "{report}");
        assert!(!report.contains("because"), "{report}");
    }

    #[test]
    fn a_refused_token_says_the_reason_and_the_mistake() {
        let token =
            mint::jwt(SECRET.as_bytes(), Algorithm::HS256, None, &serde_json::json!({"user_id": "u1", "exp": 1_750_000_300_000_i64}))
                .unwrap();
        let report = report(&token, "");
        for part in [
            r#"claims      {"exp":1750000300000,"user_id":"u1"}"#,
            "refused: token_claim_malformed (exp lies after",
            "because     a time is in milliseconds",
        ] {
            assert!(report.contains(part), "{part}: {report}");
        }
    }

    #[test]
    fn the_usual_subject_claims_need_no_option() {
        for claim in ["user_id", "sub"] {
            let token = mint::jwt(SECRET.as_bytes(), Algorithm::HS256, None, &serde_json::json!({ claim: "u1" })).unwrap();
            assert!(report(&token, "").contains("good: \"u1\" by jwt"), "{claim}");
        }
    }

    #[test]
    fn an_hmac_without_an_id_asks_for_it() {
        let report = report(&mint::hmac(SECRET.as_bytes(), "user_123"), "");
        assert!(report.contains("refused: subject_missing") && report.contains("add --subject"), "{report}");
    }

    #[test]
    fn a_token_cannot_drive_the_terminal() {
        let token = mint::jwt_of(SECRET.as_bytes(), Algorithm::HS256, r#"{"alg":"HS256"}"#, "{\"sub\":\"\u{1b}[2J\"}").unwrap();
        assert!(!report(&token, "").contains('\u{1b}'));
    }

    #[test]
    fn a_public_key_in_place_of_secrets() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        std::fs::write(&path, "no key").unwrap();
        let words = ["token", "explain", "a.b.c", "--algorithm", "ES256", "--public-key", path.to_str().unwrap()];
        let TokenCommand::Explain(explain) = Line::try_parse_from(words).unwrap().token.command else { panic!("explain") };
        assert!(explain.explanation("a.b.c", UnixTime::from_secs(1)).unwrap_err().contains("no public key for ES256"));
        assert!(Line::try_parse_from([&words[..], &["--secret-env", "A"]].concat()).is_err());
    }

    /// The key of RFC 8037 appendix A.2.
    #[test]
    fn the_kid_picks_a_published_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let key = r#"{"kty":"OKP","crv":"Ed25519","kid":"ed-1","alg":"EdDSA","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        std::fs::write(&path, format!(r#"{{"keys":[{key}]}}"#)).unwrap();
        let explained = |header: &str| {
            use base64::Engine as _;
            let encode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
            let token = format!("{}.{}.{}", encode(header), encode(r#"{"sub":"u1"}"#), encode("no signature"));
            let words = ["token", "explain", &token, "--jwks", path.to_str().unwrap()];
            let TokenCommand::Explain(explain) = Line::try_parse_from(words).unwrap().token.command else { panic!("explain") };
            explain.explanation(&token, UnixTime::from_secs(1)).map(|explanation| explain.report(&explanation))
        };
        assert!(explained(r#"{"alg":"EdDSA","kid":"ed-1"}"#).unwrap().contains("refused: token_signature_invalid"));
        assert!(explained(r#"{"alg":"HS256","kid":"ed-1"}"#).unwrap().contains("refused: token_algorithm_refused"));
        assert!(explained(r#"{"alg":"EdDSA","kid":"ed-2"}"#).unwrap_err().contains("kid ed-2 names none of its keys (ed-1)"));
        assert!(explained(r#"{"alg":"EdDSA"}"#).unwrap_err().contains("has no kid"));
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Line::command().debug_assert();
    }
}
