//! What `doorward demo` is made of: a backend that verifies what the gateway tells it.

pub mod verify;
