//! Mailbox formats: Maildir and mbox.
