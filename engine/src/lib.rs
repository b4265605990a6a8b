//! The mailstow engine: an embeddable mailbox store.
//!
//! It answers two questions for a mail transfer agent: *who is this recipient?*
//! ([`Engine::snapshot`], [`route`]) and *store this message for these recipients, durably*
//! ([`Engine::submit`], [`Engine::deliver`]). Routing parameters carry their Postfix names and
//! meaning; see [`config`].
//!
//! ```
//! use mailstow_engine::{Engine, Mail, Recipient, ReversePath, Settings, parse_mailbox};
//! use std::sync::Arc;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let base = directory.path().to_owned();
//! # let me = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&base)?);
//! # let uid = if me == 0 { 65534 } else { me };
//! # if me == 0 {
//! #     std::os::unix::fs::chown(&base, Some(uid), Some(uid))?;
//! # }
//! // Or read Postfix's main.cf and mailstow.toml: `Configuration::load`.
//! let mut settings = Settings::default();
//! settings.state_directory = base.join("state");
//! settings.routing.virtual_mailbox_base = base.clone();
//! settings.routing.virtual_mailbox_domains = "example.com".into();
//! settings.routing.virtual_mailbox_maps = "inline:{info@example.com=example.com/info/}".into();
//! settings.routing.virtual_uid_maps = format!("static:{uid}");
//! settings.routing.virtual_gid_maps = format!("static:{uid}");
//! let engine = Engine::open(&settings)?;
//!
//! // RCPT TO: one snapshot of the tables for the whole transaction.
//! let router = engine.snapshot();
//! let address = parse_mailbox("info@example.com")?;
//! let mailbox = router.mailbox(&address)?;
//! assert_eq!(mailbox.path, "example.com/info");
//! let unknown = router.mailbox(&parse_mailbox("nobody@example.com")?);
//! assert_eq!(unknown.map_err(|error| error.status().code), Err(550));
//!
//! // DATA: the content as it comes, lines ended by LF, dots unstuffed.
//! let mut message = engine.new_message();
//! message.write(b"Subject: hello\n\nIt works.\n")?;
//! let mail = Mail {
//!     reverse_path: ReversePath::Address(parse_mailbox("me@example.org")?),
//!     queue_id: None,
//!     client: Default::default(),
//!     dsn: Default::default(),
//!     message: message.finish()?,
//! };
//! let recipient = Recipient { address, original: None };
//!
//! // One outcome per recipient, in order; 2xx means that the message is durable.
//! let outcomes = engine.deliver(Arc::new(mail), vec![(recipient, mailbox)]);
//! assert!(outcomes.iter().all(|outcome| outcome.status.is_success()), "{outcomes:?}");
//! engine.close();
//! # assert_eq!(std::fs::read_dir(base.join("example.com/info/new"))?.count(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! Where no thread may wait, [`Engine::submit`] calls back instead.
//!
//! # Where to read on
//!
//! - **Embedding**: [`manual::embedding`] has the steps of a mail transfer agent.
//! - **Configuration**: [`config`] has the sources and the precedence; [`Settings`] has every
//!   value.
//! - **Tables**: [`table`] has the types of lookup tables, [`manual::changing_tables`] when a
//!   change takes effect.
//! - **Recipient maps**: [`MapBuilder`] compiles all tables into one file, [`MapView`] reads it;
//!   [`manual::map_format`] has its bytes.
//! - **The delivery log**: [`manual::durability`] is the contract, [`manual::log_format`] has its
//!   bytes, [`delivery_log`] reads its files.
//! - **Differences from Postfix**: [`manual::postfix_differences`].
//! - **All guides**: [`manual`].
//! - **The C library**: the crate `mailstow` (`ffi/`), `man libmailstow`, and `ffi/README.md`.
//! - **The server and the command**: the crate `mailstow_lmtp` (`lmtp/`), mailstow(1), a page for
//!   each subcommand, and mailstow.toml(5), all in `lmtp/man/`.
//!
//! The root of the crate names what an embedder needs. The modules hold the types that these items
//! refer to, and tools for operators.
//!
//! The engine has no async runtime and knows no wire protocol. Nothing is process-global: several
//! engines may live in one process.

#![cfg_attr(
    not(any(test, feature = "sim")),
    allow(unreachable_pub, unused_imports, reason = "what only `sim` opens")
)]

pub mod address;
#[cfg(any(test, fuzzing))]
mod choices;
mod clock;
pub mod config;
mod delivery;
pub mod delivery_log;
pub mod descriptors;
mod dsn;
mod engine;
mod envelope;
#[cfg(any(test, fuzzing))]
pub mod fuzz_checks;
mod io;
pub mod limits;
mod log;
mod mail;
mod mailbox;
pub mod manual;
pub mod map;
mod message;
pub mod octets;
pub mod route;
mod routing;
#[cfg(feature = "sim")]
pub mod sim;
mod status;
mod suggest;
pub mod supervisor;
mod swap;
mod sync;
pub mod system;
pub mod table;
mod target;
mod thread;
pub mod transport;

pub use address::{Address, AddressError, parse_address, parse_mailbox};
pub use config::{
    ConfigError, Configuration, Durability, Origin, Problem, RoutingSettings, Settings, Sources,
};
pub use delivery::{
    FileSystemFailure, Health, LogFailure, LogState, Mail, OnOutcome, Outcome, Receipt,
    RecoveryReport, StoreError,
};
pub use engine::Engine;
pub use envelope::{Recipient, ReversePath};
pub use map::{MapBuilder, MapError, MapView};
pub use message::{Converted, LineEnds, Lines, Message, MessageBuilder, Spool};
pub use route::{
    AddressClass, Destination, Lookup, Mailboxes, Resolution, Route, RouteError, Router,
};
pub use routing::{EngineError, Routing};
pub use status::{EnhancedCode, Status};
pub use target::{Format, MailboxTarget, Target};
