//! Attacks on the formats (`threats` 7 to 17), each beside its harmless twin.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use doorward::clock::UnixTime;
use doorward::reason::Reason;
use doorward::secret::KeyBytes;
use doorward::token::keys::{IdentityKey, KeyRing};
use doorward::token::{FORMATS, FormatName, mint};
use jsonwebtoken::Algorithm;
use serde_json::json;

use super::support::*;

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
const PAYLOAD: &str = r#"{"sub":"u1"}"#;
const OTHER: &[u8] = b"another_secret_0123456789abcdef0";

fn b64(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

fn jwt(token: &str) -> Result<doorward::token::claims::VerifiedSubject, doorward::reason::Denied> {
    judge(FormatName::Jwt, token, None, &ring_for(FormatName::Jwt), &lax(), now())
}

/// A token of the test secret with this header, signed as HS256.
fn with_header(header: &str) -> String {
    mint::jwt_of(SECRET, Algorithm::HS256, header, PAYLOAD).unwrap()
}

/// `threats` 7. The attacker registers `id`, the host honestly signs it, the MAC moves into another format.
#[test]
fn cross_format_forgery() {
    let karta_id = b64(&format!(r#"{{"user_id":"victim","stepped_up_at":{NOW},"aal":"mfa"}}"#));
    let jwt_id = format!("{}.{}", b64(HEADER), b64(r#"{"sub":"victim"}"#));
    let as_karta = format!("v2.{karta_id}.{}", mint::hmac(SECRET, &karta_id));
    let as_jwt = format!("{jwt_id}.{}", URL_SAFE_NO_PAD.encode(hex::decode(mint::hmac(SECRET, &jwt_id)).unwrap()));

    // One secret, one format: the hex secret verifies neither.
    let hex_only = ring_for(FormatName::Hmac);
    for (format, token) in [(FormatName::KartaV2, &as_karta), (FormatName::Jwt, &as_jwt)] {
        assert_eq!(refusal(judge(format, token, None, &hex_only, &lax(), now())), Reason::TokenSignatureInvalid);
    }
    // There, an id of any form is an id.
    for id in [&karta_id, &jwt_id[..36].to_owned()] {
        assert_eq!(subject(judge_hmac(&mint::hmac(SECRET, id), Some(id))), *id);
    }

    // host_generated_subjects: the operator's word is all that stands against the forgery, whose bytes are honest ones.
    let shared = ring([secret(SECRET, &FormatName::ALL, Algorithm::HS256)]);
    assert_eq!(subject(judge(FormatName::KartaV2, &as_karta, None, &shared, &lax(), now())), "victim");
    assert_eq!(subject(judge(FormatName::Jwt, &as_jwt, None, &shared, &lax(), now())), "victim");
    // But such an id is refused as an id, and nothing else is.
    let as_id = |id: &str| judge(FormatName::Hmac, &mint::hmac(SECRET, id), Some(id), &shared, &lax(), now());
    for id in [&karta_id, &jwt_id, &b64("{}"), &format!("{}.{}", b64(r#"{"alg":"none"}"#), b64("{}"))] {
        assert_eq!(refusal(as_id(id)), Reason::SubjectConfusable, "{id}");
    }
    for id in
        ["user_123", "e30=", "e31", "bm90IGpzb24", "a.b", "a@example.com", "1.2.3", &format!("{jwt_id}.x"), &format!("{}.", b64(HEADER))]
    {
        assert_eq!(subject(as_id(id)), id);
    }
    // A key for two formats fears the other one only.
    let two = ring([secret(SECRET, &[FormatName::Hmac, FormatName::Jwt], Algorithm::HS256)]);
    let as_id = |id: &str| judge(FormatName::Hmac, &mint::hmac(SECRET, id), Some(id), &two, &lax(), now());
    assert_eq!(subject(as_id(&karta_id)), karta_id);
    assert_eq!(refusal(as_id(&jwt_id)), Reason::SubjectConfusable);
}

/// `threats` 8: the key decides the algorithm.
#[test]
fn algorithms() {
    for alg in ["none", "None", "NONE", "nOnE", "hs256", "HS384", "HS512", "RS256", "ES256", "PS256", "EdDSA", "", "HS256 "] {
        for token in [with_header(&format!(r#"{{"alg":"{alg}"}}"#)), format!("{}.{}.", b64(&format!(r#"{{"alg":"{alg}"}}"#)), b64(PAYLOAD))]
        {
            assert_eq!(refusal(jwt(&token)), Reason::TokenAlgorithmRefused, "{alg:?}");
        }
    }
    for header in ["{}", r#"{"alg":null}"#, r#"{"alg":["HS256"]}"#, r#"{"alg":256}"#] {
        assert_eq!(refusal(jwt(&with_header(header))), Reason::TokenAlgorithmRefused, "{header}");
    }
    // Truly signed with the larger hash, and said so: still not what the key is bound to.
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        let token = mint::jwt(SECRET, algorithm, None, &json!({"sub": "u1"})).unwrap();
        assert_eq!(refusal(jwt(&token)), Reason::TokenAlgorithmRefused);
        let bound = ring([secret(SECRET, &[FormatName::Jwt], algorithm)]);
        assert_eq!(subject(judge(FormatName::Jwt, &token, None, &bound, &lax(), now())), "u1");
        // Its header changed to HS256: the signature does not hold.
        let (_, rest) = token.split_once('.').unwrap();
        assert_eq!(refusal(jwt(&format!("{}.{rest}", b64(HEADER)))), Reason::TokenSignatureInvalid);
    }
    assert_eq!(subject(jwt(&with_header(r#"{"alg":"HS256"}"#))), "u1");
}

/// `threats` 8: an RSA public key, published, is no HMAC secret.
#[test]
fn a_public_key_is_no_shared_secret() {
    let file: serde_json::Value = serde_json::from_str(include_str!("../vectors/jws.json")).unwrap();
    let vector = &file["vectors"][1];
    let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(vector["jwk"].clone()).unwrap();
    let text = vector["jwk"].to_string();
    let decoding = jsonwebtoken::DecodingKey::from_jwk(&jwk).unwrap();
    let keys = ring([IdentityKey::public("p1", &KeyBytes::new(text.clone().into_bytes()), decoding, Algorithm::RS256)]);
    let forged = mint::jwt(text.as_bytes(), Algorithm::HS256, None, &json!({"sub": "victim"})).unwrap();
    assert_eq!(refusal(judge(FormatName::Jwt, &forged, None, &keys, &lax(), now())), Reason::TokenAlgorithmRefused);
    let relabelled = mint::jwt_of(text.as_bytes(), Algorithm::HS256, r#"{"alg":"RS256"}"#, PAYLOAD).unwrap();
    assert_eq!(refusal(judge(FormatName::Jwt, &relabelled, None, &keys, &lax(), now())), Reason::TokenSignatureInvalid);
    assert_eq!(
        refusal(judge(FormatName::Hmac, &mint::hmac(text.as_bytes(), "u1"), Some("u1"), &keys, &lax(), now())),
        Reason::TokenSignatureInvalid
    );
}

/// `threats` 9.
#[test]
fn headers() {
    let refused = [
        r#"{"alg":"HS256","crit":["exp"]}"#,
        r#"{"alg":"HS256","crit":[]}"#,
        r#"{"alg":"HS256","b64":false}"#,
        r#"{"alg":"HS256","b64":true}"#,
        r#"{"alg":"HS256","zip":"DEF"}"#,
        r#"{"alg":"HS256","kid":5}"#,
        r#"{"alg":"HS256","typ":["JWT"]}"#,
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","jwk":{"k":1,"k":2}}"#,
        // `threats` 13: what the gateway signs is not what a host says.
        r#"{"alg":"HS256","typ":"doorward-session+jwt"}"#,
        r#"{"alg":"HS256","typ":"application/Doorward-Session+JWT"}"#,
        r#"{"alg":"HS256","typ":"doorward-assertion+jwt"}"#,
    ];
    for header in refused {
        assert_eq!(refusal(jwt(&with_header(header))), Reason::TokenHeaderRefused, "{header}");
    }
    let own = format!(r#"{{"alg":"HS256","typ":"{}"}}"#, doorward::request::credential::SESSION_TYP);
    assert_eq!(refusal(jwt(&with_header(&own))), Reason::TokenHeaderRefused);
    for (length, expected) in [(256, None), (257, Some(Reason::TokenHeaderRefused))] {
        let token = with_header(&json!({"alg": "HS256", "kid": "k".repeat(length)}).to_string());
        assert_eq!(jwt(&token).err().map(|d| d.reason), expected, "{length}");
    }
    for header in ["[]", "5", "{", r#"{"alg":"HS256"} {}"#, "", "\u{feff}{\"alg\":\"HS256\"}"] {
        assert_eq!(refusal(jwt(&with_header(header))), Reason::TokenMalformed, "{header:?}");
    }
    // Ignored: keys come from configuration only. A key inside the token verifies nothing.
    let embedded = json!({"alg": "HS256", "typ": "at+jwt", "cty": "x", "jku": "https://evil.dev/jwks", "x5u": "https://evil.dev/c", "x5c": ["AA"],
        "jwk": {"kty": "oct", "k": URL_SAFE_NO_PAD.encode(OTHER)}});
    assert_eq!(subject(jwt(&with_header(&embedded.to_string()))), "u1");
    let self_signed = mint::jwt_of(OTHER, Algorithm::HS256, &embedded.to_string(), PAYLOAD).unwrap();
    assert_eq!(refusal(jwt(&self_signed)), Reason::TokenSignatureInvalid);
}

/// `threats` 9: `kid` is an exact name, where the tenant's keys have any.
#[test]
fn kids() {
    let named = |kid: Option<&str>, bytes: &[u8]| {
        let mut key = secret(bytes, &[FormatName::Jwt], Algorithm::HS256);
        key.kid = kid.map(str::to_owned);
        key
    };
    let token = |kid: Option<&str>, bytes: &[u8]| mint::jwt(bytes, Algorithm::HS256, kid, &json!({"sub": "u1"})).unwrap();
    let both = ring([named(Some("k1"), SECRET), named(None, OTHER)]);
    let judged = |token: &str, keys: &KeyRing| judge(FormatName::Jwt, token, None, keys, &lax(), now()).err().map(|d| d.reason);
    assert_eq!(judged(&token(Some("k1"), SECRET), &both), None);
    assert_eq!(judged(&token(None, OTHER), &both), None);
    assert_eq!(judged(&token(None, SECRET), &both), Some(Reason::TokenSignatureInvalid));
    assert_eq!(judged(&token(Some("k1"), OTHER), &both), Some(Reason::TokenSignatureInvalid));
    for kid in ["K1", "k1 ", "", "k2", "../../dev/null", "k1' OR '1'='1"] {
        assert_eq!(judged(&token(Some(kid), SECRET), &both), Some(Reason::TokenKeyUnknown), "{kid}");
    }
    let only_named = ring([named(Some("k1"), SECRET)]);
    assert_eq!(judged(&token(None, SECRET), &only_named), Some(Reason::TokenKeyUnknown));
    // Nobody has ids: a kid says nothing.
    let none = ring([named(None, SECRET)]);
    assert_eq!(judged(&token(Some("anything"), SECRET), &none), None);
    // A retired key keeps its name: the rule does not change by its expiry.
    let mut retired = named(Some("k1"), OTHER);
    retired.not_after = Some(now());
    let rest = ring([retired, named(None, SECRET)]);
    assert_eq!(judged(&token(Some("k1"), SECRET), &rest), Some(Reason::TokenKeyUnknown));
    assert_eq!(judged(&token(None, SECRET), &rest), None);
}

/// `threats` 10 and 14: one spelling.
#[test]
fn spellings() {
    let token = with_header(HEADER);
    assert_eq!(subject(jwt(&token)), "u1");
    let (header, rest) = token.split_once('.').unwrap();
    let (payload, signature) = rest.split_once('.').unwrap();
    // 32 bytes end in a digit with two spare bits: every other spelling of the same bytes is refused.
    let last = signature.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let next = alphabet.chars().nth(alphabet.find(last).unwrap() + 1).unwrap();
    let trailing_bits = format!("{header}.{payload}.{}{next}", &signature[..signature.len() - 1]);
    let others = [
        trailing_bits,
        format!("{token}="),
        format!("{token}=="),
        format!("{header}=.{payload}.{signature}"),
        format!("{header}.{payload}==.{signature}"),
        format!(" {token}"),
        format!("{token}\n"),
        format!("{header}.{payload} .{signature}"),
        format!("{header}.{payload}.{signature}."),
        format!("{header}.{payload}"),
        format!("{header}..{payload}.{signature}"),
        format!("{token}.{signature}"),
        format!(".{token}"),
        token.replace('.', ".."),
        format!("{header}.{payload}.{}", signature.replace(['-', '_'], "+") + "+"),
        String::new(),
        ".".to_owned(),
        "x".repeat(16 * 1024 + 1),
    ];
    for other in others {
        assert_eq!(refusal(jwt(&other)), Reason::TokenMalformed, "{other}");
    }

    let hex = mint::hmac(SECRET, "u1");
    assert_eq!(subject(judge_hmac(&hex, Some("u1"))), "u1");
    for other in [
        hex.to_uppercase(),
        format!("{hex} "),
        format!("0x{hex}"),
        hex[..63].to_owned(),
        hex[..62].to_owned(),
        format!("{hex}00"),
        b64(&hex),
    ] {
        assert_eq!(refusal(judge_hmac(&other, Some("u1"))), Reason::TokenMalformed, "{other}");
    }

    let karta = mint::karta_v2(SECRET, "u1", NOW, Some("mfa"));
    assert_eq!(subject(judge_karta(&karta)), "u1");
    let (body, mac) = karta.rsplit_once('.').unwrap();
    for other in [
        format!("{body}=.{mac}"),
        format!("{body}.{}", mac.to_uppercase()),
        format!("{karta}.x"),
        format!("{body}.x.{mac}"),
        karta.replace("v2.", "v1."),
        karta.replace("v2.", "V2."),
        format!("{body}.{}", &mac[..62]),
        body.to_owned(),
        "v2..".to_owned(),
    ] {
        assert_eq!(refusal(judge_karta(&other)), Reason::TokenMalformed, "{other}");
    }
}

/// `threats` 14: the id is compared byte for byte.
#[test]
fn ids_are_bytes() {
    let id = "Jos\u{e9}\u{0}x";
    let token = mint::hmac(SECRET, id);
    assert_eq!(subject(judge_hmac(&token, Some(id))), id);
    for other in ["Jose\u{301}\u{0}x", "Jos\u{e9}", "jos\u{e9}\u{0}x", " Jos\u{e9}\u{0}x", "Jos\u{e9}\u{0}x\n", "Jos\u{e9}\u{0}y"] {
        assert_eq!(refusal(judge_hmac(&token, Some(other))), Reason::TokenSignatureInvalid, "{other:?}");
    }
    assert_eq!(refusal(judge_hmac(&token, None)), Reason::SubjectMissing);
}

/// `threats` 11: duplicates at any depth, also after unescaping.
#[test]
fn duplicate_claims() {
    for payload in [
        r#"{"sub":"u1","sub":"u2"}"#,
        r#"{"sub":"u1","s\u0075b":"u1"}"#,
        r#"{"sub":"u1","m":{"a":1,"a":2}}"#,
        r#"{"sub":"u1","l":[{"a":1,"a":1}]}"#,
    ] {
        assert_eq!(refusal(judge_payload(payload, &lax())), Reason::TokenClaimMalformed, "{payload}");
    }
    for payload in ["", "[]", "null", r#""u1""#, r#"{"sub":"u1"}x"#, r#"{"sub":"u1",}"#, "{\"sub\":\"u\\ud800\"}"] {
        assert_eq!(refusal(judge_payload(payload, &lax())), Reason::TokenClaimMalformed, "{payload}");
    }
    let deep = |n| format!(r#"{{"sub":"u1","d":{}{}}}"#, "[".repeat(n), "]".repeat(n));
    assert_eq!(subject(judge_payload(&deep(50), &lax())), "u1");
    assert_eq!(refusal(judge_payload(&deep(500), &lax())), Reason::TokenClaimMalformed);
}

/// `threats` 13 and 19: another key's token, and a key before and after its time.
#[test]
fn keys_and_their_times() {
    let tokens = [
        (FormatName::Hmac, mint::hmac(SECRET, "u1")),
        (FormatName::KartaV2, mint::karta_v2(SECRET, "u1", NOW, None)),
        (FormatName::Jwt, with_header(HEADER)),
    ];
    for (format, token) in &tokens {
        let asserted = (*format == FormatName::Hmac).then_some("u1");
        let judged = |keys: &KeyRing, now| judge(*format, token, asserted, keys, &lax(), now).err().map(|d| d.reason);
        let other = secret(OTHER, &[*format], Algorithm::HS256);
        assert_eq!(judged(&ring([other]), now()), Some(Reason::TokenSignatureInvalid));
        assert_eq!(judged(&ring([]), now()), Some(Reason::TokenSignatureInvalid));
        // Old and new overlap, in either order.
        let pair =
            |first: &[u8], second: &[u8]| ring([secret(first, &[*format], Algorithm::HS256), secret(second, &[*format], Algorithm::HS256)]);
        assert_eq!(judged(&pair(SECRET, OTHER), now()), None);
        assert_eq!(judged(&pair(OTHER, SECRET), now()), None);
        // A key for another format does not count.
        let elsewhere: Vec<_> = FormatName::ALL.into_iter().filter(|f| f != format).collect();
        assert_eq!(judged(&ring([secret(SECRET, &elsewhere, Algorithm::HS256)]), now()), Some(Reason::TokenSignatureInvalid));
        let mut scheduled = secret(SECRET, &[*format], Algorithm::HS256);
        scheduled.not_before = Some(UnixTime::from_secs(NOW));
        scheduled.not_after = Some(UnixTime::from_secs(NOW + 1));
        let keys = ring([scheduled]);
        let millis = |ms: i64| UnixTime::from_millis((NOW as i64 * 1000 + ms) as u64);
        for (ms, expected) in
            [(-1, Some(Reason::TokenSignatureInvalid)), (0, None), (999, None), (1000, Some(Reason::TokenSignatureInvalid))]
        {
            assert_eq!(judged(&keys, millis(ms)), expected, "{ms}");
        }
    }
}

/// `threats` 16: nothing of a token, a key or a claim's value stands in a refusal's detail.
#[test]
fn details_quote_nothing() {
    let secret_text = std::str::from_utf8(SECRET).unwrap();
    let marked = "M4RK3D";
    let tokens = [
        mint::jwt(OTHER, Algorithm::HS256, Some(marked), &json!({"sub": marked})).unwrap(),
        mint::jwt(SECRET, Algorithm::HS256, Some(marked), &json!({"sub": "null", "x": marked, "iss": marked})).unwrap(),
        mint::jwt(SECRET, Algorithm::HS256, None, &json!({"sub": "u1", "aud": marked})).unwrap(),
        mint::jwt(SECRET, Algorithm::HS256, None, &json!({"sub": "u1", "exp": marked})).unwrap(),
        with_header(&format!(r#"{{"alg":"{marked}"}}"#)),
        format!("{marked}.{marked}.{marked}="),
    ];
    for token in tokens {
        let denied = jwt(&token).unwrap_err();
        let shown = format!("{denied:?}");
        assert!(!shown.contains(marked) && !shown.contains(secret_text) && !shown.contains(&token), "{shown}");
    }
    let shown = format!("{:?}", ring_for(FormatName::Jwt));
    assert!(!shown.contains(secret_text) && !shown.contains(&hex::encode(SECRET)), "{shown}");
    assert_eq!(FORMATS.len(), FormatName::ALL.len());
}
