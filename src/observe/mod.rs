//! What an operator sees: metrics, what became of them in the last hour, recent denials, one audit record per request, written
//! and read back, and spans for whoever collects them. Never a token, a key or a claim.

pub mod audit;
pub mod counts;
mod credentials;
pub mod history;
pub mod key_sets;
pub mod lines;
pub mod metrics;
pub mod past;
pub mod plain;
pub mod recent;
pub mod telemetry;
