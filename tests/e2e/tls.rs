//! TLS listeners: which certificate is shown, how it is replaced while connections live, what clients must have.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::gateway::{self, ASSERTION_KEY, Gateway, KEY, ORIGIN, SECRET, halo, until};
use crate::http::{self, PATIENCE};
use crate::pki::{Authority, Pair, connect, der, shown};
use crate::upstream::Upstream;

/// [`halo`] with one TLS listener; its table goes on with these lines.
pub(crate) fn with_tls(upstream: SocketAddr, tls: &str) -> String {
    let listener = format!("[[server.listener]]\naddress = \"127.0.0.1:0\"\n[server.listener.tls]\n{tls}\n[upstream]");
    halo(upstream, "").replace("[upstream]", &listener)
}

pub(crate) const ONE: &str = "certificates = [{ certificate = \"a.pem\", key = \"a.key\" }]";

pub(crate) fn start(config: &str, pairs: &[(&str, &Pair)], more: &[(&str, &str)]) -> Gateway {
    let named: Vec<_> =
        pairs.iter().flat_map(|(name, pair)| [(format!("{name}.pem"), &pair.certificate), (format!("{name}.key"), &pair.key)]).collect();
    let mut files: Vec<_> = named.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    files.extend_from_slice(more);
    Gateway::start_with(config, &files)
}

fn anonymous(path: &str) -> Vec<u8> {
    http::request("GET", path, &[("Authorization", &format!("Bearer {KEY}")), ("Origin", ORIGIN)], b"")
}

/// Sends a request on a connection that is kept, and reads its answer's head and 11 bytes of body.
async fn ask(stream: &mut TlsStream<TcpStream>, path: &str) -> std::io::Result<String> {
    stream.write_all(&anonymous(path)).await?;
    let mut read = Vec::new();
    while !read.ends_with(b"{\"ok\":true}") {
        if tokio::time::timeout(PATIENCE, stream.read_buf(&mut read)).await.expect("an answer in time")? == 0 {
            return Err(std::io::Error::other(format!("closed after {:?}", String::from_utf8_lossy(&read))));
        }
    }
    Ok(String::from_utf8(read).unwrap())
}

