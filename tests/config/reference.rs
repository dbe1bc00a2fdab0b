//! The manual's reference of every key (`src/manual/configuration.md`): its order and words are those of the annotated example,
//! its types, defaults and bounds those that the reader asks for. `UPDATE_GOLDEN=1` writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use doorward::config::known::{Form, Key};

use crate::examples::{load, with_every_key};

const PAGE: &str = "src/manual/configuration.md";
const HEAD: &str = "# Configuration: every key

Written from the code that reads them (what a key takes, its default, its bounds) and from the words of [conf/doorward.toml](../../conf/doorward.toml), which is the same as a file to start from.

";

#[test]
fn the_manuals_reference_is_what_the_reader_takes() {
    let loaded = load(&with_every_key(), "doorward.toml");
    let server = &loaded.snapshot.settings.server;
    let restart = server.with_a_restart(server).into_iter().flat_map(|(keys, _)| keys).map(|key| format!("server.{key}")).collect();
    let example = std::fs::read_to_string("conf/doorward.toml").unwrap();
    let mut page = Page { known: &loaded.known, restart, shown: BTreeSet::new(), text: HEAD.to_owned(), ..Page::default() };
    // What stands before is about the file.
    example.lines().skip_while(|line| !line.starts_with("# Durations")).for_each(|line| page.line(line));
    page.flush();
    let left: Vec<_> = loaded.known.keys().filter(|path| !page.shown.contains(*path)).collect();
    assert!(left.is_empty(), "keys without a word in conf/doorward.toml: {left:?}");

    #[allow(clippy::disallowed_methods)] // a switch of the test run, not of the program
    if std::env::var("UPDATE_GOLDEN").is_ok() {
        std::fs::write(PAGE, &page.text).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(written == page.text, "{PAGE} is not what the code says: UPDATE_GOLDEN=1 cargo test --test config writes it");
}

static NOTHING: BTreeMap<String, Key> = BTreeMap::new();

/// The page as far as the example was read.
struct Page<'k> {
    known: &'k BTreeMap<String, Key>,
    /// Keys that a reload leaves as they were.
    restart: BTreeSet<String>,
    shown: BTreeSet<String>,
    text: String,
    /// The comment above, and the keys below it.
    words: Vec<String>,
    keys: Vec<String>,
    /// The table that keys stand in, and whether its heading was written.
    table: String,
    heading: Option<String>,
    headings: BTreeSet<String>,
    /// Its keys are shown under another heading.
    elsewhere: bool,
}

impl Default for Page<'_> {
    fn default() -> Self {
        let (table, text) = (String::new(), String::new());
        let (shown, restart) = (BTreeSet::new(), BTreeSet::new());
        let (words, keys, headings) = (Vec::new(), Vec::new(), BTreeSet::new());
        Self { known: &NOTHING, restart, shown, text, words, keys, table, heading: None, headings, elsewhere: false }
    }
}

