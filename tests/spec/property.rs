//! Properties of everything that reads what a client sent: no input panics, and what parsers accept they mean. The number of
//! inputs is `PROPTEST_CASES` (256); `make fuzz` raises it.

use doorward::admission::Decision;
use doorward::clock::UnixTime;
use doorward::policy::Level;
use doorward::request::RequestHead;
use doorward::request::body::{BodyFields, Inspected, Purpose};
use doorward::request::credential::Form;
use doorward::request::embed_key::EmbedKey;
use doorward::request::origin::{Origin, OriginRule};
use doorward::request::path::{Path, PathPattern};
use doorward::request::query::Query;
use doorward::revocations::Revocations;
use libtest_mimic::Trial;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use crate::exchange::{self, Arrival, Raw};
use crate::{fixture, trial};

/// One test per property.
pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("property::head_never_panics", head_never_panics),
        trial("property::body_agrees_with_another_reader", body_agrees_with_another_reader),
        trial("property::json_agrees_with_another_reader", json_agrees_with_another_reader),
        trial("property::path_is_idempotent", path_is_idempotent),
        trial("property::pattern_covers_itself", pattern_covers_itself),
        trial("property::wider_patterns_cover_what_narrower_do", wider_patterns_cover_what_narrower_do),
        trial("property::query_never_panics", query_never_panics),
        trial("property::origin_round_trips", origin_round_trips),
        trial("property::origin_pattern_stays_under_its_parent", origin_pattern_stays_under_its_parent),
        trial("property::forms_never_panic", forms_never_panic),
        trial("property::nothing_unsigned_is_verified", nothing_unsigned_is_verified),
    ]
}

fn holds<S: Strategy>(inputs: S, property: impl Fn(S::Value) -> Result<(), TestCaseError>) -> Result<(), String> {
    let config = Config { failure_persistence: None, ..Config::default() };
    TestRunner::new(config).run(&inputs, property).map_err(|e| e.to_string())
}

/// Pieces that parsers trip over, between arbitrary text.
fn nasty(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    let piece = prop_oneof![4 => select(pieces).prop_map(str::to_owned), 1 => any::<String>(), 1 => "[ -~]{0,6}"];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

const TARGET: &[&str] = &[
    "/",
    "//",
    ".",
    "..",
    "/./",
    "/../",
    "%",
    "%2",
    "%2e",
    "%2E%2e",
    "%2f",
    "%5c",
    "%00",
    "%25",
    "%C3%A9",
    "%c3%a9",
    "%zz",
    "\\",
    ";",
    "*",
    "?",
    "#",
    "a",
    "chat",
    "user_id",
    "=",
    "&",
    "+",
    "http://h/",
    "é",
    "ſ",
    "\u{212a}",
    "\t",
    "\u{0}",
    "~",
    ":",
    "@",
];

const HEADER: &[&str] = &[
    "Host",
    "host",
    "Origin",
    "Authorization",
    "Content-Length",
    "Transfer-Encoding",
    "Connection",
    "Upgrade",
    "X-Identity-Subject",
    "x_identity_subject",
    ": ",
    ":",
    " ",
    ",",
    "chunked",
    "0",
    "5",
    "-1",
    "18446744073709551616",
    "close",
    "upgrade",
    "websocket",
    "a.example",
    "[::1]",
    "a.example:443",
    "https://app.example.com",
    "null",
    "Bearer ",
    "\r\n",
    "\n",
    "\r",
    "\t",
    "\u{0}",
    "é",
    "GET / HTTP/1.1\r\n",
    "POST /chat HTTP/1.1\r\n",
    "OPTIONS * HTTP/1.0\r\n",
    "\r\n\r\n",
];

fn head_never_panics() -> Result<(), String> {
    let lines = (nasty(TARGET), nasty(HEADER)).prop_map(|(target, fields)| {
        format!("GET /{} HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n\r\n", target.replace([' ', '\r', '\n'], "")).into_bytes()
    });
    holds(prop_oneof![vec(any::<u8>(), 0..200), nasty(HEADER).prop_map(String::into_bytes), lines], |bytes| {
        let Some(parts) = exchange::parts(&bytes) else { return Ok(()) };
        if let Ok(head) = RequestHead::parse(&parts) {
            // What was accepted has one path in normal form.
            prop_assert_eq!(Path::parse(head.path.as_str()).map(|p| p.as_str().to_owned()), Ok(head.path.as_str().to_owned()));
            let _ = (head.bearer(), head.query.one("user_id"), head.is_preflight());
        }
        Ok(())
    })
}

const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"user_id\"",
    "\"USER_ID\"",
    "\"uſer_id\"",
    "\"\\u0075ser_id\"",
    "\"metadata\"",
    "\"a\"",
    "\"\"",
    "null",
    "true",
    "1",
    "-1",
    "1.5",
    "1e400",
    "9007199254740993",
    "\"user_123\"",
    " ",
    "\u{feff}",
    "{\"user_id\":\"a\"}",
    "{\"metadata\":{\"user_id\":\"a\"}}",
    "\"\\ud800\"",
    "\\",
];

