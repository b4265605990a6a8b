//! Guides, as documentation that compiles.

pub mod durability;
pub mod map_format;
