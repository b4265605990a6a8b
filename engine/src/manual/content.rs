//! What mailstow makes of the bytes of a message.
//!
//! Documentation only. The same rules hold for every entrance (LMTP `DATA` and `BDAT`, `mailstow
//! deliver`, a program that embeds the engine), for messages held in memory and for those that are
//! not, and for every kind of mailbox unless a section names one.
//!
//! # Line ends
//!
//! [`LineEnds`](crate::LineEnds) is the one function:
//!
//! - CR LF becomes LF, the line end of every mailbox format on UNIX.
//! - Every other byte stays: a CR that no LF follows, an LF without CR, NUL, bytes beyond ASCII.
//!   So CR CR LF is stored as CR LF.
//! - A last line without an end gets one, as virtual(8) completes it. Only content declared binary
//!   (`BODY=BINARYMIME`) keeps a last line as it came.
//!
//! `DATA` first undoes dot-stuffing, where only CR LF begins a line and only CR LF `.` CR LF ends
//! the content (RFC 5321 section 4.1.1.4). `mailstow deliver` takes LF and CR LF as line ends, also
//! mixed in one message: pipe(8) sends LF, scripts send either. A CR at the end of a line, which
//! virtual(8) stores, is therefore kept by LMTP (Postfix sends it as CR CR LF), and by pipe(8) only
//! with its `eol=\r\n`.
//!
//! # Sizes in the names of Maildir files
//!
//! `S=` is the number of bytes of the message with its trace header, before compression. `W=` is
//! what an IMAP server counts for FETCH: `S=` plus one for each LF that no CR stands before.
//! Dovecot trusts both, and disconnects a client whose message turns out to be longer or shorter.
