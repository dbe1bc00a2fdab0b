//! A TOML table as the readers see it: every key is asked for by name and type, every problem is recorded with its place,
//! and what nobody asked for is an unknown key. A tenant's table lies over its preset's: the tenant's key wins.

use std::cell::RefCell;
use std::rc::Rc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::context::Context;
use super::diagnostic::{Code, Diagnostic, Document, Site};
use super::field::{Complaint, Field, kind_of};
use super::known::{Form, Key, Shown};
use super::suggest::nearest;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) site: Site,
}

#[derive(Clone)]
struct Layer<'t> {
    document: &'t Rc<Document>,
    table: &'t DeTable<'t>,
}

/// One table, or the place where it would be.
pub(super) struct Table<'t> {
    cx: &'t Context<'t>,
    /// The table's own keys first, then those it inherits.
    layers: Vec<Layer<'t>>,
    path: String,
    /// The same without names that are the operator's own: what the annotated example must show.
    known: String,
    site: Site,
    asked: RefCell<Vec<&'static str>>,
    sensitive: bool,
    /// Something else stands in its place, which was said: what it lacks is not.
    misshapen: bool,
    /// The table that it should lie over is not known, which was said: what could stand there is not missed.
    partial: bool,
}

/// A value of a table, with all that a complaint about it needs.
struct Item<'t> {
    document: &'t Rc<Document>,
    value: &'t Spanned<DeValue<'t>>,
    path: String,
}

impl<'t> Item<'t> {
    fn site(&self) -> Site {
        Site { document: Rc::clone(self.document), span: self.value.span() }
    }

    fn read<T: Field>(&self, cx: &Context<'_>) -> Option<Located<T>> {
        match T::read(self.value.get_ref()) {
            Ok(value) => Some(Located { value, site: self.site() }),
            Err(complaint) => {
                if complaint.hide {
                    self.document.mask(self.value.span());
                }
                cx.report(complaint.at(&self.path, self.site()));
                None
            }
        }
    }
}

impl<'t> Table<'t> {
    /// A document's top-level table.
    pub(super) fn root(cx: &'t Context<'t>, document: &'t Rc<Document>, table: &'t DeTable<'t>, path: &str) -> Self {
        let site = Site { document: Rc::clone(document), span: 0..0 };
        Self::new(cx, vec![Layer { document, table }], path.to_owned(), site)
    }

    fn new(cx: &'t Context<'t>, layers: Vec<Layer<'t>>, path: String, site: Site) -> Self {
        Self { cx, layers, known: path.clone(), path, site, asked: RefCell::default(), sensitive: false, misshapen: false, partial: false }
    }

    /// Lays this table over the one it inherits from.
    pub(super) fn over(mut self, document: &'t Rc<Document>, table: &'t DeTable<'t>) -> Self {
        self.layers.push(Layer { document, table });
        self
    }

    /// The table that it should lie over is not known.
    pub(super) fn partial(mut self) -> Self {
        self.partial = true;
        self
    }

    /// Whether what it lacks may be no fault of its own.
    pub(super) fn is_partial(&self) -> bool {
        self.partial
    }

    /// The annotated example shows its keys under another name.
    pub(super) fn known_as(mut self, known: &str) -> Self {
        known.clone_into(&mut self.known);
        self
    }

    /// Values of unknown keys are hidden when shown: this table is where people paste secrets.
    pub(super) fn sensitive(mut self) -> Self {
        self.sensitive = true;
        self
    }

    /// The load this table is read in.
    pub(super) fn cx(&self) -> &'t Context<'t> {
        self.cx
    }

    /// Where the table starts.
    pub(super) fn site(&self) -> Site {
        self.site.clone()
    }

    /// Where a key's value stands, or else the table.
    pub(super) fn site_of(&self, key: &'static str) -> Site {
        self.find(key).map_or_else(|| self.site(), |item| item.site())
    }

    /// Whether the table's own text has this key, its preset aside.
    pub(super) fn writes(&self, key: &'static str) -> bool {
        self.layers.first().is_some_and(|own| own.table.contains_key(key))
    }

    /// Whether it has this key, or one that looks misspelled, which is said anyway. Asked once every key is known.
    pub(super) fn seems_to_write(&self, key: &'static str) -> bool {
        let asked = self.asked.borrow();
        let misspelled = |name: &str| !asked.contains(&name) && nearest(name, asked.iter().copied()) == Some(key);
        self.writes(key) || self.layers.first().is_some_and(|own| own.table.iter().any(|(name, _)| misspelled(name.get_ref())))
    }

