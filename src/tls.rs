//! What a TLS listener shows its clients and asks of them, as one value that a reload replaces whole. Reads PEM text that
//! somebody else found; opens no file, no socket, and decides nothing about requests. Made by `config`, used by `server`.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::clock::UnixTime;

/// Longest name of a client that is taken from its certificate, in characters.
const LONGEST_NAME: usize = 256;

/// The oldest protocol that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    /// TLS 1.2 (RFC 5246), with the suites that RFC 9325 recommends: rustls has no others.
    #[default]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// Whether clients must have a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// No handshake without one.
    #[default]
    Required,
    /// One that is shown must be good; none is fine.
    Optional,
}

/// Why a certificate, key or authority cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// The certificate file, and why.
    Certificate(String),
    /// The key file, and why.
    Key(String),
    /// Both are good, but not of each other.
    Mismatch,
}

/// A certificate's name, and when it ends: for whoever has to renew it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// What [`name_of`] calls it; empty where that knows nothing.
    pub name: String,
    /// Unix seconds.
    pub not_after: i64,
}

impl Ending {
    /// Reads a certificate, as DER.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        Some(Self { name: name_of(certificate).unwrap_or_default(), not_after: parsed.validity().not_after.timestamp() })
    }
}

/// A chain with its key.
#[derive(Clone)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    not_before: i64,
    not_after: i64,
}

impl Certificate {
    /// Reads a chain, leaf first, and the leaf's key (PKCS#8, PKCS#1 or SEC 1).
    ///
    /// # Errors
    /// Which of the two is to blame, and why.
    pub fn parse(chain: &str, key: &str) -> Result<Self, Unusable> {
        let chain = certificates(chain).map_err(Unusable::Certificate)?;
        let leaf = chain.first().ok_or_else(|| Unusable::Certificate("no certificate in it".to_owned()))?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|e| Unusable::Certificate(format!("the first is no X.509: {e}")))?;
        let names = dns_names(&parsed);
        let (not_before, not_after) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| Unusable::Key("no private key in it".to_owned()))?;
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => Unusable::Mismatch,
            other => Unusable::Key(other.to_string()),
        })?;
        Ok(Self { key: Arc::new(key), names, not_before, not_after })
    }

    /// The host names that it is for, in lower case; `*.` starts a pattern.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether it can be shown at this time.
    pub fn is_valid(&self, now: UnixTime) -> bool {
        i64::try_from(now.secs()).is_ok_and(|now| (self.not_before..=self.not_after).contains(&now))
    }

    /// When it ends (Unix seconds).
    pub fn not_after(&self) -> i64 {
        self.not_after
    }
}

/// Names only: never the key.
impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({:?})", self.names)
    }
}

/// Authorities whose certificates clients may show.
#[derive(Clone, Debug)]
pub struct Clients {
    roots: Arc<RootCertStore>,
    auth: ClientAuth,
}

impl Clients {
    /// Reads the authorities.
    ///
    /// # Errors
    /// Why there is none.
    pub fn parse(authorities: &str, auth: ClientAuth) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for authority in certificates(authorities)? {
            roots.add(authority).map_err(|e| e.to_string())?;
        }
        if roots.is_empty() {
            return Err("no certificate in it".to_owned());
        }
        Ok(Self { roots: Arc::new(roots), auth })
    }
}

/// Everything that handshakes of one listener go by. Cheap to clone; every clone is equal to its original only.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    names: Vec<String>,
    endings: Vec<Ending>,
}

impl Tls {
    /// The first certificate is shown to clients that name no host, or one that no certificate is for.
    ///
    /// # Errors
    /// What the library says; with what the constructors above let through, nothing is known to fail.
    pub fn new(certificates: &[Certificate], min: MinVersion, clients: Option<&Clients>, http2: bool) -> Result<Self, String> {
        let versions: &[_] = match min {
            MinVersion::Tls12 => &[&TLS13, &TLS12],
            MinVersion::Tls13 => &[&TLS13],
        };
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions).map_err(|e| e.to_string())?;
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&clients.roots), provider());
                let verifier = if clients.auth == ClientAuth::Optional { verifier.allow_unauthenticated() } else { verifier };
                builder.with_client_cert_verifier(verifier.build().map_err(|e| e.to_string())?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(ByName::new(certificates)));
        config.alpn_protocols = if http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
        let names = certificates.iter().flat_map(|c| c.names.iter().cloned()).collect();
        let endings = certificates.iter().filter_map(|c| Ending::of(c.key.cert.first()?)).collect();
        Ok(Self { config: Arc::new(config), names, endings })
    }

    /// For a handshake.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// The host names that it has certificates for.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// When its certificates end.
    pub fn endings(&self) -> &[Ending] {
        &self.endings
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tls({:?})", self.names)
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
    }
}

