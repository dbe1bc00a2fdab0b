//! A directory of tenants beside a configuration in force: each file stands on its own, and what is in force gives way to
//! nobody who claims it anew. At start any problem of any file fails the load.

use std::sync::Arc;

use doorward::config::{Loaded, RefusedFile, reload};
use doorward::tenant::{Tenant, Tenants};

use crate::presets::{Fixture, HEAD};

/// Two tenants, one file each, and none in the main file.
struct Directory {
    files: Fixture,
    in_force: Option<Loaded>,
}

const KEYS: [(&str, &str); 2] = [("a", "pk_live_aaaaaaaaaaaaaaaa"), ("b", "pk_live_bbbbbbbbbbbbbbbb")];

/// A tenant's file.
fn file(id: &str, key: &str, secret: &str) -> String {
    format!("id = \"{id}\"\nembed_keys = [\"{key}\"]\norigins = []\nsecrets = [{{ id = \"s1\", file = \"{secret}\", format = \"jwt\" }}]\n")
}

fn main_file(more: &str) -> String {
    format!("tenants = \"tenants\"\n{HEAD}\n{more}\n")
}

impl Directory {
    /// Both are in force: `a` with the secret `acme`, `b` with `other`.
    fn new() -> Self {
        let files = Fixture::new();
        files.write("third", "third-secret-2-0123456789abcdef0123456789abcdef");
        files.write("tenants/a.toml", &file("a", KEYS[0].1, "acme"));
        files.write("tenants/b.toml", &file("b", KEYS[1].1, "other"));
        let in_force = files.load(&main_file("")).unwrap_or_else(|problems| panic!("{problems}"));
        Self { files, in_force: Some(in_force) }
    }

    fn before(&self) -> &Tenants {
        &self.in_force.as_ref().unwrap().snapshot.tenants
    }

    fn write(&self, name: &str, text: &str) -> &Self {
        self.files.write(name, text);
        self
    }

    /// Reloads and puts the outcome in force, or says why nothing of it can be.
    fn reload(&mut self) -> Result<&[RefusedFile], String> {
        let loaded = reload(&self.files.path("doorward.toml"), 2, &|_, _| Arc::default(), self.before());
        self.in_force = Some(loaded.map_err(|problems| problems.to_string())?);
        Ok(&self.in_force.as_ref().unwrap().refused)
    }

    fn ids(&self) -> Vec<&str> {
        self.before().all().iter().map(|tenant| tenant.id.as_str()).collect()
    }

    fn tenant(&self, id: &str) -> Arc<Tenant> {
        Arc::clone(self.before().all().iter().find(|tenant| tenant.id == id).unwrap())
    }
}

/// What a tenant goes to that stays in force cannot be taken away under it.
#[test]
fn an_upstream_stays_while_a_refused_file_goes_there() {
    let mut directory = Directory::new();
    let batch =
        "[upstreams.batch]\naddress = \"127.0.0.1:3001\"\nassertion = { audience = \"batch\", keys = [{ id = \"b1\", file = \"third\" }] }";
    let goes = format!("upstream = \"batch\"\n{}", file("a", KEYS[0].1, "acme"));
    directory.write("doorward.toml", &main_file(batch)).write("tenants/a.toml", &goes);
    assert!(directory.reload().unwrap().is_empty());
    let kept = directory.tenant("a");
    directory.write("tenants/a.toml", "not TOML");
    let [refused] = directory.reload().unwrap() else { panic!("one file is refused") };
    assert_eq!(refused.kept.as_deref(), Some("a"));
    let upstreams = &directory.in_force.as_ref().unwrap().snapshot.upstreams;
    assert_eq!(upstreams.get(kept.policy.upstream).unwrap().settings.name, "batch");
    directory.write("doorward.toml", &main_file(""));
    let said = directory.reload().unwrap_err();
    assert!(said.contains("config::upstream_unknown") && said.contains("tenant a stays in force"), "{said}");
    // And a file that names one that is not there is refused by itself.
    let mut directory = Directory::new();
    directory.write("tenants/a.toml", &goes);
    let [refused] = directory.reload().unwrap() else { panic!("one file is refused") };
    assert!(refused.problems[0].contains("there is no upstream \"batch\""), "{refused:?}");
}

