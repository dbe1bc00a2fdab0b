//! A tenant's keys and rules, and one call that judges a token by them.

use std::sync::Arc;
use std::time::Duration;

use doorward::clock::UnixTime;
use doorward::reason::{Denied, Reason};
use doorward::secret::KeyBytes;
use doorward::token::claims::{ClaimRules, VerifiedSubject};
use doorward::token::keys::{IdentityKey, KeyRing};
use doorward::token::{FORMATS, FormatName};
use jsonwebtoken::Algorithm;
use serde_json::Value;

/// The vendors' test secret.
pub const SECRET: &[u8] = b"test_secret_0123456789abcdef0123";
/// When everything happens.
pub const NOW: u64 = 1_750_000_000;

pub fn now() -> UnixTime {
    UnixTime::from_secs(NOW)
}

/// One shared secret for these formats.
pub fn secret(bytes: &[u8], formats: &[FormatName], algorithm: Algorithm) -> IdentityKey {
    IdentityKey::secret("s1", &KeyBytes::new(bytes), formats.to_vec(), algorithm)
}

pub fn ring(keys: impl IntoIterator<Item = IdentityKey>) -> KeyRing {
    KeyRing::new(keys.into_iter().map(Arc::new).collect())
}

/// The test secret, for one format alone.
pub fn ring_for(format: FormatName) -> KeyRing {
    ring([secret(SECRET, &[format], Algorithm::HS256)])
}

/// Rules without an expiry, so that a case adds only what it is about.
pub fn lax() -> ClaimRules {
    ClaimRules { expiry_required: false, ..ClaimRules::default() }
}

pub fn judge(
    format: FormatName,
    token: &str,
    asserted: Option<&str>,
    keys: &KeyRing,
    rules: &ClaimRules,
    now: UnixTime,
) -> Result<VerifiedSubject, Denied> {
    let format = FORMATS.iter().find(|f| f.name() == format).unwrap();
    rules.accept(format.authenticate(token, asserted, keys, now)?, now)
}

/// A JWT of the test secret with these claims, judged now.
pub fn judge_claims(claims: &Value, rules: &ClaimRules) -> Result<VerifiedSubject, Denied> {
    judge_payload(&claims.to_string(), rules)
}

/// The same around any payload text.
pub fn judge_payload(payload: &str, rules: &ClaimRules) -> Result<VerifiedSubject, Denied> {
    let token = doorward::token::mint::jwt_of(SECRET, Algorithm::HS256, r#"{"alg":"HS256","typ":"JWT"}"#, payload).unwrap();
    judge(FormatName::Jwt, &token, None, &ring_for(FormatName::Jwt), rules, now())
}

pub fn judge_hmac(token: &str, asserted: Option<&str>) -> Result<VerifiedSubject, Denied> {
    judge(FormatName::Hmac, token, asserted, &ring_for(FormatName::Hmac), &lax(), now())
}

pub fn judge_karta(token: &str) -> Result<VerifiedSubject, Denied> {
    judge(FormatName::KartaV2, token, None, &ring_for(FormatName::KartaV2), &lax(), now())
}

/// What stopped it; panics where nothing did.
pub fn refusal(outcome: Result<VerifiedSubject, Denied>) -> Reason {
    match outcome {
        Ok(subject) => panic!("accepted as {:?}", subject.subject()),
        Err(denied) => denied.reason,
    }
}

pub fn subject(outcome: Result<VerifiedSubject, Denied>) -> String {
    outcome.unwrap_or_else(|denied| panic!("{denied:?}")).subject().to_owned()
}

/// Rules with this leeway.
pub fn leeway(rules: ClaimRules, secs: u64) -> ClaimRules {
    ClaimRules { leeway: Duration::from_secs(secs), ..rules }
}
