//! From the bytes of the wire to the content of a message: dot-stuffing undone, line ends
//! converted by the engine's rule, everything else kept as it is.
//!
//! Works in place on whatever piece of the stream has arrived: the result is the same for every
//! way the stream was split. Content after `BDAT` needs the line ends only.

mod data;

pub use data::{DataDecoder, Decoded};
