//! What is sent at every level, under both schemes, whatever the caller is called.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, crypto};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::token::claims::SteppedUp;

const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
const TARGET: Target<'_> = Target { method: "POST", path: "/chat", query: Some("a=1"), body: None, request_id: "r-1" };
const P256: &str = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgXswYTb2ttt4geKoq\ntm1cSLSi5lqrFUWt5VRjsbwRF4ehRANCAAQBKtsxF2Zp7zqxvnO9jsKJyJsd2BYp\nQPncLTNJG7GVMv1CNLuPEiuGTtghtCSpCUsX/wYT5GcVZvU+FYjteJqG\n-----END PRIVATE KEY-----\n";
const P384: &str = "-----BEGIN PRIVATE KEY-----\nMIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDCmzbzAx+WrR9kDBn8+\n255FTjtNs/GOwHUzR4n3bIXhZBkqW8S25zFW7KcWN1BPVZWhZANiAAThR5FuFxLF\nq21ZH6m6UZgziQZJ5WGO7TCbM5E1bOjtYVzYFjzj+bl4ihctrzfIYZH3A1wUKu7H\neYxcp0QZKqejBlNM9XI3JXqOFG8SkRkpm2PqVo38hYCTaYdo5ltRuB8=\n-----END PRIVATE KEY-----\n";
const ED25519: &str =
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIKTl7qGWEJDTJz1YRCWMvpsEk8Ya/r1pxnnkhk9FZJh3\n-----END PRIVATE KEY-----\n";

fn key(id: &str, algorithm: KeyAlgorithm, material: &str) -> AssertionKey {
    AssertionKey { id: id.to_owned(), algorithm, material: KeyBytes::new(material.as_bytes()) }
}

fn settings(schemes: &[Scheme], keys: Vec<AssertionKey>) -> AssertionSettings {
    AssertionSettings {
        schemes: schemes.to_vec(),
        audience: "agent".to_owned(),
        issuer: "doorward".to_owned(),
        lifetime_secs: 30,
        keys,
        mapped: vec![
            (HeaderName::from_static("x-user-id"), Mapped::Subject),
            (HeaderName::from_static("x-user-email"), Mapped::Claim("email".to_owned())),
            (HeaderName::from_static("x-user-tags"), Mapped::Claim("tags".to_owned())),
        ],
        elsewhere: vec![HeaderName::from_static("x-batch-user")],
        removed: Vec::new(),
    }
}

fn signer(schemes: &[Scheme]) -> Signer {
    Signer::new(settings(schemes, vec![key("a1", KeyAlgorithm::Hs256, "assertion_secret_0123456789abcdef")])).unwrap()
}

fn claims() -> Map<String, Value> {
    let Value::Object(map) = json!({ "email": "ada@example.com", "tags": ["a"], "level": "stepped_up" }) else { unreachable!() };
    map
}

fn verified<'a>(subject: &'a str, claims: &'a Map<String, Value>, stepped_up: Option<&'a SteppedUp>) -> Identity<'a> {
    let claims_json = serde_json::to_string(claims).unwrap().into();
    let who = Who::Verified(Verified { subject, claims, claims_json, method: "jwt", stepped_up });
    Identity { tenant: "acme", origin: Some("https://app.example.com"), session: None, who }
}

fn sent(signer: &Signer, identity: &Identity<'_>) -> Vec<(String, String)> {
    let signed = signer.sign_identity(identity, &TARGET, NOW).unwrap();
    signed.fields().iter().map(|(n, v)| (n.as_str().to_owned(), v.to_str().unwrap().to_owned())).collect()
}

fn value<'s>(sent: &'s [(String, String)], name: &str) -> Option<&'s str> {
    sent.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

fn names(sent: &[(String, String)]) -> Vec<&str> {
    sent.iter().map(|(n, _)| n.as_str()).collect()
}

