//! Configuration: what loads, and what every diagnostic looks like.

#[path = "config/presets.rs"]
mod presets;
