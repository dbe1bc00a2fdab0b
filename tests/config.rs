//! Configuration: what loads, and what every diagnostic looks like.

#[path = "config/any_bytes.rs"]
mod any_bytes;
#[path = "config/directory.rs"]
mod directory;
#[path = "config/examples.rs"]
mod examples;
#[path = "config/golden.rs"]
mod golden;
#[path = "config/presets.rs"]
mod presets;
#[path = "config/rules.rs"]
mod rules;
