//! The manual, run: the code that hosts are told to copy signs tokens that the gateway takes, and the metrics that it lists
//! are the metrics that there are.

use std::collections::BTreeSet;
use std::fs::write;

use crate::gateway::{Gateway, KEY, ORIGIN, SECRET, doorward, halo, in_seconds, jwt};
use crate::pki::Authority;
use crate::readme::{Shell, blocks, read, root};
use crate::tls::{ONE, with_tls};
use crate::upstream::Upstream;

#[test]
fn hosts_sign_with_the_code_that_they_are_told_to_copy() {
    let directory = tempfile::tempdir().unwrap();
    let mut shell = Shell::start(directory.path());
    let call = |language: &str| match language {
        "python" => {
            ("host.py", "import sys; secret = sys.argv[1]\nprint(user_hash(secret, \"u1\"), user_token(secret, {\"sub\": \"u1\"}))")
        }
        "js" => ("host.cjs", "const secret = process.argv[2];\nconsole.log(userHash(secret, \"u1\"), userToken(secret, { sub: \"u1\" }));"),
        other => panic!("a block of {other} that nothing runs"),
    };
    write(directory.path().join("secret"), SECRET).unwrap();
    let mut blocks = blocks(&read("src/manual/tokens.md"));
    blocks.retain(|block| block.language != "toml");
    assert_eq!(blocks.len(), 2);
    for block in blocks {
        let (name, call) = call(&block.language);
        write(directory.path().join(name), format!("{}{call}\n", block.text)).unwrap();
        let interpreter = if block.language == "js" { "node" } else { "python3" };
        let printed = shell.paste(&format!("{interpreter} {name} {SECRET}"));
        let (hash, token) = printed.split_once(' ').unwrap_or_else(|| panic!("{name}: {printed}"));
        for (format, token) in [("hmac", hash), ("jwt", token)] {
            let args = ["token", "explain", token, "--secret-file", "secret", "--subject", "u1", "--format", format];
            let run = doorward(&args, directory.path());
            let said = String::from_utf8_lossy(&run.stdout);
            assert!(run.status.success() && said.contains(&format!("good: \"u1\" by {format}")), "{name}: {said}");
        }
    }
}

/// What the page on sensitive actions says of its own configuration: who may propose, who may approve, and how often.
#[test]
fn approvals_want_a_fresh_step_up() {
    let upstream = Upstream::plain();
    let page = blocks(&read("src/manual/sensitive-actions.md"));
    let block = page.iter().find(|block| block.language == "toml").expect("a configuration");
    let gateway = Gateway::start(&(halo(upstream.address(), "") + &block.text));
    let token = |seconds_ago: i64, amr: &str| {
        jwt(&serde_json::json!({ "user_id": "u1", "exp": in_seconds(300), "amr": [amr], "auth_time": in_seconds(-seconds_ago) }))
    };
    let post = |path: &str, token: &str| {
        let bearer = format!("Bearer {KEY}");
        gateway.ask("POST", path, &[("Origin", ORIGIN), ("Authorization", &bearer), ("X-User-Token", token)], "")
    };
    let proposed = post("/proposals/7", &token(0, "pwd"));
    assert_eq!((proposed.status, upstream.last().one("x-identity-level")), (200, "verified"));
    for (seconds_ago, amr) in [(0, "pwd"), (200, "mfa")] {
        let refused = post("/approvals/7", &token(seconds_ago, amr));
        assert_eq!((refused.status, refused.reason()), (401, "step_up_required"));
        let challenge = refused.one("www-authenticate");
        assert!(challenge.contains("error=\"insufficient_user_authentication\"") && challenge.contains("max_age=120"), "{challenge}");
    }
    let confirmed = token(10, "hwk");
    let statuses: Vec<_> = (0..6).map(|_| post("/approvals/7", &confirmed).status).collect();
    assert_eq!(upstream.last().one("x-identity-level"), "stepped_up");
    assert!(!upstream.last().one("x-identity-stepped-up-at").is_empty());
    assert!(statuses.starts_with(&[200, 200, 200]) && statuses.ends_with(&[429]), "{statuses:?}");
}

/// The pages about real backends show what `deploy/backends` ships, and `check` has nothing to say about it.
#[test]
fn backends_are_shown_as_they_are_shipped() {
    let shipped = std::fs::read_dir(root().join("deploy/backends")).unwrap().map(|entry| entry.unwrap());
    let names: BTreeSet<_> = shipped.filter(|e| e.path().is_dir()).map(|e| e.file_name().into_string().unwrap()).collect();
    assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), ["langserve", "librechat", "open-webui", "openai"]);
    for name in names {
        let blocks = blocks(&read(&format!("src/manual/backends/{name}.md")));
        for (language, file) in [("toml", "doorward.toml"), ("yaml", "librechat.yaml")] {
            for block in blocks.iter().filter(|block| block.language == language) {
                assert_eq!(block.text, read(&format!("deploy/backends/{name}/{file}")), "{name}'s page shows another {file}");
            }
        }
        let config = &blocks.iter().find(|block| block.language == "toml").expect("a configuration").text;
        let directory = tempfile::tempdir().unwrap();
        // Secrets come from the environment there, from files here: each of its own.
        let secrets = config.match_indices("env = \"").map(|(start, found)| config[start + found.len()..].split('"').next().unwrap());
        for (number, secret) in secrets.enumerate() {
            write(directory.path().join(secret), format!("{number}{SECRET}")).unwrap();
        }
        write(directory.path().join("doorward.toml"), config.replace("env = ", "file = ")).unwrap();
        let said = doorward(&["check"], directory.path());
        assert!(said.status.success() && said.stderr.is_empty(), "{name}: {}", String::from_utf8_lossy(&said.stderr));
    }
}

#[test]
fn the_metrics_it_lists_are_those_that_exist() {
    let manual = read("src/manual/operation.md");
    let listed: BTreeSet<_> = manual.lines().filter_map(|l| l.strip_prefix("| `doorward_")?.split('`').next()).collect();
    // With everything that has metrics of its own: an issuer, a secret and a certificate with an end.
    let (upstream, pair) = (Upstream::plain(), Authority::new("test").server(&["a.example"]));
    let issuer = "secrets = [{ id = \"idp\", jwks_url = \"http://127.0.0.1:9/\" }, { not_after = 2036-01-01T00:00:00Z, ";
    let config = with_tls(upstream.address(), ONE).replace("secrets = [{", issuer);
    let gateway = Gateway::start_with(&config, &[("a.pem", &pair.certificate), ("a.key", &pair.key)]);
    let text = gateway.admin("/metrics").text();
    let served: BTreeSet<_> = text.lines().filter_map(|l| l.strip_prefix("# TYPE doorward_")?.split(' ').next()).collect();
    assert_eq!(listed, served);
}
