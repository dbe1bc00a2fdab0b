//! Identity tokens, from text to subject: vendors' and standards' vectors, and each attack beside its harmless twin.

// A test binary: nothing imports it, and what does not hold may panic.
#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, clippy::string_slice)]

mod tokens {
    pub mod attacks;
    pub mod claims;
    pub mod explain;
    pub mod properties;
    pub mod support;
    pub mod vectors;
}
