//! Guides, as documentation that compiles.

pub mod address_text;
pub mod changing_tables;
pub mod content;
pub mod crash_tests;
pub mod durability;
pub mod envelope;
pub mod log_format;
pub mod mailbox_owners;
pub mod map_format;
pub mod notices;
pub mod postfix_differences;
