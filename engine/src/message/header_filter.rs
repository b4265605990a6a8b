//! Removes from the header what only we may say: `Return-Path` and `X-Original-To`.
//!
//! Imports nothing. Works on pieces cut anywhere, holding back no more than
//! [`NAME_BYTES_MAX`] bytes. `Delivered-To` stays: it is what mail loops are recognised by.
//! The header ends at the first line that is neither a field nor the continuation of one (RFC
//! 5322 section 2.2); blanks before the colon are tolerated as in its section 4.5.

use std::io;

/// Field names that are removed, in lower case.
const REMOVED: [&[u8]; 2] = [b"return-path", b"x-original-to"];
/// The start of an mbox envelope line.
const ENVELOPE: &[u8] = b"From ";
/// A field name with this many blanks before its colon is not recognised any more.
const NAME_BYTES_MAX: usize = 256;

/// Where the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// At the first byte of a line.
    LineStart,
    /// In what may become a name to remove, all of which is held back.
    Candidate,
    /// In the blanks between such a name and its colon, held back too.
    CandidateBlanks,
    /// In another field name.
    Name,
    /// In the blanks between another name and its colon.
    NameBlanks,
    /// In a line to keep.
    Keep,
    /// In a line to remove.
    Remove,
    /// Behind the header.
    Body,
}

#[derive(Debug)]
pub(super) struct HeaderFilter {
    at: At,
    held: Vec<u8>,
    /// Nothing was seen yet but what is held.
    first_line: bool,
    /// What a continuation line belongs to is removed; `None` where there is nothing to continue.
    field_removed: Option<bool>,
    removes_envelope: bool,
}

/// Takes what is kept.
type Take<'a> = &'a mut dyn FnMut(&[u8]) -> io::Result<()>;

impl HeaderFilter {
    /// `removes_envelope`: a `From ` line at the very beginning goes too; else it stays, and the
    /// header goes on behind it.
    pub(super) fn new(removes_envelope: bool) -> Self {
        Self {
            at: At::LineStart,
            held: Vec::new(),
            first_line: true,
            field_removed: None,
            removes_envelope,
        }
    }

    /// Takes the next piece and hands on what is kept of it.
    pub(super) fn feed(&mut self, piece: &[u8], take: Take<'_>) -> io::Result<()> {
        let mut rest = piece;
        while !rest.is_empty() {
            let used = match self.at {
                At::Body => {
                    take(rest)?;
                    rest.len()
                }
                At::Keep | At::Remove => self.line(rest, take)?,
                At::LineStart => match self.common_field(rest) {
                    Some(field) => {
                        take(field)?;
                        field.len()
                    }
                    None => self.line_start(rest),
                },
                At::Candidate | At::CandidateBlanks => self.candidate(rest, take)?,
                At::Name | At::NameBlanks => self.name(rest, take)?,
            };
            rest = rest.get(used..).unwrap_or_default();
        }
        Ok(())
    }

    /// Hands on what was held back; the content ends here.
    pub(super) fn finish(&mut self, take: Take<'_>) -> io::Result<()> {
        let held = std::mem::take(&mut self.held);
        if held.is_empty() { Ok(()) } else { take(&held) }
    }

    /// The rest of a line whose fate is known.
    fn line(&mut self, rest: &[u8], take: Take<'_>) -> io::Result<usize> {
        let end = memchr::memchr(b'\n', rest);
        let used = end.map_or(rest.len(), |at| at + 1);
        if self.at == At::Keep {
            take(rest.get(..used).unwrap_or_default())?;
        }
        if end.is_some() {
            self.at = At::LineStart;
            self.first_line = false;
        }
        Ok(used)
    }