impl Eq for Tls {}

/// What a client's certificate calls it: the subject's common name, else the first alternative name.
pub fn name_of(certificate: &[u8]) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let common = parsed.subject().iter_common_name().find_map(|name| name.as_str().ok().filter(|name| !name.is_empty()));
    let name = common.map(str::to_owned).or_else(|| alternative_names(&parsed).next());
    name.map(|name| name.chars().take(LONGEST_NAME).collect())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|e| format!("not PEM: {e}"))
}

fn alternative_names(certificate: &X509Certificate<'_>) -> impl Iterator<Item = String> {
    let names = certificate.subject_alternative_name().ok().flatten().map(|extension| &extension.value.general_names);
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => Some((*text).to_owned()),
        _ => None,
    };
    names.into_iter().flatten().filter_map(text).collect::<Vec<_>>().into_iter()
}

fn dns_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten().map(|extension| &extension.value.general_names);
    let dns = |name: &GeneralName<'_>| if let GeneralName::DNSName(text) = name { Some(text.to_ascii_lowercase()) } else { None };
    names.into_iter().flatten().filter_map(dns).collect()
}

/// Picks the certificate by the name in the ClientHello (RFC 6066 §3): exact, else a pattern for its parent, else the first
/// one. Among several for one name, the first whose key the client can verify: an ECDSA and an RSA one may stand side by side.
#[derive(Debug)]
struct ByName {
    all: Vec<Arc<CertifiedKey>>,
    named: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl ByName {
    fn new(certificates: &[Certificate]) -> Self {
        let mut named = HashMap::<_, Vec<_>>::new();
        for certificate in certificates {
            for name in &certificate.names {
                named.entry(name.clone()).or_default().push(Arc::clone(&certificate.key));
            }
        }
        Self { all: certificates.iter().map(|c| Arc::clone(&c.key)).collect(), named }
    }

    fn of(&self, host: &str) -> &[Arc<CertifiedKey>] {
        let host = host.to_ascii_lowercase();
        let pattern = || host.split_once('.').and_then(|(_, parent)| self.named.get(&format!("*.{parent}")));
        self.named.get(&host).or_else(pattern).map_or(&self.all, Vec::as_slice)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let candidates = hello.server_name().map_or(self.all.as_slice(), |host| self.of(host));
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        candidates.iter().find(fits).or_else(|| self.all.iter().find(fits)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn made(names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|n| (*n).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn the_name_picks_the_certificate() {
        let certificates: Vec<_> = [&["first.example", "www.first.example"][..], &["*.second.example"], &["a.second.example"]]
            .iter()
            .map(|names| made(names))
            .map(|(chain, key)| Certificate::parse(&chain, &key).unwrap())
            .collect();
        let by_name = ByName::new(&certificates);
        for (host, index) in [
            ("first.example", 0),
            ("WWW.first.example", 0),
            ("b.second.example", 1),
            ("a.second.example", 2),
            ("b.a.second.example", 0),
            ("second.example", 0),
            ("elsewhere.example", 0),
            ("localhost", 0),
        ] {
            assert!(Arc::ptr_eq(&by_name.of(host)[0], &certificates[index].key), "{host}");
        }
    }

    #[test]
    fn what_cannot_be_shown_is_refused() {
        let ((chain, key), (_, other)) = (made(&["a.example"]), made(&["b.example"]));
        assert_eq!(Certificate::parse(&chain, &key).unwrap().names(), ["a.example"]);
        assert_eq!(Certificate::parse(&chain, &other).unwrap_err(), Unusable::Mismatch);
        assert!(matches!(Certificate::parse("", &key).unwrap_err(), Unusable::Certificate(_)));
        assert!(matches!(Certificate::parse(&key, &key).unwrap_err(), Unusable::Certificate(_)));
        assert!(matches!(Certificate::parse(chain.split_at(chain.len() / 2).0, &key).unwrap_err(), Unusable::Certificate(_)));
        assert!(matches!(Certificate::parse(&chain, &chain).unwrap_err(), Unusable::Key(_)));
        assert!(Clients::parse(&key, ClientAuth::Required).is_err());
    }

    #[test]
    fn a_client_is_called_by_its_common_name_or_its_first_other_name() {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["billing.internal".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let unnamed = params.self_signed(&key).unwrap();
        params.distinguished_name.push(DnType::CommonName, "billing");
        let named = params.self_signed(&key).unwrap();
        assert_eq!(name_of(unnamed.der()).as_deref(), Some("billing.internal"));
        assert_eq!(name_of(named.der()).as_deref(), Some("billing"));
        assert_eq!(name_of(b"no certificate"), None);
    }
}
