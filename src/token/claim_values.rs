//! What single claims may be: times, ids, usable subjects. The rules over all claims are in [`super::claims`], the only caller.
//!
//! Times (RFC 7519 §2, `NumericDate`) are compared in whole milliseconds, each cut in the token's disfavour.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::clock::UnixTime;
use crate::json::MAX_SAFE_INTEGER;
use crate::reason::{Denied, Reason};

/// Longest subject, in bytes.
const MAX_SUBJECT_BYTES: usize = 1024;
/// What a program writes when it has no user. Never a verified subject.
const PLACEHOLDERS: [&str; 6] = ["anonymous", "undefined", "null", "None", "NaN", "[object Object]"];
/// 10000-01-01T00:00:00Z. Anything later is milliseconds, an overflow or a mistake.
const YEAR_10000: f64 = 253_402_300_800.0;

/// The time of the decision and the difference between clocks that is forgiven.
#[derive(Clone, Copy)]
pub(in crate::token) struct Clock {
    /// When the decision is made.
    pub(in crate::token) now: UnixTime,
    /// How far two clocks may differ.
    pub(in crate::token) leeway: Duration,
}

impl Clock {
    /// Whether a moment lies past, leeway included: `now ≥ at + leeway`.
    pub(in crate::token) fn is_past(self, at: f64) -> bool {
        self.now >= UnixTime::from_millis((at * 1000.0).floor() as u64).plus(self.leeway)
    }

    /// Refuses a moment that is yet to come, leeway included: `now + leeway < at`.
    pub(in crate::token) fn refuse_future(self, at: f64, name: &str) -> Result<(), Denied> {
        if self.lies_beyond(at, Duration::ZERO) {
            return Err(Denied::new(Reason::TokenNotYetValid, format!("{name} lies in the future beyond the leeway")));
        }
        Ok(())
    }

    /// Whether a moment lies further ahead than `by` and the leeway.
    pub(in crate::token) fn lies_beyond(self, at: f64, by: Duration) -> bool {
        UnixTime::from_millis((at * 1000.0).ceil() as u64) > self.now.plus(by).plus(self.leeway)
    }

    /// A moment that the leeway forgave is now.
    pub(in crate::token) fn not_after_now(self, at: f64) -> f64 {
        at.min(self.now.as_secs_f64())
    }
}

/// A time claim: a JSON number of seconds from 1970 to the year 9999, fractions allowed. A wrong type is refused, never
/// skipped (`threats` 11).
pub(in crate::token) fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<f64>, Denied> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    match value.as_f64() {
        Some(at) if (0.0..YEAR_10000).contains(&at) => Ok(Some(at)),
        Some(at) if at >= YEAR_10000 => Err(malformed(name, "lies after the year 9999: seconds since 1970 are meant, not milliseconds")),
        Some(_) => Err(malformed(name, "is negative")),
        None if value.is_string() => Err(malformed(name, "is a string: a JSON number without quotes is meant")),
        None => Err(malformed(name, "is not a number")),
    }
}

/// A user id as text: strings as they are, safe integers as decimal (RFC 7493 §2.2: readers disagree about larger ones).
pub(in crate::token) fn id_text<'v>(value: &'v Value, name: &str) -> Result<Cow<'v, str>, Denied> {
    let invalid = |what: &str| Err(Denied::new(Reason::SubjectInvalid, format!("{name} {what}")));
    match value {
        Value::String(text) => Ok(Cow::Borrowed(text)),
        Value::Number(number) => match (number.as_i64(), number.is_f64()) {
            (Some(integer), _) if integer.unsigned_abs() <= MAX_SAFE_INTEGER => Ok(Cow::Owned(integer.to_string())),
            (_, true) => invalid("is not an integer"),
            (_, false) => invalid("is an integer beyond 2^53 - 1: sign it as a string"),
        },
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => invalid("is neither a string nor an integer"),
    }
}

/// Refuses what no host means as a user id.
pub(crate) fn usable_subject(subject: &str) -> Result<(), Denied> {
    let invalid = |detail: &'static str| Err(Denied::new(Reason::SubjectInvalid, detail));
    if subject.len() > MAX_SUBJECT_BYTES {
        return invalid("longer than 1024 bytes");
    }
    let trimmed = subject.trim();
    if trimmed.is_empty() {
        return invalid("empty or white space");
    }
    if PLACEHOLDERS.contains(&trimmed) {
        return invalid("a placeholder, not a user id");
    }
    Ok(())
}

/// `token_claim_malformed`, naming the claim and never its value.
pub(in crate::token) fn malformed(name: &str, what: &str) -> Denied {
    Denied::new(Reason::TokenClaimMalformed, format!("{name} {what}"))
}