fn inspected() -> Vec<Inspected> {
    let path = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
    vec![
        Inspected { path: path(&["user_id"]), purpose: Purpose::AssertedId },
        Inspected { path: path(&["metadata", "user_id"]), purpose: Purpose::AssertedId },
        Inspected { path: path(&["user_token"]), purpose: Purpose::Token },
    ]
}

fn documents() -> impl Strategy<Value = Vec<u8>> {
    let member = prop_oneof![
        Just(("user_id".to_owned(), "\"u\"".to_owned())),
        (select(JSON), select(JSON)).prop_map(|(name, value)| (name.trim_matches('"').to_owned(), value.to_owned())),
        ("[a-z_]{1,9}", "[0-9]{1,18}"),
    ];
    let object = vec(member, 0..5).prop_map(|members| {
        let members: Vec<_> = members.iter().map(|(n, v)| format!("\"{n}\":{v}")).collect();
        format!("{{{}}}", members.join(","))
    });
    prop_oneof![object.prop_map(String::into_bytes), nasty(JSON).prop_map(String::into_bytes), vec(any::<u8>(), 0..64)]
}

fn body_agrees_with_another_reader() -> Result<(), String> {
    let inspected = inspected();
    holds(documents(), |bytes| {
        let Ok(fields) = BodyFields::parse(&bytes, &inspected) else { return Ok(()) };
        if bytes.is_empty() {
            return Ok(());
        }
        let other: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|e| TestCaseError::fail(format!("accepted what serde_json refuses: {e}")))?;
        prop_assert!(other.is_object());
        let text = |v: Option<&serde_json::Value>| match v {
            Some(serde_json::Value::String(s)) if !s.is_empty() => Some(s.clone()),
            Some(serde_json::Value::Number(n)) => Some(n.to_string()),
            _ => None,
        };
        let mut wanted: Vec<_> =
            [text(other.get("user_id")), text(other.get("metadata").and_then(|m| m.get("user_id")))].into_iter().flatten().collect();
        let mut found: Vec<_> = fields.of(Purpose::AssertedId).map(str::to_owned).collect();
        wanted.sort();
        found.sort();
        prop_assert_eq!(found, wanted);
        Ok(())
    })
}

fn json_agrees_with_another_reader() -> Result<(), String> {
    holds(documents(), |bytes| {
        if let Ok(object) = doorward::json::object(&bytes) {
            prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&bytes).ok(), Some(serde_json::Value::Object(object)));
        }
        Ok(())
    })
}

fn path_is_idempotent() -> Result<(), String> {
    let target = prop_oneof![nasty(TARGET), nasty(TARGET).prop_map(|t| format!("/{t}"))];
    holds(target, |raw| {
        let Ok(path) = Path::parse(&raw) else { return Ok(()) };
        let normal = path.as_str().to_owned();
        prop_assert_eq!(Path::parse(&normal).map(|p| p.as_str().to_owned()), Ok(normal.clone()));
        let odd = |s: &str| matches!(s, "." | "..");
        prop_assert!(!normal.split('/').any(odd) && !normal.contains("//") && !normal.contains(['\\', ';']), "{}", normal);
        let decoded = percent_encoding::percent_decode_str(&normal).collect::<Vec<_>>();
        prop_assert!(!decoded.contains(&b'%'), "a second layer of encoding is left in {}", normal);
        Ok(())
    })
}

