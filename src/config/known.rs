//! What a configuration can say, noted while it is read: each call of a reader names a key, its type, its default and its
//! bounds. The manual's reference is written from these notes, so it cannot say what the reader does not do. Decides nothing.

use std::net::SocketAddr;
use std::time::Duration;

use super::field::{Bytes, Field};

/// A key that exists, as the code that reads it asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Key {
    /// How many values it has.
    pub form: Form,
    /// What one of them is, after "wants": "a duration".
    pub takes: &'static str,
    /// The words that it takes, where there are no others.
    pub words: &'static [&'static str],
    /// How one is written, as TOML.
    pub example: &'static str,
    /// Whether it must be there where its table is, whatever else stands there.
    pub required: bool,
    /// What stands for it where it is absent, as TOML; `None` where that is nothing, or follows from something else.
    pub default: Option<String>,
    /// The least and the most that it takes, as TOML.
    pub bounds: Option<(String, String)>,
}

/// How many values a key has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// One.
    #[default]
    One,
    /// A list of them.
    List,
    /// A table whose keys are the operator's own, each with one.
    Entries,
    /// A table, whose keys are listed by themselves.
    Table,
    /// A list of such tables.
    Tables,
}

impl Key {
    /// A key of this type.
    pub(super) fn of<T: Field>(form: Form) -> Self {
        Self { form, takes: T::WANTED, words: T::WORDS, example: T::EXAMPLE, ..Self::default() }
    }

    /// A table, or a list of them.
    pub(super) fn table(form: Form) -> Self {
        Self { form, takes: "a table", ..Self::default() }
    }

    /// What is known after another call asked for the same key.
    pub(super) fn learn(&mut self, other: Self) {
        // Where one way to read it does without, it need not be there; bounds say nothing of that.
        self.required &= other.required || other.bounds.is_some();
        self.default = self.default.take().or(other.default);
        self.bounds = self.bounds.take().or(other.bounds);
    }
}

/// A type whose values can be written back: that of every key with a default.
pub(super) trait Shown: Field {
    /// The value as TOML.
    fn shown(&self) -> String;
}

impl Shown for bool {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for u64 {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Shown for Duration {
    fn shown(&self) -> String {
        // Not in months and years, which the crate takes for 30.44 and 365.25 days.
        match (self.as_secs() / 86_400, self.as_secs() % 86_400, self.subsec_nanos()) {
            (1, 0, 0) => "\"24h\"".to_owned(),
            (days @ 2.., 0, 0) => format!("\"{days}d\""),
            _ => format!("\"{}\"", humantime::format_duration(*self)),
        }
    }
}

impl Shown for Bytes {
    fn shown(&self) -> String {
        let (kib, mib) = (self.0 / 1024, self.0 / (1024 * 1024));
        match (mib, kib) {
            (0, 0) => format!("\"{}B\"", self.0),
            (0, _) => format!("\"{kib}KiB\""),
            _ => format!("\"{mib}MiB\""),
        }
    }
}

impl Shown for String {
    fn shown(&self) -> String {
        format!("\"{self}\"")
    }
}

impl Shown for SocketAddr {
    fn shown(&self) -> String {
        format!("\"{self}\"")
    }
}
