//! Shared secrets of any purpose: where one comes from (`env` or `file`), how it is decoded (`encoding`), and what an
//! operator should hear about it. The material itself is never shown.

use super::diagnostic::{Code, Diagnostic};
use super::field::EnvName;
use super::table::{Located, Table};
use crate::outbound::Roots;
use crate::secret::{self, Encoding, GOOD_BYTES, Resolved, Source};

/// What the sources of a key are called.
const SOURCES: &str = "write env = \"NAME_OF_A_VARIABLE\" or file = \"path/of/a/file\"";

/// Where a table's secret comes from: exactly one of `env` and `file`.
pub(super) fn source(table: &Table<'_>, whose: &str) -> Option<Located<Source>> {
    let env = table.get::<EnvName>("env");
    let file = table.get::<String>("file");
    if !table.writes("env") && !table.writes("file") {
        table.report(Diagnostic::new(Code::SecretSource, table.site(), format!("{whose} has no source")).help(SOURCES));
        return None;
    }
    if table.writes("env") && table.writes("file") {
        let title = format!("{whose} has two sources");
        table.report(Diagnostic::new(Code::SecretSource, table.site_of("file"), title).help("keep env or file, not both"));
        return None;
    }
    let env = env.map(|e| Located { value: Source::Env(e.value.0), site: e.site });
    env.or_else(|| file.map(|f| Located { value: Source::File(table.cx().file(&f.value)), site: f.site }))
}

/// A table's shared secret, decoded; `good` is the length in bytes under which a warning is due.
pub(super) fn shared_secret(table: &Table<'_>, whose: &str, good: usize) -> Option<Located<Resolved>> {
    let encoding = table.or("encoding", Encoding::Text);
    let source = source(table, whose)?;
    let resolved = read(table, whose, &source, encoding)?;
    let length = resolved.key.expose().len();
    if length < good.max(GOOD_BYTES) {
        let title = format!("{whose} has {length} bytes; {} are as strong as its MAC", good.max(GOOD_BYTES));
        let help = "make one with doorward secret new, and rotate: both live side by side for a while";
        table.report(Diagnostic::new(Code::SecretShort, source.site.clone(), title).help(help));
    }
    if resolved.trailing_newline && encoding == Encoding::Text {
        let title = format!("the file of {whose} ends in a newline, which was not taken for a part of it");
        let help = "write the file without one (printf %s); a secret that really ends in a newline needs encoding = \"base64\"";
        table.report(Diagnostic::new(Code::SecretNewline, source.site.clone(), title).help(help));
    }
    Some(Located { value: resolved, site: source.site })
}

/// The authorities in the file that a key names, as PEM; `None` too where a problem was recorded.
pub(super) fn authorities(table: &Table<'_>, key: &'static str, help: &str) -> Option<String> {
    let named = table.get::<String>(key)?;
    let text = table.cx().text(&table.cx().file(&named.value), named.site.clone())?;
    if let Err(why) = Roots::pem(&text) {
        let title = format!("authority {} cannot be used: {why}", named.value);
        table.report(Diagnostic::new(Code::Certificate, named.site, title).help(help));
        return None;
    }
    Some(text)
}

/// Reads a secret from its source, or says how to repair it.
pub(super) fn read(table: &Table<'_>, whose: &str, source: &Located<Source>, encoding: Encoding) -> Option<Resolved> {
    match secret::resolve(&source.value, encoding) {
        Ok(resolved) => Some(resolved),
        Err(why) => {
            let help = match (&why, &source.value) {
                (secret::Unusable::Unreadable(_), Source::Env(name)) => format!("set {name} in the environment of the process"),
                (secret::Unusable::Unreadable(_), Source::File(_)) => {
                    "relative paths start at the configuration file's directory; the process needs read permission".to_owned()
                }
                (secret::Unusable::Undecodable(_), _) => "write the encoding that the secret has: text, hex or base64".to_owned(),
                (secret::Unusable::TooShort(_), _) => "make one with doorward secret new".to_owned(),
            };
            let title = format!("{whose}: {} {why}", source.value);
            table.report(Diagnostic::new(Code::SecretUnusable, source.site.clone(), title).help(help));
            None
        }
    }
}
