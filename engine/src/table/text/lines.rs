//! Logical lines of Postfix's text files: comments, blank lines, continuation.
//!
//! A line is bytes: whether it is text is for its reader to say. Source: postmap(1) "TABLE FORMAT",
//! pcre_table(5) "multi-line text".

use std::borrow::Cow;

/// White space as C's `isspace` sees it in the C locale; every other byte is data.
pub(in crate::table) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// `text` without white space at either end.
pub(in crate::table) fn trim(text: &[u8]) -> &[u8] {
    trim_end(trim_start(text))
}

/// `text` without white space at its start.
pub(in crate::table) fn trim_start(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|&b| !is_space(b));
    start.and_then(|at| text.get(at..)).unwrap_or_default()
}

/// `text` without white space at its end.
pub(in crate::table) fn trim_end(text: &[u8]) -> &[u8] {
    let last = text.iter().rposition(|&b| !is_space(b));
    last.and_then(|at| text.get(..=at)).unwrap_or_default()
}

/// `text` up to its first NUL: Postfix keeps lines as C strings and never sees the rest.
pub(in crate::table) fn before_nul(text: &[u8]) -> &[u8] {
    let end = memchr::memchr(0, text).unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

/// A line together with the lines that continue it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::table) struct LogicalLine<'a> {
    /// Line number of its first physical line, from 1.
    pub(in crate::table) number: usize,
    /// Without newlines; the blanks that continued it are kept.
    pub(in crate::table) text: Cow<'a, [u8]>,
}

impl LogicalLine<'_> {
    /// True when it continues nothing: such a line is to be complained about and skipped.
    pub(in crate::table) fn is_stray(&self) -> bool {
        self.text.first().is_some_and(|&b| is_space(b))
    }
}

/// Iterates over the logical lines of `bytes`.
///
/// Empty lines, lines of white space and lines whose first visible character is `#` are
/// skipped wherever they stand, inside a continued line too, which they do not end.
pub(in crate::table) fn logical_lines(bytes: &[u8]) -> LogicalLines<'_> {
    LogicalLines {
        rest: bytes,
        number: 0,
        pending: None,
    }
}

/// See [`logical_lines`].
#[derive(Debug)]
pub(in crate::table) struct LogicalLines<'a> {
    rest: &'a [u8],
    number: usize,
    pending: Option<LogicalLine<'a>>,
}

impl<'a> LogicalLines<'a> {
    /// The next physical line that is neither blank nor a comment.
    fn physical(&mut self) -> Option<LogicalLine<'a>> {
        while !self.rest.is_empty() {
            let (line, rest) = match memchr::memchr(b'\n', self.rest) {
                Some(at) => {
                    let (line, rest) = self.rest.split_at_checked(at)?;
                    (line, rest.get(1..).unwrap_or_default())
                }
                None => (self.rest, &[][..]),
            };
            self.rest = rest;
            self.number += 1;
            match trim_start(line).first() {
                None | Some(b'#') => {}
                Some(_) => {
                    return Some(LogicalLine {
                        number: self.number,
                        text: Cow::Borrowed(line),
                    });
                }
            }
        }
        None
    }
}

impl<'a> Iterator for LogicalLines<'a> {
    type Item = LogicalLine<'a>;

    fn next(&mut self) -> Option<LogicalLine<'a>> {
        let mut line = match self.pending.take() {
            Some(line) => line,
            None => self.physical()?,
        };
        while let Some(next) = self.physical() {
            if !next.is_stray() {
                self.pending = Some(next);
                break;
            }
            line.text.to_mut().extend_from_slice(&next.text);
        }
        Some(line)
    }
}

/// `text` without white space (of the C locale) at either end.
pub(in crate::table) fn trim_text(text: &str) -> &str {
    // Cutting ASCII bytes off valid UTF-8 leaves valid UTF-8.
    str::from_utf8(trim(text.as_bytes())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(usize, String)> {
        logical_lines(text.as_bytes())
            .map(|l| (l.number, String::from_utf8(l.text.into_owned()).unwrap()))
            .collect()
    }

    #[test]
    fn comments_and_blank_lines_do_not_end_a_continued_line() {
        let text = "k1 v1\n  more\n# c\n   # c\n  more2\n\n \t\r\n  more3\nk2 v2";
        assert_eq!(
            lines(text),
            [
                (1, "k1 v1  more  more2  more3".to_owned()),
                (9, "k2 v2".to_owned())
            ]
        );
    }

    #[test]
    fn a_hash_sign_inside_a_line_is_data() {
        assert_eq!(lines("k#1 v # x\n"), [(1, "k#1 v # x".to_owned())]);
    }

    #[test]
    fn a_line_that_continues_nothing_is_stray_with_all_that_continues_it() {
        let found: Vec<_> = logical_lines(b"# c\n a b\n\n c d\nk v\n").collect();
        assert_eq!(found.len(), 2);
        assert!(found[0].is_stray());
        assert_eq!(found[0].text.as_ref(), b" a b c d");
        assert!(!found[1].is_stray());
        assert_eq!(found[1].number, 5);
    }

    #[test]
    fn white_space_is_that_of_the_c_locale() {
        assert_eq!(trim(b" \t\x0b\x0c\r a b \n"), b"a b");
        assert_eq!(trim("\u{a0}".as_bytes()), "\u{a0}".as_bytes());
        assert_eq!(trim(b"   "), b"");
        assert_eq!(before_nul(b"ab\0cd"), b"ab");
    }
}
