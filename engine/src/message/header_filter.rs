//! What becomes of the header of a message: on its way in, and on its way into an mbox.
//!
//! On its way in, the fields that only we may write, `Return-Path` and `X-Original-To`, are removed
//! wherever they are in the header; a `From ` line at the beginning becomes a field; and an empty
//! line is put before a message that has no header, so that nothing of it becomes part of ours.
//! `Delivered-To` stays: mail loops are recognised by it. On its way into an mbox, the fields in
//! which mbox readers keep their state are removed. The rules and their reasons are in
//! [`crate::manual::content`].
//!
//! Some readers take a CR in the header for a line end, so that a field may begin behind one.
//! Works on pieces cut anywhere, holding back no more than `NAME_BYTES_MAX` bytes and a few.

use super::header_field::{begin_of_line, field_name, is_status_field};
use std::io;

/// Fields that are removed on the way in.
const REMOVED: [&[u8]; 2] = [b"return-path", b"x-original-to"];
/// The start of an mbox envelope line.
const ENVELOPE: &[u8] = b"From ";
/// The field that an envelope line becomes, as in smtpd(8) and sendmail(1).
const ENVELOPE_FIELD: &[u8] = b"X-Mailbox-Line: ";

/// Where the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// At the beginning of a line of the header, or in what is held back of one.
    LineStart,
    /// Behind a CR: an LF still belongs to the line before.
    BehindCr,
    /// In a line of the header.
    Line,
    /// Behind the header.
    Body,
}

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Keep,
    Remove,
    /// It is kept behind these bytes.
    KeepBehind(&'static [u8]),
    /// It is kept behind these bytes, and the header ends before it.
    Body(&'static [u8]),
}

/// What is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removes {
    /// What only we may write; and, if so told, an envelope line.
    Trace { envelope: bool },
    /// What mbox readers trust.
    Status,
}

#[derive(Debug)]
pub(crate) struct HeaderFilter {
    removes: Removes,
    at: At,
    held: Vec<u8>,
    /// No line of a header was kept yet, but for those made of envelope lines.
    is_start: bool,
    /// Nothing was handed on yet.
    is_empty: bool,
    /// The next line is the first.
    is_first_line: bool,
    /// The line at hand is removed.
    is_removed: bool,
    /// The line at hand begins behind a CR that was kept: its LF ends the line before, too.
    begins_behind_cr: bool,
    /// A continuation line belongs to a field that is removed.
    field_removed: bool,
    has_status_fields: bool,
}

/// Takes what is kept.
type Take<'a> = &'a mut dyn FnMut(&[u8]) -> io::Result<()>;

impl HeaderFilter {
    /// For a message on its way in. `removes_envelope`: a `From ` line at the very beginning is
    /// removed.
    pub(super) fn new(removes_envelope: bool) -> Self {
        let envelope = removes_envelope;
        Self::with(Removes::Trace { envelope })
    }

    /// For a message in its stored form on its way into an mbox.
    pub(crate) fn of_status_fields() -> Self {
        Self::with(Removes::Status)
    }

    fn with(removes: Removes) -> Self {
        Self {
            removes,
            at: At::LineStart,
            held: Vec::new(),
            is_start: removes != Removes::Status,
            is_empty: true,
            is_first_line: true,
            is_removed: false,
            begins_behind_cr: false,
            field_removed: false,
            has_status_fields: false,
        }
    }

    /// True when a field was seen in which mbox readers keep their state.
    pub(super) fn has_status_fields(&self) -> bool {
        self.has_status_fields
    }

    /// Takes the next piece and hands on what is kept of it.
    pub(crate) fn feed(&mut self, piece: &[u8], take: Take<'_>) -> io::Result<()> {
        let mut rest = self.feed_held(piece, take)?;
        // What is kept is handed on together, as far as nothing comes in between.
        let mut kept = 0;
        while let Some(next) = rest.get(kept..).filter(|next| !next.is_empty()) {
            match self.at {
                At::Body => kept = rest.len(),
                At::Line | At::BehindCr => {
                    let (length, keeps) = self.line(next);
                    if keeps {
                        kept += length;
                    } else {
                        self.hand_on(rest, kept, take)?;
                        rest = next.get(length..).unwrap_or_default();
                        kept = 0;
                    }
                }
                At::LineStart => {
                    let Some(begin) = begin_of_line(next) else {
                        self.held.extend_from_slice(next);
                        return self.hand_on(rest, kept, take);
                    };
                    let fate = self.fate(begin);
                    let before = self.go_on(fate);
                    if !before.is_empty() {
                        self.hand_on(rest, kept, take)?;
                        rest = next;
                        kept = 0;
                        take(before)?;
                    }
                }
            }
        }
        self.hand_on(rest, kept, take)
    }

