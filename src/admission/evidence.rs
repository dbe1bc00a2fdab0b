//! What a decision found out and other rules could judge again: written into the audit record, read back by
//! `doorward check --against` ([`super::again`]). Never a credential, an id or a claim: only what they were worth.

use super::Refused;
use super::authenticate::Judged;
use super::shown::Shown;
use crate::policy::{Mode, Rule};
use crate::reason::Reason;
use crate::secret::Fingerprint;
use crate::token::FormatName;
use crate::token::session::{GrantLevel, Session};

/// What was found out, as far as the request came.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// Names the embed key that named the tenant.
    pub embed_key: Option<Fingerprint>,
    /// What the credential and the ids beside it were worth, before the mode made something of it.
    pub proof: Option<Proof>,
    /// The route that applied, or the audience.
    pub rule: Option<Rule>,
    /// The step-up that the credential showed, however old.
    pub step_up: Option<StepUpAge>,
}

/// A step-up, by its age when the request was judged.
#[derive(Clone, Debug, PartialEq)]
pub struct StepUpAge {
    /// In seconds.
    pub seconds: f64,
    /// The authentication level that was reached: one of the values that the tenant accepts.
    pub aal: Option<String>,
}

/// What a credential and the ids beside it were worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// There was neither.
    Nothing,
    /// One id by the caller's own word, in the request or in a claimed session.
    Id,
    /// Two that differ.
    Ids,
    /// An identity token of this format that holds, for the subject that the ids name.
    Token(FormatName),
    /// The same by a session of ours.
    Session,
    /// A token that holds but for this.
    Bad(Reason),
    /// Mode `off` looked at no token and held no body.
    Unlooked,
}

impl Proof {
    const WORDS: [(Self, &'static str); 8] = [
        (Self::Nothing, "nothing"),
        (Self::Id, "id"),
        (Self::Ids, "ids"),
        (Self::Token(FormatName::Hmac), FormatName::Hmac.as_str()),
        (Self::Token(FormatName::KartaV2), FormatName::KartaV2.as_str()),
        (Self::Token(FormatName::Jwt), FormatName::Jwt.as_str()),
        (Self::Session, "session"),
        (Self::Unlooked, "unlooked"),
    ];

    /// As written in the audit record: a word, or the reason's code.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bad(reason) => reason.code(),
            other => Self::WORDS.iter().find(|(proof, _)| *proof == other).map_or("", |(_, word)| word),
        }
    }

    /// Reads what [`Proof::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        let word = Self::WORDS.iter().find(|(_, word)| *word == text).map(|(proof, _)| *proof);
        word.or_else(|| Reason::from_code(text).map(Self::Bad))
    }

    /// What was shown, and what was made of it under a mode.
    pub(super) fn of(mode: Mode, session: Option<&Session>, shown: &Shown<'_>, judged: &Result<Judged, Refused>) -> Self {
        let by_ids = || match shown.ids.as_slice() {
            [] => Self::Nothing,
            [_] => Self::Id,
            [..] => Self::Ids,
        };
        let grant = session.map(Session::grant);
        let own_id = grant.filter(|grant| grant.level != GrantLevel::Anonymous).and_then(|grant| grant.sub.as_ref());
        let differs = own_id.is_some_and(|own| shown.ids.iter().any(|id| id != own));
        match (grant.map(|grant| grant.level), &shown.unread, mode) {
            (_, Some(why), _) => Self::Bad(why.reason),
            (_, None, Mode::Off) if shown.token.is_some() || shown.unlooked || differs => Self::Unlooked,
            (Some(_), None, _) if differs => Self::Bad(Reason::SubjectMismatch),
            (Some(level @ (GrantLevel::Claimed | GrantLevel::Verified)), None, _) => match (judged, level) {
                // An id without a token: what that is worth is the tenant's rule.
                (Err(refused), _) if refused.why.reason != Reason::TokenMissing => Self::Bad(refused.why.reason),
                (_, GrantLevel::Verified) => Self::Session,
                (_, GrantLevel::Anonymous | GrantLevel::Claimed) => Self::Id,
            },
            (None, None, Mode::Monitor | Mode::Enforce) if shown.token.is_some() => match judged {
                // Whoever is verified by a token is by its format.
                Ok(Judged::Caller(caller)) => caller.verified().map_or(Self::Nothing, |subject| Self::Token(subject.format())),
                Ok(Judged::Expired) => Self::Bad(Reason::TokenExpired),
                Err(refused) => Self::Bad(refused.why.reason),
            },
            (Some(GrantLevel::Anonymous) | None, None, _) => by_ids(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        let reasons = Reason::ALL.iter().map(|reason| Proof::Bad(*reason));
        for proof in Proof::WORDS.iter().map(|(proof, _)| *proof).chain(reasons) {
            assert_eq!(Proof::parse(proof.as_str()), Some(proof));
        }
        assert_eq!(Proof::parse("word_of_a_later_version"), None);
    }
}
