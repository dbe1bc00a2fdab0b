//! The status page over the wire: who may ask, what it answers with, and that its numbers are those of the traffic.

use std::net::{Ipv4Addr, SocketAddr};

use base64::Engine as _;
use serde_json::json;
use sha2::Digest as _;

use crate::gateway::{Gateway, KEY, ORIGIN, SECRET, halo, in_seconds, jwt, jwt_with, until};
use crate::http::{self, Answer};
use crate::upstream::Upstream;

fn page(gateway: &Gateway) -> String {
    let answer = gateway.admin("/");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.text()
}

/// The cells of the table rows that have all of these texts, tags removed.
fn rows(html: &str, texts: &[&str]) -> Vec<Vec<String>> {
    let all = html.split("<tr>").skip(1).map(|row| row.split("</tr>").next().unwrap());
    all.filter(|row| texts.iter().all(|text| row.contains(text)))
        .map(|row| {
            row.split("</t").map(|cell| words(cell.split_once('<').map_or("", |(_, cell)| cell))).filter(|c| !c.is_empty()).collect()
        })
        .collect()
}

/// What is not markup, in one line. Cells begin inside a tag.
fn words(html: &str) -> String {
    let mut text = String::new();
    let mut inside = true;
    for c in html.chars() {
        match c {
            '<' => {
                inside = true;
                text.push(' ');
            }
            '>' => inside = false,
            _ if inside => {}
            c => text.push(c),
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn its_numbers_are_those_of_the_traffic() {
    let upstream = Upstream::plain();
    let monitor = "mode = \"monitor\"\n[[tenant]]\nid = \"globex\"\npreset = \"none\"\nembed_keys = [\"pk_globex_0123456789abcdef\"]\n\
         origins = [\"https://globex.example\"]\nsecrets = [{ id = \"g1\", format = \"jwt\", file = \"globex.key\" }]\n";
    let gateway = Gateway::start_with(&halo(upstream.address(), monitor), &[("globex.key", "globex_secret_0123456789abcdef01")]);
    let good = jwt(&json!({ "user_id": "ann", "exp": in_seconds(300) }));
    let forged = jwt_with("another_secret_0123456789abcdef01", &json!({ "user_id": "ann", "exp": in_seconds(300) }));
    let ask = |more: &[(&str, &str)]| {
        let bearer = format!("Bearer {KEY}");
        let headers: Vec<_> = [("Authorization", bearer.as_str()), ("Origin", ORIGIN)].iter().chain(more).copied().collect();
        gateway.ask("GET", "/chat", &headers, b"").status
    };
    assert!((0..3).all(|_| ask(&[("X-User-Token", &good)]) == 200));
    assert!((0..4).all(|_| ask(&[("X-User-Token", &forged)]) == 200), "monitor goes on");
    assert_eq!([ask(&[]), ask(&[])], [200, 200]);
    let globex = [("X-Embed-Key", "pk_globex_0123456789abcdef"), ("Origin", "https://globex.example")];
    assert!((0..5).all(|_| gateway.ask("GET", "/a", &[&globex[..], &[("X-User-Id", "bob")]].concat(), b"").reason() == "token_missing"));
    assert_eq!(gateway.ask("GET", "/a", &[], b"").reason(), "embed_key_missing");

    let html = until("every request to be counted", || {
        let html = page(&gateway);
        words(&html).contains("Requests 15 in all").then_some(html)
    });
    let one = |texts: &[&str]| {
        let found = rows(&html, texts);
        assert_eq!(found.len(), 1, "{texts:?}: {found:?}");
        found[0].clone()
    };
    assert_eq!(one(&["forwarded", ">verified<"]), ["forwarded", "verified", "3", "20.0 %"]);
    assert_eq!(one(&["forwarded", ">anonymous<"]), ["forwarded", "anonymous", "6", "40.0 %"]);
    assert_eq!(one(&[">denied<", "token_missing"]), ["denied", "token_missing Identity token missing", "5", "33.3 %"]);
    assert_eq!(one(&[">denied<", "embed_key_missing"])[2..], ["1", "6.7 %"]);
    assert_eq!(one(&["would deny", "token_signature_invalid", "26.7 %"])[2], "4");

    let acme = one(&["<bdi>acme</bdi>", "monitor"]);
    assert_eq!(acme[..4], ["acme", "monitor", "9", "0"]);
    assert_eq!(acme[4], "4 token_signature_invalid Signature does not match");
    let verdict = "not yet Enforce would have denied 4 of 9 requests in the last hour, and 4 of 9 in ";
    assert!(acme[5].starts_with(verdict), "{acme:?}");
    assert_eq!(one(&["<bdi>globex</bdi>", "Enforce would deny"])[1..5], ["enforce", "0", "5", "none"]);

    let secret = one(&["<bdi>s1</bdi>"]);
    assert_eq!((secret[1].as_str(), secret[3].as_str()), ("acme", "3"), "uses");
    assert!(secret[5].starts_with("in use Last used "), "{secret:?}");
    let unused = one(&["<bdi>g1</bdi>"]);
    assert_eq!((unused[3].as_str(), unused[4].as_str()), ("0", "never"));
    assert!(unused[5].starts_with("too early to say Never used in "), "{unused:?}");

    let denial = one(&["would deny", "token_signature_invalid", "GET /chat"]);
    assert!(denial[3].ends_with("and 3 more like it"), "{denial:?}");
    let denial = one(&["an id without a token"]);
    assert!(denial[2].ends_with("an id without a token") && denial[3].starts_with("GET /a "), "{denial:?}");
    assert_eq!(one(&["data-label=\"Health\""]), ["default", &upstream.address().to_string(), "0", "available"]);
    assert!(!html.contains(SECRET) && !html.contains(&good) && !html.contains(&forged) && !html.contains(KEY));
}

#[test]
fn it_is_one_page_that_can_do_nothing() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    for path in ["/", "/live"] {
        let answer = gateway.admin(path);
        assert_eq!((answer.status, answer.one("content-type")), (200, "text/html; charset=utf-8"));
        let html = answer.text();
        let style = html.split_once("<style>").and_then(|(_, rest)| rest.split_once("</style>")).expect("a style").0;
        let hash = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(style));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{hash}'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        assert_eq!(answer.one("content-security-policy"), policy);
        for (name, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("x-frame-options", "DENY"),
        ] {
            assert_eq!(answer.one(name), value);
        }
        assert!(answer.all("access-control-allow-origin").is_empty() && answer.all("set-cookie").is_empty());
        for never in [
            "<script", "<form", "<input", "<iframe", " style=", " onload", " onerror", " onclick", "http://", "https://", "@import", "url(",
        ] {
            let own = html.replace("http://www.w3.org/2000/svg", ""); // the icon's namespace
            assert!(!own.contains(never), "{never} in {path}");
        }
        assert_eq!(html.contains("http-equiv=\"refresh\""), path == "/live");
    }
    let head = gateway.ask_admin("HEAD", "/", &[]);
    assert_eq!((head.status, head.body.len()), (200, 0));
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let answer = gateway.ask_admin(method, "/", &[]);
        assert_eq!((answer.status, answer.one("allow")), (405, "GET,HEAD"), "{method}");
    }
    let token = "eyJhbGciOiJIUzI1NiJ9.e30.AAAA";
    for target in [format!("/?token={token}"), "/?".to_owned(), format!("/status?{token}"), format!("/live?a={token}")] {
        let answer = gateway.admin(&target);
        assert_eq!(answer.status, 400, "{target}");
        assert!(answer.text().contains("doorward token explain") && !answer.text().contains(token));
    }
    assert!(!gateway.log().contains(token));
    assert_eq!(gateway.admin("/nothing").status, 404);
}

