//! The manual's reference of every key (`src/manual/configuration.md`): its order and words are those of the annotated example,
//! its types, defaults and bounds those that the reader asks for. `UPDATE_GOLDEN=1` writes it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use doorward::config::known::{Form, Key};

use crate::examples::{load, with_every_key};

const PAGE: &str = "src/manual/configuration.md";
const HEAD: &str = "# Configuration: every key

Written from the code that reads them (what a key takes, its default, its bounds) and from the words of `conf/doorward.toml`, which is the same as a file to start from.

";

#[test]
fn the_manuals_reference_is_what_the_reader_takes() {
    let loaded = load(&with_every_key(), "doorward.toml");
    let server = &loaded.snapshot.settings.server;
    let restart = server.with_a_restart(server).into_iter().flat_map(|(keys, _)| keys).map(|key| format!("server.{key}")).collect();
    let example = std::fs::read_to_string("conf/doorward.toml").unwrap();
    let mut page = Page { known: &loaded.known, restart, shown: BTreeSet::new(), text: HEAD.to_owned(), ..Page::default() };
    example.lines().for_each(|line| page.line(line));
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
}

impl Default for Page<'_> {
    fn default() -> Self {
        let (table, text) = (String::new(), String::new());
        let (shown, restart) = (BTreeSet::new(), BTreeSet::new());
        Self { known: &NOTHING, restart, shown, text, words: Vec::new(), keys: Vec::new(), table, heading: None }
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
        let name = name.replace("upstreams.batch", "upstreams.NAME");
        self.heading = Some(if list { format!("[[{name}]]") } else { format!("[{name}]") });
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
        for path in &fresh {
            self.bullet(path, 0);
        }
        if !fresh.is_empty() {
            self.text.push('\n');
        }
        self.paragraph();
    }

    /// One key, and those of the table that it is, where that has no header of its own.
    fn bullet(&mut self, path: &str, depth: usize) {
        let name = path.rsplit('.').next().unwrap();
        let facts = self.facts(path);
        writeln!(self.text, "{:indent$}- **`{name}`**: {facts}", "", indent = depth * 2).unwrap();
        let below = format!("{path}.");
        let inner: Vec<_> = self.known.keys().filter(|key| key.starts_with(&below)).cloned().collect();
        for inner in inner {
            self.shown.insert(inner.clone());
            self.bullet(&inner, depth + 1);
        }
    }

    fn facts(&self, path: &str) -> String {
        let key = &self.known[path];
        let one = match key.words {
            [] if key.takes.starts_with("a string") && key.default.is_none() && !key.example.contains('…') => format!("like `{}`", key.example),
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

/// A comment as Markdown: what stands in brackets or has a star is code.
fn plain(words: &str) -> String {
    let mut text = String::new();
    let (mut depth, mut quoted) = (0_usize, false);
    for c in words.chars() {
        match c {
            '"' if depth == 0 => {
                quoted = !quoted;
                text.push_str(if quoted { "`\"" } else { "\"`" });
            }
            '[' if !quoted => {
                depth += 1;
                text.push_str(if depth == 1 { "`[" } else { "[" });
            }
            ']' if !quoted => {
                depth = depth.saturating_sub(1);
                text.push_str(if depth == 0 { "]`" } else { "]" });
            }
            '*' | '<' | '_' if depth == 0 && !quoted => {
                text.push('\\');
                text.push(c);
            }
            '`' => {}
            c => text.push(c),
        }
    }
    text
}
