//! The manual, run: the code that hosts are told to copy signs tokens that the gateway takes, and the metrics that it lists
//! are the metrics that there are.

use std::collections::BTreeSet;
use std::fs::write;

use crate::gateway::{Gateway, SECRET, doorward, halo};
use crate::readme::{Shell, blocks, read};
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

#[test]
fn the_metrics_it_lists_are_those_that_exist() {
    let manual = read("src/manual/operation.md");
    let listed: BTreeSet<_> = manual.lines().filter_map(|l| l.strip_prefix("| `doorward_")?.split('`').next()).collect();
    let upstream = Upstream::plain();
    let issuer = "secrets = [{ id = \"idp\", jwks_url = \"http://127.0.0.1:9/\" }, {";
    let gateway = Gateway::start(&halo(upstream.address(), "").replace("secrets = [{", issuer));
    let text = gateway.admin("/metrics").text();
    let served: BTreeSet<_> = text.lines().filter_map(|l| l.strip_prefix("# TYPE doorward_")?.split(' ').next()).collect();
    assert_eq!(listed, served);
}
