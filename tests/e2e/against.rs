//! `doorward check --against`, with the audit log of the real binary: what it says enforce would deny is what enforce really
//! denies when the same requests come again. (Every rule of it is compared with the decision itself in tests/spec/again.rs.)

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::gateway::{Gateway, KEY, ORIGIN, doorward, halo, in_seconds, jwt, jwt_with, until};
use crate::http;
use crate::readme::{blocks, read};
use crate::upstream::Upstream;

const ROUTES: &str = r#"claims.step_up = [{ claim = "amr", values = ["mfa"] }]
[[tenant.route]]
path = "/approvals/*"
require = "stepped_up"
[[tenant.route]]
path = "/admin/*"
require_claims = { role = ["admin"] }
[[tenant.route]]
path = "/account"
require = "verified"
"#;

/// Requests of every kind, as bytes.
fn traffic() -> Vec<Vec<u8>> {
    let now = in_seconds(0);
    let claims = [
        json!({ "user_id": "ann", "exp": now + 900 }),
        json!({ "user_id": "ann", "exp": now + 900, "role": "admin" }),
        json!({ "user_id": "ann", "exp": now + 900, "amr": ["mfa"], "auth_time": now }),
        json!({ "user_id": "ann", "exp": now + 900, "amr": ["mfa"], "auth_time": now - 86_400 }),
        json!({ "user_id": "ann", "exp": now - 900 }),
        json!({ "user_id": "null", "exp": now + 900 }),
    ];
    let mut tokens: Vec<_> = claims.iter().map(jwt).collect();
    tokens.push(jwt_with("another_secret_0123456789abcdef01", &claims[0]));
    tokens.push("not_a_token".to_owned());
    let bearer = format!("Bearer {KEY}");
    let mut all = Vec::new();
    for origin in [Some(ORIGIN), Some("https://evil.example"), None] {
        let page: Vec<_> = [("Authorization", bearer.as_str())].into_iter().chain(origin.map(|origin| ("Origin", origin))).collect();
        for path in ["/chat", "/account", "/approvals/7", "/admin/users"] {
            all.push(http::request("GET", path, &page, b""));
            all.push(http::request("GET", path, &[&page[..], &[("X-User-Id", "bob")]].concat(), b""));
            for token in &tokens {
                all.push(http::request("GET", path, &[&page[..], &[("X-User-Token", token)]].concat(), b""));
            }
        }
        all.push(http::request("GET", "/chat", &[&page[..], &[("X-User-Token", tokens[0].as_str()), ("X-User-Id", "bob")]].concat(), b""));
        for body in ["{}", "{\"user_id\":\"bob\"}", "{\"user_id\":1,\"user_id\":2}", "{", "\u{feff}{}"] {
            all.push(http::request("POST", "/api/sdk/chat", &page, body.as_bytes()));
        }
        let held = json!({ "user_id": "ann", "user_token": tokens[0] }).to_string();
        all.push(http::request("POST", "/api/sdk/chat", &page, held.as_bytes()));
    }
    all.push(http::request("GET", "/chat", &[("Origin", ORIGIN)], b""));
    all.push(http::request("GET", "/a/../b", &[("Authorization", &bearer), ("Origin", ORIGIN)], b""));
    all.push(http::request("OPTIONS", "/chat", &[("Origin", ORIGIN), ("Access-Control-Request-Method", "POST")], b""));
    all.push(http::request("OPTIONS", "/chat", &[("Origin", "https://evil.example"), ("Access-Control-Request-Method", "POST")], b""));
    all
}

/// Sends everything, and returns what was answered: the reason, or nothing.
fn send(gateway: &Gateway, traffic: &[Vec<u8>]) -> Vec<String> {
    let answers: Vec<_> = traffic.iter().map(|request| http::send(gateway.address, request)).collect();
    let last = answers.last().unwrap().one("x-request-id").to_owned();
    gateway.audit(&last);
    until("every record", || (gateway.audit_text().lines().count() >= traffic.len()).then_some(()));
    answers.iter().map(|answer| answer.reason().to_owned()).collect()
}

fn counted<'r>(reasons: impl IntoIterator<Item = &'r String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    reasons.into_iter().filter(|reason| !reason.is_empty()).for_each(|reason| *counts.entry(reason.clone()).or_default() += 1);
    counts
}

