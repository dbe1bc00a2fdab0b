//! Properties: no text makes a format panic, and no change of a single bit survives.

use doorward::token::{FORMATS, FormatName, mint};
use jsonwebtoken::Algorithm;
use proptest::prelude::*;
use serde_json::json;

use super::support::*;

/// Texts that come close to tokens.
fn near_tokens() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        "[A-Za-z0-9_-]{0,90}",
        "[0-9a-f]{60,66}",
        Just("v2".to_owned()),
        "\\{\"(alg|sub|exp|kid|user_id)\":(\"HS256\"|1|null|\"\")\\}".prop_map(|json| {
            use base64::Engine as _;
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json)
        }),
        any::<String>(),
    ];
    prop::collection::vec(segment, 0..5).prop_map(|segments| segments.join("."))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics_a_format(token in prop_oneof![any::<String>(), near_tokens()], id in proptest::option::of(any::<String>())) {
        let keys = ring([secret(SECRET, &FormatName::ALL, Algorithm::HS256)]);
        for format in FORMATS {
            // Nobody signed any of these.
            prop_assert!(format.authenticate(&token, id.as_deref(), &keys, now()).is_err());
        }
    }

    #[test]
    fn no_claims_panic_the_rules(payload in "\\{\"(sub|exp|iat|aud|iss)\":(-?[0-9]{1,25}(\\.[0-9]{1,5})?(e[0-9]{1,3})?|\"[a-z]{0,5}\"|null|\\[\\])\\}") {
        let _ = judge_payload(&payload, &lax());
    }

    #[test]
    fn a_flipped_bit_never_verifies(which in 0..3_usize, at in any::<prop::sample::Index>(), bit in 0..7_u32) {
        let format = FormatName::ALL[which];
        let (token, asserted) = match format {
            FormatName::Hmac => (mint::hmac(SECRET, "user_123"), Some("user_123")),
            FormatName::KartaV2 => (mint::karta_v2(SECRET, "user_123", NOW, Some("mfa")), None),
            FormatName::Jwt => (mint::jwt(SECRET, Algorithm::HS256, None, &json!({"sub": "user_123"})).unwrap(), None),
        };
        let keys = ring_for(format);
        prop_assert!(judge(format, &token, asserted, &keys, &lax(), now()).is_ok());
        let mut bytes = token.into_bytes();
        let index = at.index(bytes.len());
        bytes[index] ^= 1 << bit;
        let flipped = String::from_utf8(bytes).unwrap(); // bit 7 stays: the text stays ASCII
        prop_assert!(judge(format, &flipped, asserted, &keys, &lax(), now()).is_err(), "{flipped}");
    }

    #[test]
    fn any_id_round_trips(id in "\\PC{1,40}") {
        prop_assume!(!id.trim().is_empty() && !["anonymous", "undefined", "null", "None", "NaN", "[object Object]"].contains(&id.trim()));
        prop_assert_eq!(subject(judge_hmac(&mint::hmac(SECRET, &id), Some(&id))), id.clone());
        prop_assert_eq!(subject(judge_karta(&mint::karta_v2(SECRET, &id, NOW, None))), id.clone());
        prop_assert_eq!(subject(judge_claims(&json!({"sub": id.clone()}), &lax())), id);
    }
}