#[test]
fn a_broken_file_keeps_its_tenant_and_does_not_hold_back_the_others() {
    for broken in ["not TOML", "id = \"a\"\nmode = \"strict\"\n", &file("a", KEYS[0].1, "nowhere"), ""] {
        let mut directory = Directory::new();
        let kept = directory.tenant("a");
        directory.write("tenants/a.toml", broken).write("tenants/b.toml", &file("b", KEYS[1].1, "third"));
        let [refused] = directory.reload().unwrap() else { panic!("one file is refused: {broken}") };
        assert_eq!(refused.kept.as_deref(), Some("a"));
        assert!(refused.path.ends_with("tenants/a.toml") && refused.problems[0].contains("a.toml:"), "{refused:?}");
        assert!(Arc::ptr_eq(&kept, &directory.tenant("a")), "as it was");
        let loaded = directory.in_force.as_ref().unwrap();
        let shown = |id: &str| loaded.keys.iter().find(|key| key.tenant.as_deref() == Some(id)).unwrap().fingerprint;
        assert_eq!(shown("a"), kept.keys.all()[0].fingerprint);
        assert_ne!(shown("b"), Directory::new().tenant("b").keys.all()[0].fingerprint, "the other's change is in force");
        let watched = |name: &str| loaded.files.contains_key(&directory.files.path(name));
        assert!(watched("tenants/a.toml") && watched("tenants/b.toml"), "the repair is seen");
        // The repair, and a second round from what was kept.
        directory.write("tenants/a.toml", &file("a", KEYS[0].1, "other"));
        assert_eq!(directory.reload().unwrap(), []);
        assert!(!Arc::ptr_eq(&kept, &directory.tenant("a")));
    }
}

#[test]
fn a_broken_file_that_gave_no_tenant_is_left_out() {
    let mut directory = Directory::new();
    directory.write("tenants/c.toml", "broken");
    let [refused] = directory.reload().unwrap() else { panic!("one file is refused") };
    assert_eq!(refused.kept, None);
    assert_eq!(directory.ids(), ["a", "b"]);
}

#[test]
fn a_deleted_file_takes_its_tenant_along() {
    let mut directory = Directory::new();
    std::fs::remove_file(directory.files.path("tenants/a.toml")).unwrap();
    assert_eq!(directory.reload().unwrap(), []);
    assert_eq!(directory.ids(), ["b"]);
}

#[test]
fn a_tenant_stays_while_it_is_broken_however_often_the_rest_changes() {
    let mut directory = Directory::new();
    let kept = directory.tenant("a");
    directory.write("tenants/a.toml", "broken");
    for secret in ["third", "other", "third"] {
        directory.write("tenants/b.toml", &file("b", KEYS[1].1, secret));
        assert_eq!(directory.reload().unwrap().len(), 1);
        assert!(Arc::ptr_eq(&kept, &directory.tenant("a")));
    }
    std::fs::remove_file(directory.files.path("tenants/a.toml")).unwrap();
    assert_eq!(directory.reload().unwrap(), []);
    assert_eq!(directory.ids(), ["b"]);
}

#[test]
fn a_problem_of_the_main_file_refuses_everything() {
    let mut directory = Directory::new();
    directory.write("doorward.toml", &main_file("nonsense = 1")).write("tenants/b.toml", &file("b", KEYS[1].1, "third"));
    assert!(directory.reload().unwrap_err().contains("config::unknown_key"));
    directory.write("doorward.toml", &main_file("").replace("\"tenants\"", "\"nowhere\""));
    assert!(directory.reload().unwrap_err().contains("cannot read the directory"));
    assert_eq!(directory.ids(), ["a", "b"]);
}

#[test]
fn at_start_any_problem_of_any_file_fails_the_load() {
    let directory = Directory::new();
    directory.write("tenants/c.toml", "broken");
    let said = directory.files.load(&main_file("")).map(|_| ()).unwrap_err().to_string();
    assert!(said.contains("c.toml:1"), "{said}");
}

/// Whoever claims what another tenant has in force is refused, whatever the files are called.
#[test]
fn a_newcomer_never_takes_what_is_in_force() {
    let claims = |key: &str, secret: &str| file("new", key, secret);
    let own = "pk_live_cccccccccccccccc";
    let taken = [(claims(KEYS[0].1, "third"), "names tenant a already"), (claims(own, "acme"), "is the same key material as key s1")];
    for (text, why) in taken.iter().chain(&[(file("a", own, "third"), "tenant a stands twice")]) {
        for name in ["tenants/0.toml", "tenants/z.toml"] {
            let mut directory = Directory::new();
            // Files that did not change stay in force as they were read again, so their own changes apply.
            directory.write(name, text).write("tenants/a.toml", &format!("mode = \"monitor\"\n{}", file("a", KEYS[0].1, "acme")));
            let [refused] = directory.reload().unwrap() else { panic!("one file is refused: {text}") };
            assert!(refused.path.ends_with(name) && refused.kept.is_none(), "{refused:?}");
            assert!(refused.problems.iter().any(|problem| problem.contains(why)), "{why}: {refused:?}");
            assert_eq!(directory.ids(), ["a", "b"]);
            assert_eq!(directory.tenant("a").mode.as_str(), "monitor");
        }
    }
}

