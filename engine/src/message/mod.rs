//! The content of a message: in memory, or in a file without a name past a bound.
//!
//! The content is held in its stored form: lines end with LF, header fields that we set ourselves
//! are gone. The file is a scratch file, or another [`MessageSink`]. Invariant: memory counted
//! against the common budget is given back when the last user of a message is gone.

mod budget;
mod builder;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz_checks;
mod headed;
mod header_field;
mod header_filter;
mod line_ends;
mod message;
mod sink;

pub use builder::{MessageBuilder, Spool};
pub(crate) use header_filter::HeaderFilter;
pub(crate) use line_ends::bare_newlines;
pub use line_ends::{Converted, LineEnds, Lines};
pub use message::Message;
pub(crate) use sink::MessageSink;
