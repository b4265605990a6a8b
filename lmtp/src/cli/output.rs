//! Standard output of commands that print addresses, keys and paths.
//!
//! These may hold octets that are not UTF-8: programs get them as they are, people see a `?`.

use mailstow_engine::octets;
use std::borrow::Cow;
use std::io::{self, BufWriter, StdoutLock, Write};

/// A writer of text that may hold such octets; each write must be whole characters, as those of
/// [`write!`] are.
#[derive(Debug)]
pub(super) struct Output<W> {
    to: W,
    for_people: bool,
}

impl Output<BufWriter<StdoutLock<'static>>> {
    /// Standard output for programs.
    pub(super) fn octets() -> Self {
        Self::new(BufWriter::new(io::stdout().lock()), false)
    }

    /// Standard output for people.
    pub(super) fn shown() -> Self {
        Self::new(BufWriter::new(io::stdout().lock()), true)
    }
}

impl<W> Output<W> {
    fn new(to: W, for_people: bool) -> Self {
        Self { to, for_people }
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = str::from_utf8(bytes).ok();
        let plain = match text {
            Some(text) if self.for_people => match octets::shown(text) {
                Cow::Borrowed(shown) => Cow::Borrowed(shown.as_bytes()),
                Cow::Owned(shown) => Cow::Owned(shown.into_bytes()),
            },
            Some(text) => octets::octets(text),
            None => Cow::Borrowed(bytes),
        };
        self.to.write_all(&plain)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_get_octets_and_people_see_text() {
        let latin = octets::text(b"j\xf6rg@x");
        for (for_people, expected) in [(false, &b"<j\xf6rg@x>\n"[..]), (true, b"<j?rg@x>\n")] {
            let mut output = Output::new(Vec::new(), for_people);
            writeln!(output, "<{latin}>").unwrap();
            assert_eq!(output.to, expected);
        }
    }
}
