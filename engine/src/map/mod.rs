//! The recipient map: one compiled file for all local tables, faster and smaller than the tables
//! it is built from.
//!
//! Invariants: a map file never changes once it has its name; single changes stand in a log beside
//! it; whatever is wrong with either, the answer is an error that defers. The format is described
//! in [`crate::manual::map_format`].
//!
//! ```
//! use mailstow_engine::map::{BuildOptions, Change, MapBuilder, MapView, change};
//!
//! # let directory = tempfile::tempdir()?;
//! let path = directory.path().join("recipients.map");
//! let mut builder = MapBuilder::new(&path, BuildOptions::default())?;
//! let mailboxes = builder.table("virtual_mailbox_maps")?;
//! builder.add(mailboxes, "anna@example.com", "example.com/anna/")?;
//! builder.finish()?;
//!
//! change(&path, &[Change::Set {
//!     table: "virtual_uid_maps".into(),
//!     key: "anna@example.com".into(),
//!     value: "5000".into(),
//! }])?;
//! let view = MapView::open(&path)?;
//! let anna = view.find("anna@example.com")?;
//! assert_eq!(anna.text("virtual_mailbox_maps")?.as_deref(), Some("example.com/anna/"));
//! assert_eq!(anna.number("virtual_uid_maps")?, Some(5000));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod bucket;
mod builder;
mod changes;
mod copy;
mod cursor;
mod domains;
mod edit;
mod entry;
mod error;
mod files;
mod flusher;
mod format;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz_checks;
mod handle;
mod overlay;
mod processor;
mod reader;
mod record;
mod reserved;
mod segment;
mod session;
mod shared;
mod spill;
mod value;
mod verify;
mod view;
mod writer;

#[cfg(test)]
mod tests;

pub use builder::{
    BuildOptions, BuildProgress, BuildReport, Duplicates, MapBuilder, PendingChanges,
};
pub use changes::Change;
pub use edit::{CHANGES_MERGE_AT, change, merge};
pub(crate) use entry::{EntryEncoder, PartedEntries};
pub use error::MapError;
pub use format::{KEY_BYTES_MAX, TABLES_MAX, VALUE_BYTES_MAX, reseal};
pub use handle::{MapHandle, MapMaintainer};
pub use reader::{MapReader, MapStats, Record, TableId};
pub(crate) use session::MapSession;
pub use value::Value;
pub use verify::Verified;
pub use view::{Attributes, MapView};