#[test]
fn levels_below_verified_name_no_subject() {
    let signer = signer(&[Scheme::HttpMessageSignatures]);
    let always = ["x-identity-level", "x-identity-tenant", "x-identity-audience"];
    let anonymous = sent(&signer, &Identity { tenant: "acme", origin: None, session: None, who: Who::Anonymous });
    assert_eq!(names(&anonymous), [&always[..], &["x-identity-request-id", "signature-input", "signature"]].concat());
    assert_eq!(value(&anonymous, "x-identity-level"), Some("anonymous"));
    let claimed = sent(&signer, &Identity { tenant: "acme", origin: None, session: None, who: Who::Claimed("ada") });
    let rest = ["x-identity-claimed-subject", "x-identity-request-id", "signature-input", "signature"];
    assert_eq!(names(&claimed), [&always[..], &rest].concat());
    assert_eq!(value(&claimed, "x-identity-level"), Some("claimed"));
}

#[test]
fn a_stepped_up_caller_is_told_in_full() {
    let claims = claims();
    let stepped_up = SteppedUp { at: 1_799_999_990.9, aal: Some("mfa".to_owned()) };
    let sent = sent(&signer(&[Scheme::HttpMessageSignatures]), &verified("Ada Lövelace", &claims, Some(&stepped_up)));
    for (name, expected) in [
        ("x-identity-level", "stepped_up"),
        ("x-identity-tenant", "acme"),
        ("x-identity-audience", "agent"),
        ("x-identity-request-id", "r-1"),
        ("x-identity-origin", "https://app.example.com"),
        ("x-identity-subject", "Ada%20L%C3%B6velace"),
        ("x-identity-method", "jwt"),
        ("x-identity-stepped-up-at", "1799999990"),
        ("x-identity-aal", "mfa"),
        ("x-user-id", "Ada%20L%C3%B6velace"),
        ("x-user-email", "ada@example.com"),
    ] {
        assert_eq!(value(&sent, name), Some(expected), "{name}");
    }
    assert_eq!(value(&sent, "x-user-tags"), None, "a list is no header value");
    let told = URL_SAFE_NO_PAD.decode(value(&sent, "x-identity-claims").unwrap()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&told).unwrap(), Value::Object(claims));
}

#[test]
fn the_signature_covers_everything_else_that_is_sent() {
    let claims = claims();
    let signer = signer(&[Scheme::HttpMessageSignatures, Scheme::Jwt]);
    let target = Target { body: Some(b"{}"), ..TARGET };
    let signed = signer.sign_identity(&verified("ada", &claims, None), &target, NOW).unwrap();
    let text = |name: &str| signed.fields().iter().find(|(n, _)| n == name).map(|(_, v)| v.to_str().unwrap()).unwrap();
    let input = text("signature-input");
    for (name, _) in signed.fields().iter().filter(|(n, _)| n != "signature" && n != "signature-input") {
        assert!(input.contains(&format!("\"{name}\"")), "{name} is not covered: {input}");
    }
    for part in ["\"@method\" \"@path\" \"@query\"", "\"content-digest\"", "\"x-identity-assertion\""] {
        assert!(input.contains(part), "{part}: {input}");
    }
    assert!(input.contains(";created=1800000000;expires=1800000030;nonce=\""), "{input}");
    assert!(input.ends_with(";keyid=\"a1\";alg=\"hmac-sha256\";tag=\"doorward\""), "{input}");
    assert_eq!(text("content-digest"), http_message_signatures::content_digest(b"{}"));
}

#[test]
fn nonces_differ() {
    let signer = signer(&[Scheme::HttpMessageSignatures]);
    let mut inputs = std::collections::HashSet::new();
    for _ in 0..100 {
        let sent = sent(&signer, &Identity { tenant: "acme", origin: None, session: None, who: Who::Anonymous });
        assert!(inputs.insert(value(&sent, "signature-input").unwrap().to_owned()));
    }
}

/// Decodes an assertion after verifying it with the published key, or the shared secret where none is published.
fn read(signer: &Signer, token: &str, algorithm: Algorithm, secret: &str) -> (Value, Value) {
    let (message, signature) = token.rsplit_once('.').unwrap();
    let jwks: jsonwebtoken::jwk::JwkSet = serde_json::from_value(json!({ "keys": signer.published().collect::<Vec<_>>() })).unwrap();
    let decoding = jwks.keys.first().map_or_else(|| DecodingKey::from_secret(secret.as_bytes()), |k| DecodingKey::from_jwk(k).unwrap());
    assert!(crypto::verify(signature, message.as_bytes(), &decoding, algorithm).unwrap());
    let part = |text: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap();
    let (header, claims) = message.split_once('.').unwrap();
    (part(header), part(claims))
}

