//! An authority made for the test, what it signs, and a TLS client that trusts it and shows what it was shown.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A certificate and its key, as PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// An authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = called(name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A server's certificate for these names.
    pub fn server(&self, names: &[&str]) -> Pair {
        self.sign(names, names[0], ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// The same, a day after its end.
    pub fn expired(&self, names: &[&str]) -> Pair {
        let ended = |params: &mut CertificateParams| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2020, 1, 2);
        };
        self.sign_as(names, names[0], ExtendedKeyUsagePurpose::ServerAuth, ended)
    }

    /// The same, until the start of a year.
    pub fn server_until(&self, names: &[&str], year: i32) -> Pair {
        let ends = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(year, 1, 1);
        self.sign_as(names, names[0], ExtendedKeyUsagePurpose::ServerAuth, ends)
    }

    /// A client's.
    pub fn client(&self, name: &str) -> Pair {
        self.sign(&[], name, ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, names: &[&str], name: &str, purpose: ExtendedKeyUsagePurpose) -> Pair {
        self.sign_as(names, name, purpose, |_| ())
    }

    fn sign_as(&self, names: &[&str], name: &str, purpose: ExtendedKeyUsagePurpose, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = called(name);
        params.extended_key_usages = vec![purpose];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Pair { certificate: params.signed_by(&key, &self.0).unwrap().pem(), key: key.serialize_pem() }
    }

    /// What a client that trusts this authority asks for.
    pub fn trusted(
        &self,
        protocols: &[&str],
        versions: &[&'static rustls::SupportedProtocolVersion],
        own: Option<&Pair>,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem().as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap().with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap()];
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap()).unwrap()
            }
        };
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// The same with what clients have by default.
    pub fn client_config(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        self.trusted(protocols, rustls::DEFAULT_VERSIONS, None)
    }
}

fn called(name: &str) -> DistinguishedName {
    let mut called = DistinguishedName::new();
    called.push(DnType::CommonName, name);
    called
}

/// Shakes hands.
pub async fn connect(address: SocketAddr, host: &str, config: &Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(Arc::clone(config)).connect(ServerName::try_from(host.to_owned()).unwrap(), stream).await
}

/// The certificate that the server showed, as PEM body bytes.
pub fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

/// The same of a pair.
pub fn der(pair: &Pair) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()
}
