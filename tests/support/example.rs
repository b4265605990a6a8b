//! The examples of Postfix's VIRTUAL_README, line by line, only the paths moved.
//!
//! `@DIR@` is replaced by /etc/postfix and `@ROOT@` by the scratch directory (see the builders).

/// Line 2 to 8 of the VIRTUAL MAILBOX example.
pub const MAILBOX_MAIN_CF: &str = "\
virtual_mailbox_domains = example.com ...more domains...
virtual_mailbox_base = @ROOT@/vhosts
virtual_mailbox_maps = hash:@DIR@/vmailbox
virtual_minimum_uid = 100
virtual_uid_maps = static:5000
virtual_gid_maps = static:5000
virtual_alias_maps = hash:@DIR@/virtual
";

/// Line 11 to 15 of the VIRTUAL MAILBOX example.
pub const MAILBOX_VMAILBOX: &str = "\
info@example.com    example.com/info
sales@example.com   example.com/sales/
# Comment out the entry below to implement a catch-all.
# @example.com      example.com/catchall
...virtual mailboxes for more domains...
";

/// Line 18 of the VIRTUAL MAILBOX example.
pub const MAILBOX_VIRTUAL: &str = "postmaster@example.com postmaster\n";

/// Line 3 to 5 of the non-Postfix mailbox store example.
pub const STORE_MAIN_CF: &str = "\
virtual_mailbox_domains = example.com ...more domains...
virtual_mailbox_maps = hash:@DIR@/vmailbox
virtual_alias_maps = hash:@DIR@/virtual
";

/// Line 8 to 13 of the non-Postfix mailbox store example.
pub const STORE_VMAILBOX: &str = "\
info@example.com    whatever
sales@example.com   whatever
# Comment out the entry below to implement a catch-all.
# Configure the mailbox store to accept all addresses.
# @example.com      whatever
...virtual mailboxes for more domains...
";

/// Says what a section of the VIRTUAL_README delivered where; `tests/virtual_readme` prints it.
pub fn show(section: &str, what: &str) {
    println!("VIRTUAL_README: {section}: {what}");
}

/// A table with its catch-all line made active.
pub fn with_catch_all(table: &str) -> String {
    table.replace("# @example.com ", "@example.com ")
}

/// What a site has beside the example: postmaster's local mailbox, so that line 18 can be seen
/// to work.
pub const POSTMASTER_MAIN_CF: &str = "\
alias_maps = hash:@DIR@/aliases
";

/// `/etc/aliases` of such a site.
pub const POSTMASTER_ALIASES: &str = "postmaster: @ROOT@/local/postmaster\n";
