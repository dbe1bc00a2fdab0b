//! What a configuration comes to: each rule beside its harmless twin.

use std::sync::Arc;
use std::time::Duration;

use doorward::cli::check::summary;
use doorward::config::load;
use doorward::policy::Mode;
use doorward::reason::Reason;
use doorward::request::body::Purpose;
use doorward::tenant::{OnExpired, Place, Tenant, UnsignedId};
use doorward::token::FormatName;
use doorward::token::keys::KeyUsage;

use crate::presets::{Fixture, HEAD};

/// A tenant's table with these keys added.
fn tenant(preset: &str, more: &str) -> String {
    format!(
        "{HEAD}\n[[tenant]]\nid = \"acme\"\npreset = \"{preset}\"\nembed_keys = [\"pk_live_0123456789abcdef\"]\n\
         origins = [\"https://app.example.com\"]\n{more}\n"
    )
}

fn loaded(preset: &str, more: &str) -> Arc<Tenant> {
    let loaded = Fixture::new().load(&tenant(preset, more)).unwrap_or_else(|problems| panic!("{problems}"));
    Arc::clone(&loaded.snapshot.tenants.all()[0])
}

fn refused(text: &str) -> String {
    Fixture::new().load(text).map(|l| l.warnings).unwrap_err().to_string()
}

const SECRET: &str = "secrets = [{ id = \"s1\", file = \"acme\" }]";

fn formats(tenant: &Tenant) -> Vec<FormatName> {
    tenant.keys.all().iter().flat_map(|key| key.formats.clone()).collect()
}

#[test]
fn no_preset_weakens_the_mode() {
    for (name, _) in doorward::config::preset::PRESETS {
        let tenant = loaded(name, "secrets = []");
        assert_eq!(tenant.mode, Mode::Enforce, "{name}");
        assert!(!tenant.places.embed_key.is_empty() && !tenant.places.token.is_empty(), "{name}");
    }
}

#[test]
fn one_secret_signs_one_format_unless_the_host_generates_every_id() {
    for (preset, first, both) in [
        ("karta", FormatName::Hmac, vec![FormatName::Hmac, FormatName::KartaV2]),
        ("agentic-trust-hmac", FormatName::Hmac, vec![FormatName::Hmac, FormatName::Jwt]),
        ("agentic-trust-jwt", FormatName::Jwt, vec![FormatName::Jwt, FormatName::Hmac]),
    ] {
        assert_eq!(formats(&loaded(preset, SECRET)), [first], "{preset}");
        assert_eq!(formats(&loaded(preset, &format!("host_generated_subjects = false\n{SECRET}"))), [first], "{preset}");
        assert_eq!(formats(&loaded(preset, &format!("host_generated_subjects = true\n{SECRET}"))), both, "{preset}");
    }
    let own = "host_generated_subjects = true\nsecrets = [{ id = \"s1\", file = \"acme\", format = \"karta-v2\" }]";
    assert_eq!(formats(&loaded("karta", own)), [FormatName::KartaV2]);
}

#[test]
fn a_tenants_key_wins_over_its_presets_and_the_rest_stays() {
    let tenant = loaded(
        "halo",
        &format!(
            "{SECRET}\n[tenant.places]\nasserted_id = [\"query:end_user\"]\n[tenant.claims]\nleeway = \"5s\"\n[tenant.status]\norigin = 404"
        ),
    );
    assert_eq!(tenant.places.asserted_id, [Place::Query("end_user".to_owned())]);
    assert_eq!(tenant.places.body.len(), 1, "the id's place in the body went with the list; the token's stays");
    assert_eq!(tenant.places.body[0].purpose, Purpose::Token);
    assert_eq!(tenant.claims.leeway, Duration::from_secs(5));
    assert_eq!(tenant.claims.subject, ["user_id", "sub"]);
    assert!(!tenant.claims.expiry_required);
    assert_eq!((tenant.status(Reason::TokenExpired), tenant.status(Reason::OriginNotAllowed)), (403, 404));
}