/// Asks with exactly these headers.
fn ask(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Answer {
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    http::send(address, format!("GET {target} HTTP/1.1\r\nConnection: close\r\n{lines}\r\n"))
}

#[test]
fn other_names_and_other_sites_are_refused() {
    let upstream = Upstream::plain();
    let names = "threads = 2\nadmin_hosts = [\"doorward.internal\"]";
    let gateway = Gateway::start(&halo(upstream.address(), "").replace("threads = 2", names));
    let port = gateway.admin.port();
    let at = |name: &str| format!("{name}:{port}");
    for target in ["/", "/live", "/status", "/metrics"] {
        let by = |headers: &[(&str, &str)]| ask(gateway.admin, target, headers).status;
        for own in [at("127.0.0.1"), at("localhost"), at("[::1]"), at("doorward.internal"), "localhost".to_owned()] {
            assert_eq!(by(&[("Host", &own)]), 200, "{target} at {own}");
        }
        for other in [at("rebound.example"), at("127.0.0.1.rebound.example"), at("10.0.0.7"), at("internal"), "localhost.".to_owned()] {
            let answer = ask(gateway.admin, target, &[("Host", &other)]);
            assert_eq!(answer.status, 421, "{target} at {other}");
            assert!(!answer.text().contains("acme") && !answer.text().contains(&other));
            assert!(answer.one("content-security-policy").starts_with("default-src 'none'"), "refusals too");
        }
        let host = ("Host", &*at("localhost"));
        for foreign in ["cross-site", "same-site"] {
            assert_eq!(by(&[host, ("Sec-Fetch-Site", foreign)]), 403, "{target} {foreign}");
        }
        assert_eq!([by(&[host, ("Sec-Fetch-Site", "none")]), by(&[host, ("Sec-Fetch-Site", "same-origin")])], [200, 200]);
        for foreign in ["https://evil.example", "null", "http://localhost"] {
            assert_eq!(by(&[host, ("Origin", foreign)]), 403, "{target} {foreign}");
        }
        assert_eq!(by(&[host, ("Origin", &format!("http://localhost:{port}"))]), 200);
    }
    // What the kubelet and backends ask for, by whatever name.
    let elsewhere = [("Host", "doorward.svc:9090")];
    for target in ["/livez", "/readyz", "/jwks.json"] {
        assert_eq!(ask(gateway.admin, target, &elsewhere).status, 200, "{target}");
        assert_eq!(ask(gateway.admin, target, &[elsewhere[0], ("Sec-Fetch-Site", "cross-site")]).status, 403, "{target}");
    }
}

#[test]
fn opened_to_a_network_metrics_are_scraped_by_any_name_and_the_page_is_not_shown() {
    let upstream = Upstream::plain();
    let config = halo(upstream.address(), "").replace("admin = \"127.0.0.1:0\"", "admin = \"0.0.0.0:0\"");
    let gateway = Gateway::start(&config);
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, gateway.admin.port()));
    let by = |target: &str, host: &str| ask(admin, target, &[("Host", host)]).status;
    assert_eq!([by("/metrics", "doorward.monitoring.svc:9090"), by("/metrics", "10.1.2.3:9090")], [200, 200]);
    assert_eq!([by("/", "doorward.monitoring.svc:9090"), by("/status", "10.1.2.3:9090"), by("/", "0.0.0.0")], [421, 421, 421]);
    assert_eq!(by("/", "localhost"), 200);
}

