//! Embed keys: publishable, in the page's HTML, naming the tenant. The form is narrow so that a token, a secret or a
//! placeholder pasted in its place is noticed when the configuration loads.

use std::fmt;
use std::sync::Arc;

/// A well-formed embed key: 16–128 of `[A-Za-z0-9_-]`, not shaped like a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EmbedKey(Arc<str>);

impl EmbedKey {
    /// Most characters of an embed key.
    pub const LONGEST: usize = 128;

    /// Reads an embed key.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if !(16..=Self::LONGEST).contains(&text.len()) {
            return Err("an embed key has 16 to 128 characters");
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')) {
            return Err("an embed key has only letters, digits, _ and -");
        }
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err("64 hex digits are an identity token's form; an embed key must not look like one");
        }
        Ok(Self(text.into()))
    }

    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for EmbedKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EmbedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
