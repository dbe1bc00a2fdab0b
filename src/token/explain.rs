//! Why a token fails, for `doorward token explain`: what form it has, what it says, how the gateway judges it, and which
//! known mistake would have made it. Judges by the same code as a request; guesses with secrets that the operator gives,
//! offline, and never returns one.

mod mistake;
mod variants;

use std::sync::Arc;

use base64::Engine as _;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};

use super::claims::{ClaimRules, VerifiedSubject};
use super::keys::{IdentityKey, KeyRing};
use super::{FORMATS, FormatName};
use crate::clock::UnixTime;
use crate::reason::{Denied, Reason};
use crate::request::credential::Form;
use crate::secret::{self, Encoding, Fingerprint, KeyBytes};
pub use mistake::Mistake;
use variants::Variant;

/// A secret to try, as its source yields it.
#[derive(Clone)]
pub struct Candidate {
    /// What to call it: its variable or file.
    pub label: String,
    /// The text as it stands, a newline at the end included.
    pub text: Vec<u8>,
    /// How the text stands for bytes.
    pub encoding: Encoding,
}

/// What to explain.
pub struct Question<'q> {
    /// The token as the client sent it.
    pub token: &'q str,
    /// The tenant's secret, then others that it may have been confused with.
    pub secrets: &'q [Candidate],
    /// A public key in place of secrets, for JWTs.
    pub public_key: Option<(KeyBytes, DecodingKey)>,
    /// The algorithm that JWT keys are bound to.
    pub algorithm: Algorithm,
    /// The user id that stands beside the token.
    pub subject: Option<&'q str>,
    /// The user's email address, which some hosts sign in its place.
    pub email: Option<&'q str>,
    /// The format that the secret is for, where the token's form does not tell.
    pub format: Option<FormatName>,
    /// The tenant's claim rules.
    pub rules: &'q ClaimRules,
    /// When.
    pub now: UnixTime,
}

/// What was found out.
#[derive(Debug)]
pub struct Explanation {
    /// The form that the gateway sees, or why it sees none.
    pub form: Result<Form, Denied>,
    /// Decoded parts by name, unproven, as JSON text.
    pub decoded: Vec<(&'static str, String)>,
    /// Each secret with its fingerprint, or why it cannot be one.
    pub secrets: Vec<(String, Result<Fingerprint, String>)>,
    /// How the gateway judges the token with the first secret.
    pub verdict: Result<VerifiedSubject, Denied>,
    /// What explains it. Empty when the token is good, or nothing known was found.
    pub findings: Vec<Finding>,
}

/// One explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The mistakes that together would have made this token.
    pub mistakes: Vec<Mistake>,
    /// The secret that it was made with, where one was found.
    pub secret: Option<String>,
}

