//! Fuzz targets: head, origin, token, config. Each replays its corpus (`tests/fuzz/corpus/TARGET/`) and then mutations of it,
//! `PROPTEST_CASES` of them; `make fuzz` raises that. A finding is printed as hex: put it into the corpus beside its fix.

use std::cell::Cell;
use std::fmt::Write as _;

use doorward::admission::Decision;
use doorward::clock::UnixTime;
use doorward::policy::Level;
use doorward::request::origin::{Origin, OriginRule};
use doorward::request::original::Convention;
use doorward::revocations::Revocations;
use doorward::snapshot::Snapshot;
use libtest_mimic::Trial;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};

use crate::exchange::{self, Arrival, Raw};
use crate::{files, fixture, tokens, trial};

const NOW: UnixTime = UnixTime::from_secs(1_790_000_000);

/// One test per target.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("fuzz::head", || fuzz(corpus("head"), 1, |bytes| head(bytes, &*fixture::load("basic", &[])?))),
        trial("fuzz::origin", || fuzz(corpus("origin"), 1, origin)),
        trial("fuzz::token", || {
            let genuine = genuine()?;
            let seeds = genuine.iter().map(|t| t.clone().into_bytes()).chain(corpus("token")).collect();
            fuzz(seeds, 1, |bytes| token(bytes, &genuine, &*fixture::load("basic", &[])?))
        }),
        trial("fuzz::config", || {
            let fixtures = files::below("tests/fixtures", "toml").into_iter();
            let fixtures = fixtures.map(|p| std::fs::read(files::root().join("tests/fixtures").join(p)).unwrap());
            // A load reads secret files until they are stable, so there is time for fewer.
            fuzz(corpus("config").into_iter().chain(fixtures).collect(), 16, config)
        }),
    ]
}

/// Any request without a genuine token: no panic, and nobody is verified.
fn head(bytes: &[u8], snapshot: &Snapshot) -> Result<(), String> {
    let (head, body) = match bytes.windows(4).position(|w| w == b"\r\n\r\n") {
        Some(at) => bytes.split_at(at + 4),
        None => (bytes, &[][..]),
    };
    let raw = Raw { head: head.to_vec(), body: body.to_vec(), ..Raw::default() };
    for check in [None, Some(Convention::Nginx), Some(Convention::Traefik), Some(Convention::Envoy)] {
        let raw = Raw { check, ..raw.clone() };
        unverified(&exchange::decide(&raw, snapshot, &Revocations::default(), NOW))?;
    }
    Ok(())
}

fn unverified(decision: &Decision) -> Result<(), String> {
    match decision {
        Decision::Forward(admitted) if admitted.caller().level() >= Level::Verified => Err(exchange::describe(decision)),
        _ => Ok(()),
    }
}

/// What is read as an origin or a rule means itself and only itself.
fn origin(bytes: &[u8]) -> Result<(), String> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(()) };
    let app = OriginRule::parse("https://app.example.com").unwrap();
    if let Some(origin) = Origin::parse(text)
        && app.allows(origin) != (text == "https://app.example.com")
    {
        return Err(format!("{text} passes for the app's origin"));
    }
    match OriginRule::parse(text) {
        Ok(rule @ OriginRule::Exact(_)) if !Origin::parse(text).is_some_and(|o| rule.allows(o)) => {
            Err(format!("{text} does not allow itself"))
        }
        _ => Ok(()),
    }
}

/// Tokens that acme's secrets really signed, for the id that stands beside them.
fn genuine() -> Result<Vec<String>, String> {
    const TEXTS: [&str; 3] = [
        r#"{{jwt:acme-jwt:{"sub":"user_123","exp":1790000600}}}"#,
        "{{hmac:acme-hmac:user_123}}",
        "{{karta:acme-karta:user_123:stepped_up_at=1789999990:aal=mfa}}",
    ];
    TEXTS.iter().map(|t| tokens::expand_text(t)).collect()
}

