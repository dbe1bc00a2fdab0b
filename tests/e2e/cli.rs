//! The command line as a newcomer meets it: exit codes 0, 1 and 2, and messages that say what to write instead.

use std::path::Path;

use crate::gateway::{ASSERTION_KEY, Gateway, SECRET, doorward, halo, until};

/// How a command ended, and what it wrote.
struct Ran {
    code: i32,
    out: String,
    err: String,
}

fn ran_in(directory: &Path, args: &[&str]) -> Ran {
    let run = doorward(args, directory);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: run.status.code().unwrap(), out: text(run.stdout), err: text(run.stderr) }
}

fn ran(args: &[&str]) -> Ran {
    ran_in(tempfile::tempdir().unwrap().path(), args)
}

impl Ran {
    /// Expects success, nothing on standard error, and this in what was printed.
    #[track_caller]
    fn shows(&self, parts: &[&str]) {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        parts.iter().for_each(|part| assert!(self.out.contains(part), "no \"{part}\" in {}", self.out));
    }

    /// Expects this exit code, nothing on standard output, and this on standard error.
    #[track_caller]
    fn fails(&self, code: i32, parts: &[&str]) {
        assert_eq!((self.code, self.out.as_str()), (code, ""), "{}", self.err);
        parts.iter().for_each(|part| assert!(self.err.contains(part), "no \"{part}\" in {}", self.err));
    }

    /// Expects success, and one line of printed result whatever notes stand on standard error.
    #[track_caller]
    fn result(&self) -> &str {
        assert_eq!(self.code, 0, "{}", self.err);
        let line = self.out.strip_suffix('\n').expect("a line");
        assert!(!line.is_empty() && !line.contains('\n'), "{}", self.out);
        line
    }

    /// The same for a secret, which ends without a newline.
    #[track_caller]
    fn secret(&self) -> &str {
        assert_eq!(self.code, 0, "{}", self.err);
        assert!(!self.out.is_empty() && !self.out.contains('\n'), "{:?}", self.out);
        &self.out
    }
}

