//! Several listeners: Unix sockets, proxies in front of us and what is believed of them.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::process::Command;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use crate::gateway::{Gateway, KEY, ORIGIN, halo, until};
use crate::http::{self, Connection};
use crate::pki::Authority;
use crate::tls::{ONE, start, with_tls};
use crate::upstream::{Seen, Upstream};

fn headers<'h>(more: &[(&'h str, &'h str)]) -> Vec<(&'h str, &'h str)> {
    let bearer: &str = "Bearer ab_live_0123456789abcdef";
    assert!(bearer.ends_with(KEY));
    [("Authorization", bearer), ("Origin", ORIGIN)].iter().copied().chain(more.iter().copied()).collect()
}

fn with(upstream: SocketAddr, server: &str, listener: &str) -> String {
    halo(upstream, "").replace("[upstream]", &format!("{server}\n{listener}\n[upstream]"))
}

#[test]
fn a_unix_socket_serves_and_has_its_permissions() {
    let upstream = Upstream::plain();
    let config = with(upstream.address(), "", "[[server.listener]]\nunix = \"gateway.sock\"\nmode = \"0600\"");
    let gateway = Gateway::start(&config);
    let socket = gateway.path("gateway.sock");
    assert_eq!(gateway.places().len(), 2);
    let found = std::fs::metadata(&socket).unwrap();
    assert!(found.file_type().is_socket() && found.permissions().mode() & 0o777 == 0o600, "{found:?}");
    let ran = Command::new("curl")
        .args(["-sS", "--unix-socket", "gateway.sock", "-w", "\n%{http_code}", "-H", &format!("Authorization: Bearer {KEY}"), "-H"])
        .args([&format!("Origin: {ORIGIN}"), "-H", "X-Forwarded-For: 1.2.3.4", "http://gateway.test/a"])
        .current_dir(gateway.directory.path())
        .output()
        .expect("curl (see .ci/deps)");
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "{\"ok\":true}\n200", "{}", String::from_utf8_lossy(&ran.stderr));
    let seen = upstream.last();
    assert_eq!((seen.all("x-forwarded-for"), seen.one("x-forwarded-proto")), (vec![], "http"));
    // The plain address beside it is what it was.
    assert_eq!(gateway.ask("GET", "/a", &headers(&[]), b"").status, 200);

    // A second process may not take it; once the first is gone, it may.
    let second = crate::gateway::doorward(&["run", "-c", "doorward.toml"], gateway.directory.path());
    let error = String::from_utf8_lossy(&second.stderr);
    assert!(second.status.code() == Some(1) && error.contains("gateway.sock") && error.contains("in use"), "{error}");
    gateway.signal("KILL");
    until("it to be gone", || UnixStream::connect(&socket).is_err().then_some(()));
    let mut again = Command::new(env!("CARGO_BIN_EXE_doorward"))
        .args(["run", "-c", "doorward.toml"])
        .current_dir(gateway.directory.path())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let answer = std::panic::catch_unwind(|| {
        let mut stream = until("it to listen", || UnixStream::connect(&socket).ok());
        stream.write_all(&http::request("GET", "/b", &headers(&[("Connection", "close")]), b"")).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    again.kill().unwrap();
    again.wait().unwrap();
    assert!(answer.unwrap().starts_with("HTTP/1.1 200"));
}

#[test]
fn without_listen_there_are_only_the_others() {
    let upstream = Upstream::plain();
    let config = with(upstream.address(), "", "[[server.listener]]\naddress = \"127.0.0.1:0\"").replace("listen = \"127.0.0.1:0\"\n", "");
    let gateway = Gateway::start(&config);
    assert_eq!(gateway.places(), [gateway.address.to_string()]);
    assert_eq!(gateway.ask("GET", "/a", &headers(&[]), b"").status, 200);
}

/// What the backend and the audit record say about where a request came from.
fn origin_of(gateway: &Gateway, upstream: &Upstream, sent: &[(&str, &str)]) -> (Seen, serde_json::Value) {
    let answer = gateway.ask("GET", "/a", &headers(sent), b"");
    assert_eq!(answer.status, 200, "{answer:?}");
    (upstream.last(), gateway.audit(answer.one("x-request-id"))["client"].clone())
}

const LIES: [(&str, &str); 7] = [
    ("X-Forwarded-For", "203.0.113.9"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "chat.example.com"),
    ("X-Forwarded-Port", "443"),
    ("X-Forwarded-Server", "edge"),
    ("X-Real-IP", "203.0.113.9"),
    ("Forwarded", "for=198.51.100.7;proto=https;host=other.example.com"),
];

#[test]
fn limits_go_by_the_client_that_a_trusted_proxy_names() {
    let upstream = Upstream::plain();
    let server = "trusted_proxies = [\"127.0.0.1\"]\n[server.limits]\nmax_connections_per_client = 1";
    let limit = "limit = [{ per = \"client\", requests = 1, period = \"1h\" }]";
    let gateway = Gateway::start(&format!("{}\n{limit}\n", with(upstream.address(), server, "")));
    let ask = |connection: &mut Connection, client: &str| {
        connection.send(&http::request("GET", "/a", &headers(&[("X-Forwarded-For", client)]), b"")).unwrap();
        connection.answer("GET").unwrap().status
    };
    // The proxy's connections count in all only, and each client has its own bucket.
    let mut proxy: Vec<_> = (0..3).map(|_| Connection::open(gateway.address)).collect();
    let clients = ["203.0.113.1", "203.0.113.2", "203.0.113.1"];
    let told: Vec<_> = proxy.iter_mut().zip(clients).map(|(connection, client)| ask(connection, client)).collect();
    assert_eq!(told, [200, 200, 429]);
    // Anybody else has one place, and one bucket whatever it says of itself.
    let other = Ipv4Addr::new(127, 0, 0, 2);
    let mut first = Connection::open_from(other, gateway.address);
    assert_eq!((ask(&mut first, "203.0.113.3"), ask(&mut first, "203.0.113.4")), (200, 429));
    assert!(Connection::open_from(other, gateway.address).more().is_none());
    assert_eq!(gateway.metric("doorward_connections_refused_total{limit=\"max_connections_per_client\"}"), 1.0);
    assert_eq!(gateway.metric("doorward_connections"), 4.0);
}

#[test]
fn only_trusted_proxies_are_believed() {
    let upstream = Upstream::plain();
    let family = |seen: &Seen| {
        let of = |name: &str| seen.all(name).join("|");
        assert!(
            ["forwarded", "x-real-ip", "x-forwarded-port", "x-forwarded-server"].iter().all(|name| seen.all(name).is_empty()),
            "{seen:?}"
        );
        (of("x-forwarded-for"), of("x-forwarded-proto"), of("x-forwarded-host"))
    };
    let told = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());

    let strict = Gateway::start(&with(upstream.address(), "trusted_proxies = [\"10.0.0.0/8\", \"unix\"]", ""));
    let (seen, client) = origin_of(&strict, &upstream, &LIES);
    assert_eq!((family(&seen), client), (told("127.0.0.1", "http", ""), json!("127.0.0.1")));

    let trusting = Gateway::start(&with(upstream.address(), "trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]", ""));
    let (seen, client) = origin_of(&trusting, &upstream, &LIES);
    assert_eq!((family(&seen), client), (told("203.0.113.9, 127.0.0.1", "https", "chat.example.com"), json!("203.0.113.9")));
    let (seen, client) = origin_of(&trusting, &upstream, &[("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-For", "203.0.113.9, 10.0.0.2")]);
    assert_eq!((family(&seen), client), (told("203.0.113.9, 10.0.0.2, 127.0.0.1", "http", ""), json!("203.0.113.9")));
    let (seen, client) = origin_of(&trusting, &upstream, &[]);
    assert_eq!((family(&seen), client), (told("127.0.0.1", "http", ""), json!("127.0.0.1")));

    // A reload changes whom to believe, and what they write.
    let config = std::fs::read_to_string(trusting.path("doorward.toml")).unwrap();
    trusting.write("doorward.toml", &config.replace("trusted_proxies", "forwarded_by = \"forwarded\"\ntrusted_proxies"));
    trusting.generation(2);
    let (seen, client) = origin_of(&trusting, &upstream, &LIES);
    assert_eq!((family(&seen), client), (told("198.51.100.7, 127.0.0.1", "https", "other.example.com"), json!("198.51.100.7")));
}

