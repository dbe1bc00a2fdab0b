//! Doorward: a gateway that answers one question on every request: who is talking, and how do we know?

pub mod admission;
pub mod assertion;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod cors;
pub mod demo;
pub mod json;
pub mod limits;
pub mod manual;
pub mod observe;
pub mod policy;
pub mod reason;
pub mod reload;
pub mod request;
pub mod resolver;
pub mod revocations;
pub mod secret;
pub mod server;
pub mod snapshot;
pub mod tenant;
pub mod token;

/// Installs the process-wide cryptography providers of `jsonwebtoken` and `rustls`: without them the first use panics. Safe to
/// call more than once.
pub fn install_crypto() {
    // An error means that one is installed already.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    let _ = rustls::crypto::ring::default_provider().install_default();
}
