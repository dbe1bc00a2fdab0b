//! `token explain`: each known mistake, by a token made with it.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use doorward::reason::Reason;
use doorward::secret::Encoding;
use doorward::token::claims::ClaimRules;
use doorward::token::explain::{Candidate, Explanation, Mistake, Question};
use doorward::token::mint;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::support::*;

const OTHER: &[u8] = b"another_secret_0123456789abcdef0";
const HEX_TEXT: &[u8] = b"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn given(label: &str, text: &[u8], encoding: Encoding) -> Candidate {
    Candidate { label: label.to_owned(), text: text.to_vec(), encoding }
}

fn explain(token: &str, secrets: &[Candidate], subject: Option<&str>, email: Option<&str>) -> Explanation {
    let rules = ClaimRules { subject: vec!["sub".to_owned()], ..lax() };
    let question =
        Question { token, secrets, public_key: None, algorithm: Algorithm::HS256, subject, email, format: None, rules: &rules, now: now() };
    question.explain()
}

fn mistakes_of(explanation: &Explanation) -> Vec<Vec<Mistake>> {
    explanation.findings.iter().map(|finding| finding.mistakes.clone()).collect()
}

struct Case {
    token: String,
    secrets: Vec<Candidate>,
    subject: Option<&'static str>,
    expected: Mistake,
}

/// A hex HMAC of `signed` while the page sends `sent`.
fn hmac_of(signed: impl AsRef<[u8]>, sent: &'static str, expected: Mistake) -> Case {
    let mac = hmac_bytes(SECRET, signed.as_ref());
    Case { token: hex::encode(mac), secrets: vec![given("env S", SECRET, Encoding::Text)], subject: Some(sent), expected }
}

/// A hex HMAC of `user_123` made with `key` while the secret is declared as `text`.
fn keyed(key: &[u8], text: &[u8], encoding: Encoding, expected: Mistake) -> Case {
    let token = mint::hmac(key, "user_123");
    Case { token, secrets: vec![given("env S", text, encoding)], subject: Some("user_123"), expected }
}

fn token(token: String, expected: Mistake) -> Case {
    Case { token, secrets: vec![given("env S", SECRET, Encoding::Text)], subject: None, expected }
}

fn jwt(claims: Value, expected: Mistake) -> Case {
    token(mint::jwt(SECRET, Algorithm::HS256, None, &claims).unwrap(), expected)
}

fn hmac_bytes(key: &[u8], message: &[u8]) -> Vec<u8> {
    use hmac::{Hmac, KeyInit as _, Mac as _};
    Hmac::<sha2::Sha256>::new_from_slice(key).unwrap().chain_update(message).finalize().into_bytes().to_vec()
}