/// The table's columns before and after, by reason.
fn table(said: &str) -> (BTreeMap<String, usize>, BTreeMap<String, usize>) {
    let rows = said.lines().skip_while(|line| !line.starts_with("tenant  denied")).skip(1).take_while(|line| !line.is_empty());
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    for row in rows.filter(|row| !row.contains("in all")) {
        let cells: Vec<_> = row.split_whitespace().collect();
        for (column, cell) in [(&mut before, cells[2]), (&mut after, cells[3])] {
            *column.entry(cells[1].to_owned()).or_default() += cell.replace(',', "").parse::<usize>().unwrap();
        }
    }
    before.retain(|_, count| *count > 0);
    after.retain(|_, count| *count > 0);
    (before, after)
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn what_enforce_would_deny_is_what_it_denies_when_the_same_comes_again() {
    let upstream = Upstream::plain();
    let config = |mode: &str| halo(upstream.address(), &format!("mode = \"{mode}\"\n{ROUTES}"));
    let traffic = traffic();
    let monitor = Gateway::start(&config("monitor"));
    let then = send(&monitor, &traffic);
    monitor.write("audit.jsonl", &monitor.audit_text());
    let enforce = Gateway::start(&config("enforce"));
    let really = send(&enforce, &traffic);

    let by_mode = doorward(&["check", "--against", "audit.jsonl", "--mode", "enforce"], monitor.directory.path());
    monitor.write("enforce.toml", &config("enforce"));
    let by_configuration = doorward(&["check", "-c", "enforce.toml", "--against", "audit.jsonl"], monitor.directory.path());
    for run in [by_mode, by_configuration] {
        let said = text(&run);
        assert_eq!(run.status.code(), Some(1), "something would be newly denied: {said}");
        let (before, after) = table(&said);
        // The one thing that a record does not tell: which key was not sent.
        let told = |reasons: &[String]| {
            let mut counts = counted(reasons);
            assert_eq!(counts.remove("embed_key_missing"), Some(1));
            counts
        };
        assert_eq!(before, told(&then), "{said}");
        assert_eq!(after, told(&really), "{said}");
        assert!(after.len() > 8 && after.values().sum::<usize>() > 60 && before.len() < after.len(), "{said}");
        let newly = then.iter().zip(&really).filter(|(then, now)| then.is_empty() && !now.is_empty()).count();
        let otherwise = then.iter().zip(&really).filter(|(then, now)| !then.is_empty() && !now.is_empty() && then != now).count();
        assert!(newly > 20 && otherwise > 10, "{newly} {otherwise}");
        assert!(said.contains(&format!("newly denied: {newly}\n")) && said.contains("newly admitted: 0\n"), "{said}");
        assert!(said.contains(&format!("denied for another reason: {otherwise}\n")), "{said}");
        assert!(said.contains("not judged: 1\n"), "{said}");
    }

    // And back: the records of enforce, and the same by their own configuration.
    enforce.write("audit.jsonl", &enforce.audit_text());
    let same = doorward(&["check", "--against", "audit.jsonl"], enforce.directory.path());
    let said = text(&same);
    assert_eq!(same.status.code(), Some(0), "{said}");
    assert!(said.contains("newly denied: 0\n") && said.contains("newly admitted: 0\n") && said.contains("another reason: 0\n"), "{said}");
    assert_eq!(table(&said).0, table(&said).1);
    for secret in [KEY, "not_a_token", "another_secret"] {
        assert!(!monitor.audit_text().contains(secret), "{secret}");
    }
}

#[test]
fn what_cannot_be_read_or_judged_is_counted_and_said() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    let forged = jwt_with("another_secret_0123456789abcdef01", &json!({ "user_id": "ann", "exp": in_seconds(300) }));
    let page = [("Authorization", format!("Bearer {KEY}")), ("Origin", ORIGIN.to_owned())];
    let page: Vec<_> = page.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let good = gateway.ask("GET", "/a", &page, "");
    let record = gateway.audit(good.one("x-request-id")).to_string();
    let bad = gateway.ask("GET", "/a", &[&page[..], &[("X-User-Token", &forged)]].concat(), "");
    let bad = gateway.audit(bad.one("x-request-id"));
    let mut older = bad.clone();
    ["mode", "embed_key", "proof", "rules"].iter().for_each(|field| drop(older.as_object_mut().unwrap().remove(*field)));
    let mut later = bad.clone();
    later["reason"] = json!("aura_missing");
    let hostile = record.replace(good.one("x-request-id"), "\\u001b[2J\\u202e");
    let lines = ["", &record, "{", "2026-11-20 not JSON", "{}", &older.to_string(), &later.to_string(), &bad.to_string(), &hostile];
    let check = |args: &[&str], input: &str| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_doorward"))
            .args(["check", "--against", "-"])
            .args(args)
            .current_dir(gateway.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), text(&output))
    };
    let (code, said) = check(&[], &lines.join("\n"));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("4 records, judged 3"), "{said}");
    assert!(said.contains("not an audit record: line 3, 4, 5") && said.contains("does not know: line 7"), "{said}");
    assert!(said.contains("       1  written by a version that recorded less"), "{said}");

    // The page's origin is gone, so all of it would be denied; what a path says does nothing to a terminal.
    gateway.write("moved.toml", &halo(upstream.address(), "").replace(ORIGIN, "https://new.example.com"));
    let (code, said) = check(&["-c", "moved.toml"], &lines.join("\n"));
    assert_eq!(code, Some(1));
    assert!(said.contains("newly denied: 2\n") && said.contains("acme  origin_not_allowed"), "{said}");
    assert!(said.contains("GET /a (\\u{1b}[2J\\u{202e})") && !said.contains('\u{1b}') && !said.contains('\u{202e}'), "{said}");
    assert!(said.contains("token_signature_invalid → origin_not_allowed"), "{said}");

    // A secret that is gone: the tokens that it verified would be refused, and those that it refused are not told of.
    let verified = jwt(&json!({ "user_id": "ann", "exp": in_seconds(300) }));
    let verified = gateway.ask("GET", "/a", &[&page[..], &[("X-User-Token", &verified)]].concat(), "");
    let lines = [record, bad.to_string(), gateway.audit(verified.one("x-request-id")).to_string()].join("\n");
    let rotated = halo(upstream.address(), "").replace("id = \"s1\", file = \"identity.key\"", "id = \"s1\", file = \"next.key\"");
    gateway.write("rotated.toml", &rotated);
    gateway.write("next.key", "next_secret_0123456789abcdef0123456");
    let (code, said) = check(&["-c", "rotated.toml"], &lines);
    assert_eq!(code, Some(1), "under the same id, but not the same: {said}");
    assert!(said.contains("newly denied: 1\n") && said.contains("1  acme  token_signature_invalid"), "{said}");
    assert!(said.contains("not judged: 1\n") && said.contains("the keys have changed"), "{said}");

    let (code, said) = check(&[], "");
    assert_eq!((code, said.contains("0 records, judged 0")), (Some(1), true), "nothing was judged");
    let nowhere = doorward(&["check", "--against", "nowhere.jsonl"], gateway.directory.path());
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("nowhere.jsonl"));
    assert_eq!(doorward(&["check", "--mode", "enforce"], gateway.directory.path()).status.code(), Some(2), "a mode for nothing");
}