impl Page<'_> {
    fn line(&mut self, line: &str) {
        let bare = line.strip_prefix('#').unwrap_or(line);
        if let Some(words) = line.strip_prefix("# ").filter(|words| !words.starts_with(' ')) {
            if !self.keys.is_empty() {
                self.flush();
            }
            self.words.push(words.to_owned());
        } else if let Some(name) = bare.strip_prefix('[').filter(|_| !line.starts_with("# ")) {
            self.open(name.trim_start_matches('[').split(']').next().unwrap(), bare.starts_with("[["));
        } else if let Some((key, _)) = bare.split_once(" = ").filter(|_| !line.starts_with("# ")) {
            if self.elsewhere {
                return;
            }
            let path = if self.table.is_empty() { key.to_owned() } else { format!("{}.{key}", self.table) };
            // Names of the operator's own are no keys.
            if self.known.contains_key(&path) {
                self.keys.push(path);
            }
        } else {
            self.flush();
        }
    }

    /// A table's header: the comment above it is about the table.
    fn open(&mut self, name: &str, list: bool) {
        if !self.keys.is_empty() {
            self.flush();
        }
        self.table = match name.strip_prefix("upstreams.").map(|rest| rest.split_once('.')) {
            Some(Some((_, "assertion"))) => "assertion".to_owned(),
            Some(Some((_, rest))) => format!("upstream.{rest}"),
            Some(None) => "upstream".to_owned(),
            None => name.to_owned(),
        };
        self.elsewhere = name.starts_with("upstreams.") && self.table == "assertion";
        let name = name.replace("upstreams.batch", "upstreams.NAME").replace("upstreams.local", "upstreams.NAME");
        let heading = if list { format!("[[{name}]]") } else { format!("[{name}]") };
        self.heading = self.headings.insert(heading.clone()).then_some(heading);
        self.shown.extend(["upstreams".to_owned(), name.replace("upstreams.NAME", "upstream")]);
        if !self.words.is_empty() {
            self.head();
            self.paragraph();
        }
        if self.known.get(&self.table).is_some_and(|key| key.form == Form::Entries) {
            self.head();
            let facts = self.facts(&self.table.clone());
            writeln!(self.text, "Takes {facts}.\n").unwrap();
        }
    }

    fn head(&mut self) {
        if let Some(heading) = self.heading.take() {
            writeln!(self.text, "## `{heading}`").unwrap();
        }
    }

    fn paragraph(&mut self) {
        if !self.words.is_empty() {
            writeln!(self.text, "{}\n", plain(&self.words.join(" "))).unwrap();
            self.words.clear();
        }
    }

    /// Writes what was gathered: keys that were not shown before, then what is said about them.
    fn flush(&mut self) {
        let fresh: Vec<_> = std::mem::take(&mut self.keys).into_iter().filter(|path| self.shown.insert(path.clone())).collect();
        if !fresh.is_empty() {
            self.head();
        }
        let mut lines = Vec::new();
        for path in &fresh {
            // With those of the table that it is, where that has no header of its own.
            let below = format!("{path}.");
            for path in self.known.keys().filter(|key| *key == path || key.starts_with(&below)) {
                self.shown.insert(path.clone());
                let name = path.strip_prefix(&format!("{}.", self.table)).unwrap_or(path);
                lines.push(format!("**`{name}`**: {}", self.facts(path)));
            }
        }
        if lines.is_empty() {
            return self.paragraph();
        }
        // One paragraph: a line for each key, then what is said about them.
        lines.extend(Some(plain(&self.words.join(" "))).filter(|words| !words.is_empty()));
        self.words.clear();
        writeln!(self.text, "{}\n", lines.join("\\\n")).unwrap();
    }

    fn facts(&self, path: &str) -> String {
        let key = &self.known[path];
        let one = match key.words {
            [] if key.takes.starts_with("a string") && key.default.is_none() && !key.example.contains('…') => {
                format!("a string like `{}`", key.example)
            }
            [] => key.takes.to_owned(),
            words => format!("`\"{}\"`", words.join("\"`, `\"")),
        };
        let mut facts = match key.form {
            Form::One | Form::Table => one,
            Form::List => format!("a list; each {one}"),
            Form::Entries if key.takes == "a table" => "tables by names of your own".to_owned(),
            Form::Entries => format!("names of your own, each with {one}"),
            Form::Tables => "a list of tables".to_owned(),
        };
        if let Some((least, most)) = &key.bounds {
            write!(facts, " from `{least}` to `{most}`").unwrap();
        }
        if let Some(default) = &key.default {
            write!(facts, "; default `{default}`").unwrap();
        }
        if key.required {
            facts.push_str("; must be given");
        }
        if self.restart.contains(path) {
            facts.push_str("; needs a restart or an upgrade");
        }
        facts
    }
}

/// A comment as Markdown: what stands in quotes or brackets, and names with underscores, is code.
fn plain(words: &str) -> String {
    let mut text = String::new();
    let mut rest = words;
    while let Some(first) = rest.chars().next() {
        let code = match first {
            '"' => rest[1..].find('"').map(|end| end + 2),
            '[' => bracketed(rest),
            c if c.is_ascii_alphanumeric() => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                if rest[..end].contains('_') {
                    Some(end)
                } else {
                    text.push_str(&rest[..end]);
                    rest = &rest[end..];
                    continue;
                }
            }
            '`' => rest[1..].find('`').map(|end| end + 2),
            _ => None,
        };
        match code {
            Some(end) => {
                write!(text, "`{}`", rest[..end].trim_matches('`')).unwrap();
                rest = &rest[end..];
            }
            None => {
                if matches!(first, '*' | '<') {
                    text.push('\\');
                }
                text.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    text
}

/// Where a name in brackets ends, double ones included.
fn bracketed(text: &str) -> Option<usize> {
    let open = text.chars().take_while(|c| *c == '[').count();
    text.find(&"]".repeat(open)).map(|end| end + open)
}
