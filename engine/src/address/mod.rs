//! Mail addresses: reverse-path, forward-path, quoting, extension, case folding.
//!
//! Internal form is what the local part *is* (`a b`), external form is how it is written in an
//! envelope or header (`"a b"`). Sources: RFC 5321 section 4.1.2, RFC 5322 section 3.4.1, RFC 6531.

mod canonical;
mod extension;
mod fold;
mod list;
mod parse;
mod parts;
mod quote;
mod reverse_path;
pub(crate) mod tokens;

pub use canonical::CanonicalForm;
pub use extension::{ExtensionRule, split_extension};
pub use fold::fold_case;
pub use list::{ListedAddress, parse_address_list};
pub use parse::{AddressError, parse_address, parse_mailbox, parse_original_recipient};
pub use parts::Address;
pub(crate) use parts::{join, push_internal};
pub use quote::{quote_address, quote_local_part, unquote};
pub use reverse_path::ReversePath;
