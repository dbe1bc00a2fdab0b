//! What an operator sees: metrics, what became of them in the last hour, recent denials, and one audit record per request,
//! written and read back.

pub mod audit;
pub mod history;
pub mod metrics;
pub mod past;
pub mod plain;
pub mod recent;
