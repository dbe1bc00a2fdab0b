//! Reads audit records back, one line at a time: the other half of [`super::audit`]. What a line of another version says in
//! words that are not known here is not guessed. Called by `doorward check --against`.

use http::Method;
use serde::Deserialize;

use super::audit;
use crate::admission::again::{Ended, Past};
use crate::admission::evidence::{Proof, StepUpAge};
use crate::clock::UnixTime;
use crate::policy::Mode;
use crate::reason::Reason;

/// A record that was read.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// What can be judged again.
    pub past: Past,
    /// Finds the record.
    pub request_id: String,
    /// The configuration that judged it.
    pub generation: u64,
}

/// Fields that judge; a record has more. Unknown ones are a later version's.
#[derive(Deserialize)]
struct Line {
    timestamp: String,
    target: String,
    request_id: String,
    #[serde(default)]
    generation: u64,
    tenant: Option<String>,
    mode: Option<String>,
    embed_key: Option<String>,
    origin: Option<String>,
    proof: Option<String>,
    rules: Option<String>,
    method: String,
    path: String,
    upgrade: Option<bool>,
    requires: Option<String>,
    step_up_age_seconds: Option<f64>,
    step_up_aal: Option<String>,
    outcome: String,
    reason: Option<String>,
    would_deny: Option<String>,
    secret_fingerprint: Option<String>,
}

/// Reads a line.
///
/// # Errors
/// Why it is no audit record of this version.
pub fn read(line: &[u8]) -> Result<Recorded, &'static str> {
    let line: Line = serde_json::from_slice(line).map_err(|_| "not an audit record")?;
    if line.target != audit::TARGET {
        return Err("not an audit record");
    }
    let at = line.timestamp.parse::<jiff::Timestamp>().ok().and_then(|at| u64::try_from(at.as_millisecond()).ok());
    let known = |code: &Option<String>| match code {
        None => Ok(None),
        Some(code) => Reason::from_code(code).map(Some).ok_or("a reason that this version does not know"),
    };
    let (reason, would_deny) = (known(&line.reason)?, known(&line.would_deny)?);
    let ended = match (line.outcome.as_str(), reason) {
        ("forwarded" | "failed", _) => Ended::Admitted(would_deny),
        ("denied", Some(reason)) => Ended::Denied(reason),
        ("preflight", _) => Ended::Preflight,
        ("answered", _) => Ended::Answered,
        _ => return Err("an outcome that this version does not know"),
    };
    let mode = |text: &str| [Mode::Off, Mode::Monitor, Mode::Enforce].into_iter().find(|mode| mode.as_str() == text);
    let past = Past {
        at: UnixTime::from_millis(at.ok_or("a timestamp that is none")?),
        mode: word(&line.mode, mode)?,
        embed_key: word(&line.embed_key, |text| text.parse().ok())?,
        proof: word(&line.proof, Proof::parse)?,
        prints: word(&line.rules, |text| text.parse().ok())?,
        key: word(&line.secret_fingerprint, |text| text.parse().ok())?,
        method: Method::from_bytes(line.method.as_bytes()).map_err(|_| "a method that is none")?,
        step_up: line.step_up_age_seconds.map(|seconds| StepUpAge { seconds, aal: line.step_up_aal }),
        upgrade: line.upgrade.unwrap_or_default(),
        tenant: line.tenant,
        origin: line.origin,
        path: line.path,
        requires: line.requires,
        ended,
    };
    Ok(Recorded { past, request_id: line.request_id, generation: line.generation })
}

/// A word, where there is one, must be known.
fn word<T>(text: &Option<String>, parse: impl Fn(&str) -> Option<T>) -> Result<Option<T>, &'static str> {
    text.as_deref().map(|text| parse(text).ok_or("a value that this version does not know")).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"timestamp":"2026-11-20T07:19:49.5Z","request_id":"r1","generation":3,"tenant":"acme","mode":"monitor","embed_key":"0123456789abcdef","proof":"token_expired","rules":"00000001.00000002.00000003","method":"POST","path":"/a","outcome":"forwarded","would_deny":"token_expired","later":1,"target":"doorward::audit"}"#;

    #[test]
    fn a_record_is_read_back() {
        let read = read(LINE.as_bytes()).unwrap();
        assert_eq!((read.request_id.as_str(), read.generation), ("r1", 3));
        let past = read.past;
        assert_eq!(past.at, UnixTime::from_millis(1_795_159_189_500));
        assert_eq!((past.mode, past.proof), (Some(Mode::Monitor), Some(Proof::Bad(Reason::TokenExpired))));
        assert_eq!(past.ended, Ended::Admitted(Some(Reason::TokenExpired)));
        assert!(past.prints.is_some() && past.embed_key.is_some() && !past.upgrade);
    }

    #[test]
    fn what_is_not_known_is_said_and_not_guessed() {
        for (what, with, why) in [
            ("doorward::audit", "doorward::other", "not an audit record"),
            ("\"path\":\"/a\",", "", "not an audit record"),
            ("\"forwarded\"", "\"teleported\"", "an outcome that this version does not know"),
            ("\"forwarded\"", "\"denied\"", "an outcome that this version does not know"),
            ("\"would_deny\":\"token_expired\"", "\"would_deny\":\"token_tired\"", "a reason that this version does not know"),
            ("\"proof\":\"token_expired\"", "\"proof\":\"aura\"", "a value that this version does not know"),
            ("\"monitor\"", "\"dream\"", "a value that this version does not know"),
            ("00000001.", "", "a value that this version does not know"),
            ("2026-11-20T07", "yesterday", "a timestamp that is none"),
        ] {
            assert!(LINE.contains(what), "{what}");
            assert_eq!(read(LINE.replace(what, with).as_bytes()).map(|_| ()), Err(why), "{what} → {with}");
        }
        assert!(read(b"{").is_err() && read(b"").is_err() && read(b"null").is_err());
    }
}
