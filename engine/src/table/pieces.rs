//! Texts too large to be held in memory, read entry by entry.
//!
//! Imports nothing but this room. Invariant: the entries and complaints are those that reading
//! the text at once gives, duplicates aside, which are for the taker to find. Source: postmap(1)
//! "TABLE FORMAT".

use std::io::{self, Read};

use super::lines::{is_space, logical_lines, trim};
use super::problems::Problems;
use super::text::{LineForm, Rejected, TakeEntry, add_line};

/// Bytes read at once, and more only when one entry is larger.
const PIECE_BYTES: usize = 1024 * 1024;

/// Why reading ended early.
#[derive(Debug)]
pub(crate) enum StreamError<E> {
    /// The text cannot be read.
    Read(io::Error),
    /// Whoever takes the entries wants no more.
    Taker(E),
}

/// Hands every entry of `input` to `take`, its key folded. Returns the complaints, which name
/// `source`.
pub(crate) fn read_entries<E>(
    source: &str,
    input: impl Read,
    take: impl FnMut(&str, &str) -> Result<(), E>,
) -> Result<Vec<String>, StreamError<E>> {
    read_in_pieces(source, input, PIECE_BYTES, take)
}

fn read_in_pieces<E>(
    source: &str,
    mut input: impl Read,
    piece_bytes: usize,
    take: impl FnMut(&str, &str) -> Result<(), E>,
) -> Result<Vec<String>, StreamError<E>> {
    let mut problems = Problems::new(source);
    let mut taker = Taker { take, error: None };
    let mut piece: Vec<u8> = Vec::new();
    let mut lines_before = 0;
    loop {
        let wanted = piece_bytes as u64;
        let added = (&mut input)
            .take(wanted)
            .read_to_end(&mut piece)
            .map_err(StreamError::Read)?;
        let ended = (added as u64) < wanted;
        let end = if ended {
            piece.len()
        } else {
            last_beginning(&piece)
        };
        let whole = piece.get(..end).unwrap_or_default();
        lines_before += read_piece(whole, lines_before, &mut taker, &mut problems)
            .map_err(StreamError::Taker)?;
        if ended {
            return Ok(problems.finish().warnings);
        }
        piece.drain(..end);
    }
}

/// Reads the lines of a piece that ends where a line may begin; returns their number.
fn read_piece<E>(
    whole: &[u8],
    lines_before: usize,
    taker: &mut Taker<impl FnMut(&str, &str) -> Result<(), E>, E>,
    problems: &mut Problems,
) -> Result<usize, E> {
    let (mut rest, mut lines) = (whole, 0);
    while !rest.is_empty() {
        if let Some((key, value, after)) = plain_line(rest) {
            (taker.take)(key, value)?;
            rest = after;
            lines += 1;
            continue;
        }
        let end = next_beginning(rest);
        let (group, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        for mut line in logical_lines(group) {
            line.number += lines_before + lines;
            add_line(&line, LineForm::KeyValue, taker, problems);
            if let Some(error) = taker.error.take() {
                return Err(error);
            }
        }
        lines += memchr::memchr_iter(b'\n', group).count();
        rest = after;
    }
    Ok(lines)
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

    type Read = (Vec<(String, String)>, Vec<String>);

    fn read(text: &str, piece_bytes: usize) -> Read {
        let mut entries = Vec::new();
        let warnings = read_in_pieces("t", text.as_bytes(), piece_bytes, |key, value| {
            entries.push((key.to_owned(), value.to_owned()));
            Ok::<(), ()>(())
        });
        (entries, warnings.unwrap())
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
        let stopped = read_entries("t", "a 1\nb 2\n".as_bytes(), |_, _| Err("enough"));
        assert!(matches!(stopped, Err(StreamError::Taker("enough"))));
    }
}