#[test]
fn a_refused_reload_shows_its_first_problem_and_what_it_says_is_inert() {
    let upstream = Upstream::plain();
    let config = halo(upstream.address(), "");
    let gateway = Gateway::start(&config);
    assert!(words(&page(&gateway)).contains("Last reload None since the start."));
    gateway.write("doorward.toml", &format!("\"<script>alert(1)</script>\u{202e}\" = 1\n{config}"));
    until("the refusal", || (gateway.metric(r#"doorward_reloads_total{result="refused"}"#) >= 1.0).then_some(()));
    let html = page(&gateway);
    let shown = html.split_once("<pre").and_then(|(_, rest)| rest.split_once("</pre>")).expect("the problem").0;
    assert!(shown.contains("unknown key `&#60;script&#62;alert(1)"), "{shown}");
    assert!(!html.contains("<script") && !html.contains('\u{202e}'), "{shown}");
    assert!(words(&html).contains("refused") && words(&html).contains("the last good one stays in force"));
    gateway.write("doorward.toml", &config);
    until("the repair", || words(&page(&gateway)).contains("The configuration on disk is in force.").then_some(()));
    assert!(!page(&gateway).contains("<pre"));
}

/// `threats` 34: nothing that a client writes becomes markup, and nothing of it reorders what stands around it.
#[test]
fn what_clients_write_is_inert() {
    let upstream = Upstream::plain();
    let gateway = Gateway::start(&halo(upstream.address(), ""));
    let hostile = [
        "/<script>alert(1)</script>",
        "/\"onmouseover=\"alert(1)",
        "/'><img/src=x>",
        "/%3Cscript%3E",
        "/&lt;script&gt;",
        "/\u{202e}gpj.exe",
        "/{{7*7}}",
    ];
    for path in hostile {
        http::send(gateway.address, format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nOrigin: {ORIGIN}\r\n\r\n"));
    }
    let html = until("the denials", || {
        let html = page(&gateway);
        html.contains("%3Cscript%3E").then_some(html)
    });
    for never in ["<script", "<img", "\u{202e}", "\"onmouseover", "'><"] {
        assert!(!html.contains(never), "{never}");
    }
    assert!(html.contains("&#38;lt;script"), "escaped twice is shown as it was sent");
}

#[test]
fn an_upstream_that_fails_is_seen() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = Gateway::start(&halo(closed, ""));
    let bearer = format!("Bearer {KEY}");
    assert_eq!(gateway.ask("GET", "/a", &[("Authorization", &bearer), ("Origin", ORIGIN)], b"").status, 502);
    let html = until("it to be counted", || {
        let html = page(&gateway);
        words(&html).contains("Failed 1 100.0 % of all").then_some(html)
    });
    assert_eq!(
        rows(&html, &[">failed<", "upstream_unreachable"]),
        [["failed", "upstream_unreachable Upstream unreachable", "1", "100.0 %"]]
    );
    let upstream = &rows(&html, &["data-label=\"Health\""])[0];
    assert_eq!(upstream[..3], ["default", &closed.to_string(), "0"]);
    assert!(upstream[3].contains("ConnectRefused"), "what went wrong: {upstream:?}");
    assert!(words(&html).contains("upstream_unreachable Upstream unreachable"));
}
