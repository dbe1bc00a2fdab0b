//! Origins (RFC 6454): the request's one, and the list that a tenant allows. Compared byte for byte in serialized form; a
//! configured origin that is not already in that form is an error with the fix, never silently changed.

use http::header::{HeaderMap, ORIGIN};

use crate::reason::{Denied, Reason};

/// A request's serialized origin: `null`, or `scheme://host[:port]` and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a>(&'a str);

impl<'a> Origin<'a> {
    /// The request's origin.
    ///
    /// # Errors
    /// `origin_malformed` when the header is doubled or is no serialized origin.
    pub fn of(headers: &'a HeaderMap) -> Result<Option<Self>, Denied> {
        let mut values = headers.get_all(ORIGIN).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let malformed = |why: &'static str| Denied::new(Reason::OriginMalformed, why);
        if values.next().is_some() {
            return Err(malformed("two Origin headers"));
        }
        let text = value.to_str().map_err(|_| malformed("not ASCII"))?;
        Self::parse(text).map(Some).ok_or(malformed("not a serialized origin"))
    }

    /// Reads a serialized origin. Upper case is kept, so it matches nothing.
    pub fn parse(text: &'a str) -> Option<Self> {
        if text == "null" {
            return Some(Self(text));
        }
        let (scheme, authority) = text.split_once("://")?;
        let scheme_ok = scheme.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
        let authority_ok = !authority.is_empty()
            && authority.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':' | b'[' | b']'));
        (scheme_ok && authority_ok).then_some(Self(text))
    }

    /// The serialization.
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

/// One entry of a tenant's `origins`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OriginRule {
    /// Exactly this serialization.
    Exact(Box<str>),
    /// `https://` + one label that starts with `prefix` + `suffix` (which starts with `.` and may end in a port).
    Pattern {
        /// What the wildcard label starts with; may be empty.
        prefix: Box<str>,
        /// The fixed parent, with its leading dot and its port if it is not 443.
        suffix: Box<str>,
    },
}

impl OriginRule {
    /// Reads an entry of `origins`.
    ///
    /// # Errors
    /// A sentence that says what is wrong and how to write it instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "null" {
            return Ok(Self::Exact(text.into()));
        }
        if text.contains('*') {
            return Self::parse_pattern(text);
        }
        let url = url::Url::parse(text).map_err(|e| format!("is not an origin ({e}); write it like https://app.example.com"))?;
        let serialized = if matches!(url.scheme(), "http" | "https") {
            url.origin().ascii_serialization()
        } else {
            // App schemes (`capacitor://localhost`) have opaque origins in the URL standard; web views send scheme and host.
            let host = url.host_str().ok_or("has no host; write it like capacitor://localhost")?;
            let port = url.port().map(|p| format!(":{p}")).unwrap_or_default();
            format!("{}://{}{port}", url.scheme(), host.to_ascii_lowercase())
        };
        if Origin::parse(&serialized).is_none() {
            Err("has a host that no browser sends; write it like https://app.example.com".to_owned())
        } else if serialized == text {
            Ok(Self::Exact(text.into()))
        } else {
            Err(format!("is not a serialized origin (lower case, no default port, no path, no trailing slash); write \"{serialized}\""))
        }
    }

    fn parse_pattern(text: &str) -> Result<Self, String> {
        let shape = "a pattern is https://*.parent.example or https://pr-*.parent.example: the star ends the first label";
        let rest = text.strip_prefix("https://").ok_or(format!("only https origins may have a pattern; {shape}"))?;
        let (prefix, suffix) = rest.split_once('*').ok_or(shape)?;
        let parent = suffix.strip_prefix('.').ok_or(shape)?;
        if !prefix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') || parent.contains('*') {
            return Err(shape.to_owned());
        }
        let Self::Exact(parent_origin) = Self::parse(&format!("https://{parent}"))? else { return Err(shape.to_owned()) };
        let host = parent_origin.strip_prefix("https://").unwrap_or_default().split(':').next().unwrap_or_default();
        // A public suffix is where strangers register names; the list's private section counts (`*.vercel.app`).
        if !host.contains('.') || psl::suffix(host.as_bytes()).is_some_and(|s| s.as_bytes() == host.as_bytes()) {
            return Err(format!("\"{host}\" is a public suffix: anybody can have a name under it; {shape}"));
        }
        Ok(Self::Pattern { prefix: prefix.into(), suffix: suffix.into() })
    }

    /// Whether `origin` is the one meant.
    pub fn allows(&self, origin: Origin<'_>) -> bool {
        match self {
            Self::Exact(exact) => **exact == *origin.0,
            Self::Pattern { prefix, suffix } => origin
                .0
                .strip_prefix("https://")
                .and_then(|host| host.strip_suffix(&**suffix))
                .filter(|label| label.len() <= 63 && label.starts_with(&**prefix))
                .and_then(|label| label.get(prefix.len()..))
                .is_some_and(|rest| {
                    let whole_label_starts_with_dash = prefix.is_empty() && rest.starts_with('-');
                    let plain = rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
                    plain && !rest.is_empty() && !rest.ends_with('-') && !whole_label_starts_with_dash
                }),
        }
    }
}