#[test]
fn presets_say_what_their_vendors_do() {
    let karta = loaded("karta", SECRET);
    assert_eq!(karta.unsigned_id, UnsignedId::Claimed);
    assert_eq!(karta.answers.error.get(&Reason::SubjectMismatch).map(String::as_str), Some("identity_mismatch"));
    assert!(karta.places.tenant_name.iter().any(|place| matches!(place, Place::Path(_))));
    let halo = loaded("halo", SECRET);
    assert_eq!(halo.exempt_ids, ["anonymous"]);
    assert!(halo.cors.exposed.to_str().unwrap().ends_with(", ratelimit-policy, x-session-id, x-agent-id"));
    assert!(halo.places.embed_key.contains(&Place::Bearer));
    let widgent = loaded("widgent", SECRET);
    assert_eq!(widgent.on_expired, OnExpired::Anonymous);
    assert_eq!((widgent.claims.expiry_required, widgent.claims.max_lifetime), (true, Some(Duration::from_secs(3600))));
    assert_eq!(widgent.places.embed_key, [Place::Header("x-service-key".parse().unwrap())]);
    assert!(loaded("none", "secrets = []").places.body.is_empty());
}

#[test]
fn a_tenant_without_a_preset_starts_from_none() {
    let text = tenant("none", "secrets = []").replace("preset = \"none\"\n", "");
    let loaded = Fixture::new().load(&text).unwrap();
    assert_eq!(loaded.snapshot.tenants.all()[0].preset, "none");
}

/// RFC 7517 sets: one key of ours per key of theirs, each with its own algorithm.
#[test]
fn every_key_of_a_set_is_bound_to_its_algorithm() {
    let fixture = Fixture::new();
    fixture.write("keys.json", &std::fs::read_to_string("tests/config/secrets/keys.json").unwrap());
    let loaded = fixture.load(&tenant("none", "secrets = [{ id = \"idp\", jwks = \"keys.json\" }]")).unwrap();
    let shown: Vec<_> = loaded.keys.iter().filter(|k| k.tenant.is_some()).map(|k| (k.id.as_str(), k.what.as_str())).collect();
    assert_eq!(shown, [("idp/k1", "jwt EdDSA"), ("idp/k2", "jwt ES256")]);
    let keys = loaded.snapshot.tenants.all()[0].keys.all();
    assert_eq!(keys[0].kid.as_deref(), Some("k1"));
    assert!(loaded.files.contains_key(&fixture.path("keys.json")));
}

fn two_tenants_of_one_issuer(first: &str, second: &str) -> String {
    let key = "secrets = [{ id = \"p1\", pem = \"ed.pem\", algorithm = \"EdDSA\" }]";
    let other = "[[tenant]]\nid = \"other\"\nembed_keys = [\"pk_live_fedcba9876543210\"]\norigins = []";
    format!("{}\n{first}\n{other}\n{key}\n{second}", tenant("none", key))
}

#[test]
fn tenants_share_an_issuer_only_where_its_tokens_say_for_which() {
    let fixture = Fixture::new();
    fixture.write("ed.pem", &std::fs::read_to_string("tests/config/secrets/ed.pem").unwrap());
    let audiences = |name: &str| format!("[tenant.claims]\naudiences = [\"{name}\"]");
    let said = |text: String| fixture.load(&text).map(|_| ()).map_err(|problems| problems.to_string());
    assert_eq!(said(two_tenants_of_one_issuer(&audiences("a"), &audiences("b"))), Ok(()));
    for (first, second) in [(audiences("a"), audiences("a")), (audiences("a"), String::new()), (String::new(), String::new())] {
        assert!(said(two_tenants_of_one_issuer(&first, &second)).unwrap_err().contains("config::secret_reused"));
    }
}

