//! The guides, as documentation that compiles.
//!
//! | guide | about |
//! |---|---|
//! | [`embedding`] | how a program uses the engine, step by step |
//! | [`durability`] | when a message is durable, and every state that a crash can leave |
//! | [`postfix_differences`] | where recipients and deliveries differ from Postfix, and why |
//! | [`changing_tables`] | when a changed table takes effect, and how to change one |
//! | [`content`] | how the bytes of a message are converted, and its trace headers |
//! | [`envelope`] | how addresses and parameters of an envelope are parsed |
//! | [`address_text`] | where the text of an address goes, and why no sender can abuse it |
//! | [`mailbox_owners`] | who may own the directories of a mailbox |
//! | [`notices`] | which server sends success notices |
//! | [`map_format`] | the bytes of a recipient map |
//! | [`log_format`] | the bytes of the delivery log |
//! | [`crash_tests`] | how the guarantees are tested, and how a failure is replayed |

pub mod address_text;
pub mod changing_tables;
pub mod content;
pub mod crash_tests;
pub mod durability;
pub mod embedding;
pub mod envelope;
pub mod log_format;
pub mod mailbox_owners;
pub mod map_format;
pub mod notices;
pub mod postfix_differences;