/// A genuine token verifies; one changed byte and it does not.
fn token(bytes: &[u8], genuine: &[String], snapshot: &Snapshot) -> Result<(), String> {
    let authorization = [b"Authorization: Bearer ", bytes].concat();
    let lines: [&[u8]; 6] = [
        b"POST /chat HTTP/1.1",
        b"Host: gw.example",
        b"Origin: https://app.example.com",
        b"X-Embed-Key: pk_basic_0123456789abcdef",
        b"X-User-Id: user_123",
        &authorization,
    ];
    // A line feed would start another header; that is the head's target.
    if bytes.contains(&b'\n') {
        return Ok(());
    }
    let decision = exchange::decide(&Raw::new(lines, Vec::new(), Arrival::Whole), snapshot, &Revocations::default(), NOW);
    // Space around the token is the header's, not the token's (RFC 9110 §5.5, §11.4).
    let is_genuine = std::str::from_utf8(bytes).is_ok_and(|t| genuine.iter().any(|g| g == t.trim_matches([' ', '\t'])));
    match (unverified(&decision), is_genuine) {
        (Err(_), true) | (Ok(()), false) => Ok(()),
        (Ok(()), true) => Err(format!("a genuine token: {}", exchange::describe(&decision))),
        (Err(what), false) => Err(what),
    }
}

/// Any file either loads or is refused with problems, never a panic.
fn config(bytes: &[u8]) -> Result<(), String> {
    let path = fixture::folder()?.join("doorward.toml");
    std::fs::write(&path, bytes).map_err(|e| e.to_string())?;
    match doorward::config::load(&path, 1, &|_, _| Default::default()) {
        Err(problems) if problems.rendered.is_empty() => Err("refused without a problem".to_owned()),
        _ => Ok(()),
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = files::root().join("tests/fuzz/corpus").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths.iter().map(|p| std::fs::read(p).unwrap()).collect()
}

/// One step away from an input.
#[derive(Clone, Debug)]
enum Change {
    Put(Index, u8),
    Insert(Index, Vec<u8>),
    Cut(Index, Index),
    Repeat(Index, Index),
}

const WORDS: [&[u8]; 16] = [
    b"\r\n",
    b"\0",
    b"=",
    b".",
    b"//",
    b"%2e",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\"",
    b"{",
    b"}",
    b",",
    b": ",
    b"_",
    b"\xc5\xbf",
    b"99999999999999999999",
];

fn change() -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, to)| Change::Put(at, to)),
        (at(), select(&WORDS[..])).prop_map(|(at, word)| Change::Insert(at, word.to_vec())),
        (at(), at()).prop_map(|(from, to)| Change::Cut(from, to)),
        (at(), at()).prop_map(|(from, to)| Change::Repeat(from, to)),
    ]
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |at: &Index, bytes: &Vec<u8>| at.index(bytes.len() + 1);
        let range = |from: &Index, to: &Index, bytes: &Vec<u8>| {
            let (a, b) = (place(from, bytes), place(to, bytes));
            a.min(b)..a.max(b)
        };
        match self {
            Self::Put(at, to) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] = *to;
            }
            Self::Put(_, to) => bytes.push(*to),
            Self::Insert(at, word) => {
                let at = place(at, bytes);
                bytes.splice(at..at, word.iter().copied());
            }
            Self::Cut(from, to) => drop(bytes.drain(range(from, to, bytes))),
            Self::Repeat(from, to) => {
                let range = range(from, to, bytes);
                let copy = bytes[range.clone()].to_vec();
                bytes.splice(range.end..range.end, copy);
            }
        }
    }
}

/// Replays the seeds, then `PROPTEST_CASES / share` mutations of them.
fn fuzz(seeds: Vec<Vec<u8>>, share: u32, target: impl Fn(&[u8]) -> Result<(), String>) -> Result<(), String> {
    for seed in &seeds {
        target(seed).map_err(|e| format!("{e}\nseed {}", show(seed)))?;
    }
    let default = Config::default();
    let config = Config { failure_persistence: None, cases: (default.cases / share).max(8), ..default };
    let inputs = (select(seeds), proptest::collection::vec(change(), 1..6));
    let last = Cell::new(Vec::new());
    let run = TestRunner::new(config).run(&inputs, |(mut bytes, changes)| {
        changes.iter().for_each(|c| c.apply(&mut bytes));
        let result = target(&bytes).map_err(TestCaseError::fail);
        last.set(bytes);
        result
    });
    run.map_err(|e| format!("{e}\ninput {}", show(&last.take())))
}

fn show(bytes: &[u8]) -> String {
    let mut text = hex::encode(bytes);
    let _ = write!(text, " ({:?})", String::from_utf8_lossy(bytes));
    text
}