/// The manual's example: run as printed, with the traffic that it speaks of.
#[test]
fn the_manual_prints_what_it_says() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), "mode = \"monitor\""));
    let good = jwt(&json!({ "user_id": "ann", "exp": in_seconds(300) }));
    let forged = jwt_with("another_secret_0123456789abcdef01", &json!({ "user_id": "ann", "exp": in_seconds(300) }));
    let bearer = format!("Bearer {KEY}");
    let page = [("Authorization", bearer.as_str()), ("Origin", ORIGIN)];
    let get = |more: &[(&'static str, &str)]| http::request("GET", "/threads", &[&page[..], more].concat(), b"");
    let mut traffic = vec![get(&[("X-User-Token", &good)]); 3];
    traffic.extend(vec![http::request("POST", "/api/sdk/chat", &page, br#"{"user_id":"ann"}"#); 4]);
    traffic.extend(vec![get(&[("X-User-Token", &forged)]); 2]);
    traffic.push(http::request("GET", "/threads", &[page[0], ("Origin", "https://evil.example")], b""));
    traffic.push(http::request("GET", "/threads", &[page[1]], b""));
    send(&gateway, &traffic);
    gateway.write("audit.log", &gateway.audit_text());

    let blocks = blocks(&read("src/manual/status.md"));
    let printed = |language: &str| blocks.iter().find(|block| block.language == language).expect("a block").text.clone();
    let command: Vec<_> = printed("sh").split_whitespace().skip(1).map(str::to_owned).collect();
    let run = doorward(&command.iter().map(String::as_str).collect::<Vec<_>>(), gateway.directory.path());
    let said = text(&run);
    let said = said.split_once("\n\n").expect("what would run, and then the comparison").1;
    let plain = |text: &str| {
        let words = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
        words.map(|word| if word.len() == 33 { "ID".to_owned() + &word[32..] } else { word.to_owned() }).collect::<String>()
    };
    assert_eq!(plain(said), plain(&printed("text")));
    assert_eq!(run.status.code(), Some(1));
}
