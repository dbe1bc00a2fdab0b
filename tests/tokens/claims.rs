//! Claims: every rule at its boundary, and every wrong type beside the right one.

use std::time::Duration;

use doorward::clock::UnixTime;
use doorward::reason::Reason;
use doorward::token::claims::{ClaimRules, Forward, MAX_CLAIMS_BYTES, StepUpClaim};
use doorward::token::{FormatName, mint};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::support::*;

/// Leeway is 60 s throughout.
const EXACT: i64 = NOW as i64;

fn with(name: &str, value: impl Into<Value>) -> Value {
    json!({ "sub": "u1", name: value.into() })
}

fn of(outcome: Result<doorward::token::claims::VerifiedSubject, doorward::reason::Denied>) -> Option<Reason> {
    outcome.err().map(|denied| denied.reason)
}

#[test]
fn times_at_minus_one_zero_and_plus_one() {
    let cases = [
        // accepted iff now < exp + leeway
        ("exp", -61, Some(Reason::TokenExpired)),
        ("exp", -60, Some(Reason::TokenExpired)),
        ("exp", -59, None),
        // accepted iff nbf ≤ now + leeway, and so for iat and auth_time
        ("nbf", 59, None),
        ("nbf", 60, None),
        ("nbf", 61, Some(Reason::TokenNotYetValid)),
        ("iat", 60, None),
        ("iat", 61, Some(Reason::TokenNotYetValid)),
        ("auth_time", 60, None),
        ("auth_time", 61, Some(Reason::TokenNotYetValid)),
    ];
    for (name, offset, expected) in cases {
        assert_eq!(of(judge_claims(&with(name, EXACT + offset), &lax())), expected, "{name} {offset}");
    }
    let limited = ClaimRules { max_lifetime: Some(Duration::from_secs(3600)), ..lax() };
    for (offset, expected) in [(3659, None), (3660, None), (3661, Some(Reason::TokenLifetimeTooLong))] {
        assert_eq!(of(judge_claims(&with("exp", EXACT + offset), &limited)), expected, "{offset}");
    }
    for (offset, expected) in [(59, None), (60, None), (61, Some(Reason::TokenNotYetValid))] {
        let token = mint::karta_v2(SECRET, "u1", NOW + offset, None);
        assert_eq!(of(judge_karta(&token)), expected, "{offset}");
    }
}

#[test]
fn without_leeway_a_token_ends_at_its_exp() {
    for (offset, expected) in [(-1, Some(Reason::TokenExpired)), (0, Some(Reason::TokenExpired)), (1, None)] {
        assert_eq!(of(judge_claims(&with("exp", EXACT + offset), &leeway(lax(), 0))), expected, "{offset}");
    }
}

#[test]
fn fractions_count_and_are_never_rounded_up() {
    let strict = leeway(lax(), 0);
    let token = mint::jwt(SECRET, Algorithm::HS256, None, &with("exp", 1_750_000_000.5)).unwrap();
    let at = |millis| of(judge(FormatName::Jwt, &token, None, &ring_for(FormatName::Jwt), &strict, UnixTime::from_millis(millis)));
    assert_eq!(at(1_750_000_000_499), None);
    assert_eq!(at(1_750_000_000_500), Some(Reason::TokenExpired));
    assert_eq!(at(1_750_000_000_501), Some(Reason::TokenExpired));
    // Not a millisecond more than it says.
    let token = mint::jwt(SECRET, Algorithm::HS256, None, &with("exp", 1_750_000_000.000_9)).unwrap();
    let at = |millis| of(judge(FormatName::Jwt, &token, None, &ring_for(FormatName::Jwt), &strict, UnixTime::from_millis(millis)));
    assert_eq!(at(1_750_000_000_000), Some(Reason::TokenExpired));
    assert_eq!(of(judge_claims(&with("nbf", 1_750_000_000.5), &strict)), Some(Reason::TokenNotYetValid));
    assert_eq!(of(judge_claims(&with("nbf", 1_749_999_999.5), &strict)), None);
}

