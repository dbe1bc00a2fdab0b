//! The smallest useful file, with each preset.

use std::path::PathBuf;
use std::sync::Arc;

use doorward::config::{Loaded, Problems, load};
use tempfile::TempDir;

/// A configuration in a directory of its own, with secrets beside it.
pub(crate) struct Fixture {
    dir: TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let fixture = Self { dir: tempfile::tempdir().unwrap() };
        for (index, name) in ["assertion", "acme", "other"].iter().enumerate() {
            fixture.write(name, &format!("{name}-secret-{index}-0123456789abcdef0123456789abcdef"));
        }
        fixture
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn load(&self, text: &str) -> Result<Loaded, Problems> {
        self.write("doorward.toml", text);
        load(&self.path("doorward.toml"), 1, &|_, _| Arc::default())
    }
}

/// Server, upstream and assertion: the half that every file has.
pub(crate) const HEAD: &str = r#"
[server]
listen = "127.0.0.1:8080"
admin  = "127.0.0.1:9090"

[upstream]
address = "127.0.0.1:3000"

[assertion]
schemes  = ["http-message-signatures"]
audience = "agent"
keys = [{ id = "a1", file = "assertion" }]
"#;

#[test]
fn the_smallest_useful_file_loads_with_every_preset() {
    let fixture = Fixture::new();
    for (name, _) in doorward::config::preset::PRESETS {
        let format = if name == "none" { ", format = \"jwt\"" } else { "" };
        let tenant = format!(
            r#"
[[tenant]]
id = "acme"
preset = "{name}"
mode = "enforce"
embed_keys = ["ab_live_0123456789abcdef"]
origins = ["https://app.example.com", "https://*.preview.example.com"]
secrets = [{{ id = "s1", file = "acme"{format} }}]

[[tenant.route]]
path = "/approvals/*"
methods = ["POST"]
require = "stepped_up"
max_age = "5m"
"#
        );
        let loaded = fixture.load(&format!("{HEAD}{tenant}")).unwrap_or_else(|problems| panic!("{name}: {problems}"));
        let tenant = loaded.snapshot.tenants.by_key("ab_live_0123456789abcdef").unwrap();
        assert_eq!((tenant.id.as_str(), tenant.preset.as_str()), ("acme", name));
        assert_eq!(tenant.keys.all().len(), 1);
        println!("{name}: {:#?}\n{}", tenant.places, loaded.warnings.join("\n"));
    }
}
