//! What needs sockets: the real binary in front of a real upstream, asked with bytes and by real clients.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::string_slice, clippy::panic)] // in a test a panic is the answer

mod gateway;
mod http;
mod ingress;
mod issuer;
mod pki;
mod upstream;
#[path = "../verifiers/mod.rs"]
mod verifiers;

mod against;
mod bodies;
mod checks;
mod cli;
mod cors;
mod demo;
mod endings;
mod faults;
mod forward_auth;
mod forwarding;
mod hostile;
mod http2;
mod hygiene;
mod jwks;
mod life;
mod limits;
mod listeners;
mod manual;
mod operation;
mod pages;
mod readme;
mod reload;
mod secrecy;
mod sessions;
mod status;
mod streams;
mod telemetry;
mod tls;
mod upgrade;
mod upstream_failures;
mod upstream_timeouts;
mod upstream_tls;
mod upstreams;
mod vendors;
mod verification;