#[test]
fn times_of_a_wrong_type_are_refused_and_never_skipped() {
    let values = [
        r#""1750000000""#,
        "true",
        "null",
        "{}",
        "[1750000000]",
        "1e400",
        "-1e400",
        "-1",
        "-0.5",
        "1750000000000",
        "253402300800",
        "9223372036854775808",
        "1e30",
        "NaN",
        "Infinity",
    ];
    for name in ["exp", "nbf", "iat", "auth_time"] {
        for value in values {
            let payload = format!(r#"{{"sub":"u1","{name}":{value}}}"#);
            assert_eq!(refusal(judge_payload(&payload, &lax())), Reason::TokenClaimMalformed, "{payload}");
        }
    }
    for value in values {
        let token = mint::karta_v2_of(SECRET, &format!(r#"{{"user_id":"u1","stepped_up_at":{value}}}"#));
        assert_eq!(refusal(judge_karta(&token)), Reason::TokenClaimMalformed, "{value}");
    }
    // The twins: a whole number, a fraction, an exponent, nothing at all.
    for fine in [r#","exp":1750000100"#, r#","exp":1750000100.25"#, r#","exp":1.7500001e9"#, ""] {
        assert_eq!(subject(judge_payload(&format!(r#"{{"sub":"u1"{fine}}}"#), &lax())), "u1");
    }
    let detail = judge_claims(&with("exp", 1_750_000_000_000_i64), &lax()).unwrap_err().detail;
    assert!(detail.contains("milliseconds"), "{detail}");
}

#[test]
fn an_expiry_is_required_where_the_rules_say_so() {
    let bare = json!({"sub": "u1"});
    assert_eq!(refusal(judge_claims(&bare, &ClaimRules::default())), Reason::TokenExpiryMissing);
    assert_eq!(subject(judge_claims(&bare, &lax())), "u1");
    // A limit on lifetimes is none if leaving exp out gets around it.
    let limited = ClaimRules { max_lifetime: Some(Duration::from_secs(60)), ..lax() };
    assert_eq!(refusal(judge_claims(&bare, &limited)), Reason::TokenExpiryMissing);
}

#[test]
fn expiry_is_reported_only_when_nothing_else_is_wrong() {
    let expired = |more: Value| {
        let mut claims = json!({"sub": "u1", "exp": EXACT - 3600});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        refusal(judge_claims(&claims, &lax()))
    };
    assert_eq!(expired(json!({})), Reason::TokenExpired);
    assert_eq!(expired(json!({"aud": "other"})), Reason::TokenAudienceUnexpected);
    assert_eq!(expired(json!({"sub": "null"})), Reason::SubjectInvalid);
    assert_eq!(expired(json!({"nbf": "1"})), Reason::TokenClaimMalformed);
    assert_eq!(expired(json!({"big": "x".repeat(MAX_CLAIMS_BYTES)})), Reason::TokenClaimsTooLarge);
    // And an expired forgery is a forgery.
    let forged = mint::jwt(b"another_secret_0123456789abcdef0", Algorithm::HS256, None, &json!({"sub": "u1", "exp": 1})).unwrap();
    let outcome = judge(FormatName::Jwt, &forged, None, &ring_for(FormatName::Jwt), &lax(), now());
    assert_eq!(refusal(outcome), Reason::TokenSignatureInvalid);
}

#[test]
fn issuer_and_audience() {
    let rules =
        ClaimRules { issuers: vec!["https://id.acme.dev".to_owned()], audiences: vec!["agent".to_owned(), "b".to_owned()], ..lax() };
    let judged = |iss: Value, aud: Value| {
        let mut claims = json!({"sub": "u1", "iss": iss, "aud": aud});
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        of(judge_claims(&claims, &rules))
    };
    let iss = json!("https://id.acme.dev");
    for aud in [json!("agent"), json!(["x", "agent"]), json!(["b"])] {
        assert_eq!(judged(iss.clone(), aud), None);
    }
    for aud in [json!("Agent"), json!(["x"]), json!([]), json!("agent "), Value::Null] {
        assert_eq!(judged(iss.clone(), aud.clone()), Some(Reason::TokenAudienceUnexpected), "{aud}");
    }
    for aud in [json!(5), json!({"agent": 1}), json!(["agent", 5]), json!(true)] {
        assert_eq!(judged(iss.clone(), aud.clone()), Some(Reason::TokenClaimMalformed), "{aud}");
    }
    for other in [json!("https://id.acme.dev/"), json!("https://evil.dev"), Value::Null] {
        assert_eq!(judged(other.clone(), json!("agent")), Some(Reason::TokenIssuerUnexpected), "{other}");
    }
    assert_eq!(judged(json!(["https://id.acme.dev"]), json!("agent")), Some(Reason::TokenClaimMalformed));
    // A tenant that lists none takes any issuer and no audience.
    assert_eq!(subject(judge_claims(&with("iss", "anyone"), &lax())), "u1");
    let denied = judge_claims(&with("aud", "somebody"), &lax()).unwrap_err();
    assert_eq!(denied.reason, Reason::TokenAudienceUnexpected);
    assert!(denied.detail.contains("claims.audience"), "{}", denied.detail);
}

#[test]
fn subjects() {
    let halo = ClaimRules { subject: vec!["user_id".to_owned(), "sub".to_owned()], ..lax() };
    let judged = |claims: Value| judge_claims(&claims, &halo);
    assert_eq!(subject(judged(json!({"user_id": "a"}))), "a");
    assert_eq!(subject(judged(json!({"sub": "b"}))), "b");
    assert_eq!(subject(judged(json!({"user_id": "a", "sub": "a"}))), "a");
    assert_eq!(subject(judged(json!({"user_id": 42, "sub": "42"}))), "42");
    assert_eq!(subject(judged(json!({"user_id": 9_007_199_254_740_991_i64}))), "9007199254740991");
    assert_eq!(subject(judged(json!({"user_id": -7}))), "-7");
    assert_eq!(refusal(judged(json!({"email": "a@b"}))), Reason::SubjectMissing);
    assert_eq!(refusal(judged(json!({}))), Reason::SubjectMissing);
    let bad = [
        json!({"user_id": "a", "sub": "b"}),
        json!({"user_id": null, "sub": "b"}),
        json!({"user_id": "a", "sub": null}),
        json!({"user_id": true}),
        json!({"user_id": ["a"]}),
        json!({"user_id": {"id": "a"}}),
        json!({"user_id": 1.5}),
        json!({"user_id": 1.0}),
        json!({"user_id": 9_007_199_254_740_992_i64}),
        json!({"user_id": -9_007_199_254_740_992_i64}),
        json!({"user_id": u64::MAX}),
        json!({"user_id": 1e30}),
        json!({"user_id": "x".repeat(1025)}),
    ];
    for claims in bad {
        assert_eq!(refusal(judged(claims.clone())), Reason::SubjectInvalid, "{claims}");
    }
    assert_eq!(subject(judged(json!({"user_id": "x".repeat(1024)}))).len(), 1024);
}

#[test]
fn placeholders_are_nobody_in_every_format() {
    for id in ["", " ", "\t\n", "\u{a0}", "anonymous", "undefined", "null", "None", "NaN", "[object Object]", " null "] {
        assert_eq!(refusal(judge_claims(&json!({"sub": id}), &lax())), Reason::SubjectInvalid, "{id:?}");
        assert_eq!(refusal(judge_hmac(&mint::hmac(SECRET, id), Some(id))), Reason::SubjectInvalid, "{id:?}");
        assert_eq!(refusal(judge_karta(&mint::karta_v2(SECRET, id, NOW, None))), Reason::SubjectInvalid, "{id:?}");
    }
    for id in ["anonymous2", "nullable", "0", "Undefined-7", "тест", "a b", "user\u{0}admin"] {
        assert_eq!(subject(judge_claims(&json!({"sub": id}), &lax())), id);
        assert_eq!(subject(judge_hmac(&mint::hmac(SECRET, id), Some(id))), id);
        assert_eq!(subject(judge_karta(&mint::karta_v2(SECRET, id, NOW, None))), id);
    }
}

#[test]
fn forwarded_claims() {
    let claims = json!({
        "sub": "u1", "email": "a@b", "plan": {"name": "pro"}, "exp": EXACT + 60, "nbf": 1, "iat": 2, "iss": "i", "jti": "j", "aud": "agent",
    });
    let rules = ClaimRules { audiences: vec!["agent".to_owned()], ..lax() };
    let all = judge_claims(&claims, &rules).unwrap();
    assert_eq!(all.claims_json(), r#"{"email":"a@b","plan":{"name":"pro"},"sub":"u1"}"#);
    assert_eq!((all.issued_at(), all.expires_at()), (Some(2.0), Some(NOW as f64 + 60.0)));
    let some = ClaimRules { forward: Forward::Only(vec!["email".to_owned(), "absent".to_owned()]), ..rules };
    assert_eq!(judge_claims(&claims, &some).unwrap().claims_json(), r#"{"email":"a@b"}"#);
    assert_eq!(judge_claims(&with("exp", EXACT + 9), &ClaimRules { forward: Forward::Only(vec![]), ..lax() }).unwrap().claims_json(), "{}");
}

#[test]
fn forwarded_claims_are_capped() {
    let filler = MAX_CLAIMS_BYTES - r#"{"sub":"u1","x":""}"#.len();
    assert_eq!(judge_claims(&with("x", "y".repeat(filler)), &lax()).unwrap().claims_json().len(), MAX_CLAIMS_BYTES);
    assert_eq!(refusal(judge_claims(&with("x", "y".repeat(filler + 1)), &lax())), Reason::TokenClaimsTooLarge);
    // What is not forwarded does not count.
    let only = ClaimRules { forward: Forward::Only(vec!["sub".to_owned()]), ..lax() };
    assert_eq!(subject(judge_claims(&with("x", "y".repeat(filler + 1)), &only)), "u1");
}

/// `threats` 39: a step-up is only what the tenant says it is.
#[test]
fn step_up_by_jwt_only_as_listed() {
    let amr = |values: &[&str]| StepUpClaim {
        claim: "amr".to_owned(),
        values: values.iter().map(|v| (*v).to_owned()).collect(),
        time_claim: "auth_time".to_owned(),
    };
    let rules = ClaimRules { step_up: vec![amr(&["mfa", "hwk"])], ..lax() };
    let judged = |rules: &ClaimRules, claims: Value| judge_claims(&claims, rules).map(|v| v.stepped_up().cloned());
    let shown = judged(&rules, json!({"sub": "u1", "amr": ["pwd", "hwk"], "auth_time": EXACT - 30})).unwrap().unwrap();
    assert_eq!((shown.at, shown.aal.as_deref()), (NOW as f64 - 30.0, Some("hwk")));
    assert!(judged(&rules, json!({"sub": "u1", "amr": "mfa", "auth_time": EXACT})).unwrap().is_some());
    let none = [
        json!({"sub": "u1", "amr": ["pwd"], "auth_time": EXACT}),
        json!({"sub": "u1", "amr": ["mfa"]}),
        json!({"sub": "u1", "auth_time": EXACT}),
        json!({"sub": "u1", "acr": "mfa", "auth_time": EXACT}),
        json!({"sub": "u1", "amr": {"mfa": true}, "auth_time": EXACT}),
        json!({"sub": "u1", "stepped_up_at": EXACT, "aal": "mfa"}),
        json!({"sub": "u1", "amr": ["mfa"], "iat": EXACT}),
    ];
    for claims in none {
        assert_eq!(judged(&rules, claims.clone()).unwrap(), None, "{claims}");
    }
    assert_eq!(judged(&lax(), json!({"sub": "u1", "amr": ["mfa"], "auth_time": EXACT})).unwrap(), None);
    let custom = ClaimRules { step_up: vec![StepUpClaim { time_claim: "when".to_owned(), ..amr(&["mfa"]) }], ..lax() };
    let with_time = |at: Value| judged(&custom, json!({"sub": "u1", "amr": "mfa", "when": at}));
    assert_eq!(with_time(json!("now")).unwrap_err().reason, Reason::TokenClaimMalformed);
    assert_eq!(with_time(json!(EXACT + 61)).unwrap_err().reason, Reason::TokenNotYetValid);
    assert_eq!(with_time(json!(EXACT + 60)).unwrap().unwrap().at, NOW as f64, "never in the future");
    // A time that proves no step-up still says when the user signed in.
    assert_eq!(judge_claims(&json!({"sub": "u1", "auth_time": 5}), &lax()).unwrap().issued_at(), Some(5.0));
}

#[test]
fn karta_payloads() {
    let judged = |payload: &str| judge_karta(&mint::karta_v2_of(SECRET, payload));
    let fine = judged(r#"{"user_id":42,"stepped_up_at":1749999990.5,"traits":{"a":1}}"#).unwrap();
    assert_eq!((fine.subject(), fine.claims_json()), ("42", r#"{"traits":{"a":1},"user_id":42}"#));
    assert_eq!(fine.stepped_up().map(|s| (s.at, s.aal.clone())), Some((1_749_999_990.5, None)));
    let cases = [
        (r#"{"stepped_up_at":1750000000}"#, Reason::SubjectMissing),
        (r#"{"user_id":null,"stepped_up_at":1750000000}"#, Reason::SubjectInvalid),
        (r#"{"user_id":1.5,"stepped_up_at":1750000000}"#, Reason::SubjectInvalid),
        (r#"{"user_id":"u1"}"#, Reason::TokenClaimMalformed),
        (r#"{"user_id":"u1","stepped_up_at":1750000000,"aal":2}"#, Reason::TokenClaimMalformed),
        (r#"{"user_id":"u1","user_id":"u2","stepped_up_at":1750000000}"#, Reason::TokenClaimMalformed),
        (r#"{"user_id":"u1","us\u0065r_id":"u2","stepped_up_at":1750000000}"#, Reason::TokenClaimMalformed),
        (r#"{"user_id":"u1","stepped_up_at":1750000000,"exp":1749999000}"#, Reason::TokenExpired),
        (r#"["user_id"]"#, Reason::TokenClaimMalformed),
        ("", Reason::TokenClaimMalformed),
    ];
    for (payload, expected) in cases {
        assert_eq!(refusal(judged(payload)), expected, "{payload}");
    }
}
