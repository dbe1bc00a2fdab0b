//! What an operator sees: every metric in one place, the one audit record per request, and
//! spans for whoever collects them. Never a token, a key or a claim.

pub mod audit;
pub mod key_sets;
pub mod lines;
pub mod metrics;
pub mod telemetry;
