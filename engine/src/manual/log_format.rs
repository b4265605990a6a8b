//! The bytes of the delivery log, and what its records mean.
//!
//! All integers are little endian. CRC-32 is the one of IEEE 802.3 (zlib, gzip). Texts are UTF-8:
//! a length in four bytes, then that many bytes. Times are nanoseconds since the UNIX epoch.
//! This is version 2. A reader takes version 1 as well, whose records are those of version 2
//! without the plans 3 and 4 of a recipient, and refuses any other. A segment has the version of
//! the build that wrote it, so that one log may hold both.
//!
//! # The directory
//!
//! | name | what it is |
//! |---|---|
//! | `lock` | locked with flock(2) by the process that writes; holds its process id |
//! | `segment-N.log` | segment number N (16 hexadecimal digits); holds frames |
//! | `spare-N.log`, `spare-nK.log` | a file of the right size, free to become a segment |
//!
//! A new file is filled with zeros once: overwriting blocks that were written before changes no
//! metadata, so that a flush on a journaling file system needs no commit of the journal. After
//! that a file is used again and again. It changes its role in an order that a crash cannot
//! confuse:
//!
//! 1. spare to reserved segment: write a header that says *reserved*, flush it, rename, flush the
//!    directory. That is done ahead of need, for one segment, by a thread that nobody waits for,
//!    with the flush of the directory that makes the name of a new spare durable where one is
//!    made: each is a commit of the file system's journal, which all who write to it wait for. A
//!    new spare is all zeros when it gets its name, and may be found empty until it is flushed.
//! 2. reserved segment to segment: write the header again with what comes first in it, flush it,
//!    and only then write frames. So every `segment-*` has a header with its number, and no number
//!    is ever used for two sets of frames. A reserved segment found at opening is named
//!    a spare again before anything else is written to it. A spare found at opening whose header
//!    cannot be read is removed, unless it never held frames: they could have any number.
//! 3. segment to spare: rename, flush the directory; oldest first, one at a time, so that no gap
//!    arises.
//!
//! Opening the log always begins a new segment and never writes behind what an earlier process
//! left. Segments of which nothing is needed any more become spares again.
//!
//! # A segment
//!
//! The first block of 4096 bytes is the header; what is not listed is zero.
//!
//! | offset | bytes | meaning |
//! |---|---|---|
//! | 0 | 8 | magic `MSTOWLOG` |
//! | 8 | 4 | version: 2 |
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
//! Batches follow. A batch is what one flush made durable: frames one behind the other, begun at
//! a multiple of 4096 and filled up with zeros to one. A block is never written a second time
//! within the life of a segment: if a half-filled last block were written again with the next
//! batch, a torn write could take acknowledged frames with it.
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
//! Identity and number are not in the frame, but in its checksum: CRC-32 tells any two of them
//! apart that differ in 32 bits or less, so a frame from an earlier use of the file is never
//! taken as live. A record longer than a frame or than the rest of the segment goes on in the
//! next frame; all its frames have its sequence.
//!
//! # Torn tail or damage
//!
//! A reader follows the frames. Where the expected frame (next fragment, or next sequence) does
//! not stand:
//!
//! * 32 zero bytes: the rest of the block is padding; the next block is looked at.
//! * A later block begins with a valid *first frame of a batch* of the same segment: the writer
//!   begins a batch only after the one before is durable, so what is missing had been durable.
//!   That is damage, reported with file and offset; reading goes on at that batch. (If it is the
//!   expected frame after all, only padding was damaged and nothing is missing.)
//! * Otherwise the segment ends here. If it is the newest, the rest is a torn tail: frames of the
//!   last batch, whose flush nobody was told of. Which sectors of that batch arrived does not
//!   matter; frames behind the first hole are not looked at, now or later.
//! * The next segment must begin with the expected frame, else records are missing: damage. One
//!   exception: opening the log gave up a record that a crash left unfinished, and went on with
//!   the sequence behind it. The header says whether that record was whole then; if it was, what
//!   is missing of it now is damage.
//!
//! The oldest segment may begin inside of a record whose beginning is no longer needed. Segments
//! are freed only below a checkpoint that is durable in a newer one. So what stands before the
//! oldest segment is missing unless the log begins with record 1 or a checkpoint in it covers
//! that; what stood behind the newest is missing if the reserved segment knew a newer one; and all
//! is missing if a segment was begun or freed and none is there. A segment belongs to the log that
//! most of them belong to; another log's is damage. One whose header is damaged is read by the
//! number in its name and that identity: each frame's checksum covers both. (Whoever takes away
//! the newest segment and the reserved one with it leaves a log that ends earlier and is whole.)
//!
//! # Records
//!
//! Kind 1, **accepted**: a message was taken for these recipients. Once it is durable the message
//! will reach every one of them that no *done* record refuses.
//!
//! | bytes | meaning |
//! |---|---|
//! | 16 | id of the message, drawn by delivery; the reply to the client shows it |
//! | 8 | time |
//! | 32 | digest of the content; the log does not look at it |
//! | text | reverse-path in external form |
//! | text | queue id of the client, or empty |
//! | 4 | number of recipients, then for each of them: |
//! | text | forward-path; becomes `Delivered-To` |
//! | text | original recipient, or empty; becomes `X-Original-To` |
//! | text | mailbox, below `virtual_mailbox_base` |
//! | 4, 4 | uid, gid |
//! | 1 | plan, see below |
//! | 1 | (behind the recipients) encoding of the content: 0, as it is |
//! | rest | the content in its stored form (lines end with LF), once for all recipients |
//!
//! The plan says where the copy for a recipient goes: 1: a Maildir; then text: file name in `new/`.
//! 2: an mbox; then 8: its size when planned. 3: the copy of the recipient before, in the same
//! mailbox, whose header names this one too; never that of the first recipient. 4: as 2, but the
//! copy lacks the header fields in which mbox readers keep their state
//! ([`crate::manual::content`]).
//!
//! Kind 2, **done**: what became of recipients. 4 bytes: how many; for each: 16: id, 4: recipient
//! (from 0, in the order of *accepted*; one that shares a copy is not named), 1: outcome. Outcome
//! 1: settled, durably: nothing is to be done or undone. 2: goes to this place of the mbox; then 8:
//! offset, 8: length. 3: refused, nothing was stored. Outcome 1 is written when a message is kept
//! in the log past a checkpoint for the sake of its other recipients. Outcome 2 is durable before
//! the first byte is written there; the last one counts, and recovery knows by all of them what it
//! may cut off. Outcome 3 keeps it from delivering what the client is told has failed, and is
//! durable before it is told.
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
//! accepted before that sequence is durable in its mailboxes or refused. The entries are the
//! whole in-doubt memory of the time before this record; what records before it say of it is
//! void. After it is durable, segments that end before the sequence may become spares.
//!
//! Kind 6, **extent**: a message without an *accepted* record is about to be appended to an mbox
//! and flushed there. Text: mailbox; 4, 4: uid, gid; 8: offset, 8: length; 4: how many sectors of
//! 512 bytes of the file it touches; for each: 4: CRC-32 of the bytes it has there. Durable before
//! the first byte is written. Recovery cuts off what a crash left of it, if it is not whole and
//! nothing that is not ours stands behind it.
//!
//! The content is not compressed. Measured on mail-like text, zstd at its fastest takes 22 us of
//! processor time for a message of 4 KiB and 340 us for one of 64 KiB; a whole append, from
//! encoding to durable, takes about 10 us for 4 KiB. It would halve what is written and save no
//! flush, and flushes are what the log waits for. The byte that says 0 leaves room for another
//! answer.
//!
//! # What recovery makes of them
//!
//! Let C be the last checkpoint and B its sequence (1 without one).
//!
//! | record | meaning for recovery |
//! |---|---|
//! | accepted, from B on, recipient not refused | look for the copy; write it if it is missing, short or wrong |
//! | accepted, from B on, recipient not confirmed | in doubt: when the same message comes again for the same recipient, answer 250 and store nothing |
//! | done | refused: leave the recipient alone; mbox: where to look first |
//! | confirmed | no longer in doubt |
//! | in doubt, behind C | in doubt |
//! | extent, from B on | a part of it at the end of the mbox is cut off |
//! | C | the in-doubt memory to begin with |
//!
//! Confirmations name the message, wherever it was accepted: one behind C may settle an entry of
//! C. A reader of the log therefore takes C's entries, adds those of later records and removes
//! what later confirmations name.
