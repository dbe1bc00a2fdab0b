//! TLS towards backends: who is believed to be one, what it is shown, and that no connection of another identity is used.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::gateway::{Gateway, until};
use crate::http::PATIENCE;
use crate::pki::{Authority, Pair};
use crate::upstreams::{FORWARDED, ask, asked, config, standings};

/// The name that a client asked for, and whether it showed a certificate.
type Shaken = Arc<Mutex<Vec<(Option<String>, bool)>>>;

/// A backend that speaks TLS.
struct Secure {
    address: SocketAddr,
    shaken: Shaken,
    requests: Arc<AtomicUsize>,
}

impl Secure {
    /// Shows this; asks for certificates of `clients`.
    fn start(shown: &Pair, clients: Option<&Authority>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
                builder.with_client_cert_verifier(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap())
            }
        };
        let chain = vec![CertificateDer::from_pem_slice(shown.certificate.as_bytes()).unwrap()];
        let config = Arc::new(builder.with_single_cert(chain, PrivateKeyDer::from_pem_slice(shown.key.as_bytes()).unwrap()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let this = Self { address: listener.local_addr().unwrap(), shaken: Arc::default(), requests: Arc::default() };
        let (shaken, requests) = (Arc::clone(&this.shaken), Arc::clone(&this.requests));
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let (config, shaken, requests) = (Arc::clone(&config), Arc::clone(&shaken), Arc::clone(&requests));
                thread::spawn(move || serve(socket, config, &shaken, &requests));
            }
        });
        this
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn shaken(&self) -> Vec<(Option<String>, bool)> {
        self.shaken.lock().unwrap().clone()
    }
}

fn serve(socket: TcpStream, config: Arc<ServerConfig>, shaken: &Shaken, requests: &AtomicUsize) {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
    if stream.conn.complete_io(&mut stream.sock).is_err() {
        return;
    }
    shaken.lock().unwrap().push((stream.conn.server_name().map(str::to_owned), stream.conn.peer_certificates().is_some()));
    let mut read = [0; 16 * 1024];
    while stream.read(&mut read).is_ok_and(|n| n > 0) {
        requests.fetch_add(1, Ordering::SeqCst);
        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
            return;
        }
    }
}

fn secure(address: impl std::fmt::Display, tls: &str) -> String {
    config(&format!("address = \"{address}\"\n[upstream.tls]\n{tls}"), "", "")
}

/// Three requests, each when the one before is counted: then its connection is kept.
fn in_turn(gateway: &Gateway) {
    for n in 1..=3 {
        asked(gateway, "/a");
        gateway.counted(FORWARDED, f64::from(n));
    }
}

const OURS: &str = "ca = \"ca.pem\"";

#[test]
fn a_backend_is_believed_by_its_authority_and_its_name() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let by_name = ours.server(&["agent.internal"]);
    let by_address = ours.server(&["127.0.0.1"]);
    let (expired, foreign) = (ours.expired(&["agent.internal"]), other.server(&["agent.internal"]));
    let named = "ca = \"ca.pem\"\nserver_name = \"agent.internal\"";
    for (what, shown, tls, good) in [
        ("the right name", &by_name, named, true),
        ("the address itself", &by_address, OURS, true),
        ("another name than the address", &by_name, OURS, false),
        ("another name than asked for", &by_address, named, false),
        ("a certificate that has ended", &expired, named, false),
        ("another authority", &foreign, named, false),
        ("the system's authorities", &by_address, "", false),
    ] {
        let backend = Secure::start(shown, None);
        let gateway = Gateway::start_with(&secure(backend.address, tls), &[("ca.pem", &ours.pem())]);
        if good {
            in_turn(&gateway);
            assert_eq!((backend.requests(), backend.shaken().len()), (3, 1), "{what}: the connection is kept");
            let name = tls.contains("server_name").then(|| "agent.internal".to_owned());
            assert_eq!(backend.shaken()[0], (name, false), "{what}");
        } else {
            let answer = ask(&gateway, "/a", &[]);
            assert_eq!((answer.status, answer.reason()), (502, "upstream_tls"), "{what}: {answer:?}");
            let record = gateway.audit(answer.one("x-request-id"));
            assert!(record["detail"].as_str().is_some_and(|detail| detail.contains("certificate")), "{what}: {record}");
            assert_eq!(backend.requests(), 0, "{what}: nothing was sent");
        }
    }
}