fn cases() -> Vec<Case> {
    let hex_mac = mint::hmac(SECRET, "user_123");
    let good_jwt = mint::jwt(SECRET, Algorithm::HS256, None, &json!({"sub": "u1"})).unwrap();
    let (signing_input, signature) = good_jwt.rsplit_once('.').unwrap();
    let hex_signature = hex::encode(URL_SAFE_NO_PAD.decode(signature).unwrap());
    let (_, karta_rest) = mint::karta_v2(SECRET, "u1", NOW, None).split_once('.').map(|(v, r)| (v.to_owned(), r.to_owned())).unwrap();
    let karta_payload = karta_rest.split_once('.').unwrap().0.to_owned();
    let karta_json = URL_SAFE_NO_PAD.decode(&karta_payload).unwrap();
    let decoded = hex::decode(HEX_TEXT).unwrap();
    vec![
        Case {
            token: mint::hmac(b"user_123", std::str::from_utf8(SECRET).unwrap()),
            ..hmac_of("", "user_123", Mistake::SwappedKeyAndMessage)
        },
        hmac_of("7.0", "7", Mistake::NumberForm),
        hmac_of("7", "007", Mistake::NumberForm),
        hmac_of("9007199254740992", "9007199254740993", Mistake::NumberForm),
        hmac_of(r#""user_123""#, "user_123", Mistake::QuotedId),
        hmac_of("user_123", " user_123 ", Mistake::TrimmedId),
        hmac_of("user_123 ", "user_123", Mistake::TrimmedId),
        hmac_of("ann@example.com", "Ann@Example.com", Mistake::LowerCasedId),
        hmac_of("user_123\n", "user_123", Mistake::NewlineInId),
        hmac_of(b"Jos\xe9", "Jos\u{e9}", Mistake::Latin1),
        hmac_of("Jose\u{301}", "Jos\u{e9}", Mistake::NormalForm),
        hmac_of("Jos\u{e9}", "Jose\u{301}", Mistake::NormalForm),
        Case { token: STANDARD.encode(hex::decode(&hex_mac).unwrap()), ..hmac_of("", "user_123", Mistake::Base64Output) },
        Case { token: hex_mac.to_uppercase(), ..hmac_of("", "user_123", Mistake::UpperCaseHex) },
        Case { token: format!(" {hex_mac}\n"), ..hmac_of("", "user_123", Mistake::SpaceOrPadding) },
        keyed(HEX_TEXT, HEX_TEXT, Encoding::Hex, Mistake::EncodedKeyAsText),
        keyed(&decoded, HEX_TEXT, Encoding::Text, Mistake::TextKeyDecoded),
        keyed(&[SECRET, b"\n"].concat(), SECRET, Encoding::Text, Mistake::NewlineInSecret),
        keyed(&[SECRET, b"\n"].concat(), &[SECRET, b"\n"].concat(), Encoding::Text, Mistake::NewlineInSecret),
        keyed(SECRET, &[SECRET, b" "].concat(), Encoding::Text, Mistake::SpaceAroundSecret),
        Case {
            secrets: vec![given("env S", SECRET, Encoding::Text), given("env INTERCOM", OTHER, Encoding::Text)],
            ..keyed(OTHER, SECRET, Encoding::Text, Mistake::OtherSecret)
        },
        token(format!("{signing_input}.{}", URL_SAFE_NO_PAD.encode(&hex_signature)), Mistake::HexOutput),
        token(format!("{signing_input}.{hex_signature}"), Mistake::HexOutput),
        token(mint::jwt(SECRET, Algorithm::HS512, None, &json!({"sub": "u1"})).unwrap(), Mistake::OtherAlgorithm),
        token(format!("{good_jwt}="), Mistake::SpaceOrPadding),
        token(mint::jwt(&[SECRET, b"\n"].concat(), Algorithm::HS256, None, &json!({"sub": "u1"})).unwrap(), Mistake::NewlineInSecret),
        token(format!("v2.{karta_payload}.{}", mint::hmac(SECRET, &format!("v2.{karta_payload}"))), Mistake::PrefixSigned),
        token(format!("v2.{karta_payload}.{}", hex::encode(hmac_bytes(SECRET, &karta_json))), Mistake::DecodedPayloadSigned),
        jwt(json!({"sub": "u1", "exp": 1_750_000_300_000_i64}), Mistake::TimeInMilliseconds),
        jwt(json!({"sub": "u1", "exp": "1750000300"}), Mistake::TimeAsString),
        jwt(json!({"sub": "u1", "iat": NOW + 300, "exp": NOW + 600}), Mistake::ClockAhead),
        jwt(json!({"sub": "u1", "exp": NOW - 300}), Mistake::ClockBehind),
        jwt(json!({"sub": 7.0}), Mistake::NumberForm),
        Case { subject: Some("User_1"), ..jwt(json!({"sub": "user_1"}), Mistake::LowerCasedId) },
        token(mint::karta_v2(SECRET, "u1", NOW * 1000, None), Mistake::TimeInMilliseconds),
        token(mint::karta_v2(SECRET, "u1", NOW + 300, None), Mistake::ClockAhead),
    ]
}

#[test]
fn every_known_mistake_is_named() {
    let mut named = BTreeSet::from([Mistake::EmailInPlaceOfId]); // has a test of its own
    for case in cases() {
        let explanation = explain(&case.token, &case.secrets, case.subject, None);
        assert!(explanation.verdict.is_err(), "{:?}: the gateway takes it", case.expected);
        assert_eq!(mistakes_of(&explanation), [[case.expected]], "{}", case.token);
        named.insert(case.expected);
    }
    assert_eq!(named, BTreeSet::from(Mistake::ALL));
}

#[test]
fn the_email_was_signed() {
    let secrets = [given("env S", SECRET, Encoding::Text)];
    let explanation = explain(&mint::hmac(SECRET, "ann@example.com"), &secrets, Some("user_123"), Some("ann@example.com"));
    assert_eq!(mistakes_of(&explanation), [[Mistake::EmailInPlaceOfId]]);
    let explanation = explain(&mint::hmac(SECRET, "ann@example.com"), &secrets, Some("user_123"), Some("Ann@Example.com"));
    assert_eq!(mistakes_of(&explanation), [[Mistake::EmailInPlaceOfId, Mistake::LowerCasedId]]);
    let claims = json!({"sub": "ann@example.com"});
    let token = mint::jwt(SECRET, Algorithm::HS256, None, &claims).unwrap();
    let explanation = explain(&token, &secrets, Some("user_123"), Some("ann@example.com"));
    assert_eq!(explanation.verdict.as_ref().unwrap_err().reason, Reason::SubjectMismatch);
    assert_eq!(mistakes_of(&explanation), [[Mistake::EmailInPlaceOfId]]);
}

#[test]
fn a_good_token_needs_no_explanation() {
    let secrets = [given("file s", &[SECRET, b"\n"].concat(), Encoding::Text)];
    for (token, subject) in [
        (mint::hmac(SECRET, "user_123"), Some("user_123")),
        (mint::karta_v2(SECRET, "user_123", NOW, Some("mfa")), None),
        (mint::jwt(SECRET, Algorithm::HS256, None, &json!({"sub": "user_123"})).unwrap(), None),
    ] {
        let explanation = explain(&token, &secrets, subject, None);
        assert_eq!(explanation.verdict.as_ref().unwrap().subject(), "user_123");
        assert_eq!(explanation.findings, []);
    }
}

#[test]
fn what_nobody_can_explain_is_not_explained() {
    let secrets = [given("env S", SECRET, Encoding::Text)];
    let forged = mint::jwt(OTHER, Algorithm::HS256, None, &json!({"sub": "u1", "exp": 1})).unwrap();
    for (token, subject) in [
        (mint::hmac(OTHER, "user_123"), Some("user_123")),
        (forged, None),
        ("hello".to_owned(), None),
        (mint::karta_v2(OTHER, "u1", 1, None), None),
    ] {
        let explanation = explain(&token, &secrets, subject, Some("a@b"));
        assert_eq!(explanation.findings, [], "{token}");
        assert!(explanation.verdict.is_err());
    }
}

#[test]
fn two_mistakes_at_once_and_no_secret_shown() {
    let secrets = [given("env S", SECRET, Encoding::Text), given("env T", HEX_TEXT, Encoding::Hex)];
    let mac = hmac_bytes(HEX_TEXT, b"user_123");
    let explanation = explain(&STANDARD.encode(mac), &secrets, Some("user_123"), None);
    assert_eq!(mistakes_of(&explanation), [[Mistake::Base64Output, Mistake::OtherSecret, Mistake::EncodedKeyAsText]]);
    assert_eq!(explanation.findings[0].secret.as_deref(), Some("env T"));
    let shown = format!("{explanation:?}");
    for secret in [std::str::from_utf8(SECRET).unwrap(), std::str::from_utf8(HEX_TEXT).unwrap(), &hex::encode(SECRET)] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