    /// Whether a key's value is a list without elements.
    pub(super) fn is_empty_list(&self, key: &'static str) -> bool {
        self.find(key).is_some_and(|item| matches!(item.value.get_ref(), DeValue::Array(elements) if elements.is_empty()))
    }

    /// A key's value, if it is a string: for a second look at what was read before.
    pub(super) fn word(&self, key: &'static str) -> Option<&'t str> {
        self.find(key)?.value.get_ref().as_str()
    }

    /// Records a problem.
    pub(super) fn report(&self, diagnostic: Diagnostic) {
        self.cx.report(diagnostic);
    }

    /// This table's name, as operators write it.
    pub(super) fn full_path(&self) -> &str {
        &self.path
    }

    /// A key's name from the top, as operators say it.
    pub(super) fn full(&self, key: &str) -> String {
        below(&self.path, key)
    }

    /// Notes what a key takes.
    pub(super) fn note(&self, key: &'static str, what: Key) {
        self.cx.known(&below(&self.known, key), what);
    }

    fn find(&self, key: &'static str) -> Option<Item<'t>> {
        let path = self.full(key);
        if !self.asked.borrow().contains(&key) {
            self.asked.borrow_mut().push(key);
        }
        let (document, value) = self.layers.iter().find_map(|layer| Some((layer.document, layer.table.get(key)?)))?;
        Some(Item { document, value, path })
    }

    /// The value of a key that may be absent.
    pub(super) fn get<T: Field>(&self, key: &'static str) -> Option<Located<T>> {
        self.note(key, Key::of::<T>(Form::One));
        self.value(key)
    }

    /// The same for a key that was noted.
    pub(super) fn value<T: Field>(&self, key: &'static str) -> Option<Located<T>> {
        self.find(key)?.read(self.cx)
    }

    /// The value of a key that may be absent, or what stands for it.
    pub(super) fn or<T: Shown>(&self, key: &'static str, default: T) -> T {
        self.note(key, Key { default: Some(default.shown()), ..Key::of::<T>(Form::One) });
        self.value(key).map_or(default, |found| found.value)
    }

    /// The value of a key that must be there.
    pub(super) fn need<T: Field>(&self, key: &'static str) -> Option<Located<T>> {
        self.note(key, Key { required: true, ..Key::of::<T>(Form::One) });
        let Some(item) = self.find(key) else {
            if self.misshapen {
                return None;
            }
            let add = format!("{key} = {}", T::EXAMPLE);
            let help = if self.layers.is_empty() { format!("add [{}] with {add}", self.path) } else { format!("add {add}") };
            let title = format!("`{}` is missing", self.full(key));
            self.report(Diagnostic::new(Code::MissingKey, self.site(), title).help(help));
            return None;
        };
        item.read(self.cx)
    }

    /// A list's elements; `None` where the key is absent.
    pub(super) fn list<T: Field>(&self, key: &'static str) -> Option<Vec<Located<T>>> {
        self.note(key, Key::of::<T>(Form::List));
        let item = self.find(key)?;
        let DeValue::Array(elements) = item.value.get_ref() else {
            let example = format!("write a list: {key} = [{}]", T::EXAMPLE);
            self.report(wrong("a list", &item).help(example));
            return Some(Vec::new());
        };
        let element = |value: &'t Spanned<DeValue<'t>>| Item { document: item.document, value, path: item.path.clone() };
        Some(elements.iter().filter_map(|value| element(value).read(self.cx)).collect())
    }

    /// A table inside this one, its inherited keys under its own. Where there is none, one without keys.
    pub(super) fn table(&self, key: &'static str) -> Table<'t> {
        self.note(key, Key::table(Form::Table));
        self.inner(key)
    }

    fn inner(&self, key: &'static str) -> Table<'t> {
        let mut site = None;
        let mut layers = Vec::new();
        self.find(key);
        for layer in &self.layers {
            let Some(value) = layer.table.get(key) else { continue };
            let item = Item { document: layer.document, value, path: self.full(key) };
            site.get_or_insert_with(|| item.site());
            match value.get_ref() {
                DeValue::Table(table) => layers.push(Layer { document: layer.document, table }),
                _ => self.report(wrong("a table", &item).help(format!("write [{}] and its keys below", item.path))),
            }
        }
        let misshapen = layers.is_empty() && site.is_some();
        let mut table = Table::new(self.cx, layers, self.full(key), site.unwrap_or_else(|| self.site()));
        table.misshapen = misshapen;
        table.partial = self.partial;
        table.known = below(&self.known, key);
        table
    }

    /// The tables of a table whose keys are the operator's own, such as `[upstreams.NAME]`, each a table like `known`.
    pub(super) fn named(&self, key: &'static str, known: &str) -> Vec<(Located<String>, Table<'t>)> {
        self.note(key, Key::table(Form::Entries));
        let inner = self.inner(key);
        let mut tables = Vec::new();
        for layer in &inner.layers {
            for (name, value) in layer.table.iter() {
                let path = inner.full(name.get_ref());
                let site = Site { document: Rc::clone(layer.document), span: name.span() };
                let item = Item { document: layer.document, value, path: path.clone() };
                let DeValue::Table(found) = value.get_ref() else {
                    self.report(wrong("a table", &item).help(format!("write [{path}] and its keys below")));
                    continue;
                };
                let layers = vec![Layer { document: layer.document, table: found }];
                let table = Table::new(self.cx, layers, path, item.site()).known_as(known);
                tables.push((Located { value: name.get_ref().to_string(), site }, table));
            }
        }
        tables
    }

    /// The tables of a list such as `[[tenant]]`.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Table<'t>> {
        self.note(key, Key::table(Form::Tables));
        let Some(item) = self.find(key) else { return Vec::new() };
        let DeValue::Array(elements) = item.value.get_ref() else {
            self.report(wrong("a list of tables", &item).help(format!("write [[{}]], or {key} = [{{ … }}]", item.path)));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for value in elements.iter() {
            let element = Item { document: item.document, value, path: item.path.clone() };
            match value.get_ref() {
                DeValue::Table(table) => {
                    let layer = Layer { document: item.document, table };
                    let mut table = Table::new(self.cx, vec![layer], item.path.clone(), element.site());
                    table.known = below(&self.known, key);
                    tables.push(table);
                }
                _ => self.report(wrong("a table", &element).help(format!("write [[{}]], or {key} = [{{ … }}]", item.path))),
            }
        }
        tables
    }

    /// The entries of a table whose keys are the operator's own, such as `[upstream.headers]`.
    pub(super) fn entries<T: Field>(&self, key: &'static str) -> Vec<(Located<String>, Located<T>)> {
        self.note(key, Key::of::<T>(Form::Entries));
        let inner = self.inner(key);
        let mut seen: Vec<&str> = Vec::new();
        let mut entries = Vec::new();
        for layer in &inner.layers {
            for (name, value) in layer.table.iter() {
                if seen.contains(&&**name.get_ref()) {
                    continue;
                }
                seen.push(name.get_ref());
                let site = Site { document: Rc::clone(layer.document), span: name.span() };
                let item = Item { document: layer.document, value, path: inner.full(name.get_ref()) };
                let name = Located { value: name.get_ref().to_string(), site };
                entries.extend(item.read(self.cx).map(|value| (name, value)));
            }
        }
        entries
    }

    /// Reports the keys that nobody asked for. Every reader ends with it.
    pub(super) fn finish(&self) {
        let asked = self.asked.borrow();
        for layer in &self.layers {
            for (name, value) in layer.table.iter().filter(|(name, _)| !asked.contains(&&**name.get_ref())) {
                if self.sensitive {
                    layer.document.mask(value.span());
                }
                let site = Site { document: Rc::clone(layer.document), span: name.span() };
                let title = format!("unknown key `{}`", self.full(name.get_ref()));
                let help = match nearest(name.get_ref(), asked.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known here: {}", {
                        let mut all = asked.clone();
                        all.sort_unstable();
                        all.join(", ")
                    }),
                };
                self.report(Diagnostic::new(Code::UnknownKey, site, title).help(help));
            }
        }
    }
}

fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn wrong(wanted: &str, item: &Item<'_>) -> Diagnostic {
    Complaint::new(Code::WrongType, format!("wants {wanted}, not {}", kind_of(item.value.get_ref()))).at(&item.path, item.site())
}
