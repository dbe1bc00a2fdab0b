//! The `jwt` scheme.
