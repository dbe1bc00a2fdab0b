//! What is revoked: secrets by fingerprint, sessions by id, subjects of a tenant up to a time. Its file is read on its own,
//! so it works while the rest of the configuration is refused and a rollback does not revive what it lists (`threats` 40).
//!
//! One entry a line, `#` starts a comment:
//! ```text
//! secret 0123456789abcdef
//! session 7f9c2ba4e88f827d616045507605853e
//! subject acme user_123 2026-11-20T12:00:00Z
//! ```
//! A `subject` line revokes tokens issued before that time; a token that does not say when it was issued is revoked too.

use std::collections::{HashMap, HashSet};

use crate::clock::UnixTime;
use crate::secret::Fingerprint;

/// Parsed revocations; empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    secrets: HashSet<Fingerprint>,
    sessions: HashSet<String>,
    subjects: HashMap<String, HashMap<String, UnixTime>>,
}

/// A line that is no revocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// 1-based.
    pub line: usize,
    /// What was expected.
    pub why: String,
}

impl Revocations {
    /// Reads a revocations file.
    ///
    /// # Errors
    /// Every line that is no revocation. The caller keeps the last good list; entries are never dropped silently.
    pub fn parse(text: &str) -> Result<Self, Vec<BadLine>> {
        let mut list = Self::default();
        let mut bad = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let words: Vec<_> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
            if let Err(why) = list.add(&words) {
                bad.push(BadLine { line: index + 1, why });
            }
        }
        if bad.is_empty() { Ok(list) } else { Err(bad) }
    }

    fn add(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            [] => {}
            ["secret", fingerprint] => {
                let parsed =
                    fingerprint.parse().map_err(|()| "a fingerprint is 16 hex digits; see /status or doorward check".to_owned())?;
                self.secrets.insert(parsed);
            }
            ["session", id] => {
                self.sessions.insert((*id).to_owned());
            }
            ["subject", tenant, subject, before] => {
                let time: jiff::Timestamp = before.parse().map_err(|_| "a time is written like 2026-11-20T12:00:00Z".to_owned())?;
                let millis = u64::try_from(time.as_millisecond()).map_err(|_| "the time lies before 1970".to_owned())?;
                let entry = self.subjects.entry((*tenant).to_owned()).or_default().entry((*subject).to_owned());
                let latest = entry.or_insert(UnixTime::from_millis(millis));
                *latest = (*latest).max(UnixTime::from_millis(millis));
            }
            _ => return Err("expected: secret FINGERPRINT | session ID | subject TENANT SUBJECT TIME".to_owned()),
        }
        Ok(())
    }

    /// Whether a secret is revoked, and everything it signed with it.
    pub fn secret(&self, fingerprint: Fingerprint) -> bool {
        !self.secrets.is_empty() && self.secrets.contains(&fingerprint)
    }

    /// Whether a session is revoked.
    pub fn session(&self, id: &str) -> bool {
        !self.sessions.is_empty() && self.sessions.contains(id)
    }

    /// Whether what `subject` of `tenant` got at `issued_at` (Unix seconds; `None` when unknown) is revoked.
    pub fn subject(&self, tenant: &str, subject: &str, issued_at: Option<f64>) -> bool {
        self.subjects
            .get(tenant)
            .and_then(|subjects| subjects.get(subject))
            .is_some_and(|before| issued_at.is_none_or(|issued| issued < before.as_secs_f64()))
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.secrets.len() + self.sessions.len() + self.subjects.values().map(HashMap::len).sum::<usize>()
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
