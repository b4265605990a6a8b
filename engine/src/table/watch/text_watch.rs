//! Makes sure that a text is whole while it is compiled: it is not written meanwhile.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::guard;
use super::published;
use super::source;
use super::source::Probe;

/// A text that is about to be read.
#[derive(Debug)]
pub struct TextWatch {
    path: PathBuf,
    begin: Probe,
    hold_time: Duration,
}

impl TextWatch {
    /// Looks at the text at `path`; `None` when it is a pipe, which has an end, and not a
    /// file. A text that was left alone for `hold_time` counts as it is.
    ///
    /// # Errors
    /// It cannot be opened, or seems to be in the middle of being written.
    pub fn begin(path: &Path, hold_time: Duration) -> io::Result<Option<Self>> {
        if !std::fs::metadata(path)?.is_file() {
            return Ok(None);
        }
        let begin = source::probe(path)?;
        if let Some(reason) = begin.suspicion(true, hold_time) {
            return Err(io::Error::other(format!(
                "{reason}; compile it when it is whole"
            )));
        }
        Ok(Some(Self {
            path: path.to_owned(),
            begin,
            hold_time,
        }))
    }

    /// To be asked when the text was read.
    ///
    /// # Errors
    /// It was changed meanwhile.
    pub fn finish(&self) -> io::Result<()> {
        let now = source::probe(&self.path)?;
        if now.stamp == self.begin.stamp && now.suspicion(true, self.hold_time).is_none() {
            return Ok(());
        }
        Err(io::Error::other(
            "it was written while it was read; compile it when it is whole",
        ))
    }

    /// Whether the text may be a part of what it is about to be, for what is compiled has `has`
    /// values in the place of `had`.
    pub fn is_doubtful(&self, had: u64, has: u64) -> bool {
        let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
        let lost = had.saturating_sub(has);
        guard::is_sudden(count(lost), count(had))
            && self.begin.stamp.quiet() < self.hold_time
            && !self.is_published()
    }

    fn is_published(&self) -> bool {
        let bytes = std::fs::read(&self.path);
        let file = File::open(&self.path);
        matches!((bytes, file), (Ok(bytes), Ok(file)) if published::is_marked(&file, &bytes))
    }
}
