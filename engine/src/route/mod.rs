//! Who is this recipient? From an address to its class, transport and mailbox.
//!
//! Touches no mailbox. A [`Router`] is one immutable snapshot of settings and tables: a transaction
//! that keeps it sees no half-reloaded state. Sources: Postfix ADDRESS_CLASS_README, virtual(8),
//! trivial-rewrite(8).
//!
//! A recipient goes from `RCPT` to its target through these functions, each of which calls only
//! downwards:
//!
//! ```text
//! lmtp session: rcpt, lookup::find, waiting::answered
//! Engine::find_targets                     Router::find_targets (targets)
//! Router::find (finding)                   Router::look_up, Lookup::mailboxes (lookup)
//! VirtualAliases::find (alias)             MailboxTables::find_keys (mailbox)
//! Resolver::resolve (resolver)             Classes::listing (class), TransportMaps (transport)
//! Search::find_keys, Maps::lookup_into (search)
//! TableSet::lookup_into (table)            LookupTable::lookup_into of each table
//! MapTable::lookup_into                    MapSession::find, MapView::locate (map)
//! ```

mod accounts;
#[cfg(test)]
mod address_text_tests;
mod alias;
mod class;
mod compile;
mod domains;
mod error;
mod finding;
mod hostname;
mod interfaces;
mod lint;
mod local;
mod local_targets;
mod local_user;
mod local_walk;
mod lookup;
#[cfg(test)]
mod lookup_tests;
mod mailbox;
mod opener;
mod owners;
mod published;
mod recipients;
mod resolution;
mod resolver;
mod router;
#[cfg(test)]
mod router_tests;
mod search;
mod targets;
mod trace;
mod transport;
mod types;
mod user_files;

pub use compile::{Part, Source, compilable};
pub use error::RouteError;
pub use finding::Found;
pub use lint::{Finding, Present};
pub use lookup::{Lookup, Mailboxes};
pub use opener::table_context;
pub use owners::{OwnerProblem, Owners};
pub use router::Router;
pub use targets::FoundTargets;
pub use trace::{Answer, Step, Trace};
pub use types::{AddressClass, Destination, Expansion, Resolution, Rights, Route};

pub use crate::target::place::{Standing, misplaced};
pub use crate::target::{Format, MailboxPath, MailboxPathError, MailboxTarget, Owner};
