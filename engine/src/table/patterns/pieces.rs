//! Texts too large to be held in memory, read entry by entry.
//!
//! Invariant: the entries and complaints are those that reading the text at once gives, duplicates
//! aside, which are for the taker to find. Source: postmap(1) "TABLE FORMAT".

use std::io::{self, Read};
use std::sync::mpsc::Receiver;

use crate::octets;
use crate::table::text::lines::{is_space, logical_lines, trim};
use crate::table::text::problems::Problems;
use crate::table::text::text_table::{LineForm, Rejected, TakeEntry, add_line};

/// Part of a text that begins and ends where a line may.
#[derive(Debug)]
pub(in crate::table) struct Piece {
    bytes: Vec<u8>,
    lines_before: usize,
}

/// A text cut into pieces.
pub(in crate::table) struct Pieces<R> {
    input: R,
    /// Bytes read at once, and more only when one entry is larger.
    piece_bytes: usize,
    /// What was read and not yet handed out.
    left: Vec<u8>,
    /// Buffers of pieces that are used up.
    spare: Receiver<Vec<u8>>,
    lines_before: usize,
    ended: bool,
}

impl<R: Read> Pieces<R> {
    /// `spare` gives back what [`Piece::into_buffer`] gave: memory that is got anew for each
    /// piece costs the kernel more than reading into it.
    pub(in crate::table) fn new(input: R, piece_bytes: usize, spare: Receiver<Vec<u8>>) -> Self {
        Self {
            input,
            piece_bytes,
            left: Vec::new(),
            spare,
            lines_before: 0,
            ended: false,
        }
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = self.spare.try_recv().unwrap_or_default();
        bytes.clear();
        bytes.reserve(self.left.len() + self.piece_bytes);
        bytes.append(&mut self.left);
        loop {
            let wanted = self.piece_bytes as u64;
            let added = (&mut self.input).take(wanted).read_to_end(&mut bytes)?;
            self.ended = (added as u64) < wanted;
            if self.ended {
                return Ok(bytes);
            }
            let end = last_beginning(&bytes);
            if end > 0 {
                self.left
                    .extend_from_slice(bytes.get(end..).unwrap_or_default());
                bytes.truncate(end);
                return Ok(bytes);
            }
        }
    }
}

impl<R: Read> Iterator for Pieces<R> {
    type Item = io::Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let bytes = match self.read() {
            Ok(bytes) => bytes,
            Err(error) => {
                self.ended = true;
                return Some(Err(error));
            }
        };
        let lines_before = self.lines_before;
        self.lines_before += memchr::memchr_iter(b'\n', &bytes).count();
        Some(Ok(Piece {
            bytes,
            lines_before,
        }))
    }
}

impl Piece {
    /// Size of its text.
    pub(in crate::table) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The same text, which may hold any octets (`smtputf8_enable = no`).
    pub(in crate::table) fn with_octets(&self) -> Self {
        Self {
            bytes: octets::text(&self.bytes).into_owned().into_bytes(),
            lines_before: self.lines_before,
        }
    }

