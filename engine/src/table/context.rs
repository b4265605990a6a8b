//! What tables must know of the configuration.

use super::substitution::MailboxValues;
use std::fmt;
use std::time::Duration;

/// What tables must know of the configuration.
#[derive(Clone, PartialEq, Eq)]
pub struct TableContext {
    /// `recipient_delimiter`, for `template:` tables.
    pub recipient_delimiter: String,
    /// Tables may hold any octets (`smtputf8_enable = no`); else lines that are not UTF-8 are
    /// skipped.
    pub any_octets: bool,
    /// Names (`type:name`) of the tables in `alias_maps`: the text of those that Postfix has
    /// indexed is always read as an alias file.
    pub alias_tables: Vec<String>,
    /// Where the parameters of database tables that have no file stand.
    pub main_cf: String,
    /// Name, value and line of these, and perhaps of others.
    pub parameters: Vec<(String, String, usize)>,
    /// What the results of `virtual_mailbox_maps` are used for, which decides what replaces `$1` in
    /// them.
    pub mailbox_values: MailboxValues,
    /// How long a file that seems to be in the middle of being written is held back.
    pub hold_time: Duration,
}

impl Default for TableContext {
    fn default() -> Self {
        Self {
            recipient_delimiter: String::new(),
            alias_tables: Vec::new(),
            main_cf: String::new(),
            parameters: Vec::new(),
            mailbox_values: MailboxValues::default(),
            any_octets: false,
            hold_time: Duration::from_secs(60),
        }
    }
}

/// Says nothing of the values of parameters: there are passwords among them.
impl fmt::Debug for TableContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableContext")
            .field("recipient_delimiter", &self.recipient_delimiter)
            .field("alias_tables", &self.alias_tables)
            .field("mailbox_values", &self.mailbox_values)
            .finish_non_exhaustive()
    }
}
