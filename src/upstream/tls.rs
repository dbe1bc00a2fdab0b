//! What an upstream is shown over TLS and what it must show: the name that its certificate is for, the authorities that may
//! have signed it, and our own certificate where it asks for one. There is no switch that leaves verification out. Reads PEM
//! text that somebody else found; opens no file and no socket.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sha2::{Digest as _, Sha256};

use super::first_eight;
use crate::tls::{Certificate, Ending};

/// TLS towards one upstream.
pub struct ClientTls {
    /// The name that certificates must be for; `None`: the host of the address.
    server_name: Option<String>,
    /// Authorities, as DER; empty: the system's.
    authorities: Vec<Vec<u8>>,
    /// Our own chain, leaf first, and its key, as DER.
    own: Option<(Vec<Vec<u8>>, Vec<u8>)>,
    /// When our own certificate ends.
    ending: Option<Ending>,
    /// Of all of the above: connections are shared by equal ones only.
    group: u64,
    /// What whoever connects made of it, so that it is made once.
    prepared: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl ClientTls {
    /// Puts together what was read by [`authorities`] and [`own`].
    pub fn new(server_name: Option<String>, authorities: Vec<Vec<u8>>, own: Option<(Vec<Vec<u8>>, Vec<u8>)>) -> Self {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        part(server_name.as_deref().unwrap_or_default().as_bytes());
        part(&(authorities.len() as u64).to_be_bytes());
        authorities.iter().for_each(|authority| part(authority));
        if let Some((chain, key)) = &own {
            chain.iter().for_each(|certificate| part(certificate));
            part(key);
        }
        let group = first_eight(hash.finalize().into()).max(1); // 0 is what is not TLS
        let ending = own.as_ref().and_then(|(chain, _)| Ending::of(chain.first()?));
        Self { server_name, authorities, own, ending, group, prepared: OnceLock::new() }
    }

    /// The name that certificates must be for, where it is not the address's host.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// Authorities as DER; empty: the system's.
    pub fn authorities(&self) -> &[Vec<u8>] {
        &self.authorities
    }

    /// Our own chain, leaf first, and its key, as DER.
    pub fn own(&self) -> Option<(&[Vec<u8>], &[u8])> {
        self.own.as_ref().map(|(chain, key)| (chain.as_slice(), key.as_slice()))
    }

    /// When our own certificate ends, where there is one.
    pub fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// Another number for another name, authority, certificate or key: a connection that was made with one must not be used for
    /// another.
    pub fn group(&self) -> u64 {
        self.group
    }

    /// What `make` makes of it, made once.
    pub fn prepared<T: Any + Send + Sync>(&self, make: impl FnOnce(&Self) -> T) -> Option<Arc<T>> {
        let made = self.prepared.get_or_init(|| Arc::new(make(self)));
        Arc::clone(made).downcast().ok()
    }
}

/// Names only: never the key.
impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientTls({:?}, {} authorities, own certificate: {})", self.server_name, self.authorities.len(), self.own.is_some())
    }
}

impl PartialEq for ClientTls {
    fn eq(&self, other: &Self) -> bool {
        self.group == other.group
    }
}

impl Eq for ClientTls {}

/// Reads authorities.
///
/// # Errors
/// Why there is none that can be used.
pub fn authorities(pem: &str) -> Result<Vec<Vec<u8>>, String> {
    let read = certificates(pem)?;
    let mut roots = rustls::RootCertStore::empty();
    for authority in &read {
        roots.add(CertificateDer::from_slice(authority)).map_err(|e| e.to_string())?;
    }
    if read.is_empty() { Err("no certificate in it".to_owned()) } else { Ok(read) }
}

/// Takes a chain and its key apart that [`Certificate::parse`] found good.
///
/// # Errors
/// What cannot be read.
pub fn own(chain: &str, key: &str, _: &Certificate) -> Result<(Vec<Vec<u8>>, Vec<u8>), String> {
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| e.to_string())?;
    Ok((certificates(chain)?, key.secret_der().to_vec()))
}

/// Whether a name can stand in a certificate: a DNS name or an IP address.
pub fn is_name(text: &str) -> bool {
    ServerName::try_from(text).is_ok()
}

fn certificates(pem: &str) -> Result<Vec<Vec<u8>>, String> {
    let read = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>().map_err(|e| format!("not PEM: {e}"))?;
    let der = |certificate: &CertificateDer<'_>| {
        // Whoever connects parses it again, and does not expect to fail.
        x509_parser::parse_x509_certificate(certificate).map(|_| certificate.to_vec()).map_err(|e| format!("no X.509: {e}"))
    };
    read.iter().map(der).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    fn made(name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        (CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn every_part_makes_another_group() {
        let (first, second) = (made("a.example"), made("a.example"));
        let read = |(chain, key): &(String, String)| own(chain, key, &Certificate::parse(chain, key).unwrap()).unwrap();
        let all = [
            ClientTls::new(None, Vec::new(), None),
            ClientTls::new(Some("a.example".to_owned()), Vec::new(), None),
            ClientTls::new(None, authorities(&first.0).unwrap(), None),
            ClientTls::new(None, authorities(&second.0).unwrap(), None),
            ClientTls::new(None, Vec::new(), Some(read(&first))),
            ClientTls::new(None, Vec::new(), Some(read(&second))),
        ];
        let mut groups: Vec<_> = all.iter().map(ClientTls::group).collect();
        groups.sort_unstable();
        groups.dedup();
        assert_eq!(groups.len(), all.len());
        assert_eq!(ClientTls::new(None, authorities(&first.0).unwrap(), None), all[2], "the same files again");
        assert!(!format!("{:?}", all[4]).contains("PRIVATE") && authorities("").is_err() && authorities(&first.1).is_err());
    }

    #[test]
    fn it_is_prepared_once() {
        let tls = ClientTls::new(None, Vec::new(), None);
        assert_eq!((tls.prepared(|_| 1_u8).as_deref(), tls.prepared(|_| 2_u8).as_deref()), (Some(&1), Some(&1)));
    }
}