#[test]
fn the_jwt_scheme_says_the_same_in_one_header() {
    let claims = claims();
    let stepped_up = SteppedUp { at: 1_799_999_990.9, aal: Some("mfa".to_owned()) };
    for (kind, material, algorithm, name) in [
        (KeyAlgorithm::Hs256, "assertion_secret_0123456789abcdef", Algorithm::HS256, "HS256"),
        (KeyAlgorithm::Es256, P256, Algorithm::ES256, "ES256"),
        (KeyAlgorithm::EdDsa, ED25519, Algorithm::EdDSA, "EdDSA"),
    ] {
        let signer = Signer::new(settings(&[Scheme::Jwt], vec![key("k", kind, material)])).unwrap();
        let sent = sent(&signer, &verified("Ada Lövelace", &claims, Some(&stepped_up)));
        assert_eq!(names(&sent), ["x-identity-request-id", "x-user-id", "x-user-email", "x-identity-assertion"]);
        let (header, mut told) = read(&signer, value(&sent, "x-identity-assertion").unwrap(), algorithm, material);
        assert_eq!(header, json!({ "typ": "doorward-assertion+jwt", "alg": name, "kid": "k" }));
        assert_eq!(told["jti"].take().as_str().unwrap().len(), 22);
        let expected = json!({
            "iss": "doorward", "aud": "agent", "sub": "Ada Lövelace", "iat": 1_800_000_000, "exp": 1_800_000_030, "jti": null,
            "level": "stepped_up", "tenant": "acme", "origin": "https://app.example.com", "method": "jwt", "htm": "POST",
            "htu": "/chat?a=1", "request_id": "r-1", "stepped_up_at": 1_799_999_990, "aal": "mfa", "claims": claims,
        });
        assert_eq!(told, expected, "{name}: a host claim called level stays below claims");
    }
}

#[test]
fn an_assertion_about_a_claimed_caller_has_no_subject() {
    let signer = signer(&[Scheme::Jwt]);
    let sent = sent(&signer, &Identity { tenant: "acme", origin: None, session: None, who: Who::Claimed("ada") });
    assert_eq!(names(&sent), ["x-identity-request-id", "x-identity-assertion"], "mapped names wait for verified");
    let token = value(&sent, "x-identity-assertion").unwrap();
    let (_, told) = read(&signer, token, Algorithm::HS256, "assertion_secret_0123456789abcdef");
    assert_eq!(told["claimed_subject"], "ada");
    assert!(told.get("sub").is_none() && told.get("claims").is_none() && told.get("method").is_none(), "{told}");
}

#[test]
fn a_session_is_named_under_both_schemes() {
    let identity = Identity { tenant: "acme", origin: None, session: Some("0123abcd"), who: Who::Anonymous };
    let signed = sent(&signer(&[Scheme::HttpMessageSignatures]), &identity);
    assert_eq!(value(&signed, "x-identity-session-id"), Some("0123abcd"));
    assert!(value(&signed, "signature-input").unwrap().contains("\"x-identity-session-id\""), "and covered");
    let signer = signer(&[Scheme::Jwt]);
    let sent = sent(&signer, &identity);
    let (_, claims) = read(&signer, value(&sent, "x-identity-assertion").unwrap(), Algorithm::HS256, "assertion_secret_0123456789abcdef");
    assert_eq!(claims["sid"], "0123abcd");
}

#[test]
fn only_public_keys_are_published() {
    let keys = vec![
        key("s", KeyAlgorithm::Hs256, "assertion_secret_0123456789abcdef"),
        key("e", KeyAlgorithm::Es256, P256),
        key("d", KeyAlgorithm::EdDsa, ED25519),
    ];
    let signer = Signer::new(settings(&[Scheme::HttpMessageSignatures], keys)).unwrap();
    let jwks = json!({ "keys": signer.published().collect::<Vec<_>>() });
    let keys = jwks["keys"].as_array().unwrap();
    let kinds: Vec<_> = keys.iter().map(|k| (k["kid"].as_str().unwrap(), k["kty"].as_str().unwrap(), k["use"].as_str().unwrap())).collect();
    assert_eq!(kinds, [("e", "EC", "sig"), ("d", "OKP", "sig")]);
    assert!(keys.iter().all(|k| k.get("d").is_none() && k.get("k").is_none()), "no private member: {jwks}");
}

