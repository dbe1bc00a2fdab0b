//! Doorward: a gateway that answers one question on every request: who is talking, and how do we know?

pub mod admission;
pub mod assertion;
pub mod cli;
pub mod clock;
pub mod config;
pub mod cors;
pub mod json;
pub mod policy;
pub mod reason;
pub mod request;
pub mod revocations;
pub mod secret;
pub mod snapshot;
pub mod tenant;
pub mod token;
