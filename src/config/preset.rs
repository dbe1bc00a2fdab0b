//! The presets: a vendor's conventions as data, in the tenant's own keys, compiled in. A tenant's table lies over its
//! preset's, key by key.

use std::rc::Rc;

use toml::Spanned;
use toml::de::DeTable;

use super::diagnostic::Document;

/// Every preset's name and text. Registration: one row per preset.
pub const PRESETS: [(&str, &str); 6] = [
    ("karta", include_str!("../tenant/presets/karta.toml")),
    ("agentic-trust-hmac", include_str!("../tenant/presets/agentic-trust-hmac.toml")),
    ("agentic-trust-jwt", include_str!("../tenant/presets/agentic-trust-jwt.toml")),
    ("halo", include_str!("../tenant/presets/halo.toml")),
    ("widgent", include_str!("../tenant/presets/widgent.toml")),
    ("none", include_str!("../tenant/presets/none.toml")),
];

/// What a tenant without `preset` starts from.
pub const DEFAULT: &str = "none";

/// A preset's text.
pub fn text(name: &str) -> Option<&'static str> {
    PRESETS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// A parsed preset.
pub(super) struct Preset {
    pub(super) name: &'static str,
    pub(super) document: Rc<Document>,
    pub(super) table: Spanned<DeTable<'static>>,
}

/// All presets, parsed. They are ours: a test proves that each is valid.
pub(super) fn parsed() -> Vec<Preset> {
    let parse = |(order, (name, text)): (usize, &(&'static str, &'static str))| Preset {
        name,
        // After every file of the operator's.
        document: Document::new(format!("preset {name}"), *text, usize::MAX - order),
        table: DeTable::parse_recoverable(text).0,
    };
    PRESETS.iter().enumerate().map(parse).collect()
}