    /// Ends the content: hands on what was held back.
    pub(crate) fn finish(&mut self, take: Take<'_>) -> io::Result<()> {
        let held = std::mem::take(&mut self.held);
        if !held.is_empty() {
            let fate = self.fate(&held);
            let before = self.go_on(fate);
            self.end_held(before, &held, take)?;
        }
        if self.is_empty && self.removes != Removes::Status {
            take(b"\n")?;
        }
        Ok(())
    }

    /// Completes the beginning of a line that was cut; returns the rest of the piece.
    fn feed_held<'a>(&mut self, piece: &'a [u8], take: Take<'_>) -> io::Result<&'a [u8]> {
        let before = self.held.len();
        if before == 0 {
            return Ok(piece);
        }
        // No more is held than decides, whatever the length of the piece.
        let mut held = std::mem::take(&mut self.held);
        let mut length = 0;
        for part in piece.chunks(FED_BYTES) {
            held.extend_from_slice(part);
            length = begin_of_line(&held).map_or(0, <[u8]>::len);
            if length > 0 {
                break;
            }
        }
        if length == 0 {
            self.held = held;
            return Ok(&[]);
        }
        held.truncate(length);
        let fate = self.fate(&held);
        let inserted = self.go_on(fate);
        self.end_held(inserted, &held, take)?;
        held.clear();
        // Its memory serves the next line.
        self.held = held;
        Ok(piece.get(length - before..).unwrap_or_default())
    }

    /// Hands on the beginning of a line that was held back, behind what is inserted.
    fn end_held(&mut self, before: &[u8], held: &[u8], take: Take<'_>) -> io::Result<()> {
        if !before.is_empty() {
            take(before)?;
        }
        if self.at == At::Body {
            return self.hand_on(held, held.len(), take);
        }
        let mut rest = held;
        while !rest.is_empty() {
            let (length, keeps) = self.line(rest);
            if keeps {
                self.hand_on(rest, length, take)?;
            }
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(())
    }

    /// The length of what is next of a line, and whether it is kept.
    fn line(&mut self, rest: &[u8]) -> (usize, bool) {
        if self.at == At::BehindCr {
            if rest.first() == Some(&b'\n') {
                self.at = At::LineStart;
                let keeps = !self.is_removed || self.begins_behind_cr;
                self.begins_behind_cr = false;
                return (1, keeps);
            }
            self.begins_behind_cr = !self.is_removed || self.begins_behind_cr;
            self.at = At::LineStart;
            return (0, true);
        }
        let Some(end) = memchr::memchr2(b'\n', b'\r', rest) else {
            return (rest.len(), !self.is_removed);
        };
        if rest.get(end) == Some(&b'\r') {
            self.at = At::BehindCr;
            return (end + 1, !self.is_removed);
        }
        if self.is_removed && self.begins_behind_cr {
            if end > 0 {
                // The LF comes next, and is kept.
                return (end, false);
            }
            self.is_removed = false;
        }
        self.at = At::LineStart;
        self.begins_behind_cr = false;
        (end + 1, !self.is_removed)
    }

    fn hand_on(&mut self, rest: &[u8], kept: usize, take: Take<'_>) -> io::Result<()> {
        if kept == 0 {
            return Ok(());
        }
        self.is_empty = false;
        take(rest.get(..kept).unwrap_or_default())
    }

    /// Goes on with a line of that fate; returns what is to be handed on before it.
    fn go_on(&mut self, fate: Fate) -> &'static [u8] {
        self.is_first_line = false;
        self.is_removed = fate == Fate::Remove;
        self.at = match fate {
            Fate::Body(_) => At::Body,
            Fate::Keep | Fate::Remove | Fate::KeepBehind(_) => At::Line,
        };
        let before: &[u8] = match fate {
            Fate::Keep | Fate::Remove => b"",
            Fate::KeepBehind(before) | Fate::Body(before) => before,
        };
        self.is_empty &= before.is_empty();
        before
    }

