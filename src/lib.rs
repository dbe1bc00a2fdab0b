//! Doorward: a gateway that stands in front of an AI chat backend and answers one question on every request: who is
//! talking, and how do we know?
//!
//! ```text
//!  bytes ──▶ server ──▶ request ──▶ admission::decide ──▶ assertion ──▶ upstream
//!            (wire,     (one        (tenant, origin,      (strip what
//!             hygiene)   reading)    token, policy)        is reserved, sign)
//!                                        │
//!                                        └──▶ reason ──▶ problem+json, metric, audit record, manual
//! ```
//!
//! # Where to look
//!
//! | question | module |
//! |---|---|
//! | In which order is a request judged? | [`admission::decide`], top to bottom |
//! | Why was it stopped? | [`reason`], the one table |
//! | What did the client send, in its one reading? | [`request`] |
//! | Is this token authentic, and what does it say? | [`token`]: formats prove bytes, [`token::claims`] judges them |
//! | What are sessions bound to? | [`token::session`], re-judged in [`admission`] on every call |
//! | What does a tenant ask? | [`tenant`], [`policy`]; vendors' conventions are data in `tenant/presets` |
//! | What is the upstream told? | [`assertion`] |
//! | Where do requests go, and to which address? | [`upstream`] |
//! | How do bytes become a configuration, or every problem? | [`config`] |
//! | What changes while it runs? | [`snapshot`], [`reload`], [`revocations`], [`jwks`] |
//! | What does the framework do, and what do we keep it from doing? | [`server`], the only code that names it |
//! | What does an operator see? | [`observe`], [`status`], [`manual`] |
//! | What does the page load? | [`client`] |
//!
//! # What always holds
//!
//! - Only [`admission::decide`] makes an [`admission::Admitted`], and only an `Admitted` can be signed.
//! - Only [`token::claims`] makes a [`token::claims::VerifiedSubject`]: no format can forget expiry.
//! - Decisions are pure: time, rules and revocations are arguments; no I/O, no clock, no framework.
//! - A request is judged by one [`snapshot::Snapshot`] from its head to its log line.
//! - Reserved names are removed in every mode, on every path, in both directions, before ours are set.
//! - Anything unclear is a denial with a reason.
//!
//! Modules import downwards only: see `manual::decisions::layers`, kept by a test.

pub mod admission;
pub mod assertion;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod cors;
pub mod demo;
pub mod json;
pub mod jwks;
pub mod limits;
pub mod manual;
pub mod observe;
pub mod outbound;
pub mod policy;
pub mod reason;
pub mod reload;
pub mod request;
pub mod revocations;
pub mod secret;
pub mod server;
pub mod snapshot;
pub mod status;
pub mod tenant;
pub mod tls;
pub mod token;
pub mod upstream;

/// Installs the process-wide cryptography providers of `jsonwebtoken` and `rustls`: without them the first use panics. Safe to
/// call more than once.
pub fn install_crypto() {
    // An error means that one is installed already.
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    let _ = rustls::crypto::ring::default_provider().install_default();
}
