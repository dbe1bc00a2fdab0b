//! The manual, run: the code that hosts are told to copy signs tokens that the gateway takes, and the metrics that it lists
//! are the metrics that there are.

use std::collections::BTreeSet;
use std::fs::write;

use crate::gateway::{ASSERTION_KEY, Gateway, SECRET, doorward, halo};
use crate::pki::Authority;
use crate::readme::{Shell, blocks, read};
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

/// What stands in the manual as configuration is taken, after what every file has.
#[test]
fn configurations_load_as_printed() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path().join("assertion.key"), ASSERTION_KEY).unwrap();
    write(directory.path().join("identity.key"), SECRET).unwrap();
    let head = halo("127.0.0.1:3000".parse().unwrap(), "");
    let without_secrets: String = head.lines().filter(|line| !line.starts_with("secrets")).map(|line| format!("{line}\n")).collect();
    for (page, before) in [("tokens", without_secrets), ("telemetry", head)] {
        let blocks = blocks(&read(&format!("src/manual/{page}.md")));
        let block = blocks.iter().find(|block| block.language == "toml").expect("a configuration");
        write(directory.path().join("doorward.toml"), format!("{before}\n{}", block.text)).unwrap();
        let said = doorward(&["check"], directory.path());
        assert!(said.status.success() && said.stderr.is_empty(), "{page}: {}", String::from_utf8_lossy(&said.stderr));
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
