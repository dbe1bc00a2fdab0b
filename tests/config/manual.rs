//! Configurations as the manual prints them: each block of TOML loads, without a warning. One whose first line names a file is a
//! whole one and runs with its page (`tests/e2e/pages.rs`); a part is laid over the least that every configuration has.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::examples::{load, supply};
use crate::presets::Fixture;

const LEAST: &str = r#"
[server]
listen = "127.0.0.1:8080"

[upstream]
address = "127.0.0.1:3000"

[assertion]
audience = "agent"
keys = [{ id = "a0", file = "secrets/a0" }]

[[tenant]]
id = "acme"
embed_keys = ["ab_live_0123456789abcdef"]
origins = ["https://app.example.com"]
secrets = [{ id = "s1", file = "secrets/s1", format = "jwt" }]
"#;

/// Lays `over` on `under`: tables key by key, a list of tables at its first, anything else instead.
fn lay(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Table(under), Value::Table(over)) => over.into_iter().for_each(|(key, value)| match under.get_mut(&key) {
            Some(known) => lay(known, value),
            None => {
                under.insert(key, value);
            }
        }),
        (Value::Array(under), over @ Value::Table(_)) if under.first().is_some_and(Value::is_table) => lay(&mut under[0], over),
        (under, over) => *under = over,
    }
}

/// A part of a configuration, with the rest. A tenant of a list is the one that is there.
fn completed(part: Table, place: &str) -> Value {
    let mut whole: Value = toml::from_str::<Table>(LEAST).unwrap().into();
    let mut part: Value = part.into();
    if let Some(tenant) = part.get_mut("tenant").filter(|tenant| tenant.is_array()) {
        let tenants = tenant.as_array().cloned().unwrap();
        assert_eq!(tenants.len(), 1, "{place}: one tenant, or a file with a name");
        *tenant = tenants[0].clone();
    }
    lay(&mut whole, part);
    whole
}

fn pages(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let inner = folders.iter().flat_map(|folder| pages(folder)).collect::<Vec<_>>();
    files.into_iter().filter(|path| path.extension().is_some_and(|e| e == "md")).chain(inner).collect()
}

#[test]
fn what_it_prints_as_configuration_loads() {
    let mut seen = 0;
    for page in [pages(Path::new("src/manual")), pages(Path::new("deploy"))].concat() {
        let text = std::fs::read_to_string(&page).unwrap();
        for block in text.split("```toml\n").skip(1).map(|rest| rest.split("\n```").next().unwrap()) {
            if block.lines().next().is_some_and(|first| first.starts_with("# ") && first.ends_with(".toml")) {
                continue;
            }
            let place = page.display();
            let over: Table = block.parse().unwrap_or_else(|e| panic!("{place}: {e}"));
            let whole = if ["server", "upstream", "assertion", "tenant"].iter().all(|key| over.contains_key(*key)) {
                over.into()
            } else {
                completed(over, &format!("{place}"))
            };
            let fixture = Fixture::new();
            let whole = supply(&fixture, &toml::to_string(&whole).unwrap());
            fixture.write("doorward.toml", &whole);
            assert_eq!(load(&fixture, "doorward.toml").warnings, Vec::<String>::new(), "{place}:\n{block}");
            seen += 1;
        }
    }
    assert!(seen >= 8, "{seen} blocks");
}