/// `threats` 41: compared after decoding, so another encoding of the same bytes is found.
#[test]
fn material_is_compared_after_decoding() {
    let fixture = Fixture::new();
    let hex: String = std::fs::read(fixture.path("assertion")).unwrap().iter().map(|b| format!("{b:02x}")).collect();
    fixture.write("acme", &hex);
    let text = tenant("halo", "secrets = [{ id = \"s1\", file = \"acme\", encoding = \"hex\" }]");
    let said = fixture.load(&text).map(|_| ()).unwrap_err().to_string();
    assert!(said.contains("key s1 of tenant acme is the same key material as assertion key a1") && !said.contains(&hex), "{said}");
    assert!(fixture.load(&text.replace("encoding = \"hex\"", "encoding = \"text\"")).is_ok());
}

#[test]
fn usage_counters_outlive_a_reload() {
    let fixture = Fixture::new();
    fixture.write("doorward.toml", &tenant("halo", SECRET));
    let kept = Arc::new(KeyUsage::default());
    let usage = |tenant: &str, secret: &str| if (tenant, secret) == ("acme", "s1") { Arc::clone(&kept) } else { Arc::default() };
    let loaded = load(&fixture.path("doorward.toml"), 7, &usage).unwrap();
    assert!(Arc::ptr_eq(&loaded.snapshot.tenants.all()[0].keys.all()[0].usage, &kept));
    assert_eq!(loaded.snapshot.generation, 7);
}

#[test]
fn everything_that_was_read_is_watched_even_after_a_failure() {
    let fixture = Fixture::new();
    fixture.write(
        "tenants/a.toml",
        "id = \"a\"\nembed_keys = []\norigins = []\nsecrets = [{ id = \"s1\", file = \"acme\", format = \"jwt\" }]",
    );
    fixture.write("tenants/.hidden.toml", "not a tenant");
    fixture.write("revocations", "");
    let top = "tenants = \"tenants\"\nrevocations = \"revocations\"\n";
    let names = ["doorward.toml", "tenants", "tenants/a.toml", "assertion", "acme", "revocations"];
    let files = fixture.load(&format!("{top}{HEAD}")).unwrap().files;
    names.iter().for_each(|name| assert!(files.contains_key(&fixture.path(name)), "{name}: {files:?}"));
    fixture.write("acme", "short");
    let files = fixture.load(&format!("{top}{HEAD}")).map(|_| ()).unwrap_err().files;
    names.iter().for_each(|name| assert!(files.contains_key(&fixture.path(name)), "{name}: {files:?}"));
}

#[test]
fn a_file_that_is_not_there_or_not_text_is_a_problem() {
    let fixture = Fixture::new();
    let missing = load(&fixture.path("nowhere.toml"), 1, &|_, _| Arc::default()).map(|_| ()).unwrap_err();
    assert!(missing.to_string().contains("config::unreadable"));
    std::fs::write(fixture.path("latin1.toml"), b"a = \"\xe9\"").unwrap();
    let odd = load(&fixture.path("latin1.toml"), 1, &|_, _| Arc::default()).map(|_| ()).unwrap_err();
    assert!(odd.to_string().contains("not UTF-8"));
}

#[test]
fn unresolved_environment_fails_the_load() {
    let said = refused(&tenant("halo", "secrets = [{ id = \"s1\", env = \"DOORWARD_TEST_UNSET\" }]"));
    assert!(said.contains("set DOORWARD_TEST_UNSET in the environment"), "{said}");
}

#[test]
fn the_summary_names_tenants_modes_and_fingerprints_and_no_material() {
    let fixture = Fixture::new();
    let loaded = fixture.load(&tenant("halo", &format!("mode = \"monitor\"\n{SECRET}"))).unwrap();
    let said = summary(&loaded);
    let fingerprint = loaded.snapshot.tenants.all()[0].keys.all()[0].fingerprint.to_string();
    for part in ["listen 127.0.0.1:8080", "tenant acme", "mode monitor", "secret s1", "jwt HS256", &fingerprint, "ok: 1 tenant, 0 warnings"]
    {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(!said.contains("0123456789abcdef0123456789abcdef"), "{said}");
}
