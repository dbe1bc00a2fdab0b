//! The query: kept as sent, because it is signed as sent, and decoded only when a tenant inspects a name in it.

use std::borrow::Cow;

use crate::reason::{Denied, Reason};

/// A request's query component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<'a>(Option<&'a str>);

impl<'a> Query<'a> {
    /// Takes the query as sent.
    ///
    /// # Errors
    /// `request_malformed` when it has other than visible ASCII.
    pub fn parse(raw: Option<&'a str>) -> Result<Self, Denied> {
        if raw.is_some_and(|q| q.bytes().any(|b| !b.is_ascii_graphic() || b == b'#')) {
            return Err(Denied::new(Reason::RequestMalformed, "query is not visible ASCII"));
        }
        Ok(Self(raw))
    }

    /// The query as sent, without `?`; `None` where the target has none.
    pub fn as_sent(self) -> Option<&'a str> {
        self.0
    }

    /// The decoded value of a parameter that may stand once (`application/x-www-form-urlencoded`). Empty is absent.
    ///
    /// # Errors
    /// `request_query_ambiguous` when it stands twice or does not decode to UTF-8.
    pub fn one(self, name: &str) -> Result<Option<Cow<'a, str>>, Denied> {
        let ambiguous = || Denied::new(Reason::RequestQueryAmbiguous, format!("parameter {name}"));
        let mut found = None;
        for pair in self.pairs() {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if decode(key).is_none_or(|k| !k.eq_ignore_ascii_case(name)) {
                continue;
            }
            // Some servers end a pair at `;` as well (HTML 4.01 B.2.2), so an inspected name beside one has two readings.
            let two_readings = self.0.is_some_and(|q| q.contains(';'));
            if found.is_some() || two_readings || decode(key).is_some_and(|k| k != name) {
                return Err(ambiguous());
            }
            found = Some(decode(value).ok_or_else(ambiguous)?);
        }
        Ok(found.filter(|v| !v.is_empty()))
    }

    /// The query as sent, less the parameters with these names. Order and bytes of the others are kept.
    pub fn without(self, names: &[&str]) -> Option<Cow<'a, str>> {
        let whole = self.0?;
        let named = |pair: &str| {
            let key = pair.split_once('=').map_or(pair, |(k, _)| k);
            decode(key).is_some_and(|k| names.contains(&&*k))
        };
        if !self.pairs().any(named) {
            return Some(Cow::Borrowed(whole));
        }
        let kept: Vec<_> = whole.split('&').filter(|pair| !named(pair)).collect();
        (!kept.is_empty()).then(|| Cow::Owned(kept.join("&")))
    }

    fn pairs(self) -> impl Iterator<Item = &'a str> {
        self.0.unwrap_or_default().split(['&', ';']).filter(|p| !p.is_empty())
    }
}

fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.bytes().any(|b| matches!(b, b'%' | b'+')) {
        return Some(Cow::Borrowed(text));
    }
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced).decode_utf8().ok().map(|t| Cow::Owned(t.into_owned()))
}