#[test]
fn the_hosts_name_is_what_the_certificate_is_for() {
    let ours = Authority::new("ours");
    let backend = Secure::start(&ours.server(&["localhost"]), None);
    let gateway = Gateway::start_with(&secure(format!("localhost:{}", backend.address.port()), OURS), &[("ca.pem", &ours.pem())]);
    (0..3).for_each(|_| asked(&gateway, "/a"));
    assert_eq!(backend.shaken()[0].0.as_deref(), Some("localhost"));
}

#[test]
fn a_plain_backend_is_none_that_speaks_tls() {
    let ours = Authority::new("ours");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let plain = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut read = [0; 1024];
        let first = stream.read(&mut read).unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").unwrap();
        read[..first].to_vec()
    });
    let gateway = Gateway::start_with(&secure(address, OURS), &[("ca.pem", &ours.pem())]);
    let answer = ask(&gateway, "/a", &[]);
    assert_eq!((answer.status, answer.reason()), (502, "upstream_tls"), "{answer:?}");
    assert_eq!(plain.join().unwrap()[0], 22, "a handshake, and no request");
}

#[test]
fn a_backend_may_ask_who_we_are() {
    let (ours, clients) = (Authority::new("ours"), Authority::new("clients"));
    let (good, stranger) = (clients.client("doorward"), Authority::new("other").client("doorward"));
    let shown = ours.server(&["127.0.0.1"]);
    let own = "ca = \"ca.pem\"\nclient_certificate = \"client.pem\"\nclient_key = \"client.key\"";
    for (what, tls, pair, allowed) in
        [("nothing", OURS, &good, false), ("a stranger's", own, &stranger, false), ("a good one", own, &good, true)]
    {
        let backend = Secure::start(&shown, Some(&clients));
        let files = [("ca.pem", ours.pem()), ("client.pem", pair.certificate.clone()), ("client.key", pair.key.clone())];
        let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let gateway = Gateway::start_with(&secure(backend.address, tls), &files);
        let answer = ask(&gateway, "/a", &[]);
        assert_eq!((answer.status, answer.reason()), if allowed { (200, "") } else { (502, "upstream_tls") }, "{what}: {answer:?}");
        assert_eq!(backend.requests(), usize::from(allowed), "{what}");
        assert!(!gateway.log().contains("PRIVATE KEY"));
    }
}

/// The framework tells connections apart by neither authority nor key: we must.
#[test]
fn a_reload_uses_no_connection_of_another_identity() {
    let (first, second, clients) = (Authority::new("first"), Authority::new("second"), Authority::new("clients"));
    let backend = Secure::start(&first.server(&["127.0.0.1"]), Some(&clients));
    let (old, new) = (clients.client("old"), clients.client("new"));
    let tls = "ca = \"ca.pem\"\nclient_certificate = \"client.pem\"\nclient_key = \"client.key\"";
    let text = secure(backend.address, tls).replace("[upstream.tls]", "idle_timeout = \"1m\"\n[upstream.tls]");
    let pem = first.pem();
    let gateway = Gateway::start_with(&text, &[("ca.pem", &pem), ("client.pem", &old.certificate), ("client.key", &old.key)]);
    in_turn(&gateway);
    assert_eq!(backend.shaken().len(), 1, "kept");
    // Another certificate of ours: from the next request on.
    gateway.write("client.key", &new.key);
    gateway.write("client.pem", &new.certificate);
    gateway.generation(2);
    until("the new pair", || {
        asked(&gateway, "/a");
        (backend.shaken().len() == 2).then_some(())
    });
    // Another authority: the kept connections were made with one that is not believed any more.
    gateway.write("ca.pem", &second.pem());
    until("the new authority", || {
        let answer = ask(&gateway, "/a", &[]);
        (answer.reason() == "upstream_tls").then_some(())
    });
    assert_eq!(ask(&gateway, "/a", &[]).status, 502);
    gateway.write("ca.pem", "nonsense");
    until("the refusal", || gateway.log().contains("ca.pem cannot be used").then_some(()));
    gateway.write("ca.pem", &pem);
    until("the first again", || (ask(&gateway, "/a", &[]).status == 200).then_some(()));
}

#[test]
fn checks_speak_tls_too() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    for (authority, standing) in [(&ours, "available"), (&other, "unhealthy")] {
        let backend = Secure::start(&ours.server(&["127.0.0.1"]), None);
        let health = "ca = \"ca.pem\"\n[upstream.health]\npath = \"/healthz\"\ninterval = \"100ms\"\nunhealthy_after = 1";
        let gateway = Gateway::start_with(&secure(backend.address, health), &[("ca.pem", &authority.pem())]);
        until("a check", || (backend.requests() > 0 || standings(&gateway, "default")[0].1 == "unhealthy").then_some(()));
        assert_eq!(standings(&gateway, "default")[0].1, standing);
    }
}