fn pattern_covers_itself() -> Result<(), String> {
    let pattern = prop_oneof![nasty(TARGET), vec(select(vec!["/a", "/B", "/*", "/x-1", "/", "*"]), 0..5).prop_map(|p| p.concat())];
    holds(pattern, |text| {
        let Ok(pattern) = PathPattern::parse(&text) else { return Ok(()) };
        // A star covers any segment, so the pattern with `s` for each star is a path it covers; so is its other case.
        let path = text.replace('*', "s");
        for path in [path.clone(), path.to_ascii_uppercase(), format!("{}/", path.trim_end_matches('/'))] {
            match Path::parse(&path) {
                Ok(parsed) => prop_assert!(pattern.covers(&parsed), "{} does not cover {}", text, path),
                Err(why) => prop_assert!(false, "{} accepted, its own path {} refused: {:?}", text, path, why),
            }
        }
        Ok(())
    })
}

/// One pattern includes another exactly when no path tells them apart: one more letter and one more segment than they have.
fn wider_patterns_cover_what_narrower_do() -> Result<(), String> {
    let paths = |length: u32| {
        (0..3_usize.pow(length)).map(move |n| (0..length).map(|i| ["/a", "/b", "/c"][n / 3_usize.pow(i) % 3]).collect::<String>())
    };
    let paths: Vec<_> = (1..=4).flat_map(paths).chain(["/".to_owned()]).collect();
    let pattern =
        || ("(/(a|B|b|\\*)){0,3}", select(vec!["", "/*"])).prop_map(|(text, rest)| text + rest).prop_filter("a path", |t| !t.is_empty());
    holds((pattern(), pattern()), |(wide, narrow)| {
        let covered = |text: &str, path: &str| PathPattern::parse(text).unwrap().covers(&Path::parse(path).unwrap());
        let includes = PathPattern::parse(&wide).unwrap().includes(&PathPattern::parse(&narrow).unwrap());
        let between = paths.iter().find(|path| covered(&narrow, path) && !covered(&wide, path));
        prop_assert_eq!(includes, between.is_none(), "{} includes {}: {:?}", wide, narrow, between);
        Ok(())
    })
}

fn query_never_panics() -> Result<(), String> {
    holds(nasty(TARGET), |raw| {
        let Ok(query) = Query::parse(Some(&raw)) else { return Ok(()) };
        prop_assert_eq!(query.as_sent(), Some(raw.as_str()));
        if let Ok(Some(_)) = query.one("user_id") {
            let rest = query.without(&["user_id"]);
            let rest = Query::parse(rest.as_deref()).unwrap();
            prop_assert_eq!(rest.one("user_id"), Ok(None), "left after removal");
        }
        Ok(())
    })
}

const ORIGIN: &[&str] = &[
    "https://",
    "http://",
    "HTTPS://",
    "capacitor://",
    "null",
    "app",
    "App",
    ".",
    "example.com",
    "EXAMPLE.com",
    "xn--bcher-kva",
    "bücher",
    ":",
    "443",
    "80",
    "8080",
    "08080",
    "/",
    "@",
    "user:pw@",
    "*",
    "*.",
    "pr-*",
    "[::1]",
    "127.0.0.1",
    "0x7f.1",
    "localhost",
    "?",
    "#",
    " ",
    "%2e",
    "co.uk",
    "vercel.app",
];

fn origin_round_trips() -> Result<(), String> {
    let usual =
        (select(vec!["https", "http", "capacitor"]), "[a-z][a-z0-9-]{0,8}[a-z0-9](\\.[a-z]{2,5}){0,3}", proptest::option::of(1u16..))
            .prop_map(|(scheme, host, port)| format!("{scheme}://{host}{}", port.map(|p| format!(":{p}")).unwrap_or_default()));
    holds(prop_oneof![usual, nasty(ORIGIN)], |text| {
        let origin = Origin::parse(&text);
        match OriginRule::parse(&text) {
            Ok(rule @ OriginRule::Exact(_)) => {
                prop_assert!(origin.is_some_and(|o| rule.allows(o)), "{} does not allow itself", text);
            }
            Ok(OriginRule::Pattern { .. }) => prop_assert!(origin.is_none(), "a pattern is no origin"),
            Err(why) => {
                // The fix that the message gives is one.
                if let Some((_, fix)) = why.split_once("write \"") {
                    let fix = fix.trim_end_matches('"');
                    prop_assert!(OriginRule::parse(fix).is_ok() && fix != text, "{}: {}", text, why);
                }
            }
        }
        Ok(())
    })
}

