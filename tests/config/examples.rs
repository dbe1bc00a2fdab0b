//! `conf/` as shipped: every file loads, and the annotated one shows every key that exists, with its true default.

use std::path::Path;

use doorward::config::Loaded;
use toml::Value;

use crate::presets::Fixture;

/// What stands between the quotes after each `key = `.
fn named<'t>(text: &'t str, key: &str) -> Vec<&'t str> {
    let start = format!("{key} = \"");
    text.match_indices(&start).filter_map(|(at, _)| text[at + start.len()..].split('"').next()).collect()
}

/// Copies `conf/` with everything that it names: key material as files, since the environment belongs to all tests.
fn copy(change: impl Fn(&str) -> String) -> Fixture {
    let fixture = Fixture::new();
    let mut files: Vec<_> = std::fs::read_dir("conf").unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()).collect();
    files.extend(std::fs::read_dir("conf/tenants").unwrap().map(|e| e.unwrap().path()));
    for path in files {
        let name = path.strip_prefix("conf").unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let text = if name == "doorward.toml" { change(&text) } else { text };
        let text = supply(&fixture, &text);
        fixture.write(&name, &text);
    }
    fixture
}

/// Writes everything that a configuration names, key material as files, and returns it with those in place of variables.
pub(crate) fn supply(fixture: &Fixture, text: &str) -> String {
    let text = text.replace("env = \"", "file = \"").replace("/etc/doorward/", "");
    for secret in named(&text, "file") {
        fixture.write(secret, &format!("material of {secret} 0123456789abcdef0123456789abcdef"));
    }
    for pem in named(&text, "pem") {
        fixture.write(pem, &std::fs::read_to_string("tests/config/secrets/rsa.pem").unwrap());
    }
    let tls = [("certificate", "tls.pem"), ("key", "tls.key.pem"), ("client_ca", "tls-ca.pem"), ("ca", "tls-ca.pem")];
    for (key, file) in tls {
        for name in named(&text, key) {
            fixture.write(name, &std::fs::read_to_string(format!("tests/config/secrets/{file}")).unwrap());
        }
    }
    for jwks in named(&text, "jwks") {
        fixture.write(jwks, &std::fs::read_to_string("tests/config/secrets/keys.json").unwrap());
    }
    text
}

fn as_shipped(text: &str) -> String {
    text.to_owned()
}