    /// Its memory, for another one.
    pub(in crate::table) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    /// Hands every entry to `take`, its key folded, and complaints to `problems`.
    ///
    /// # Errors
    /// What `take` returned; no more entries are taken then.
    pub(in crate::table) fn read<E>(
        &self,
        problems: &mut Problems,
        take: impl FnMut(&str, &str) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut taker = Taker { take, error: None };
        let (mut rest, mut line_number) = (self.bytes.as_slice(), self.lines_before);
        while !rest.is_empty() {
            if let Some((key, value, after)) = plain_line(rest) {
                (taker.take)(key, value)?;
                rest = after;
                line_number += 1;
                continue;
            }
            let end = next_beginning(rest);
            let (group, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            for mut line in logical_lines(group) {
                line.number += line_number;
                add_line(&line, LineForm::KeyValue, &mut taker, problems);
                if let Some(error) = taker.error.take() {
                    return Err(error);
                }
            }
            line_number += memchr::memchr_iter(b'\n', group).count();
            rest = after;
        }
        Ok(())
    }
}

/// Key and value of the first line, and what follows it, if nothing about the line needs a closer
/// look: ASCII, no quotes, no capitals, not continued. Nearly all lines are like that.
fn plain_line(rest: &[u8]) -> Option<(&str, &str, &[u8])> {
    let end = memchr::memchr(b'\n', rest)?;
    let (line, after) = rest.split_at_checked(end)?;
    let after = after.get(1..)?;
    let begins = |byte: &u8| *byte != b'#' && !is_space(*byte);
    if !line.first().is_some_and(begins) || !after.first().is_none_or(begins) {
        return None;
    }
    let is_plain = |byte: u8| byte > b' ' && !matches!(byte, b'"' | b'\\' | b'A'..=b'Z' | 0x80..);
    let key_end = line.iter().position(|byte| !is_plain(*byte))?;
    let (key, value) = line.split_at_checked(key_end)?;
    let value = trim(
        value
            .strip_prefix(b" ")
            .or_else(|| value.strip_prefix(b"\t"))?,
    );
    if key.ends_with(b":") || value.is_empty() {
        return None;
    }
    if !value.is_ascii() || memchr::memchr(0, value).is_some() {
        return None;
    }
    Some((
        str::from_utf8(key).ok()?,
        str::from_utf8(value).ok()?,
        after,
    ))
}

/// Where the next line begins that neither continues this one nor is a comment or blank.
fn next_beginning(rest: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', rest)
        .map(|newline| newline + 1)
        .find(|&at| {
            rest.get(at)
                .is_none_or(|&byte| byte != b'#' && !is_space(byte))
        })
        .unwrap_or(rest.len())
}

/// Where the last line begins that neither continues another one nor is a comment or blank, which
/// may stand in the middle of a continued line; 0 if there is none.
fn last_beginning(piece: &[u8]) -> usize {
    memchr::memrchr_iter(b'\n', piece)
        .map(|newline| newline + 1)
        .find(|&at| {
            piece
                .get(at)
                .is_some_and(|&byte| byte != b'#' && !is_space(byte))
        })
        .unwrap_or(0)
}

struct Taker<F, E> {
    take: F,
    error: Option<E>,
}

impl<E, F: FnMut(&str, &str) -> Result<(), E>> TakeEntry for Taker<F, E> {
    fn take(&mut self, folded: &str, value: &str, _line: usize) -> Result<(), Rejected> {
        self.error = (self.take)(folded, value).err();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    type Read = (Vec<(String, String)>, Vec<String>);

    fn read(text: &str, piece_bytes: usize) -> Read {
        let mut entries = Vec::new();
        let mut problems = Problems::new("t");
        let (give_back, spare) = mpsc::channel();
        for piece in Pieces::new(text.as_bytes(), piece_bytes, spare) {
            let mut found = Problems::new("t");
            let piece = piece.unwrap();
            let read = piece.read(&mut found, |key, value| {
                entries.push((key.to_owned(), value.to_owned()));
                Ok::<(), ()>(())
            });
            read.unwrap();
            problems.append(found);
            give_back.send(piece.into_buffer()).unwrap();
        }
        (entries, problems.finish().warnings)
    }

    const TEXT: &str = " stray\nA@x  one\n  more\n# c\n\n  again\nb@x two\nbroken\n\"c d\"@x three\n\
                        # end\n";

    #[test]
    fn entries_and_line_numbers_do_not_depend_on_where_pieces_end() {
        let whole = read(TEXT, 1 << 20);
        assert_eq!(whole.0.len(), 3);
        assert_eq!(whole.0[0], ("a@x".into(), "one  more  again".into()));
        assert_eq!(whole.1.len(), 2);
        assert!(whole.1[1].starts_with("t:8:"), "{}", whole.1[1]);
        for piece_bytes in 1..TEXT.len() + 2 {
            assert_eq!(read(TEXT, piece_bytes), whole, "{piece_bytes}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_alike_in_any_pieces(
            text in "([ab#\" \n]|a b\n| c\n|# d\n){0,40}", piece_bytes in 1usize..20
        ) {
            proptest::prop_assert_eq!(read(&text, piece_bytes), read(&text, 1 << 20));
        }
    }

    /// The same without the short way for plain lines.
    fn read_closely(text: &str) -> Read {
        let mut entries = Vec::new();
        let mut problems = Problems::new("t");
        let mut taker = Taker {
            take: |key: &str, value: &str| {
                entries.push((key.to_owned(), value.to_owned()));
                Ok::<(), ()>(())
            },
            error: None,
        };
        for line in logical_lines(text.as_bytes()) {
            add_line(&line, LineForm::KeyValue, &mut taker, &mut problems);
        }
        (entries, problems.finish().warnings)
    }

    proptest::proptest! {
        #[test]
        fn plain_lines_are_read_as_closely_looked_at_ones(
            text in "([ab#:\"\\\\A\u{e9}\u{0} \t\r\n]|a b\n|A@x\tb \n| c\n|a: b\n|a b\n# d\n){0,40}",
        ) {
            proptest::prop_assert_eq!(read(&text, 1 << 20), read_closely(&text));
        }
    }

    #[test]
    fn whoever_takes_the_entries_can_stop() {
        let mut pieces = Pieces::new("a 1\nb 2\n".as_bytes(), 100, mpsc::channel().1);
        let piece = pieces.next().unwrap().unwrap();
        let stopped = piece.read(&mut Problems::new("t"), |_, _| Err("enough"));
        assert_eq!(stopped, Err("enough"));
        assert!(pieces.next().is_none());
    }
}
