//! Guides, as documentation that compiles.

pub mod durability;