fn origin_pattern_stays_under_its_parent() -> Result<(), String> {
    let rules = [OriginRule::parse("https://*.preview.acme.dev").unwrap(), OriginRule::parse("https://pr-*.acme.dev").unwrap()];
    const PIECES: &[&str] = &[
        "https://",
        "http://",
        "pr-",
        "a",
        "-",
        ".",
        "preview",
        ".preview.acme.dev",
        ".acme.dev",
        "acme.dev",
        ":443",
        ":8443",
        "@",
        "evil.example",
        "A",
    ];
    holds(nasty(PIECES), |text| {
        let Some(origin) = Origin::parse(&text) else { return Ok(()) };
        for (rule, prefix, parent) in [(&rules[0], "https://", ".preview.acme.dev"), (&rules[1], "https://pr-", ".acme.dev")] {
            let label = text.strip_prefix(prefix).and_then(|t| t.strip_suffix(parent));
            let is_label = label.is_some_and(|l| {
                let whole = text[8..].split('.').next().unwrap_or_default();
                !l.is_empty()
                    && whole.len() <= 63
                    && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                    && !whole.starts_with('-')
                    && !whole.ends_with('-')
            });
            prop_assert_eq!(rule.allows(origin), is_label, "{}", text);
        }
        Ok(())
    })
}

fn forms_never_panic() -> Result<(), String> {
    const PIECES: &[&str] = &["v2", ".", "a", "0123456789abcdef", "eyJ0eXAiOiJkb29yd2FyZC1zZXNzaW9uK2p3dCJ9", "=", "_", "-", "é"];
    holds(nasty(PIECES), |text| {
        let form = Form::of(&text);
        if form == Ok(Form::Hmac) {
            prop_assert!(text.len() == 64 && hex::decode(&text).is_ok() && text == text.to_lowercase());
        }
        // A key is never a credential: whatever stands in Bearer has one reading.
        prop_assert!(!(EmbedKey::parse(&text).is_ok() && form.is_ok()), "{} is a key and a credential", text);
        Ok(())
    })
}

/// Whatever a client makes up, without a secret nobody is verified.
fn nothing_unsigned_is_verified() -> Result<(), String> {
    let snapshot = fixture::load("basic", &[])?;
    const PIECES: &[&str] = &[
        "{\"user_id\":\"user_123\"}",
        "eyJhbGciOiJIUzI1NiJ9",
        ".",
        "eyJhbGciOiJub25lIn0",
        "eyJzdWIiOiJ1c2VyXzEyMyIsImV4cCI6NDEwMjQ0NDgwMH0",
        "v2.",
        "a5976e12891ea362e524c0357e3dd1ed9dfc60a0b5ab8ebee37a3467db004564",
        "user_123",
    ];
    holds((nasty(PIECES), nasty(PIECES), nasty(PIECES)), |(token, id, body)| {
        let clean = |text: &str| text.replace(|c: char| !c.is_ascii_graphic(), "");
        let lines = [
            "POST /chat HTTP/1.1".to_owned(),
            "Host: gw.example".to_owned(),
            "Origin: https://app.example.com".to_owned(),
            "X-Embed-Key: pk_basic_0123456789abcdef".to_owned(),
            format!("Authorization: Bearer {}", clean(&token)),
            format!("X-User-Id: {}", clean(&id)),
        ];
        let raw = Raw::new(lines.iter().map(String::as_bytes), body.into_bytes(), Arrival::Whole);
        let decision = exchange::decide(&raw, &snapshot, &Revocations::default(), UnixTime::from_secs(1_790_000_000));
        if let Decision::Forward(admitted) = &decision {
            prop_assert!(admitted.caller().level() < Level::Verified, "{}", exchange::describe(&decision));
        }
        Ok(())
    })
}