#[test]
fn what_a_kept_tenant_holds_is_taken_too() {
    let mut directory = Directory::new();
    // a's file would free its key and is broken; b's claims the key.
    directory.write("tenants/a.toml", "broken").write("tenants/b.toml", &file("b", KEYS[0].1, "third"));
    let refused = directory.reload().unwrap();
    let kept: Vec<_> = refused.iter().map(|file| file.kept.as_deref().unwrap()).collect();
    assert_eq!(kept, ["a", "b"]);
    assert!(refused[1].problems[0].contains("this embed key names tenant a already"), "{refused:?}");
    // Repaired, the key changes hands.
    directory.write("tenants/a.toml", &file("a", "pk_live_cccccccccccccccc", "acme"));
    assert_eq!(directory.reload().unwrap(), []);
    assert_eq!(directory.before().by_key(KEYS[0].1).unwrap().id, "b");
}

#[test]
fn of_two_that_are_new_neither_is_put_in_force() {
    let mut directory = Directory::new();
    let both = "pk_live_cccccccccccccccc";
    directory.write("tenants/a.toml", &file("a", both, "acme")).write("tenants/b.toml", &file("b", both, "other"));
    assert_eq!(directory.reload().unwrap().len(), 2);
    assert!(directory.before().by_key(both).is_none());
    assert_eq!(directory.before().by_key(KEYS[0].1).unwrap().id, "a");
}

/// A file that is refused for a clash brings back its tenant, which may be in another newcomer's way.
#[test]
fn refusals_are_followed_to_their_end() {
    let mut directory = Directory::new();
    // a gives its key to b and claims material of the main file; b gives its own to c.
    directory.write("tenants/a.toml", &file("a", "pk_live_cccccccccccccccc", "assertion"));
    directory.write("tenants/b.toml", &file("b", KEYS[0].1, "other"));
    directory.write("tenants/c.toml", &file("c", KEYS[1].1, "third"));
    let kept: Vec<_> = directory.reload().unwrap().iter().map(|file| file.kept.clone()).collect();
    assert_eq!(kept, [Some("a".to_owned()), Some("b".to_owned()), None]);
    assert_eq!(
        (&directory.before().by_key(KEYS[0].1).unwrap().id, &directory.before().by_key(KEYS[1].1).unwrap().id),
        (&"a".into(), &"b".into())
    );
}

#[test]
fn a_main_file_that_claims_what_a_kept_tenant_holds_is_refused() {
    let mut directory = Directory::new();
    let inline = format!("[[tenant]]\n{}", file("inline", KEYS[0].1, "third"));
    directory.write("doorward.toml", &main_file(&inline));
    // Beside an unbroken file the same: the file gives way, its tenant stays, and the main file claims what is in force.
    let said = directory.reload().unwrap_err();
    assert!(said.contains("this embed key names tenant a already"), "{said}");
    directory.write("tenants/a.toml", "broken");
    assert!(directory.reload().unwrap_err().contains("this embed key names tenant a already"));
    directory.write("doorward.toml", &main_file("[session]\nkeys = [{ id = \"n1\", file = \"acme\" }]"));
    let said = directory.reload().unwrap_err();
    assert!(said.contains("session key n1 is the same key material as key s1 of tenant a, which stays in force"), "{said}");
    std::fs::remove_file(directory.files.path("tenants/a.toml")).unwrap();
    assert_eq!(directory.reload().unwrap(), []);
}

/// A public key that three tenants share: each pair must be told apart, not only each with the first.
#[test]
fn every_pair_of_sharers_is_compared() {
    let fixture = Fixture::new();
    fixture.write("ed.pem", &std::fs::read_to_string("tests/config/secrets/ed.pem").unwrap());
    let tenant = |id: &str, audience: &str| {
        format!(
            "[[tenant]]\nid = \"{id}\"\nembed_keys = []\norigins = []\nsecrets = [{{ id = \"p1\", pem = \"ed.pem\", algorithm = \"EdDSA\" }}]\n\
             [tenant.claims]\naudiences = [\"{audience}\"]\n"
        )
    };
    let three = |third: &str| fixture.load(&format!("{HEAD}{}{}{}", tenant("a", "x"), tenant("b", "y"), tenant("c", third))).map(|_| ());
    assert!(three("z").is_ok());
    assert!(three("y").unwrap_err().to_string().contains("is the same key material as key p1 of tenant b"));
}
