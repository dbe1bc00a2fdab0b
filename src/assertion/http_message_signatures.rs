//! The RFC 9421 scheme.