#[test]
fn the_proxy_protocol_names_the_client_of_its_connection() {
    let upstream = Upstream::plain();
    let listener = "[[server.listener]]\naddress = \"127.0.0.1:0\"\nproxy_protocol = true";
    let gateway = Gateway::start(&with(upstream.address(), "trusted_proxies = [\"127.0.0.1\"]", listener));
    let request = http::request("GET", "/a", &headers(&[("X-Forwarded-For", "1.2.3.4")]), b"");
    let v2 = [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &[203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x67, 1, 0xbb]].concat();
    for header in [&b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n"[..], &v2] {
        let mut connection = Connection::open(gateway.last_place());
        connection.send(&[header, &request].concat()).unwrap();
        assert_eq!(connection.answer("GET").map(|a| a.status), Some(200));
        // The header is believed, and so its sender is no trusted proxy for the next hop.
        assert_eq!(upstream.last().one("x-forwarded-for"), "203.0.113.9");
        connection.send(&request).unwrap();
        assert_eq!(connection.answer("GET").map(|a| a.status), Some(200), "the same for the next request");
        assert_eq!(upstream.last().one("x-forwarded-for"), "203.0.113.9");
    }
    upstream.forget();
    for bytes in [&request[..], b"PROXY TCP4 a b c d\r\n", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n"] {
        let mut connection = Connection::open(gateway.last_place());
        connection.send(&[bytes, &request].concat()).unwrap();
        assert!(connection.answer("GET").is_none(), "closed without an answer");
    }
    assert!(upstream.seen().is_empty());
    // Nobody but them may speak it.
    let other = Gateway::start(&with(upstream.address(), "trusted_proxies = [\"10.0.0.0/8\"]", listener));
    let mut connection = Connection::open(other.last_place());
    let _ = connection.send(&[&b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 443\r\n"[..], &request].concat());
    assert!(connection.answer("GET").is_none() && upstream.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxy_protocol_stands_before_tls() {
    let (upstream, authority) = (Upstream::plain(), Authority::new("test"));
    let a = authority.server(&["a.example"]);
    let config = with_tls(upstream.address(), ONE)
        .replace("[server.listener.tls]", "proxy_protocol = true\n[server.listener.tls]")
        .replace("threads = 2", "threads = 2\ntrusted_proxies = [\"127.0.0.1\"]");
    let gateway = start(&config, &[("a", &a)], &[]);
    let mut stream = tokio::net::TcpStream::connect(gateway.last_place()).await.unwrap();
    stream.write_all(b"PROXY TCP6 2001:db8::9 2001:db8::1 4711 443\r\n").await.unwrap();
    let connector = TlsConnector::from(authority.client_config(&["http/1.1"]));
    let mut stream = connector.connect("a.example".try_into().unwrap(), stream).await.unwrap();
    stream.write_all(&http::request("GET", "/a", &headers(&[("Connection", "close")]), b"")).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!((upstream.last().one("x-forwarded-for"), upstream.last().one("x-forwarded-proto")), ("2001:db8::9", "https"));
}