    /// Decides about a line by its beginning, see [`begin_of_line`].
    fn fate(&mut self, begin: &[u8]) -> Fate {
        if matches!(begin.first(), Some(b' ' | b'\t')) && (self.field_removed || !self.is_start) {
            return match self.field_removed {
                true => Fate::Remove,
                false => Fate::Keep,
            };
        }
        self.field_removed = false;
        if begin == b"\n" || begin == b"\r\n" && !self.is_start {
            return Fate::Body(b"");
        }
        if self.is_start && is_envelope_line(begin) {
            let is_envelope = self.is_first_line && begin.starts_with(ENVELOPE);
            let removes = self.removes == Removes::Trace { envelope: true };
            return match is_envelope && removes {
                true => Fate::Remove,
                false => Fate::KeepBehind(ENVELOPE_FIELD),
            };
        }
        let name = field_name(begin);
        if let Some(name) = name
            && self.is_to_go(name)
        {
            self.field_removed = true;
            return Fate::Remove;
        }
        if self.is_start && (name.is_none() || !begin.ends_with(b":")) {
            return Fate::Body(b"\n");
        }
        self.is_start = false;
        Fate::Keep
    }

    fn is_to_go(&mut self, name: &[u8]) -> bool {
        let is_status_field = is_status_field(name);
        self.has_status_fields |= is_status_field;
        match self.removes {
            Removes::Status => is_status_field,
            Removes::Trace { .. } => REMOVED.iter().any(|known| name.eq_ignore_ascii_case(known)),
        }
    }
}

/// Bytes looked at together where a line was cut.
const FED_BYTES: usize = 64;

/// As smtpd(8) sees it: with any number of `>` before.
fn is_envelope_line(begin: &[u8]) -> bool {
    let quotes = begin.iter().take_while(|byte| **byte == b'>').count();
    let line = begin.get(quotes..).unwrap_or_default();
    line.starts_with(ENVELOPE)
}

#[cfg(test)]
mod tests {
    use super::super::header_field::NAME_BYTES_MAX;
    use super::*;
    use proptest::prelude::*;

    fn run(mut filter: HeaderFilter, pieces: &[&[u8]]) -> Vec<u8> {
        let mut kept = Vec::new();
        let mut take = |bytes: &[u8]| {
            kept.extend_from_slice(bytes);
            Ok(())
        };
        for piece in pieces {
            filter.feed(piece, &mut take).unwrap();
            assert!(filter.held.len() <= NAME_BYTES_MAX + FED_BYTES);
        }
        filter.finish(&mut take).unwrap();
        kept
    }

    fn filter(pieces: &[&[u8]], removes_envelope: bool) -> Vec<u8> {
        run(HeaderFilter::new(removes_envelope), pieces)
    }

    /// Text and end of each line; a CR ends one, too.
    fn lines(content: &[u8]) -> Vec<(&[u8], &[u8])> {
        let mut lines = Vec::new();
        let mut rest = content;
        while !rest.is_empty() {
            let at = rest.iter().position(|b| matches!(b, b'\n' | b'\r'));
            let at = at.unwrap_or(rest.len());
            let length = match &rest[at..] {
                [b'\r', b'\n', ..] => 2,
                [] => 0,
                _ => 1,
            };
            let (line, behind) = rest.split_at(at + length);
            lines.push(line.split_at(at));
            rest = behind;
        }
        lines
    }

