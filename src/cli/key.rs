//! `doorward key new|jwks`: the gateway's own keys, which sign assertions for the upstream. Private material goes to a file
//! that only its owner reads, or, for a shared secret, to standard output; a public key is printed as a JWK (RFC 7517).

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand, ValueEnum};
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::secret::{fail, print, print_secret, random};
use crate::secret::KeyBytes;

/// Make the keys with which the gateway signs what it tells the upstream
#[derive(Debug, Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    New(NewKey),
    Jwks(Jwks),
}

/// Make an assertion key
///
/// HS256 is a secret that gateway and upstream share; it is printed. ES256 and EdDSA are key pairs: the private key goes to a
/// file (PKCS#8 PEM, mode 0600, never overwritten), the public key is printed as a JWK for the upstream.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  doorward key new                                        a shared secret, for http-message-signatures and jwt
  doorward key new --algorithm EdDSA --id a2 --out a2.pem a key pair, for the jwt scheme

To rotate: add the new key behind the old one in [assertion] keys, let the upstream learn it, then put it first.
An assertion key is never an identity secret: the same material in both roles is refused.")]
struct NewKey {
    /// What it signs with
    #[arg(long, value_enum, default_value_t = AlgorithmArg::Hs256)]
    algorithm: AlgorithmArg,
    /// Its name: keyid and kid in what it signs
    #[arg(long, default_value = "a1", value_parser = key_id)]
    id: String,
    /// Where to write the private key; ID.pem unless given. HS256 is printed unless given
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Print the public keys of key files as a JWK Set
#[derive(Debug, Args)]
#[command(after_help = "Example:
  doorward key jwks a1=a1.pem a2=a2.pem > jwks.json

Shared secrets (HS256) have no public part and are never in a JWK Set.")]
struct Jwks {
    /// A key's name and its file, as ID=FILE
    #[arg(required = true, value_name = "ID=FILE", value_parser = named_file)]
    keys: Vec<(String, PathBuf)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AlgorithmArg {
    #[value(name = "HS256", alias = "hs256")]
    Hs256,
    #[value(name = "ES256", alias = "es256")]
    Es256,
    #[value(name = "EdDSA", aliases = ["eddsa", "EDDSA"])]
    EdDsa,
}

impl KeyArgs {
    /// Runs the command.
    pub fn run(self) -> ExitCode {
        let done = match &self.command {
            KeyCommand::New(new) if new.algorithm == AlgorithmArg::Hs256 => new.make().map(|(secret, note)| print_secret(&secret, &note)),
            KeyCommand::New(new) => new.make().map(|(jwk, note)| print(&jwk, &note)),
            KeyCommand::Jwks(jwks) => jwks.document().map(|document| print(&format!("{document:#}"), "")),
        };
        done.unwrap_or_else(|why| fail(&why))
    }
}

impl NewKey {
    /// What to print, and what to do with it.
    fn make(&self) -> Result<(String, String), String> {
        let id = &self.id;
        match self.algorithm {
            AlgorithmArg::Hs256 => {
                let text = URL_SAFE_NO_PAD.encode(random(32)?);
                let fingerprint = KeyBytes::new(text.as_bytes()).fingerprint();
                let (source, result) = match &self.out {
                    Some(path) => {
                        write_private(path, &text)?;
                        (format!("file = {}", json!(path.display().to_string())), String::new())
                    }
                    None => ("env = \"DOORWARD_ASSERTION_KEY\"".to_owned(), text),
                };
                let note = format!("fingerprint {fingerprint}\nunder [assertion]:\n  keys = [{{ id = \"{id}\", {source} }}]\n");
                Ok((result, note))
            }
            AlgorithmArg::Es256 | AlgorithmArg::EdDsa => {
                let pem = private_pem(self.algorithm)?;
                let path = self.out.clone().unwrap_or_else(|| PathBuf::from(format!("{id}.pem")));
                write_private(&path, &pem)?;
                let name = self.algorithm.to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default();
                let note = format!(
                    "private key in {} (PKCS#8 PEM, mode 0600)\nunder [assertion]:\n  schemes = [\"jwt\"]\n  keys = [{{ id = \"{id}\", file = {}, algorithm = \"{name}\" }}]\n",
                    path.display(),
                    json!(path.display().to_string()),
                );
                Ok((public_jwk(pem.as_bytes(), id)?.to_string(), note))
            }
        }
    }
}

impl Jwks {
    fn document(&self) -> Result<Value, String> {
        let mut keys = Vec::new();
        for (id, path) in &self.keys {
            let pem = std::fs::read(path).map_err(|why| format!("{}: {why}", path.display()))?;
            keys.push(public_jwk(&pem, id).map_err(|why| format!("{}: {why}", path.display()))?);
        }
        Ok(json!({ "keys": keys }))
    }
}

/// A new private key as PKCS#8 PEM.
fn private_pem(algorithm: AlgorithmArg) -> Result<String, String> {
    let random = SystemRandom::new();
    let der = match algorithm {
        AlgorithmArg::Hs256 => return Err("HS256 has no key pair".to_owned()),
        AlgorithmArg::Es256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map(|der| der.as_ref().to_vec()),
        // Version 1 holds the seed alone: what openssl writes and every reader takes (RFC 8410 §7).
        AlgorithmArg::EdDsa => Ed25519KeyPair::generate_pkcs8v1(&random).map(|der| der.as_ref().to_vec()),
    };
    let der = der.map_err(|_| "the key pair could not be made".to_owned())?;
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    Ok(pem::encode_config(&pem::Pem::new("PRIVATE KEY", der), config))
}

/// The public part of a private key's PEM.
fn public_jwk(pem: &[u8], id: &str) -> Result<Value, String> {
    let ed = EncodingKey::from_ed_pem(pem).map(|key| (key, Algorithm::EdDSA));
    let (key, algorithm) = ed
        .or_else(|_| EncodingKey::from_ec_pem(pem).map(|key| (key, Algorithm::ES256)))
        .map_err(|_| "is no PKCS#8 PEM of an Ed25519 or P-256 private key".to_owned())?;
    let mut jwk = Jwk::from_encoding_key(&key, algorithm).map_err(|why| format!("has no public key that can be published: {why}"))?;
    jwk.common.key_id = Some(id.to_owned());
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    serde_json::to_value(jwk).map_err(|why| why.to_string())
}

/// Writes a file that only its owner may read, and never over another.
fn write_private(path: &Path, text: &str) -> Result<(), String> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|why| format!("{}: {why}", path.display()))
}

