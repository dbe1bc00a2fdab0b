//! Configuration: what loads, and what every diagnostic looks like.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::string_slice, clippy::panic)] // in a test a panic is the answer

#[path = "config/any_bytes.rs"]
mod any_bytes;
#[path = "config/directory.rs"]
mod directory;
#[path = "config/examples.rs"]
mod examples;
#[path = "config/golden.rs"]
mod golden;
#[path = "config/manual.rs"]
mod manual;
#[path = "config/presets.rs"]
mod presets;
#[path = "config/reference.rs"]
mod reference;
#[path = "config/rules.rs"]
mod rules;
