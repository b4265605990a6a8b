//! Guides, as documentation that compiles.