/// Every key set: a `#` that a key or table follows directly is removed.
pub(crate) fn every_key(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '[') => format!("{rest}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

pub(crate) fn load(fixture: &Fixture, name: &str) -> Loaded {
    doorward::config::load(&fixture.path(name), 1, &|_, _| Default::default()).unwrap_or_else(|problems| panic!("{name}: {problems}"))
}

#[test]
fn every_example_loads_as_shipped_and_without_a_warning() {
    let fixture = copy(as_shipped);
    for name in ["doorward.toml", "sidecar.toml", "multi-tenant.toml"] {
        assert_eq!(load(&fixture, name).warnings, Vec::<String>::new(), "{name}");
    }
}

/// The annotated file with every key set. Its key set stands for any issuer's, so Globex gives up the same one; its forward-auth
/// listener sees no body, so the tenant that looks into some says what becomes of them.
pub(crate) fn with_every_key() -> Fixture {
    let fixture = copy(every_key);
    let cloud = std::fs::read_to_string(fixture.path("tenants/acme-cloud.toml")).unwrap();
    fixture.write("tenants/acme-cloud.toml", &format!("body_ids = \"unchecked\"\n{cloud}"));
    fixture.write("tenants/globex.toml", "id = \"globex\"\nembed_keys = []\norigins = []\nsecrets = []\n");
    fixture
}

#[test]
fn the_annotated_file_loads_with_every_key_set() {
    let loaded = load(&with_every_key(), "doorward.toml");
    let ids: Vec<_> = loaded.snapshot.tenants.all().iter().map(|t| t.id.as_str()).collect();
    assert_eq!(ids, ["acme", "acme-cloud", "globex"]);
}

/// Whether a dotted path leads anywhere; lists are looked through.
fn shows(value: &Value, path: &[&str]) -> bool {
    match (value, path) {
        (Value::Array(elements), _) => elements.iter().any(|element| shows(element, path)),
        (_, []) => true,
        (Value::Table(table), [first, rest @ ..]) => table.get(*first).is_some_and(|inner| shows(inner, rest)),
        _ => false,
    }
}

#[test]
fn the_annotated_file_shows_every_key_that_exists() {
    let text = every_key(&std::fs::read_to_string("conf/doorward.toml").unwrap());
    let shown: Value = toml::from_str::<toml::Table>(&text).unwrap().into();
    let known = load(&with_every_key(), "doorward.toml").known;
    assert!(["server.listen", "tenant.places.token", "tenant.route.aal"].iter().all(|key| known.contains_key(*key)), "{known:?}");
    // One source each: the other stands in another list, or in the prose.
    let only_one = |path: &str| ["audit.key.file", "tenant.verification_secret.file"].contains(&path);
    // A named upstream has every key of the default one, and shows those that exclude each other.
    let named: Vec<_> = shown["upstreams"].as_table().unwrap().values().collect();
    let shown = |path: &str| {
        let path: Vec<_> = path.split('.').collect();
        shows(&shown, &path) || path[0] == "upstream" && named.iter().any(|upstream| shows(upstream, &path[1..]))
    };
    let missing: Vec<_> = known.keys().filter(|path| !only_one(path) && !shown(path)).collect();
    assert!(missing.is_empty(), "not in conf/doorward.toml: {missing:?}");
}

/// What the annotated file calls a default is one: setting it changes nothing.
#[test]
fn the_annotated_defaults_are_the_defaults() {
    let plain = load(&copy(as_shipped), "doorward.toml").snapshot;
    let set = load(&with_every_key(), "doorward.toml").snapshot;
    let mut server = set.settings.server.clone();
    (server.probes, server.threads) = (plain.settings.server.probes, plain.settings.server.threads);
    assert_eq!(std::mem::take(&mut server.admin_hosts), ["doorward.internal"]);
    assert_eq!(server.upgrade_socket.take().as_deref(), Some(Path::new("/run/doorward/upgrade.sock")));
    assert_eq!((server.listeners.len(), server.trusted.networks.len()), (4, 2));
    (server.listeners, server.trusted) = (plain.settings.server.listeners.clone(), plain.settings.server.trusted.clone());
    assert_eq!(server, plain.settings.server);
    assert_eq!(set.upstreams.all().next().unwrap().settings, plain.upstreams.all().next().unwrap().settings);
    assert_eq!(set.settings.max_tenants, plain.settings.max_tenants);
    let (set, plain) = (&set.tenants.all()[0], &plain.tenants.all()[0]);
    assert_eq!(set.mode, plain.mode);
    assert_eq!(set.policy.audience, plain.policy.audience);
    assert_eq!(set.policy.step_up_max_age, plain.policy.step_up_max_age);
    assert_eq!((set.missing_origin, set.unsigned_id, set.on_expired), (plain.missing_origin, plain.unsigned_id, plain.on_expired));
    assert_eq!(set.exempt_ids, plain.exempt_ids);
    assert_eq!((&set.places.embed_key, &set.places.token), (&plain.places.embed_key, &plain.places.token));
    assert_eq!((&set.places.asserted_id, &set.places.body), (&plain.places.asserted_id, &plain.places.body));
    assert_eq!(set.places.body_paths, plain.places.body_paths);
    assert_eq!(
        (&set.claims.subject, set.claims.leeway, &set.claims.forward),
        (&plain.claims.subject, plain.claims.leeway, &plain.claims.forward)
    );
    assert_eq!((set.claims.expiry_required, &set.answers.status), (plain.claims.expiry_required, &plain.answers.status));
}
