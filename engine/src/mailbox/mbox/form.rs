//! The form of a message in an mbox: quoted, its last line completed, one blank line behind it.
//!
//! Works on pieces cut anywhere. Source: Postfix mail_copy.

use super::quote::FromQuoter;
use crate::message::HeaderFilter;

/// Brings one message into its form, behind its header.
#[derive(Debug)]
pub(super) struct Form {
    /// Removes fields in which mbox readers keep their state, if they are to go.
    filter: Option<HeaderFilter>,
    quoter: FromQuoter,
    /// The last byte so far.
    last: Option<u8>,
}

impl Form {
    /// `without_status`: header fields in which mbox readers keep their state are removed.
    pub(super) fn new(without_status: bool) -> Self {
        Self {
            filter: without_status.then(HeaderFilter::of_status_fields),
            quoter: FromQuoter::new(),
            last: None,
        }
    }

    /// Appends the next piece of the content to `out`.
    pub(super) fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        let mark = out.len();
        match &mut self.filter {
            None => self.quoter.feed(piece, out),
            Some(filter) => {
                let fed = filter.feed(piece, &mut |kept| {
                    self.quoter.feed(kept, out);
                    Ok(())
                });
                debug_assert!(fed.is_ok(), "nothing fails here");
            }
        }
        self.note_last(mark, out);
    }

    /// Ends the message.
    pub(super) fn finish(mut self, out: &mut Vec<u8>) {
        let mark = out.len();
        if let Some(filter) = &mut self.filter {
            let fed = filter.finish(&mut |kept| {
                self.quoter.feed(kept, out);
                Ok(())
            });
            debug_assert!(fed.is_ok(), "nothing fails here");
        }
        self.quoter.finish(out);
        self.note_last(mark, out);
        if self.last.is_some_and(|last| last != b'\n') {
            out.push(b'\n');
        }
        out.push(b'\n');
    }

    fn note_last(&mut self, mark: usize, out: &[u8]) {
        if out.len() > mark {
            self.last = out.last().copied();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_fields_go_and_lines_are_quoted_wherever_the_message_is_cut() {
        let message = b"Subject: x\nStatus: RO\nFrom me\nX-UID: 7\n\nFrom you\nStatus: stays";
        let with: &[u8] =
            b"Subject: x\nStatus: RO\n>From me\nX-UID: 7\n\n>From you\nStatus: stays\n\n";
        let without: &[u8] = b"Subject: x\n>From me\n\n>From you\nStatus: stays\n\n";
        for (without_status, expected) in [(false, with), (true, without)] {
            for cut in 0..=message.len() {
                let (one, two) = message.split_at(cut);
                let mut out = b"before ".to_vec();
                let mut form = Form::new(without_status);
                form.feed(one, &mut out);
                form.feed(two, &mut out);
                form.finish(&mut out);
                assert_eq!(out, [b"before ", expected].concat(), "cut at {cut}");
            }
        }
    }
}
