//! The verdict on a file that may be a frame.

/// What a file is when its bytes are not the message itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A whole frame with this message.
    #[cfg_attr(
        not(feature = "zstd"),
        allow(dead_code, reason = "only a build with zstd can tell")
    )]
    OfThis,
    /// A whole frame with something else, or no frame at all.
    Other,
    /// The beginning of a frame, or a damaged one, or one whose beginning was lost: no program
    /// makes a message that begins with zeros.
    Torn,
}
