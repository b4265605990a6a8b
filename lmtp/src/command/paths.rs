//! How strictly the paths of an envelope are read.

/// How strictly paths are parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paths {
    /// As RFC 5321 writes them: `FROM:<path>`.
    Strict,
    /// Blanks after the colon and missing angle brackets are accepted.
    Lenient,
}
