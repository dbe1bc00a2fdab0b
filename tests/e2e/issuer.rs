//! An issuer of keys: a real HTTPS server that answers as it is told, and counts who asks.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::pki::{Authority, Pair};

/// What it does with the next requests.
#[derive(Clone, Debug)]
pub enum Reply {
    /// These bytes, then the end.
    Bytes(Vec<u8>),
    /// The head of an answer, and then a byte of it every now and then, for ever.
    Trickle,
    /// Nothing until it is told something else, which it then does.
    Later,
}

/// A JWK Set with these keys.
pub fn set(keys: &[&Value]) -> Reply {
    json(&json!({ "keys": keys }).to_string(), "")
}

/// 200 with a body, and more header fields.
pub fn json(body: &str, fields: &str) -> Reply {
    Reply::Bytes(
        format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()).into(),
    )
}

#[derive(Default)]
struct Counts {
    fetches: AtomicUsize,
    now: AtomicUsize,
    most: AtomicUsize,
}

struct Shared {
    reply: Mutex<Reply>,
    told: Condvar,
    counts: Counts,
    stop: AtomicUsize,
    heads: Mutex<Vec<String>>,
}

/// The issuer; stops listening when dropped.
pub struct Issuer {
    address: SocketAddr,
    /// Who vouches for it.
    pub authority: Authority,
    shared: Arc<Shared>,
}

impl Issuer {
    /// With a certificate for 127.0.0.1.
    pub fn start(reply: Reply) -> Self {
        let authority = Authority::new("issuer's authority");
        let pair = authority.server(&["127.0.0.1"]);
        let config = Arc::new(server(&pair));
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let shared = Arc::new(Shared {
            reply: Mutex::new(reply),
            told: Condvar::new(),
            counts: Counts::default(),
            stop: AtomicUsize::new(0),
            heads: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stop.load(Ordering::SeqCst) > 0 {
                    return;
                }
                let Ok(stream) = stream else { return };
                let (shared, config) = (Arc::clone(&accepting), Arc::clone(&config));
                thread::spawn(move || drop(serve(stream, config, &shared)));
            }
        });
        Self { address, authority, shared }
    }

    pub fn url(&self) -> String {
        format!("https://{}/.well-known/jwks.json", self.address)
    }

    /// Answers like this from now on.
    pub fn say(&self, reply: Reply) {
        *self.shared.reply.lock().unwrap() = reply;
        self.shared.told.notify_all();
    }

    /// How many requests it got.
    pub fn fetches(&self) -> usize {
        self.shared.counts.fetches.load(Ordering::SeqCst)
    }

    /// How many of them it had at once, at most.
    pub fn most_at_once(&self) -> usize {
        self.shared.counts.most.load(Ordering::SeqCst)
    }

    /// The heads of the requests that it got.
    pub fn heads(&self) -> Vec<String> {
        self.shared.heads.lock().unwrap().clone()
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.shared.stop.store(1, Ordering::SeqCst);
        self.say(Reply::Bytes(Vec::new()));
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1)); // wakes accept()
    }
}

fn server(pair: &Pair) -> ServerConfig {
    let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap()
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, shared: &Shared) -> std::io::Result<()> {
    let mut stream = StreamOwned::new(ServerConnection::new(config).map_err(std::io::Error::other)?, stream);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    shared.heads.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
    let counts = &shared.counts;
    counts.fetches.fetch_add(1, Ordering::SeqCst);
    counts.most.fetch_max(counts.now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    let done = answer(&mut stream, shared);
    counts.now.fetch_sub(1, Ordering::SeqCst);
    done
}

fn answer(stream: &mut StreamOwned<ServerConnection, TcpStream>, shared: &Shared) -> std::io::Result<()> {
    let mut reply = shared.reply.lock().unwrap();
    while matches!(*reply, Reply::Later) {
        reply = shared.told.wait(reply).unwrap();
    }
    let reply = reply.clone();
    match reply {
        Reply::Bytes(bytes) => {
            stream.write_all(&bytes)?;
            stream.conn.send_close_notify();
            stream.flush()
        }
        Reply::Trickle | Reply::Later => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{\"keys\":[")?;
            while shared.stop.load(Ordering::SeqCst) == 0 {
                stream.write_all(b" ")?;
                stream.flush()?;
                thread::park_timeout(Duration::from_millis(50));
            }
            Ok(())
        }
    }
}
