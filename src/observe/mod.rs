//! What an operator sees: every metric in one place, and the one audit record per request. Never a token, a key or a claim.

pub mod audit;
pub mod lines;
pub mod metrics;
