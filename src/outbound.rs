//! Requests that the gateway makes of its own accord: to issuers of keys and to a collector of spans, where a configuration
//! names one. One request,
//! one answer of bounded size in bounded time, over HTTP/1.1. Follows no redirect, asks no proxy (the environment's proxy
//! variables are not read), keeps no cookie, and is never called on a request's path.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// Largest head of an answer, in bytes.
const LARGEST_HEAD: usize = 32 * 1024;

/// Whose certificates are believed.
#[derive(Clone, Debug)]
pub struct Roots(RootCertStore);

impl Roots {
    /// Those of the system: the files that OpenSSL would read, or `SSL_CERT_FILE` and `SSL_CERT_DIR`. Reads files.
    ///
    /// # Errors
    /// When there is none.
    pub fn system() -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs().map_err(|e| format!("the system's authorities cannot be read: {e}"))?;
        roots.add_parsable_certificates(found);
        if roots.is_empty() {
            return Err("the system has no certificate authorities; install ca-certificates, or name them by ca".to_owned());
        }
        Ok(Self(roots))
    }

    /// Nobody's: for `http`.
    pub fn none() -> Self {
        Self(RootCertStore::empty())
    }

    /// Those in a PEM text, and no others.
    ///
    /// # Errors
    /// Why there is none.
    pub fn pem(text: &str) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
            roots.add(certificate.map_err(|e| format!("not PEM: {e}"))?).map_err(|e| e.to_string())?;
        }
        if roots.is_empty() { Err("no certificate in it".to_owned()) } else { Ok(Self(roots)) }
    }
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// All of its body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// No connection, no trust, or it broke off.
    Broken(String),
    /// It took longer than allowed.
    Late(Duration),
    /// Its body is larger than allowed, in bytes.
    TooLarge(usize),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(why) => f.write_str(why),
            Self::Late(allowed) => write!(f, "no answer within {allowed:?}"),
            Self::TooLarge(most) => write!(f, "the answer is larger than {most} bytes"),
        }
    }
}

impl Error for Failure {}

/// A client. Needs a tokio runtime when it is used, not when it is made.
#[derive(Clone, Debug)]
pub struct Client(legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Client {
    /// Keeps up to `idle` unused connections for the next request.
    ///
    /// # Errors
    /// What the TLS library says; nothing is known to fail.
    pub fn new(roots: Roots, idle: usize) -> Result<Self, String> {
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|e| e.to_string())?;
        let tls = tls.with_root_certificates(roots.0).with_no_client_auth();
        // The URL's scheme decides: the configuration took http for this machine only.
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder.pool_max_idle_per_host(idle).http1_max_buf_size(LARGEST_HEAD);
        Ok(Self(builder.build(connector)))
    }

    /// Sends a request and reads its answer, of at most `most` bytes and `within` this time from the first name lookup to the
    /// last byte.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn send(&self, request: Request<Bytes>, most: usize, within: Duration) -> Result<Answer, Failure> {
        let exchange = async {
            let answer = self.0.request(request.map(Full::new)).await.map_err(|e| Failure::Broken(whole(&e)))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, most).collect().await.map_err(|e| match e.downcast::<http_body_util::LengthLimitError>() {
                Ok(_) => Failure::TooLarge(most),
                Err(other) => Failure::Broken(whole(other.as_ref())),
            })?;
            Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
        };
        tokio::time::timeout(within, exchange).await.unwrap_or(Err(Failure::Late(within)))
    }
}

/// An error with its causes: the outermost says little.
fn whole(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_certificates() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["idp.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        assert!(Roots::pem(&certificate.pem()).is_ok());
        for other in [String::new(), key.serialize_pem(), certificate.pem().replace('M', "!")] {
            assert!(Roots::pem(&other).is_err(), "{other}");
        }
    }
}
