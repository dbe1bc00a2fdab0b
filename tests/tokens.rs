//! Identity tokens, from text to subject: vendors' and standards' vectors, and each attack beside its harmless twin.

#![allow(missing_docs, unreachable_pub)] // a test binary: nothing imports it

mod tokens {
    pub mod attacks;
    pub mod claims;
    pub mod properties;
    pub mod support;
    pub mod vectors;
}
