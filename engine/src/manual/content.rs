//! How mailstow converts the bytes of a message.
//!
//! Documentation only. The same rules hold for every input (LMTP `DATA` and `BDAT`, `mailstow
//! deliver`, a program that embeds the engine), for messages in memory and on disk, and for every
//! kind of mailbox unless a section names one.
//!
//! # Line ends
//!
//! [`LineEnds`](crate::LineEnds) converts them all:
//!
//! - CR LF becomes LF, the line end of every mailbox format on UNIX.
//! - Every other byte stays: a CR that no LF follows, an LF without CR, NUL, bytes beyond ASCII.
//!   So CR CR LF is stored as CR LF.
//! - An incomplete last line is completed, as virtual(8) does. Only content declared binary
//!   (`BODY=BINARYMIME`) keeps its last line unchanged.
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
//! the size that an IMAP server reports for FETCH: `S=` plus one for each LF without a CR before
//! it. Dovecot trusts both, and disconnects a client when a message is longer or shorter.
//!
//! # Who a copy is for
//!
//! Each copy begins with `Return-Path`, then for each of its recipients, in the order of `RCPT`,
//! the lines that virtual(8) writes: `X-Original-To` (left out when unknown) and `Delivered-To`.
//!
//! ```text
//! Return-Path: <sender@example.org>
//! X-Original-To: sales@example.net
//! Delivered-To: ann@example.com
//! Delivered-To: bob@example.com
//! ```
//!
//! - Recipients of one message that have the same mailbox, as those of a catch-all, share one copy
//!   (`[store] copies = "mailbox"`). A recipient given twice is named once.
//! - A program that distributes such a mailbox must read all of these lines above the first field
//!   that is not one of them: every `Delivered-To` there is a recipient, and the `X-Original-To`
//!   before it is the address it came from. `Delivered-To` fields further down belong to the
//!   message.
//! - fetchmail (`envelope`) and getmail (`envelope_recipient`) read a single line, by default the
//!   first, so they see the first recipient only. For them, set `[store] copies = "recipient"`:
//!   one copy for each recipient, as virtual(8) makes them.
//! - A repetition after a lost reply is recognised for each recipient separately, also with fewer
//!   recipients, more, or in another order. Recipients that do not have the message yet get a copy
//!   that names only them.
//!
//! # Where the header of a message begins and ends
//!
//! mailstow writes its fields above the message. A message without a header must not continue these
//! fields, nor hide fields from programs that search for them:
//!
//! - A message whose first line is no header field gets an empty line before it, as from smtpd(8)
//!   and cleanup(8): the rest is its body. So does an empty message.
//! - `From ` lines before the header, also quoted ones, become `X-Mailbox-Line:` fields, as
//!   smtpd(8) makes them. `mailstow deliver` leaves out the first one, which pipe(8) writes with
//!   `flags=F`.
//! - `Return-Path:` and `X-Original-To:` in a message are removed with their continuation lines
//!   wherever they are in its header, because readers would take them for those of mailstow.
//!   `Delivered-To:` stays, because mail loops are recognised by it.
//!
//! # Fields in which readers of an mbox keep their state
//!
//! An mbox can hold flags and sizes only in the header of its messages, so mutt, Dovecot and
//! c-client keep them there and trust them: a sender's `Status: RO` makes new mail look read, and a
//! sender's `Content-Length:` makes a message swallow the one after it. cleanup(8) drops only
//! `Content-Length:`, virtual(8) drops none. With `[store] mbox_status_fields = "remove"`, the
//! default, copies in an mbox lack `Content-Length`, `Lines`, `Status`, `X-Status`, `X-UID`,
//! `X-Keywords`, `X-IMAP` and `X-IMAPbase`; `"keep"` leaves them. Copies in a Maildir always keep
//! them: its readers store flags in file names.