    /// The whole line that is next, if it begins a field whose first letter tells that it stays:
    /// nearly all fields do, and need not be looked at byte by byte.
    fn common_field<'a>(&mut self, rest: &'a [u8]) -> Option<&'a [u8]> {
        let begins_like_ours = |first: &u8| {
            let first = first.to_ascii_lowercase();
            REMOVED.iter().any(|name| name.first() == Some(&first))
        };
        if self.first_line || rest.first().is_none_or(begins_like_ours) {
            return None;
        }
        let line = rest.get(..=memchr::memchr(b'\n', rest)?)?;
        let name = line.get(..memchr::memchr(b':', line)?)?;
        if name.is_empty() || !name.iter().all(|byte| is_name_byte(*byte)) {
            return None;
        }
        self.field_removed = Some(false);
        Some(line)
    }

    fn line_start(&mut self, rest: &[u8]) -> usize {
        self.at = match (rest.first(), self.field_removed) {
            (Some(b' ' | b'\t'), Some(true)) => At::Remove,
            (Some(b' ' | b'\t'), Some(false)) => At::Keep,
            _ => At::Candidate,
        };
        0
    }

    /// One more byte of what may be a name to remove.
    fn candidate(&mut self, rest: &[u8], take: Take<'_>) -> io::Result<usize> {
        let Some(&byte) = rest.first() else {
            return Ok(0);
        };
        let name_ended = self.at == At::CandidateBlanks;
        if byte == b':' && (name_ended || REMOVED.iter().any(|name| self.holds(name))) {
            self.held.clear();
            self.field_removed = Some(true);
            self.at = At::Remove;
            return Ok(1);
        }
        self.held.push(byte);
        let is_blank = byte == b' ' || byte == b'\t';
        if self.held.len() > NAME_BYTES_MAX {
            return self.another_field(take);
        }
        if name_ended {
            return if is_blank {
                Ok(1)
            } else {
                self.another_field(take)
            };
        }
        if self.may_become_known() {
            return Ok(1);
        }
        if self.first_line && self.held == ENVELOPE {
            return self.envelope_line(take);
        }
        let before = self.held.split_last().map_or(&[][..], |(_, before)| before);
        if is_blank && REMOVED.iter().any(|n| before.eq_ignore_ascii_case(n)) {
            self.at = At::CandidateBlanks;
            return Ok(1);
        }
        self.another_field(take)
    }

    /// What is held is none of ours: its last byte decides how the line goes on.
    fn another_field(&mut self, take: Take<'_>) -> io::Result<usize> {
        let mut held = std::mem::take(&mut self.held);
        let used = self.take_held(&held, take);
        // Its memory serves the next field.
        held.clear();
        self.held = held;
        used
    }

    fn take_held(&mut self, held: &[u8], take: Take<'_>) -> io::Result<usize> {
        let (last, before) = held.split_last().unwrap_or((&b'\n', &[]));
        self.at = match self.at {
            At::CandidateBlanks => At::NameBlanks,
            // A line that begins with a blank or a colon has no name: no field.
            _ if before.is_empty() && !is_name_byte(*last) => At::Body,
            _ => At::Name,
        };
        if !before.is_empty() {
            take(before)?;
        }
        match self.at {
            At::Body => take(&[*last]).map(|()| 1),
            _ => self.name(&[*last], take),
        }
    }

    fn holds(&self, name: &[u8]) -> bool {
        self.held.eq_ignore_ascii_case(name)
    }

    /// True while what is held is the beginning of something we look for, but not all of it.
    fn may_become_known(&self) -> bool {
        let held = &self.held;
        let begins = |name: &[u8]| {
            name.get(..held.len())
                .is_some_and(|start| held.eq_ignore_ascii_case(start))
        };
        REMOVED.iter().any(|name| begins(name))
            || (self.first_line && held.len() < ENVELOPE.len() && ENVELOPE.starts_with(held))
    }

    fn envelope_line(&mut self, take: Take<'_>) -> io::Result<usize> {
        let held = std::mem::take(&mut self.held);
        if self.removes_envelope {
            self.at = At::Remove;
        } else {
            take(&held)?;
            self.at = At::Keep;
        }
        Ok(1)
    }

    /// A field name that is none of ours, up to its colon; anything else ends the header.
    fn name(&mut self, rest: &[u8], take: Take<'_>) -> io::Result<usize> {
        let mut at = self.at;
        let mut used = 0;
        for &byte in rest {
            at = match byte {
                b':' => At::Keep,
                b' ' | b'\t' => At::NameBlanks,
                byte if at == At::Name && is_name_byte(byte) => At::Name,
                _ => At::Body,
            };
            used += 1;
            if at == At::Keep || at == At::Body {
                break;
            }
        }
        self.at = at;
        self.field_removed = Some(false);
        take(rest.get(..used).unwrap_or_default())?;
        Ok(used)
    }
}

