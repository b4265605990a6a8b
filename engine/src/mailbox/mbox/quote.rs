//! Quoting of lines that would look like the beginning of another message.
//!
//! The "mboxo" way of Postfix virtual(8): `>` goes before every line, in header or body, that
//! begins with `From `; `>From ` stays as it is. Works on pieces cut anywhere.

const FROM: &[u8] = b"From ";

/// Quotes one message.
#[derive(Debug)]
pub(super) struct FromQuoter {
    /// Bytes of `From ` seen at the start of this line and not yet handed on; `None` when the
    /// line is known to be something else.
    matched: Option<usize>,
}

impl FromQuoter {
    /// Stands at the beginning of a line.
    pub(super) fn new() -> Self {
        Self { matched: Some(0) }
    }

    /// Appends the next piece to `out`, quoted.
    pub(super) fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let mut rest = piece;
        while let Some(&byte) = rest.first() {
            let Some(matched) = self.matched else {
                let end = memchr::memchr(b'\n', rest).map(|at| at + 1);
                let (line, behind) = rest.split_at(end.unwrap_or(rest.len()));
                out.extend_from_slice(line);
                self.matched = end.map(|_| 0);
                rest = behind;
                continue;
            };
            if FROM.get(matched) == Some(&byte) {
                rest = rest.get(1..).unwrap_or_default();
                self.matched = Some(matched + 1);
                if matched + 1 == FROM.len() {
                    out.push(b'>');
                    self.release(out);
                }
            } else {
                self.release(out);
            }
        }
    }

    /// Hands on what was held back; the message ends here.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        self.release(out);
    }

    fn release(&mut self, out: &mut Vec<u8>) {
        let held = self.matched.take().unwrap_or(0);
        out.extend_from_slice(FROM.get(..held).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn quote(pieces: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut quoter = FromQuoter::new();
        for piece in pieces {
            quoter.feed(piece, &mut out);
        }
        quoter.finish(&mut out);
        out
    }

    fn oracle(content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        for line in content.split_inclusive(|b| *b == b'\n') {
            if line.starts_with(FROM) {
                out.push(b'>');
            }
            out.extend_from_slice(line);
        }
        out
    }

    #[test]
    fn only_lines_that_begin_with_from_and_a_blank_are_quoted() {
        let text = b"From me\nFrom: me\n>From me\n From me\nfrom me\n\nFrom \nxFrom y\nFrom";
        let quoted = b">From me\nFrom: me\n>From me\n From me\nfrom me\n\n>From \nxFrom y\nFrom";
        for cut in 0..=text.len() {
            let (a, b) = text.split_at(cut);
            assert_eq!(quote(&[a, b]), quoted, "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn quoting_is_what_whole_lines_say(
            parts in proptest::collection::vec(
                prop_oneof![
                    Just("From ".to_owned()),
                    Just("\n".to_owned()),
                    Just("From".to_owned()),
                    Just("FFrom ".to_owned()),
                    "[From >\n]{0,6}",
                ],
                0..20,
            ),
            cuts in proptest::collection::vec(1usize..7, 1..40),
        ) {
            let content = parts.concat();
            let mut pieces = Vec::new();
            let mut rest = content.as_bytes();
            for cut in cuts {
                let (piece, behind) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = behind;
            }
            pieces.push(rest);
            prop_assert_eq!(quote(&pieces), oracle(content.as_bytes()));
        }
    }
}