    /// The same, from whole lines.
    fn oracle(
        content: &[u8],
        removes_envelope: bool,
        removed: &[&str],
        is_arriving: bool,
    ) -> Vec<u8> {
        let mut kept = Vec::new();
        let (mut in_header, mut has_header) = (true, !is_arriving);
        let (mut field_removed, mut behind_kept_cr) = (false, false);
        for (number, (text, end)) in lines(content).into_iter().enumerate() {
            let mut keep = true;
            let colon = text.iter().position(|b| *b == b':');
            let name = colon.map(|at| text[..at].trim_ascii_end());
            let name = name.filter(|n| !n.is_empty() && n.iter().all(u8::is_ascii_graphic));
            let name = name.map(|n| String::from_utf8(n.to_ascii_lowercase()).unwrap());
            let unquoted = text.iter().position(|b| *b != b'>').unwrap_or(text.len());
            let is_envelope = text[unquoted..].starts_with(b"From ");
            let is_continued = text.starts_with(b" ") || text.starts_with(b"\t");
            if !in_header {
            } else if is_continued && (field_removed || has_header) {
                keep = !field_removed;
            } else if text.is_empty() && (end == b"\n" || end == b"\r\n" && has_header) {
                in_header = false;
            } else if !has_header && is_envelope {
                field_removed = false;
                keep = !(removes_envelope && number == 0 && text.starts_with(b"From "));
                if keep {
                    kept.extend_from_slice(b"X-Mailbox-Line: ");
                }
            } else if name
                .as_ref()
                .is_some_and(|name| removed.contains(&name.as_str()))
            {
                (keep, field_removed) = (false, true);
            } else {
                field_removed = false;
                if !has_header && name.is_none() {
                    kept.push(b'\n');
                    in_header = false;
                }
                has_header = true;
            }
            if keep {
                kept.extend_from_slice(text);
                kept.extend_from_slice(end);
                behind_kept_cr = end == b"\r";
            } else {
                if behind_kept_cr && end.ends_with(b"\n") {
                    kept.push(b'\n');
                }
                behind_kept_cr &= end == b"\r";
            }
        }
        if kept.is_empty() && is_arriving {
            kept.push(b'\n');
        }
        kept
    }

    const MESSAGE: &[u8] = b"From a@b  Sun Nov 22 06:51:19 2026\n\
        rEturn-Path: <forged@example.com>\n\tcontinued\n \n\
        Return-Pathology: stays\n\
        X-Original-To \t : forged\n\
        Delivered-To: stays\n\
        Subject: return-path:\n X-Original-To: continued, stays\n\
        no field\n continued\n\
        Return-Path: behind it\r\n\
        A: b\rX-Original-To: behind a CR\n continued\n\
        X-Original-To: at the end\n\n\
        Return-Path: in the body\n";

