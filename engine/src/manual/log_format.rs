//! The bytes of the delivery log, and what its records mean.
//!
//! All integers are little endian. CRC-32 is the one of IEEE 802.3 (zlib, gzip). Texts are UTF-8: a
//! length in four bytes, then that many bytes. Times are nanoseconds since the UNIX epoch. This is
//! version 3. A reader takes versions 1 and 2 as well, and refuses any other. A segment has the
//! version of the build that wrote it, so one log may contain several.
//!
//! | version | difference |
//! |---|---|
//! | 1 | *accepted* has kind 1, and no recipient has the plans 3 and 4 |
//! | 2 | *accepted* has kind 1 |
//! | 3 | *accepted* has kind 7 |
//!
//! # The directory
//!
//! | name | what it is |
//! |---|---|
//! | `lock` | locked with flock(2) by the process that writes; holds its process id |
//! | `segment-N.log` | segment number N (16 hexadecimal digits); holds frames |
//! | `spare-N.log`, `spare-nK.log` | a file of the right size, free to become a segment |
//! | `damaged-N.log` | segment number N, whose damage the operator accepted, for people |
//! | `unreadable-N-B.kind-K` | payload of the record of kind K at byte B of segment N, likewise |
//!
//! A new file is filled with zeros once: overwriting blocks that were written before changes no
//! metadata, so that a flush on a journaling file system needs no commit of the journal. After that
//! a file is used again and again. It changes its role in steps between which a crash does no harm:
//!
//! 1. spare to reserved segment: write a header that says *reserved*, flush it, rename, flush the
//!    directory. A background thread does that in advance, for one segment. If it also makes a new
//!    spare, one flush of the directory makes both names durable: each such flush is a commit of
//!    the file system's journal, for which all writers to it wait. A new spare is all zeros when it
//!    gets its name, and may be found empty until it is flushed.
//! 2. reserved segment to segment: write the header again with the number of the first record,
//!    flush it, and only then write frames. So every `segment-*` has a header with its number, and
//!    no number is ever used for two sets of frames. A reserved segment found at opening is named a
//!    spare again before anything else is written to it. A spare found at opening whose header
//!    cannot be read is removed, unless it never held frames: they could have any number.
//! 3. segment to spare: rename, flush the directory; oldest first, one at a time, so that no gap
//!    arises.
//!
//! Opening the log always begins a new segment and never writes to a segment of an earlier process.
//! Segments without needed records become spares again.
//!
//! # A segment
//!
//! The first block of 4096 bytes is the header; other bytes are zero.
//!
//! | offset | bytes | meaning |
//! |---|---|---|
//! | 0 | 8 | magic `MSTOWLOG` |
//! | 8 | 4 | version: 3 |
//! | 12 | 4 | size of a block: 4096 |
//! | 16 | 8 | identity of the log, drawn at random when it was made |
//! | 24 | 8 | number of the segment, counting up from 1, at most 2^62 |
//! | 32 | 8 | size of the file, a multiple of 4096 |
//! | 40 | 8 | sequence of the record whose frame comes first; while reserved, that of the newest segment's |
//! | 48 | 4 | fragment of that record that comes first, likewise |
//! | 52 | 4 | 1 if the log was opened with this segment; 2 if it is reserved and holds no frames; else 0 |
//! | 56 | 8 | time it was begun |
//! | 64 | 4 | 1 if the log was opened with this segment and found the record before it whole; else 0, as older builds wrote |
//! | 68 | 4 | CRC-32 of bytes 0 to 67 |
//!
//! Batches follow. A batch is the data of one flush: consecutive frames that begin at a multiple of
//! 4096, with zeros up to the next multiple. A block is never written a second time within the life
//! of a segment: if a half-filled last block were written again with the next batch, a torn write
//! could take acknowledged frames with it.
//!
//! # A frame
//!
//! Begins at a multiple of 8; zeros fill the space to the next. A segment with less than 64 bytes
//! left is full.
//!
//! | offset | bytes | meaning |
//! |---|---|---|
//! | 0 | 4 | CRC-32 of: identity (8 bytes) and number (8 bytes) of the segment, then bytes 4 to 31 |
//! | 4 | 4 | CRC-32 of the payload |
//! | 8 | 8 | sequence of the record, counting up from 1 without gaps, at most 2^62 |
//! | 16 | 4 | bytes of payload in this frame, 1 to 262144 |
//! | 20 | 4 | fragment: 0 for the first frame of a record, then 1, 2 ... |
//! | 24 | 4 | bytes of payload in all frames of the record, at most 2^30 |
//! | 28 | 1 | kind |
//! | 29 | 1 | bit 0: last frame of its record; bit 1: first frame of its batch |
//! | 30 | 2 | zero |
//! | 32 | | payload |
//!
//! Identity and number are not in the frame, but in its checksum: CRC-32 distinguishes any two of
//! them that differ in a range of 32 bits or less, so a frame from an earlier use of the file is
//! never taken as live. A record longer than a frame or than the rest of the segment continues in
//! the next frame; all its frames have its sequence.
//!
//! # Torn tail or damage
//!
//! A reader follows the frames. Where the expected frame (next fragment, or next sequence) is
//! missing:
//!
//! * 32 zero bytes: the rest of the block is padding; reading continues at the next block.
//! * A later block begins with a valid *first frame of a batch* of the same segment: the writer
//!   begins a batch only after the previous one is durable, so the missing frames were durable.
//!   That is damage, reported with file and offset; reading continues at that batch. (If it is the
//!   expected frame after all, only padding was damaged and nothing is missing.)
//! * Otherwise the segment ends here. If it is the newest, the rest is a torn tail: frames of the
//!   last batch, whose flush was not reported. Which sectors of that batch arrived does not matter;
//!   frames after the first hole are never read.
//! * The next segment must begin with the expected frame, otherwise records are missing: damage.
//!   One exception: opening the log dropped a record that a crash left incomplete, and continued
//!   with the next sequence. The header says whether that record was complete then; if it was, its
//!   missing part is damage.
//!
//! The oldest segment may begin inside of a record whose beginning is no longer needed. Segments
//! are freed only below a checkpoint that is durable in a newer one. So segments before the oldest
//! one are missing unless the log begins with record 1 or a checkpoint in it covers them; segments
//! after the newest one are missing if the reserved segment refers to a newer one; and all are
//! missing if a segment was begun or freed and none exists. The identity of most segments is that
//! of the log; a segment with another identity is damage. A segment with a damaged header is read
//! by the number in its name and that identity, because each frame's checksum covers both. (If the
//! newest segment and the reserved one are removed, the rest is a complete log that ends earlier.)
//!
//! # Records
//!
//! Kind 7, **accepted**: a message was accepted for these recipients. Once the record is durable,
//! the message will reach each of them that no *done* record refuses.
//!
//! | bytes | meaning |
//! |---|---|
//! | 16 | id of the message, drawn by delivery; the reply to the client shows it |
//! | 8 | time |
//! | text | reverse-path in external form |
//! | text | queue id of the client, or empty |
//! | 4 | number of recipients, then for each of them: |
//! | text | forward-path; becomes `Delivered-To` |
//! | text | original recipient, or empty; becomes `X-Original-To` |
//! | text | mailbox, below `virtual_mailbox_base` |
//! | 4, 4 | uid, gid |
//! | 1 | plan, see below |
//! | rest | the content in its stored form (lines end with LF), once for all recipients |
//!
//! Kind 1 has two more fields: 32 zero bytes after the time, and a zero byte before the content.
//! Only versions 1 and 2 write it.
//!
//! The plan says where the copy for a recipient goes: 1: a Maildir; then text: file name in `new/`.
//! 2: an mbox; then 8: its size when planned. 3: the copy of the recipient before, in the same
//! mailbox, whose header names this one too; never that of the first recipient. 4: as 2, but the
//! copy lacks the header fields in which mbox readers keep their state
//! ([`crate::manual::content`]).
//!
//! Kind 2, **done**: the outcomes of recipients. 4 bytes: how many; for each: 16: id, 4: recipient
//! (from 0, in the order of *accepted*; one that shares a copy is not named), 1: outcome. Outcome
//! 1: durably settled: recovery does nothing. 2: has this place in the mbox; then 8: offset, 8:
//! length. 3: refused, nothing was stored. Outcome 1 is written when a message is kept in the log
//! past a checkpoint for the sake of its other recipients. Outcome 2 is durable before the first
//! byte is written there; the last one counts, and recovery may cut off the bytes at all of them.
//! Outcome 3 prevents that recovery delivers a message whose failure the client knows, and is
//! durable before the client is answered.
//!
//! Kind 3, **confirmed**: the client has read the reply. 4 bytes:
//! how many; for each: 16: id, 4: recipient, or `ffffffff` for all.
//!
//! Kind 4, **in doubt**: deliveries that did not go through an *accepted* record (they were
//! written to the mailbox directly, or a transport took them) and whose reply may not have been
//! read. 4 bytes: how many; for each: 16: id, 4: recipient, 32: key (digest of content, sender,
//! recipient, mailbox and queue id; its last bit says that the client named the message by a queue
//! id), 8: time. In place of a mailbox a transport has a NUL, its name, `:` and the nexthop. In
//! version 1 the key knows a recipient by its original address alone, and no queue id.
//!
//! Kind 5, **checkpoint**: 8 bytes: sequence; then in-doubt entries as in kind 4. Every message
//! accepted before that sequence is durable in its mailboxes or refused. The entries are the whole
//! in-doubt memory of the time before the record with that sequence; they replace the information
//! in earlier records.
//! After it is durable, segments that end before the sequence may become spares.
//!
//! Kind 6, **extent**: a message without an *accepted* record is about to be appended to an mbox
//! and flushed there. Text: mailbox; 4, 4: uid, gid; 8: offset, 8: length; 4: how many sectors of
//! 512 bytes of the file it touches; for each: 4: CRC-32 of the bytes it has there. Durable before
//! the first byte is written. Recovery cuts off an incomplete message that no bytes of other
//! programs follow.
//!
//! The content is not compressed. Measured on mail-like text, zstd at its fastest takes 22 us of
//! processor time for a message of 4 KiB and 340 us for one of 64 KiB; a whole append, from
//! encoding to durable, takes about 10 us for 4 KiB. It would halve the written bytes and save no
//! flush, and the log waits for flushes.
//!
//! # How recovery uses the records
//!
//! Let C be the last checkpoint and B its sequence (1 without one).
//!
//! | record | meaning for recovery |
//! |---|---|
//! | accepted, from B on, recipient not refused | look for the copy; write it if it is missing, short or wrong |
//! | accepted, from B on, recipient not confirmed | in doubt: when the same message comes again for the same recipient, answer 250 and store nothing |
//! | done | refused: skip the recipient; mbox: the place to check first |
//! | confirmed | no longer in doubt |
//! | in doubt, from B on | in doubt |
//! | extent, from B on | a part of it at the end of the mbox is cut off |
//! | C | the in-doubt memory to begin with |
//!
//! Confirmations name the message, wherever it was accepted: one after C may settle an entry of C.
//! A reader of the log therefore takes C's entries, adds those of later records and removes what
//! later confirmations name.