#[test]
fn unusable_settings_are_refused_with_their_key() {
    let good = || key("a1", KeyAlgorithm::Hs256, "assertion_secret_0123456789abcdef");
    let hms = &[Scheme::HttpMessageSignatures][..];
    let fault = |settings| Signer::new(settings).unwrap_err();
    assert_eq!(fault(settings(hms, vec![key("e", KeyAlgorithm::Es256, P256)])).0, None);
    assert_eq!(fault(settings(&[Scheme::Jwt], Vec::new())).0, None);
    assert_eq!(fault(settings(&[], vec![good()])).0, None);
    for (id, algorithm, material) in [
        ("e", KeyAlgorithm::Es256, P384),
        ("e", KeyAlgorithm::Es256, ED25519),
        ("e", KeyAlgorithm::Es256, "text"),
        ("d", KeyAlgorithm::EdDsa, P256),
        ("a\"1", KeyAlgorithm::Hs256, "assertion_secret_0123456789abcdef"),
    ] {
        let (index, why) = fault(settings(hms, vec![good(), key(id, algorithm, material)]));
        assert_eq!(index, Some(1), "{why}");
    }
    for name in ["host", "content-length", "connection", "x-identity-subject", "x-doorward-x", "signature"] {
        let mut settings = settings(hms, vec![good()]);
        settings.mapped.push((HeaderName::from_static(name), Mapped::Subject));
        assert!(fault(settings).1.contains(name));
    }
    for lifetime_secs in [0, 61] {
        assert_eq!(fault(AssertionSettings { lifetime_secs, ..settings(hms, vec![good()]) }).0, None);
    }
}

/// `threats` 4: what fits no header is refused, and its twin of the largest size passes.
#[test]
fn long_ids_are_refused() {
    let signer = signer(&[Scheme::HttpMessageSignatures]);
    let none = Map::new();
    let deny = |identity: &Identity<'_>| signer.sign_identity(identity, &TARGET, NOW).map(drop).map_err(|d| d.reason.code());
    let (fits, long) = ("é".repeat(341), "é".repeat(342));
    assert_eq!(deny(&verified(&fits, &none, None)), Ok(()));
    assert_eq!(deny(&verified(&long, &none, None)), Err("token_claims_too_large"));
    assert_eq!(deny(&Identity { tenant: "a", origin: None, session: None, who: Who::Claimed(&fits) }), Ok(()));
    assert_eq!(deny(&Identity { tenant: "a", origin: None, session: None, who: Who::Claimed(&long) }), Err("request_header_too_large"));
    let mut huge = Map::new();
    huge.insert("x".to_owned(), Value::String("x".repeat(20_000)));
    assert_eq!(deny(&verified("ada", &huge, None)), Err("request_header_too_large"));
}

/// A reserved name in some spelling that reaches a header map.
fn spelled() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "x-identity-subject",
        "x-identity-level",
        "x-identity-new",
        "x-doorward-reason",
        "signature",
        "signature-input",
        "accept-signature",
        "x-user-email",
        "x-http-method-override",
        "x-original-url",
        "remote-user",
        "x-forwarded-user",
        "x-auth-request-email",
    ]);
    (name, prop::collection::vec((prop::sample::select(vec!["-", "_", ".", "", "--", "~"]), any::<bool>()), 8)).prop_map(
        |(name, spelling)| {
            let words = name.split('-').zip(spelling);
            words.fold(String::new(), |all, (word, (separator, upper))| {
                let word = if upper { word.to_uppercase() } else { word.to_owned() };
                if all.is_empty() { word } else { format!("{all}{separator}{word}") }
            })
        },
    )
}