    const FILTERED: &[u8] = b"Return-Pathology: stays\n\
        Delivered-To: stays\n\
        Subject: return-path:\n X-Original-To: continued, stays\n\
        no field\n continued\n\
        A: b\r\n\n\
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
                    kept.escape_ascii().to_string(),
                    FILTERED.escape_ascii().to_string(),
                    "cut at {first} and {second}"
                );
            }
        }
        let bytes: Vec<&[u8]> = MESSAGE.chunks(1).collect();
        assert_eq!(filter(&bytes, true), FILTERED);
    }

    #[test]
    fn an_envelope_line_becomes_a_field_unless_it_is_to_go() {
        let kept = filter(&[MESSAGE], false);
        assert!(kept.starts_with(b"X-Mailbox-Line: From a@b  Sun"));
        assert!(kept.ends_with(FILTERED));
        let quoted = b">>From a\nFrom b\n\nbody\n";
        let field = b"X-Mailbox-Line: >>From a\nX-Mailbox-Line: From b\n\nbody\n";
        assert_eq!(filter(&[quoted], true), field);
        assert_eq!(filter(&[b"from a\n"], true), b"\nfrom a\n");
    }

    #[test]
    fn an_empty_line_comes_before_what_begins_with_no_header() {
        for content in [
            &b" begins with a blank\nReturn-Path: in the body\n"[..],
            b"\t\nx\n",
            b"no colon\nSubject: x\n",
            b": no name\n",
            b"a b: two words\n",
            b"caf\xe9: no ASCII\n",
            b"a\0b: NUL\n",
            b"\r\nSubject: x\n",
            b"no line end",
            b"Return-Path",
            b"",
        ] {
            let expected = [b"\n", content].concat();
            assert_eq!(filter(&[content], true), expected, "{content:?}");
            let removed = [b"Return-Path: x\n", content].concat();
            if !content.starts_with(b" ") && !content.starts_with(b"\t") {
                assert_eq!(filter(&[&removed], true), expected, "{removed:?}");
            }
        }
        for content in [&b"\n"[..], b"\nbody\n", b"Subject : x", b"Subject:\n"] {
            assert_eq!(filter(&[content], true), content, "{content:?}");
        }
    }

    #[test]
    fn a_huge_field_passes_or_goes_without_being_held() {
        let long = vec![b'x'; 100_000];
        let kept = filter(&[b"Return-Path: ", &long, b"\nA: ", &long, b"\n\n"], false);
        assert_eq!(kept, [b"A: ", &long[..], b"\n\n"].concat());
        let blanks = vec![b' '; 100_000];
        let kept = filter(&[b"A: b\nReturn-Path", &blanks, b": x\nB: c\n\n"], false);
        assert_eq!(kept, b"A: b\nB: c\n\n");
        let kept = filter(&[&long, b": no name\n"], false);
        assert_eq!(kept, [b"\n", &long[..], b": no name\n"].concat());
    }

    #[test]
    fn fields_that_mbox_readers_trust_are_noticed_and_removed() {
        let message = b"STATUS: RO\nSubject: Status: x\nodd\nX-UID : 7\n 8\nX-IMAPbase: 1 2\n\
            Content-Length: 3\nX-Status: A\nX-Keywords: k\nLines: 1\nX-IMAP: 1\nX-Statusx: y\n\n\
            Status: in the body\n";
        let mut filter = HeaderFilter::new(false);
        let mut kept = Vec::new();
        let mut take = |bytes: &[u8]| {
            kept.extend_from_slice(bytes);
            Ok(())
        };
        filter.feed(message, &mut take).unwrap();
        filter.finish(&mut take).unwrap();
        assert!(filter.has_status_fields());
        assert_eq!(kept, message);
        let expected: &[u8] = b"Subject: Status: x\nodd\nX-Statusx: y\n\nStatus: in the body\n";
        assert_eq!(run(HeaderFilter::of_status_fields(), &[message]), expected);
        let mut filter = HeaderFilter::new(false);
        filter.feed(expected, &mut |_| Ok(())).unwrap();
        assert!(!filter.has_status_fields());
    }

    fn content() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just("Return-Path: x".to_owned()),
            Just("X-ORIGINAL-TO\t:y".to_owned()),
            Just("Status: RO".to_owned()),
            Just("From me".to_owned()),
            Just(">from me".to_owned()),
            Just("From: me".to_owned()),
            Just("Return-Path".to_owned()),
            Just(" continued".to_owned()),
            Just("X-Original-To : a: b".to_owned()),
            Just(": no name".to_owned()),
            "[A-Za-z: \t-]{0,12}",
        ];
        let end = prop_oneof![6 => Just("\n"), 1 => Just("\r"), 1 => Just("\r\n")];
        (
            proptest::collection::vec((piece, end), 0..12),
            any::<bool>(),
        )
            .prop_map(|(lines, complete)| {
                let text: String = lines.iter().flat_map(|(text, end)| [text, *end]).collect();
                let text = if complete {
                    text.as_str()
                } else {
                    text.trim_end()
                };
                text.as_bytes().to_vec()
            })
    }

    fn pieces<'a>(content: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
        let mut pieces = Vec::new();
        let mut rest = content;
        for cut in cuts {
            let (piece, behind) = rest.split_at((*cut).min(rest.len()));
            pieces.push(piece);
            rest = behind;
        }
        pieces.push(rest);
        pieces
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn filtering_is_what_whole_lines_say(
            content in content(),
            removes_envelope: bool,
            cuts in proptest::collection::vec(1usize..9, 1..40),
        ) {
            let pieces = pieces(&content, &cuts);
            let kept = filter(&pieces, removes_envelope);
            let ours = ["return-path", "x-original-to"];
            let expected = oracle(&content, removes_envelope, &ours, true);
            prop_assert_eq!(kept.escape_ascii().to_string(), expected.escape_ascii().to_string());
            let kept = run(HeaderFilter::of_status_fields(), &pieces);
            let expected = oracle(&content, false, &["status"], false);
            prop_assert_eq!(kept.escape_ascii().to_string(), expected.escape_ascii().to_string());
        }
    }
}