/// A directory with a configuration and its secrets.
fn configured(config: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [("doorward.toml", config), ("identity.key", SECRET), ("assertion.key", ASSERTION_KEY)] {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn good() -> String {
    halo("127.0.0.1:3000".parse().unwrap(), "")
}

#[test]
fn version_and_help_are_no_failures() {
    ran(&["--version"]).shows(&[concat!("doorward ", env!("CARGO_PKG_VERSION"))]);
    ran(&["--help"]).shows(&["Usage: doorward <COMMAND>", "Exit codes: 0, 1 for a runtime failure, 2 for bad configuration or usage."]);
    for command in ["run", "check", "health", "demo", "token", "secret", "key", "embed-key", "preset", "explain", "completions"] {
        ran(&[command, "--help"]).shows(&[&format!("Usage: doorward {command}")]);
        ran(&["--help"]).shows(&[&format!("\n  {command} ")]);
    }
}

#[test]
fn misuse_is_2_and_says_what_to_write() {
    ran(&[]).fails(2, &["Usage: doorward <COMMAND>", "explain"]);
    ran(&["runn"]).fails(2, &["unrecognized subcommand 'runn'", "similar subcommand exists: 'run'"]);
    ran(&["run"]).fails(2, &["--config <FILE>"]);
    ran(&["run", "-c"]).fails(2, &["--config <FILE>"]);
    ran(&["demo", "--listen", "here"]).fails(2, &["'here'", "--listen", "like 127.0.0.1:8080"]);
    ran(&["completions", "tcsh"]).fails(2, &["bash", "fish", "zsh"]);
    ran(&["token"]).fails(2, &["mint", "explain"]);
    ran(&["token", "mint", "--format", "jwt", "--subject", "u1"]).fails(2, &["--secret-env or --secret-file"]);
    ran(&["token", "explain", "a.b.c"]).fails(2, &["--secret-env or --secret-file"]);
    ran(&["embed-key", "new", "--preset", "hallo"]).fails(2, &["similar value exists: 'halo'"]);
    ran(&["preset", "show", "hallo"]).fails(2, &["no preset \"hallo\"", "halo"]);
}

#[test]
fn a_configuration_that_cannot_be_read_is_named() {
    for command in ["run", "check"] {
        let missing = ran(&[command, "-c", "missing.toml"]);
        missing.fails(2, &["cannot read missing.toml", "No such file", "with -c"]);
        assert!(!missing.err.contains("-->"), "a place in a file that is not there: {}", missing.err);
    }
    ran(&["check"]).fails(2, &["cannot read doorward.toml", "doorward.toml: 1 problem"]);
}

#[test]
fn check_says_what_would_run() {
    let directory = configured(&good());
    let found = ran_in(directory.path(), &["check"]);
    found.shows(&["upstream 127.0.0.1:3000", "tenant acme  preset halo, mode enforce", "ok: 1 tenant, 0 warnings"]);
    assert!(!found.out.contains(SECRET) && !found.out.contains(ASSERTION_KEY), "{}", found.out);
}

#[test]
fn check_says_everything_that_is_wrong() {
    let config = good().replace("preset = \"halo\"", "preset = \"hallo\"").replace("origins = ", "orgins = ");
    let directory = configured(&config);
    let found = ran_in(directory.path(), &["check", "-c", "doorward.toml"]);
    found.fails(2, &["did you mean \"halo\"?", "did you mean `origins`?", "doorward.toml:18:10", "doorward.toml:20:1"]);
    assert!(found.err.ends_with("\n\ndoorward.toml: 2 problems\n"), "and nothing that follows from them: {}", found.err);
    assert_eq!(ran_in(directory.path(), &["run", "-c", "doorward.toml"]).code, 2);

    std::fs::remove_file(directory.path().join("identity.key")).unwrap();
    std::fs::write(directory.path().join("doorward.toml"), good()).unwrap();
    ran_in(directory.path(), &["check"]).fails(2, &["identity.key", "1 problem"]);

    let config = good().replace("origins = ", "mod = \"off\"\n#").replace("secrets = ", "#");
    let directory = configured(&config);
    ran_in(directory.path(), &["check"]).fails(2, &["doorward.toml: 1 problem, 2 warnings"]);
}

#[test]
fn health_asks_the_gateway_and_a_broken_file_does_not_make_it_ill() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = format!("threads = 2\nprobes = \"{}\"", free.to_string().replace("127.0.0.1", "0.0.0.0"));
    let config = good().replace("threads = 2", &server).replace("drain_delay = \"0s\"", "drain_delay = \"1h\"");
    let gateway = Gateway::start(&config);
    let health = |args: &[&str]| ran_in(gateway.directory.path(), &[&["health"], args].concat());
    health(&[]).shows(&["alive\n"]);
    health(&["--ready"]).shows(&["ready\n"]);

    gateway.write("doorward.toml", &format!("{config}\n[[tenant\nid = "));
    until("the refusal", || (gateway.metric(r#"doorward_reloads_total{result="refused"}"#) == 1.0).then_some(()));
    health(&["--ready"]).shows(&["ready\n"]);

    gateway.signal("TERM");
    until("readiness to fall", || (gateway.admin("/readyz").status == 503).then_some(()));
    health(&["--ready"]).fails(1, &[&format!("http://{free}/readyz answered 503"), "draining"]);
    health(&[]).shows(&["alive\n"]);
    health(&["--address", &gateway.admin.to_string()]).shows(&["alive\n"]);
}

#[test]
fn health_fails_without_an_answer_and_does_not_guess_where_to_ask() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    ran(&["health", "--address", &address, "--timeout", "50ms"]).fails(1, &[&address, "no answer within 50ms"]);
    drop(silent);
    ran(&["health", "--address", &address]).fails(1, &[&address, "refused"]);
    ran(&["health"]).fails(2, &["doorward.toml", "No such file", "--address"]);
    let directory = configured(&good());
    ran_in(directory.path(), &["health"]).fails(2, &["`server.admin` has port 0", "--address"]);
    ran(&["health", "--address", &address, "-c", "doorward.toml"]).fails(2, &["cannot be used with"]);
}

#[test]
fn explain_knows_every_reason_and_guesses_near_ones() {
    let all = ran(&["explain"]);
    all.shows(&["token_missing"]);
    assert_eq!(all.out.lines().count(), doorward::reason::Reason::ALL.len());
    for reason in doorward::reason::Reason::ALL {
        ran(&["explain", reason.code()]).shows(&[reason.code(), reason.row().sentence]);
    }
    ran(&["explain", "step_up_require"]).fails(2, &["no reason \"step_up_require\"", "did you mean step_up_required?"]);
    let far = ran(&["explain", "xyzzy"]);
    far.fails(2, &["no reason \"xyzzy\"", "doorward explain"]);
    assert!(!far.err.contains("did you mean"), "{}", far.err);
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        ran(&["completions", shell]).shows(&["doorward", "embed-key"]);
    }
}

#[test]
fn presets_can_be_listed_and_printed() {
    let list = ran(&["preset", "list"]);
    list.shows(&["karta", "halo", "widgent", "agentic-trust-hmac", "agentic-trust-jwt", "none"]);
    for line in list.out.lines() {
        let name = line.split(' ').next().unwrap();
        assert!(line.contains("key in ") || line.contains("key as "), "what its clients send: {line}");
        assert!(line.chars().count() <= 140, "{line}");
        let shown = ran(&["preset", "show", name]);
        shown.shows(&["[places]", "[claims]"]);
        assert!(shown.out.parse::<toml::Table>().is_ok(), "{name}");
    }
}

#[test]
fn new_secrets_and_keys_are_printed_alone_and_fit_a_configuration() {
    let (secret, key) = (ran(&["secret", "new"]), ran(&["key", "new"]));
    for (made, note) in [(&secret, "secrets = [{ id = \"s1\""), (&key, "keys = [{ id = \"a1\"")] {
        assert!(made.secret().len() >= 32 && made.err.contains(note) && !made.err.contains(made.secret()), "{}", made.err);
    }
    let embed_key = ran(&["embed-key", "new", "--preset", "halo"]);
    assert!(embed_key.result().starts_with("ab_live_") && embed_key.err.is_empty());

    let directory = configured(&good().replace(crate::gateway::KEY, embed_key.result()));
    std::fs::write(directory.path().join("identity.key"), secret.secret()).unwrap();
    std::fs::write(directory.path().join("assertion.key"), key.secret()).unwrap();
    ran_in(directory.path(), &["check"]).shows(&["ok: 1 tenant, 0 warnings"]);
}

#[test]
fn key_pairs_never_overwrite_and_their_public_half_is_published() {
    let directory = tempfile::tempdir().unwrap();
    let new = ["key", "new", "--algorithm", "EdDSA", "--id", "a2"];
    let made = ran_in(directory.path(), &new);
    let jwk: serde_json::Value = serde_json::from_str(made.result()).unwrap();
    assert_eq!((&jwk["kid"], jwk.get("d")), (&"a2".into(), None));
    let kept = std::fs::read(directory.path().join("a2.pem")).unwrap();
    ran_in(directory.path(), &new).fails(1, &["a2.pem", "exists"]);
    assert_eq!(std::fs::read(directory.path().join("a2.pem")).unwrap(), kept);
    let set = ran_in(directory.path(), &["key", "jwks", "a2=a2.pem"]);
    set.shows(&["\"keys\"", "\"a2\""]);
    assert!(!set.out.contains("\"d\""), "{}", set.out);
}

#[test]
fn tokens_are_minted_and_explained() {
    let directory = configured(&good());
    let run = |args: &[&str]| ran_in(directory.path(), args);
    let minted = run(&["token", "mint", "--format", "jwt", "--secret-file", "identity.key", "--subject", "u1", "--claim", "role=admin"]);
    let token = minted.result();
    run(&["token", "explain", token, "--secret-file", "identity.key"]).shows(&["good: \"u1\" by jwt", "\"role\":\"admin\""]);
    let other = run(&["token", "explain", token, "--secret-file", "assertion.key"]);
    assert_eq!(other.code, 1, "{}", other.err);
    assert!(other.out.contains("refused: token_signature_invalid"), "{}", other.out);
    let late = run(&["token", "mint", "--format", "jwt", "--secret-file", "identity.key", "--subject", "u1", "--expires-in", "-1h"]);
    let late = run(&["token", "explain", late.result(), "--secret-file", "identity.key"]);
    assert!(late.code == 1 && late.out.contains("refused: token_expired"), "{}", late.out);
    run(&["token", "explain", token, "--secret-file", "gone.key"]).fails(1, &["gone.key"]);
}