fn key_id(text: &str) -> Result<String, String> {
    let fine = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if fine { Ok(text.to_owned()) } else { Err("a key's name is 1 to 64 letters, digits, _ and -".to_owned()) }
}

fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    let (id, path) = text.split_once('=').ok_or("expected ID=FILE")?;
    Ok((key_id(id)?, PathBuf::from(path)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::mint;

    #[test]
    fn key_pairs_sign_and_their_jwk_verifies() {
        let folder = tempfile::tempdir().unwrap();
        for (algorithm, arg) in [(Algorithm::ES256, AlgorithmArg::Es256), (Algorithm::EdDSA, AlgorithmArg::EdDsa)] {
            let path = folder.path().join(format!("{arg:?}.pem"));
            let new = NewKey { algorithm: arg, id: "a2".to_owned(), out: Some(path.clone()) };
            let (jwk, note) = new.make().unwrap();
            let pem = std::fs::read(&path).unwrap();
            assert!(pem.starts_with(b"-----BEGIN PRIVATE KEY-----\n"), "{}", String::from_utf8_lossy(&pem));
            assert!(note.contains(&format!("algorithm = \"{}\"", json!(algorithm).as_str().unwrap())), "{note}");
            #[cfg(unix)]
            assert_eq!(std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions()) & 0o777, 0o600);

            let value: Value = serde_json::from_str(&jwk).unwrap();
            assert_eq!((value["kid"].as_str(), value["use"].as_str(), value.get("d")), (Some("a2"), Some("sig"), None));
            let token = mint::jwt(&pem, algorithm, None, &json!({"sub": "u1"})).unwrap();
            let decoding = jsonwebtoken::DecodingKey::from_jwk(&serde_json::from_value(value.clone()).unwrap()).unwrap();
            let (message, signature) = token.rsplit_once('.').unwrap();
            assert!(jsonwebtoken::crypto::verify(signature, message.as_bytes(), &decoding, algorithm).unwrap());

            assert!(new.make().unwrap_err().contains("exists"), "an existing file is never overwritten");
            let set = Jwks { keys: vec![("a2".to_owned(), path)] }.document().unwrap();
            assert_eq!(set, json!({ "keys": [value] }));
        }
    }

    #[test]
    fn a_shared_secret_is_printed_or_written() {
        let new = NewKey { algorithm: AlgorithmArg::Hs256, id: "a1".to_owned(), out: None };
        let (secret, note) = new.make().unwrap();
        assert!(secret.len() >= 32 && !note.contains(&secret) && note.contains("env = "));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a1.key");
        let (printed, note) = NewKey { out: Some(path.clone()), ..new }.make().unwrap();
        let written = std::fs::read_to_string(&path).unwrap();
        assert!(printed.is_empty() && written.len() >= 32 && !note.contains(&written));
        assert!(Jwks { keys: vec![("a1".to_owned(), path)] }.document().is_err(), "never an oct key");
    }
}