/// Connects and asks: with TLS 1.3 a client learns only with the first byte that its certificate was refused.
async fn served(address: SocketAddr, config: &Arc<ClientConfig>) -> std::io::Result<String> {
    let mut stream = connect(address, "a.example", config).await?;
    ask(&mut stream, "/a").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_name_that_a_client_asks_for_picks_the_certificate() {
    let (upstream, authority) = (Upstream::plain(), Authority::new("test"));
    let (a, b) = (authority.server(&["a.example"]), authority.server(&["*.b.example", "b.example"]));
    let two = "certificates = [{ certificate = \"a.pem\", key = \"a.key\" }, { certificate = \"b.pem\", key = \"b.key\" }]";
    let gateway = start(&with_tls(upstream.address(), two), &[("a", &a), ("b", &b)], &[]);
    let config = authority.client_config(&["http/1.1"]);
    for (host, pair) in [("a.example", &a), ("b.example", &b), ("x.b.example", &b), ("X.B.EXAMPLE", &b)] {
        let mut stream = connect(gateway.last_place(), host, &config).await.unwrap();
        assert_eq!(shown(&stream), der(pair), "{host}");
        assert!(ask(&mut stream, "/a").await.unwrap().starts_with("HTTP/1.1 200"), "{host}");
        assert_eq!(upstream.last().one("x-forwarded-proto"), "https");
        assert_eq!(upstream.last().one("x-forwarded-for"), "127.0.0.1");
    }
    for host in ["y.x.b.example", "elsewhere.example"] {
        let refused = connect(gateway.last_place(), host, &config).await.unwrap_err();
        assert!(refused.to_string().contains("not valid for name"), "the first certificate is shown for {host}: {refused}");
    }
    // The plain listener beside it is what it was.
    assert_eq!(http::send(gateway.address, anonymous("/a")).status, 200);
    assert_eq!(upstream.last().one("x-forwarded-proto"), "http");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_certificate_is_shown_from_the_next_handshake_on_and_no_connection_is_lost() {
    let (upstream, authority) = (Upstream::plain(), Authority::new("test"));
    let first = authority.server(&["a.example"]);
    let gateway = start(&with_tls(upstream.address(), ONE), &[("a", &first)], &[]);
    let config = authority.client_config(&["http/1.1"]);
    let mut kept = connect(gateway.last_place(), "a.example", &config).await.unwrap();
    ask(&mut kept, "/before").await.unwrap();

    // One file after the other, as `cp` does it: the half is refused, or never seen.
    let second = authority.server(&["a.example"]);
    gateway.write("a.pem", &second.certificate);
    gateway.write("a.key", &second.key);
    gateway.generation(2);
    // Requests go on all the while on the old connection, and new connections are made.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        ask(&mut kept, "/between").await.expect("the old connection lives");
        let mut stream = connect(gateway.last_place(), "a.example", &config).await.expect("a handshake");
        ask(&mut stream, "/new").await.expect("a new connection is served");
        if shown(&stream) == der(&second) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "the new certificate was never shown");
    }
    assert_eq!(shown(&kept), der(&first));

    // A broken one is refused, and the last good one stays.
    gateway.write("a.key", &first.key);
    until("the refusal", || gateway.log().contains("is not the one of certificate").then_some(()));
    let mut stream = connect(gateway.last_place(), "a.example", &config).await.unwrap();
    assert_eq!(shown(&stream), der(&second));
    ask(&mut stream, "/after").await.unwrap();
    ask(&mut kept, "/after").await.unwrap();
    std::fs::remove_file(gateway.path("a.pem")).unwrap();
    until("the refusal", || gateway.log().contains("cannot read").then_some(()));
    assert_eq!(shown(&connect(gateway.last_place(), "a.example", &config).await.unwrap()), der(&second));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_protocols_than_allowed_are_refused() {
    let (upstream, authority) = (Upstream::plain(), Authority::new("test"));
    let a = authority.server(&["a.example"]);
    let old = authority.trusted(&["http/1.1"], &[&TLS12], None);
    let new = authority.trusted(&["http/1.1"], &[&TLS13], None);
    let both = start(&with_tls(upstream.address(), ONE), &[("a", &a)], &[]);
    assert!(served(both.last_place(), &old).await.is_ok() && served(both.last_place(), &new).await.is_ok());
    let strict = start(&with_tls(upstream.address(), &format!("{ONE}\nmin_version = \"1.3\"")), &[("a", &a)], &[]);
    let refused = served(strict.last_place(), &old).await.unwrap_err();
    assert!(refused.to_string().contains("ProtocolVersion"), "{refused}");
    assert!(served(strict.last_place(), &new).await.is_ok());
    // A reload changes it for new connections.
    strict.write("doorward.toml", &std::fs::read_to_string(strict.path("doorward.toml")).unwrap().replace("\"1.3\"", "\"1.2\""));
    strict.generation(2);
    assert!(served(strict.last_place(), &old).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_show_certificates_of_the_authority_and_are_named_in_the_audit_record() {
    let (upstream, authority, stranger) = (Upstream::plain(), Authority::new("test"), Authority::new("stranger"));
    let (a, good, bad) = (authority.server(&["a.example"]), authority.client("billing"), stranger.client("billing"));
    let files = [("ca.pem", authority.pem())];
    let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let of = |own: Option<&Pair>, versions: &[&'static rustls::SupportedProtocolVersion]| authority.trusted(&["http/1.1"], versions, own);
    let required = start(&with_tls(upstream.address(), &format!("{ONE}\nclient_ca = \"ca.pem\"")), &[("a", &a)], &files);
    for versions in [&[&TLS12][..], &[&TLS13]] {
        assert!(served(required.last_place(), &of(None, versions)).await.is_err(), "without one");
        assert!(served(required.last_place(), &of(Some(&bad), versions)).await.is_err(), "of another authority");
        assert!(served(required.last_place(), &of(Some(&a), versions)).await.is_err(), "a server's");
        assert!(upstream.seen().is_empty());
        let answer = served(required.last_place(), &of(Some(&good), versions)).await.unwrap();
        let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap_or_else(|| panic!("{answer}"));
        assert_eq!(required.audit(id)["client_certificate"], "billing");
        assert_eq!(required.audit(id)["client"], "127.0.0.1");
        assert!(
            upstream.last().headers.iter().all(|(name, value)| !name.contains("cert") && !value.contains("billing")),
            "{:?}",
            upstream.last()
        );
        // The next connection resumes the session, and its client has the same name.
        let config = of(Some(&good), versions);
        for _ in 0..2 {
            let answer = served(required.last_place(), &config).await.unwrap();
            let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();
            assert_eq!(required.audit(id)["client_certificate"], "billing");
        }
        upstream.forget();
    }
    let optional = format!("{ONE}\nclient_ca = \"ca.pem\"\nclient_auth = \"optional\"");
    let optional = start(&with_tls(upstream.address(), &optional), &[("a", &a)], &files);
    assert!(served(optional.last_place(), &of(Some(&bad), &[&TLS13])).await.is_err(), "one that is shown must be good");
    assert!(served(optional.last_place(), &of(Some(&good), &[&TLS13])).await.is_ok());
    let answer = served(optional.last_place(), &of(None, &[&TLS13])).await.unwrap();
    let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();
    assert_eq!(optional.audit(id).get("client_certificate"), None);
}

#[test]
fn what_cannot_be_listened_on_or_shown_ends_the_process_with_a_clear_error() {
    let (upstream, authority) = (Upstream::plain(), Authority::new("test"));
    let (a, b) = (authority.server(&["a.example"]), authority.server(&["b.example"]));
    let run = |config: &str, key: &str| {
        let directory = tempfile::tempdir().unwrap();
        let files = [
            ("doorward.toml", config),
            ("identity.key", SECRET),
            ("assertion.key", ASSERTION_KEY),
            ("a.pem", &a.certificate),
            ("a.key", key),
        ];
        files.iter().for_each(|(name, text)| std::fs::write(directory.path().join(name), text).unwrap());
        let run = gateway::doorward(&["run", "-c", "doorward.toml"], directory.path());
        (run.status.code(), String::from_utf8_lossy(&run.stderr).into_owned())
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = with_tls(upstream.address(), ONE);
    let (code, error) = run(&config.replace("address = \"127.0.0.1:0\"", &format!("address = \"{address}\"")), &a.key);
    assert!(code == Some(1) && error.contains(&format!("cannot listen on {address}")), "{code:?} {error}");
    let (code, error) = run(&config, &b.key);
    assert!(code == Some(2) && error.contains("key a.key is not the one of certificate a.pem"), "{code:?} {error}");
    let unix = halo(upstream.address(), "").replace("[upstream]", "[[server.listener]]\nunix = \"nowhere/s\"\n[upstream]");
    let (code, error) = run(&unix, &a.key);
    assert!(code == Some(1) && error.contains("cannot listen on unix:nowhere/s"), "{code:?} {error}");
}

#[test]
fn who_does_not_shake_hands_holds_nobody_up() {
    let (upstream, authority) = (Upstream::plain(), Authority::new("test"));
    let a = authority.server(&["a.example"]);
    let gateway = start(&with_tls(upstream.address(), ONE), &[("a", &a)], &[]);
    // Silent ones, plain HTTP on the TLS port, half a ClientHello.
    let mut held = Vec::new();
    for bytes in [&b""[..], b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00"].iter().cycle().take(60) {
        let mut stream = std::net::TcpStream::connect(gateway.last_place()).unwrap();
        stream.write_all(bytes).unwrap();
        held.push(stream);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let config = authority.client_config(&["http/1.1"]);
        let served = tokio::time::timeout(Duration::from_secs(5), served(gateway.last_place(), &config)).await;
        assert!(served.expect("in time").is_ok());
    });
    assert!(!gateway.log().contains("ERROR"), "{}", gateway.log());
}

fn limited(upstream: SocketAddr, limits: &str) -> String {
    with_tls(upstream, ONE).replace("\n[upstream]", &format!("\n[server.limits]\n{limits}\n[upstream]"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_shake_hands_takes_a_place_all_the_same() {
    let (upstream, authority) = (Upstream::plain(), Authority::new("test"));
    let a = authority.server(&["a.example"]);
    let gateway = start(&limited(upstream.address(), "max_connections_per_client = 2"), &[("a", &a)], &[]);
    let silent: Vec<_> = (0..2).map(|_| std::net::TcpStream::connect(gateway.last_place()).unwrap()).collect();
    until("both to have a place", || (gateway.metric("doorward_connections") == 2.0).then_some(()));
    let config = authority.client_config(&["http/1.1"]);
    assert!(connect(gateway.last_place(), "a.example", &config).await.is_err());
    assert_eq!(gateway.metric("doorward_connections_refused_total{limit=\"max_connections_per_client\"}"), 1.0);
    drop(silent);
    until("the places to be free", || (gateway.metric("doorward_connections") == 0.0).then_some(()));
    assert!(served(gateway.last_place(), &config).await.unwrap().starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_has_its_deadline_under_tls_too() {
    let (upstream, authority) = (Upstream::plain(), Authority::new("test"));
    let a = authority.server(&["a.example"]);
    let gateway = start(&limited(upstream.address(), "header_timeout = \"500ms\""), &[("a", &a)], &[]);
    let mut stream = connect(gateway.last_place(), "a.example", &authority.client_config(&["http/1.1"])).await.unwrap();
    assert!(ask(&mut stream, "/a").await.unwrap().starts_with("HTTP/1.1 200"));
    stream.write_all(b"GET /a HTTP/1.1\r\nHost: a.exa").await.unwrap();
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("to be closed in time"); // however it ends
    assert_eq!(gateway.metric("doorward_connections_cut_total{late=\"header\"}"), 1.0);
    until("its place to be free", || (gateway.metric("doorward_connections") == 0.0).then_some(()));
}