/// Field names are printable ASCII without the colon (RFC 5322 section 2.2).
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b':'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filter(pieces: &[&[u8]], removes_envelope: bool) -> Vec<u8> {
        let mut kept = Vec::new();
        let mut filter = HeaderFilter::new(removes_envelope);
        for piece in pieces {
            let mut take = |bytes: &[u8]| {
                kept.extend_from_slice(bytes);
                Ok(())
            };
            filter.feed(piece, &mut take).unwrap();
            assert!(filter.held.len() <= NAME_BYTES_MAX + 1);
        }
        let mut take = |bytes: &[u8]| {
            kept.extend_from_slice(bytes);
            Ok(())
        };
        filter.finish(&mut take).unwrap();
        kept
    }

    /// The same, from whole lines.
    fn oracle(content: &[u8], removes_envelope: bool) -> Vec<u8> {
        let mut kept = Vec::new();
        let mut in_header = true;
        let mut removed = None;
        for (number, line) in content.split_inclusive(|b| *b == b'\n').enumerate() {
            let mut keep = true;
            if in_header && number == 0 && line.starts_with(b"From ") {
                keep = !removes_envelope;
            } else if in_header && line.starts_with(b" ") | line.starts_with(b"\t") {
                keep = removed != Some(true);
                in_header = removed.is_some();
            } else if in_header {
                let colon = line.iter().position(|b| *b == b':');
                let name = colon.map(|at| line[..at].trim_ascii_end());
                let name = name.filter(|n| !n.is_empty() && n.iter().all(u8::is_ascii_graphic));
                in_header = name.is_some();
                let name = name.unwrap_or_default().to_ascii_lowercase();
                removed = Some(name == b"return-path" || name == b"x-original-to");
                keep = removed == Some(false);
            }
            if keep {
                kept.extend_from_slice(line);
            }
        }
        kept
    }

    const MESSAGE: &[u8] = b"From a@b  Sun Nov 22 06:51:19 2026\n\
        rEturn-Path: <forged@example.com>\n\tcontinued\n \n\
        Return-Pathology: stays\n\
        X-Original-To \t : forged\n\
        Delivered-To: stays\n\
        Subject: return-path:\n X-Original-To: continued, stays\n\
        X-Original-To: at the end\n\n\
        Return-Path: in the body\n";

    const FILTERED: &[u8] = b"Return-Pathology: stays\n\
        Delivered-To: stays\n\
        Subject: return-path:\n X-Original-To: continued, stays\n\n\
        Return-Path: in the body\n";

    #[test]
    fn our_fields_go_wherever_the_content_is_cut() {
        for first in 0..MESSAGE.len() {
            for second in [first, first + 1, first + 7, MESSAGE.len()] {
                let second = second.min(MESSAGE.len());
                let pieces = [
                    &MESSAGE[..first],
                    &MESSAGE[first..second],
                    &MESSAGE[second..],
                ];
                let kept = filter(&pieces, true);
                assert_eq!(
                    String::from_utf8_lossy(&kept),
                    String::from_utf8_lossy(FILTERED),
                    "cut at {first} and {second}"
                );
            }
        }
        let bytes: Vec<&[u8]> = MESSAGE.chunks(1).collect();
        assert_eq!(filter(&bytes, true), FILTERED);
    }

    #[test]
    fn an_envelope_line_stays_unless_told_otherwise_and_the_header_goes_on_behind_it() {
        let kept = filter(&[MESSAGE], false);
        assert!(kept.starts_with(b"From a@b  Sun"));
        assert!(kept.ends_with(FILTERED));
    }

    #[test]
    fn a_huge_field_passes_or_goes_without_being_held() {
        let long = vec![b'x'; 100_000];
        let kept = filter(&[b"Return-Path: ", &long, b"\nA: ", &long, b"\n\n"], false);
        assert_eq!(kept, [b"A: ", &long[..], b"\n\n"].concat());
    }

    #[test]
    fn what_ends_too_early_is_kept() {
        assert_eq!(filter(&[b"Return-Pa"], false), b"Return-Pa");
        assert_eq!(filter(&[b"Return-Path \t"], false), b"Return-Path \t");
        assert_eq!(filter(&[b"From"], true), b"From");
        assert_eq!(filter(&[b"Return-Path:"], false), b"");
    }

    proptest! {
        #[test]
        fn filtering_is_what_whole_lines_say(
            lines in proptest::collection::vec(
                prop_oneof![
                    Just("Return-Path: x".to_owned()),
                    Just("X-ORIGINAL-TO\t:y".to_owned()),
                    Just("From me".to_owned()),
                    Just("From: me".to_owned()),
                    Just("Return-Path".to_owned()),
                    Just(" continued".to_owned()),
                    Just("X-Original-To : a: b".to_owned()),
                    Just(": no name".to_owned()),
                    "[A-Za-z: \t-]{0,12}",
                ],
                0..12,
            ),
            complete: bool,
            removes_envelope: bool,
            cuts in proptest::collection::vec(1usize..9, 1..40),
        ) {
            let mut content = lines.join("\n");
            if complete {
                content.push('\n');
            }
            let mut pieces = Vec::new();
            let mut rest = content.as_bytes();
            for cut in cuts {
                let (piece, behind) = rest.split_at(cut.min(rest.len()));
                pieces.push(piece);
                rest = behind;
            }
            pieces.push(rest);
            let kept = filter(&pieces, removes_envelope);
            let expected = oracle(content.as_bytes(), removes_envelope);
            prop_assert_eq!(
                String::from_utf8_lossy(&kept),
                String::from_utf8_lossy(&expected)
            );
        }
    }
}
