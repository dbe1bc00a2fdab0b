//! The variants of keys, messages, outputs and times that mistakes lead to.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::Value;
use unicode_normalization::UnicodeNormalization as _;

use super::{Candidate, Mistake};
use crate::clock::UnixTime;
use crate::secret::{self, Encoding};

/// Bytes, and the mistakes that lead to them.
pub(super) struct Variant {
    pub(super) bytes: Vec<u8>,
    pub(super) mistakes: Vec<Mistake>,
}

impl Variant {
    /// As it should be.
    pub(super) fn plain(bytes: &str) -> Self {
        Self { bytes: bytes.as_bytes().to_vec(), mistakes: Vec::new() }
    }

    /// As one mistake makes it.
    pub(super) fn of(bytes: impl Into<Vec<u8>>, mistake: Mistake) -> Self {
        Self { bytes: bytes.into(), mistakes: vec![mistake] }
    }
}

/// Whether this key makes this HMAC-SHA256 of this message. Not in constant time: nothing is decided by it.
pub(super) fn mac_holds(key: &[u8], message: &[u8], mac: &[u8]) -> bool {
    crate::token::mint::mac(key, message) == mac
}

/// The 32 bytes that a text may stand for, each with the mistake of writing them so.
pub(super) fn macs(text: &str) -> Vec<(Vec<u8>, &'static [Mistake])> {
    let mut found: Vec<(Vec<u8>, &'static [Mistake])> = Vec::new();
    if let Ok(mac) = hex::decode(text) {
        found.push((mac, if text.bytes().any(|b| b.is_ascii_uppercase()) { &[Mistake::UpperCaseHex] } else { &[] }));
    }
    let decoded = [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD].iter().find_map(|engine| engine.decode(text).ok());
    found.extend(decoded.map(|mac| (mac, &[Mistake::Base64Output] as &[_])));
    found.retain(|(mac, _)| mac.len() == 32);
    found
}

/// The signatures that a JWT's last segment may stand for, as base64url.
pub(super) fn signatures(segment: &str) -> Vec<(String, &'static [Mistake])> {
    let hex_digits = super::lenient(segment).and_then(|bytes| hex::decode(bytes).ok());
    let bare_hex = hex::decode(segment).ok();
    let from_hex = hex_digits.into_iter().chain(bare_hex).map(|mac| (URL_SAFE_NO_PAD.encode(mac), &[Mistake::HexOutput] as &[_]));
    std::iter::once((segment.to_owned(), &[] as &[_])).chain(from_hex).collect()
}

/// A secret as declared, and as it is misread.
pub(super) fn keys(secret: &Candidate) -> Vec<Variant> {
    let text = without_newline(&secret.text);
    let decode = |text: &[u8], encoding| secret::decode(text, encoding).ok();
    let mut found = Vec::new();
    if let Some(bytes) = decode(text, secret.encoding) {
        found.push(Variant { bytes, mistakes: Vec::new() });
    }
    if secret.encoding != Encoding::Text {
        found.push(Variant::of(text, Mistake::EncodedKeyAsText));
    }
    for other in [Encoding::Hex, Encoding::Base64] {
        if other != secret.encoding {
            found.extend(decode(text, other).map(|bytes| Variant::of(bytes, Mistake::TextKeyDecoded)));
        }
    }
    for newline in [&b"\n"[..], b"\r\n"] {
        found.push(Variant::of([text, newline].concat(), Mistake::NewlineInSecret));
    }
    if text.trim_ascii() != text {
        found.extend(decode(text.trim_ascii(), secret.encoding).map(|bytes| Variant::of(bytes, Mistake::SpaceAroundSecret)));
    }
    found.retain(|variant| !variant.bytes.is_empty());
    let mut seen = std::collections::HashSet::new();
    found.retain(|variant| seen.insert(variant.bytes.clone()));
    found
}

/// What may have been signed for a user, simplest first.
pub(super) fn messages(subject: Option<&str>, email: Option<&str>) -> Vec<Variant> {
    let mut found: Vec<Variant> = Vec::new();
    if let Some(id) = subject {
        found.push(Variant::plain(id));
        found.extend(altered(id));
    }
    if let Some(email) = email {
        found.push(Variant::of(email, Mistake::EmailInPlaceOfId));
        found.extend(altered(email).into_iter().map(|mut variant| {
            variant.mistakes.insert(0, Mistake::EmailInPlaceOfId);
            variant
        }));
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|variant| seen.insert(variant.bytes.clone()));
    found
}

fn altered(id: &str) -> Vec<Variant> {
    let mut found = vec![
        Variant::of(id.trim(), Mistake::TrimmedId),
        Variant::of(format!("{id} "), Mistake::TrimmedId),
        Variant::of(format!(" {id}"), Mistake::TrimmedId),
        Variant::of(id.to_lowercase(), Mistake::LowerCasedId),
        Variant::of(id.to_uppercase(), Mistake::LowerCasedId),
        Variant { bytes: id.trim().to_lowercase().into(), mistakes: vec![Mistake::TrimmedId, Mistake::LowerCasedId] },
        Variant::of(format!("{id}\n"), Mistake::NewlineInId),
        Variant::of(format!("{id}\r\n"), Mistake::NewlineInId),
        Variant::of(Value::from(id).to_string(), Mistake::QuotedId),
        Variant::of(id.nfc().collect::<String>(), Mistake::NormalForm),
        Variant::of(id.nfd().collect::<String>(), Mistake::NormalForm),
    ];
    let latin1: Option<Vec<u8>> = id.nfc().map(|c| u8::try_from(c).ok()).collect();
    found.extend(latin1.map(|bytes| Variant::of(bytes, Mistake::Latin1)));
    if let Ok(number) = id.trim().parse::<i128>() {
        let rounded = number as f64;
        for written in [number.to_string(), format!("{number}.0"), format!("{rounded:.0}"), format!("{rounded:e}")] {
            found.push(Variant::of(written, Mistake::NumberForm));
        }
    }
    found
}

/// What is wrong with a token's times.
pub(super) fn time_mistakes(claims: &Value, now: UnixTime, leeway: Duration) -> Vec<Mistake> {
    let mut found = Vec::new();
    for name in ["exp", "nbf", "iat", "auth_time", "stepped_up_at"] {
        match claims.get(name) {
            Some(Value::String(_)) => found.push(Mistake::TimeAsString),
            // Seconds beyond the year 5138, and every millisecond since 1973.
            Some(Value::Number(number)) if number.as_f64().is_some_and(|at| at >= 1e11) => found.push(Mistake::TimeInMilliseconds),
            Some(Value::Number(number)) => {
                let ahead = number.as_f64().unwrap_or(0.0) - now.as_secs_f64();
                match name {
                    "exp" if ahead + leeway.as_secs_f64() <= 0.0 => found.push(Mistake::ClockBehind),
                    "exp" => {}
                    _ if ahead > leeway.as_secs_f64() => found.push(Mistake::ClockAhead),
                    _ => {}
                }
            }
            _ => {}
        }
    }
    found
}

/// A file's text without the one newline that editors add.
pub(super) fn without_newline(text: &[u8]) -> &[u8] {
    text.strip_suffix(b"\n").map_or(text, |rest| rest.strip_suffix(b"\r").unwrap_or(rest))
}