impl Question<'_> {
    /// Explains the token.
    pub fn explain(&self) -> Explanation {
        let form = Form::of(self.token);
        let verdict = self.verdict(&form);
        let findings = match &verdict {
            Ok(_) => Vec::new(),
            Err(denied) => self.findings(denied.reason),
        };
        let fingerprint = |c: &Candidate| c.key().map(|key| key.fingerprint()).map_err(|why| why.to_string());
        let secrets = self.secrets.iter().map(|c| (c.label.clone(), fingerprint(c))).collect();
        Explanation { form, decoded: self.decoded(), secrets, verdict, findings }
    }

    /// What a request with this token and this id beside it would get.
    fn verdict(&self, form: &Result<Form, Denied>) -> Result<VerifiedSubject, Denied> {
        let name = match form.clone()? {
            Form::Hmac => FormatName::Hmac,
            Form::KartaV2 => FormatName::KartaV2,
            Form::Jwt => FormatName::Jwt,
            Form::Session => {
                return Err(Denied::new(Reason::SessionInvalid, "one of the gateway's own session tokens, not an identity token"));
            }
        };
        if let Some(expected) = self.format.filter(|expected| *expected != name) {
            return Err(Denied::new(
                Reason::TokenFormatRefused,
                format!("it is {}, and {} was asked for", name.as_str(), expected.as_str()),
            ));
        }
        let key = match (&self.public_key, self.secrets.first()) {
            (Some((encoded, decoding)), _) => IdentityKey::public("given", encoded, decoding.clone(), self.algorithm),
            (None, Some(first)) => {
                let key = first.key().map_err(|why| Denied::new(Reason::TokenSignatureInvalid, format!("{}: {why}", first.label)))?;
                IdentityKey::secret("given", &key, vec![name], self.algorithm)
            }
            (None, None) => return Err(Denied::new(Reason::TokenKeyUnknown, "no secret was given")),
        };
        let format = FORMATS.iter().find(|f| f.name() == name).ok_or(Reason::GatewayInternal)?;
        let authentic = format.authenticate(self.token, self.subject, &KeyRing::new(vec![Arc::new(key)]), self.now)?;
        let verified = self.rules.accept(authentic, self.now)?;
        match self.subject {
            Some(id) if id != verified.subject() => Err(Reason::SubjectMismatch.into()),
            _ => Ok(verified),
        }
    }

    fn findings(&self, reason: Reason) -> Vec<Finding> {
        let mut findings = match self.token.split('.').collect::<Vec<_>>().as_slice() {
            ["v2", payload, mac] => self.karta_findings(reason, payload, mac),
            [header, payload, signature] => self.jwt_findings(reason, header, payload, signature),
            _ => self.hmac_findings(self.token),
        };
        if findings.is_empty() {
            findings.extend(self.repaired().into_iter().flatten());
        }
        // The simplest explanations only: with enough mistakes at once, anything explains anything.
        let fewest = findings.iter().map(|f| f.mistakes.len()).min().unwrap_or(0);
        findings.retain(|f| f.mistakes.len() == fewest);
        findings.dedup();
        findings
    }

    /// The findings of the token without white space and padding, where it has some.
    fn repaired(&self) -> Option<Vec<Finding>> {
        let repaired: String = self.token.chars().filter(|c| !c.is_whitespace() && *c != '=').collect();
        if repaired == self.token {
            return None;
        }
        let again = Question { token: &repaired, public_key: self.public_key.clone(), ..*self }.explain();
        let reencoded = |mut finding: Finding| {
            finding.mistakes.insert(0, Mistake::SpaceOrPadding);
            finding
        };
        match again.verdict {
            Ok(_) => Some(vec![Finding { mistakes: vec![Mistake::SpaceOrPadding], secret: None }]),
            Err(_) => Some(again.findings.into_iter().map(reencoded).collect()),
        }
    }

    fn hmac_findings(&self, token: &str) -> Vec<Finding> {
        let messages = variants::messages(self.subject, self.email);
        let mut findings = Vec::new();
        for (mac, spelling) in variants::macs(token) {
            let proves = |key: &[u8], message: &[u8]| variants::mac_holds(key, message, &mac);
            findings.extend(self.search(&proves, &messages, spelling));
            let swapped = |key: &[u8], message: &[u8]| variants::mac_holds(message, key, &mac);
            findings.extend(self.search(&swapped, &messages, [spelling, &[Mistake::SwappedKeyAndMessage]].concat().as_slice()));
        }
        findings
    }

    fn karta_findings(&self, reason: Reason, payload: &str, mac: &str) -> Vec<Finding> {
        let mut messages = vec![Variant::plain(payload)];
        messages.push(Variant::of(format!("v2.{payload}"), Mistake::PrefixSigned));
        if let Some(json) = lenient(payload) {
            messages.push(Variant::of(json, Mistake::DecodedPayloadSigned));
        }
        let mut findings = Vec::new();
        for (mac, spelling) in variants::macs(mac) {
            let proves = |key: &[u8], message: &[u8]| variants::mac_holds(key, message, &mac);
            findings.extend(self.search(&proves, &messages, spelling));
        }
        if reason == Reason::TokenSignatureInvalid {
            return findings;
        }
        findings.retain(|f| !f.mistakes.is_empty());
        findings.extend(self.claim_findings(payload, &["user_id"]));
        findings
    }

    fn jwt_findings(&self, reason: Reason, header: &str, payload: &str, signature: &str) -> Vec<Finding> {
        let header_says = lenient(header).and_then(|json| serde_json::from_slice::<Value>(&json).ok());
        let named = header_says.as_ref().and_then(|h| h.get("alg")).and_then(Value::as_str).and_then(|alg| alg.parse::<Algorithm>().ok());
        let signing_input = [Variant::plain(&format!("{header}.{payload}"))];
        let mut findings = Vec::new();
        let mut try_with = |algorithm: Algorithm, base: &[Mistake]| {
            for (signature, spelling) in variants::signatures(signature) {
                let proves = |key: &[u8], message: &[u8]| {
                    jsonwebtoken::crypto::verify(&signature, message, &DecodingKey::from_secret(key), algorithm).unwrap_or(false)
                };
                findings.extend(self.search(&proves, &signing_input, [base, spelling].concat().as_slice()));
            }
        };
        try_with(self.algorithm, &[]);
        if let Some(other) = named.filter(|other| *other != self.algorithm) {
            try_with(other, &[Mistake::OtherAlgorithm]);
        }
        if reason == Reason::TokenSignatureInvalid {
            return findings;
        }
        // The signature holds, or is not what stopped the token: look at the claims.
        findings.retain(|f| !f.mistakes.is_empty());
        let names: Vec<_> = self.rules.subject.iter().map(String::as_str).collect();
        findings.extend(self.claim_findings(payload, &names));
        findings
    }

    /// Mistakes in what the token says.
    fn claim_findings(&self, payload: &str, subject_claims: &[&str]) -> Vec<Finding> {
        let Some(Ok(claims)) = lenient(payload).map(|json| serde_json::from_slice::<Value>(&json)) else { return Vec::new() };
        let mut mistakes = variants::time_mistakes(&claims, self.now, self.rules.leeway);
        let id = subject_claims.iter().find_map(|name| claims.get(name));
        let signed = id.map(|id| match id {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        if let (Some(signed), Some(sent)) = (signed, self.subject)
            && signed != sent
        {
            let made_it = |variant: &Variant| variant.bytes == signed.as_bytes();
            mistakes.extend(variants::messages(Some(sent), self.email).into_iter().filter(made_it).flat_map(|v| v.mistakes));
        }
        if id.is_some_and(Value::is_f64) {
            mistakes.push(Mistake::NumberForm);
        }
        mistakes.sort_unstable();
        mistakes.dedup();
        mistakes.into_iter().map(|mistake| Finding { mistakes: vec![mistake], secret: None }).collect()
    }

    /// Every pair of a secret, possibly misread, and a message, possibly altered, that the token proves.
    fn search(&self, proves: &dyn Fn(&[u8], &[u8]) -> bool, messages: &[Variant], base: &[Mistake]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (index, secret) in self.secrets.iter().enumerate() {
            for key in variants::keys(secret) {
                for message in messages.iter().filter(|message| proves(&key.bytes, &message.bytes)) {
                    let other: &[Mistake] = if index == 0 { &[] } else { &[Mistake::OtherSecret] };
                    let mistakes = [base, other, &key.mistakes, &message.mistakes].concat();
                    findings.push(Finding { mistakes, secret: Some(secret.label.clone()) });
                }
            }
        }
        findings
    }

    fn decoded(&self) -> Vec<(&'static str, String)> {
        let text = |segment: &str| lenient(segment).and_then(|bytes| String::from_utf8(bytes).ok());
        let parts = match self.token.split('.').collect::<Vec<_>>().as_slice() {
            ["v2", payload, _] => vec![("payload", text(payload))],
            [header, payload, _] => vec![("header", text(header)), ("claims", text(payload))],
            _ => Vec::new(),
        };
        parts.into_iter().filter_map(|(name, text)| Some((name, text?))).collect()
    }
}

impl Candidate {
    /// The key as the gateway reads it.
    fn key(&self) -> Result<KeyBytes, secret::Unusable> {
        Ok(KeyBytes::new(secret::decode(variants::without_newline(&self.text), self.encoding)?))
    }
}

/// What a token says about itself, unproven: for choosing how to explain it, and nothing else.
pub fn unproven_claims(token: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&lenient(token.split('.').nth(1)?)?).ok()
}

/// The `kid` of a JWT, unproven.
pub fn unproven_kid(token: &str) -> Option<String> {
    let header: Value = serde_json::from_slice(&lenient(token.split('.').next()?)?).ok()?;
    header.get("kid")?.as_str().map(str::to_owned)
}

/// base64url as people write it: white space and padding forgiven. For showing only.
fn lenient(segment: &str) -> Option<Vec<u8>> {
    let text: String = segment.chars().filter(|c| !c.is_whitespace() && *c != '=').collect();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok()
}
