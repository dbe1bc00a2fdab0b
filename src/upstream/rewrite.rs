//! What an upstream is sent in place of a client's path: a prefix less, a prefix more. Policy has matched the client's own
//! path by then. The result is read again by the same reader, and what it would change is refused, so that the path that is
//! signed and sent has one reading too (`threats` 25).

use std::borrow::Cow;

use crate::reason::{Denied, Reason};
use crate::request::path::Path;

/// `strip_prefix` and `add_prefix`: each whole segments, starting with a slash and not ending in one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    strip: Option<String>,
    add: Option<String>,
}

impl Rewrite {
    /// Both prefixes, as they came out of [`prefix`].
    pub fn new(strip: Option<String>, add: Option<String>) -> Self {
        Self { strip, add }
    }

    /// Whether paths are sent as they came.
    pub fn is_none(&self) -> bool {
        self.strip.is_none() && self.add.is_none()
    }

    /// The path to sign and to send.
    ///
    /// # Errors
    /// `path_not_served` for a path that is not below the prefix to strip; `request_path_ambiguous` for a result with another
    /// reading than the one that is meant.
    pub fn apply<'p>(&self, path: &'p Path<'_>) -> Result<Cow<'p, str>, Denied> {
        let whole = path.as_str();
        if self.is_none() {
            return Ok(Cow::Borrowed(whole));
        }
        let kept = match &self.strip {
            None => whole,
            Some(prefix) => below(whole, prefix).ok_or(Denied::new(Reason::PathNotServed, "not below strip_prefix"))?,
        };
        let sent = match (&self.add, kept) {
            (_, "*") => Cow::Borrowed(kept), // about the server, not about a path of it (RFC 9110 §9.3.7)
            (None, "") => Cow::Borrowed("/"),
            (None, kept) => Cow::Borrowed(kept),
            (Some(prefix), kept) => Cow::Owned(format!("{prefix}{kept}")),
        };
        let again = Path::parse(&sent)?;
        if again.as_str() == sent {
            Ok(sent)
        } else {
            Err(Denied::new(Reason::RequestPathAmbiguous, "the rewritten path has another reading"))
        }
    }
}

/// Reads a prefix of the configuration.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn prefix(text: &str) -> Result<String, &'static str> {
    let body = text.strip_suffix('/').unwrap_or(text);
    match Path::parse(body) {
        _ if text == "/" => Err("would change nothing: leave it out"),
        Ok(path) if path.as_str() == body && !body.contains(['?', '*']) => Ok(body.to_owned()),
        _ => Err("write a path in normal form, like \"/agent\": it starts with a slash, and has no empty or dot segments"),
    }
}

/// What is left of a path below a prefix: nothing, or something that starts with a slash.
fn below<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    path.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(strip: Option<&str>, add: Option<&str>, path: &str) -> Result<String, Reason> {
        let rewrite = Rewrite::new(strip.map(|p| prefix(p).unwrap()), add.map(|p| prefix(p).unwrap()));
        let path = Path::parse(path).unwrap();
        rewrite.apply(&path).map(Cow::into_owned).map_err(|why| why.reason)
    }

    #[test]
    fn whole_segments_go_and_come() {
        assert_eq!(sent(None, None, "/a/b").unwrap(), "/a/b");
        assert_eq!(sent(Some("/a"), None, "/a/b/").unwrap(), "/b/");
        assert_eq!(sent(Some("/a/"), None, "/a").unwrap(), "/");
        assert_eq!(sent(Some("/a"), None, "/a/").unwrap(), "/");
        assert_eq!(sent(None, Some("/v1"), "/b").unwrap(), "/v1/b");
        assert_eq!(sent(None, Some("/v1/"), "/").unwrap(), "/v1/");
        assert_eq!(sent(Some("/a"), Some("/v1"), "/a").unwrap(), "/v1");
        assert_eq!(sent(Some("/a"), Some("/v1/x"), "/a/b").unwrap(), "/v1/x/b");
        assert_eq!(sent(Some("/a%20b"), None, "/a%20b/%C3%A9").unwrap(), "/%C3%A9");
    }

    #[test]
    fn what_is_not_below_the_prefix_is_not_served() {
        for path in ["/", "/ab", "/A/b", "/b/a", "*"] {
            assert_eq!(sent(Some("/a"), None, path), Err(Reason::PathNotServed), "{path}");
        }
        assert_eq!(sent(None, Some("/v1"), "*").unwrap(), "*");
    }

    #[test]
    fn prefixes_are_in_normal_form() {
        for text in ["", "/", "a", "//a", "/a//b", "/../a", "/%61", "/a?b", "/a/*", "/a%2Fb", "/a;b", "/a b"] {
            assert!(prefix(text).is_err(), "{text}");
        }
        assert_eq!(prefix("/a/b/").unwrap(), "/a/b");
    }
}