proptest! {
    /// `threats` 1: whatever the client sent, the upstream gets our fields once each and no other reserved one.
    #[test]
    fn strip_then_apply_leaves_exactly_ours(
        forged in prop::collection::vec((spelled(), "[ -~]{0,12}"), 0..12),
        honest in prop::collection::vec(("[a-z]{1,3}-[a-z]{1,5}", "[!-~]{0,12}"), 0..5),
        level in 0..3,
    ) {
        let claims = claims();
        let signer = signer(&[Scheme::HttpMessageSignatures, Scheme::Jwt]);
        let identity = match level {
            0 => Identity { tenant: "acme", origin: None, session: None, who: Who::Anonymous },
            1 => Identity { tenant: "acme", origin: None, session: None, who: Who::Claimed("ada") },
            _ => verified("ada", &claims, None),
        };
        let signed = signer.sign_identity(&identity, &TARGET, NOW).unwrap();
        let ours = signed.fields().to_vec();
        let mut headers = HeaderMap::new();
        for (name, value) in forged.iter().chain(&honest) {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
            headers.append(name, HeaderValue::from_static("again"));
        }
        signed.apply(signer.reserved(), &mut headers);
        let mut expected = HeaderMap::new();
        for (name, value) in &honest {
            expected.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
            expected.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("again"));
        }
        for (name, value) in ours {
            prop_assert!(expected.insert(name, value).is_none(), "one of ours was sent twice");
        }
        prop_assert_eq!(headers, expected);
    }

    /// `threats` 4: no subject, claimed id, claim or step-up level splits a header or leaves visible ASCII.
    #[test]
    fn any_text_becomes_one_visible_value(text in "(?s).{1,60}|[\\r\\n\\x00 %]{1,9}") {
        let mut claims = Map::new();
        claims.insert("email".to_owned(), Value::String(text.clone()));
        let stepped_up = SteppedUp { at: 1.0, aal: Some(text.clone()) };
        let signer = signer(&[Scheme::HttpMessageSignatures, Scheme::Jwt]);
        let told = sent(&signer, &verified(&text, &claims, Some(&stepped_up)));
        for (name, value) in &told {
            let spaced = name == "signature-input";
            prop_assert!(value.bytes().all(|b| b.is_ascii_graphic() || spaced && b == b' '), "{}: {}", name, value);
        }
        for name in ["x-identity-subject", "x-identity-aal", "x-user-id", "x-user-email"] {
            let decoded = percent_encoding::percent_decode_str(value(&told, name).unwrap()).decode_utf8().unwrap().into_owned();
            prop_assert_eq!(&decoded, &text);
        }
        let claimed = sent(&signer, &Identity { tenant: "acme", origin: None, session: None, who: Who::Claimed(&text) });
        let decoded = percent_encoding::percent_decode_str(value(&claimed, "x-identity-claimed-subject").unwrap());
        prop_assert_eq!(decoded.decode_utf8().unwrap().into_owned(), text);
    }
}

/// For an ingress: an absent name would leave the client's copy, so every one is there, empty where it does not apply.
#[test]
fn every_reserved_name_is_there_where_somebody_else_sets_them() {
    let claims = claims();
    for schemes in [&[Scheme::HttpMessageSignatures][..], &[Scheme::Jwt], &Scheme::ALL] {
        let signer = signer(schemes);
        let mut names: Vec<_> = signer.names().cloned().collect();
        names.sort_by_key(ToString::to_string);
        assert!(names.iter().all(|name| signer.reserved().contains(name)));
        for identity in [verified("ada", &claims, None), Identity { tenant: "acme", origin: None, session: None, who: Who::Anonymous }] {
            let signed = signer.sign_fields(&identity, &TARGET, NOW, true).unwrap();
            let mut sent: Vec<_> = signed.fields().iter().map(|(name, _)| name.clone()).collect();
            sent.sort_by_key(ToString::to_string);
            assert_eq!(sent, names, "{schemes:?}: each once");
            let text = |name: &str| signed.fields().iter().find(|(n, _)| n == name).map(|(_, v)| v.to_str().unwrap()).unwrap();
            let plain = signer.sign_identity(&identity, &TARGET, NOW).unwrap();
            for name in signer.names().filter(|name| !plain.fields().iter().any(|(n, _)| n == *name)) {
                assert_eq!(text(name.as_str()), "", "{schemes:?} {name}");
            }
            let input = text("signature-input");
            let covers = |name: &&HeaderName| input.contains(&format!("\"{name}\""));
            let covered = if schemes.contains(&Scheme::HttpMessageSignatures) { names.len() - 2 } else { 0 };
            assert_eq!(names.iter().filter(covers).count(), covered, "{schemes:?}: {input}");
        }
    }
}
