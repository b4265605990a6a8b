//! When an acknowledged message is durable, and what a crash leaves on disk.
//!
//! A recipient is answered with success only after the message *and the directory entry that leads
//! to it* are on stable storage. Postfix virtual(8) and most delivery agents flush the file but not
//! the directory: after a power loss an acknowledged message may then be a file without a name.
//!
//! There are two ways. With `store.durability = "logged"`, the default of `mailstow serve`, the
//! message is durable in the delivery log. With `"direct"`, which `mailstow deliver` and messages
//! longer than `delivery_log.message_bytes_max` always use, it is durable in its mailbox.
//!
//! Mailboxes of accounts of this machine, and files that aliases name, have a second store with a
//! separate log: `accounts/delivery-log` in the state directory. It is recovered also when local
//! delivery, or the delivery log, is in use no more.
//!
//! # The order with the delivery log (`store.durability = "logged"`)
//!
//! A writer takes all waiting deliveries from the queue and does these steps for all of them
//! together:
//!
//! 1. **Lock** the mboxes, so that the places of the messages in them are known. Deliveries to an
//!    mbox that another program has locked return to the queue.
//! 2. **Log.** For each message one *accepted* record with its content and, for each recipient, the
//!    mailbox and the future name of the file; for each mbox message a *done* record with its
//!    place. All waiting records of all writers share one flush.
//! 3. **Write** invisible Maildir files, while the log is flushed.
//! 4. **Wait** for the flush. From here on the message will be delivered, whatever fails.
//! 5. **Publish** the files under their planned names, append to the mboxes (one append for all
//!    messages of an mbox), release the locks, **answer**. No mailbox is flushed.
//!
//! While it would wait in step 4, the writer does steps 1 to 3 for deliveries that arrived
//! meanwhile, so that it works on up to two batches. A batch never waits for the flush of the
//! other, only for its steps.
//!
//! A delivery that fails after step 2 is refused in the log, and that record is flushed *before*
//! the client is answered: the client will send the message again, so recovery must not deliver it
//! as well. An abandoned delivery (the server gave up waiting) is refused in the log without
//! waiting; if a crash comes first, recovery delivers it, and the repetition is recognised (see
//! below).
//!
//! On file systems where one flush does not reliably cover all data (all but ext2/3/4, XFS, btrfs,
//! F2FS and those in memory, and on kernels before 5.8), files and directories are also flushed in
//! steps 3 and 5.
//!
//! A message longer than `delivery_log.message_bytes_max` is written to its mboxes only: the mbox
//! is flushed, an *extent* record with the place of the message and the CRC-32 of each of its
//! sectors is appended to the log, and only then is the message appended and flushed. When such a
//! flush, or any other of a direct delivery, fails, its file system is suspect, as after a failed
//! checkpoint.
//!
//! # Checkpoints
//!
//! Every `delivery_log.checkpoint_interval` (10 s), and when half of `delivery_log.bytes_max` is
//! used, the mailboxes are made durable: one `syncfs` for each file system that mail was written
//! to, through a handle opened before everything it covers was written, so that no write error is
//! missed. Then a *checkpoint* record states the record up to which every delivery is durable, and
//! the segments before it are used again. A checkpoint stops before the first record of a delivery
//! in progress. A full log makes deliveries wait (`delivery_log.full_wait`), then they are answered
//! 452 4.3.1. Records of recovery do not wait: the log then exceeds its bound briefly.
//!
//! A message whose record would not fit into a small log (about half of `bytes_max`) is flushed in
//! its mailboxes, like a long one.
//!
//! # When the log fails
//!
//! After a failed write or flush of the log nothing is acknowledged: all are answered 451 4.3.0.
//! The log is closed and opened again, at first after half a second, then more rarely. `mailstow
//! health` and systemd's status report this with the cause. The server continues to notify
//! systemd's watchdog, because a restart would do no more than the server does itself, and would
//! end the sessions. Before mail is accepted again, refusals that the log could not take are
//! appended to it and flushed, and a checkpoint is made. Mailboxes are not recovered: the kernel
//! has all data that was written to them, the process knows the outcome of each delivery, and
//! messages that a reader has removed meanwhile stay removed.
//!
//! It is opened again when no writer uses it any more, except for writers that do not come back
//! from a mailbox (see below), from which it takes no more records. Their deliveries were answered
//! before, and their outcomes are appended to the log in service.
//!
//! # When a file system cannot be flushed
//!
//! Each file system of mailboxes is flushed separately. When its flush fails, it is *suspect*: the
//! kernel may return data that the disk does not have, and would report success for another flush.
//! The delivery log stays in service, other file systems are flushed, and the log keeps the mail
//! that the suspect one may have lost. These steps make it durable again:
//!
//! 1. A new handle is opened on the file system, so that no later error is missed, and the
//!    deliveries in progress are waited for.
//! 2. Its mail is read back from the log and held: it is copied in the log from checkpoint to
//!    checkpoint, so that the rest of the log is used again.
//! 3. The same bytes are written again in place. A message that a reader has removed is not
//!    restored, but held until the removal is durable; a file that a reader has changed is left
//!    unchanged.
//! 4. The next checkpoint flushes the file system through the new handle. When that succeeds, all
//!    of its mail is durable.
//!
//! The first attempt comes at once, and no mail is deferred. If it fails, deliveries to this file
//! system are answered 4xx, and attempts follow after 1 s, 2 s and so on up to a minute; they flush
//! each file separately, so that a file that cannot be flushed (for example of a user over quota)
//! is distinguished from all others. Between attempts no file is kept open there, so that it can be
//! unmounted. A file system that is mounted again in its place is recovered as after a crash.
//! `mailstow health` names the file system, the cause, and how many deliveries are held.
//!
//! A file in the log directory, `suspect-file-systems`, notes a suspect file system, with the
//! kernel's boot id. A process that is started in the same boot writes all mail of the log again
//! instead of trusting what it reads.
//!
//! # When a file system does not answer
//!
//! A system call on a dead file server may never return. The file system of a mailbox is found from
//! its path and the kernel's table of mounts, without accessing it. Each file system below
//! `virtual_mailbox_base` has its own queue and its own `store.writers`; at most 64 file systems
//! have their writers. The writers of the base write the mailboxes on all others, and those that a
//! symbolic link leads to another file system.
//!
//! A step in a mailbox that takes longer than `store.mailbox_timeout` (30 s) may never end. The
//! deliveries of that writer are then answered so:
//!
//! | Where the writer is | Answer | The message |
//! |---|---|---|
//! | Before it publishes the message | 451 4.3.0 | is refused in the log, and never appears |
//! | It publishes the message, which the log has | 250 | is deferred until the writer comes back |
//! | It publishes a message that is not in the log | none before the client gives up | may be there |
//!
//! While no step that began later has ended, the file system counts as hung: its deliveries are
//! answered 451 4.3.0 at once, except for an occasional trial (after a second, then less often, at
//! least once a minute) that finds out whether it answers again. Otherwise only the mailboxes that
//! the writer works on, or has locked, are refused. Writers that do not come back are replaced, up
//! to twice `store.writers` in all.
//!
//! Deferred messages do not keep the log from freeing other records: they are copied to its end
//! before a checkpoint frees their records. When the flush of a file system does not end, all its
//! mail in the log is deferred that way, until the flush ends or a later flush succeeds. Mail of
//! mailboxes whose paths lead through other mount points cannot be separated without accessing the
//! file system: while such a file system does not answer, its records keep the log from being
//! freed.
//!
//! Recovery works on each file system separately. A file system without progress for
//! `store.mailbox_timeout` is set aside: its remaining deliveries wait, and are tried again with
//! back-off (1 s to one minute). Completed deliveries are not checked again, because a reader may
//! have removed the messages since. When the server ends, it waits for writers as long as they make
//! progress.
//!
//! # Recovery
//!
//! Before the server listens, recovery checks every message after the last checkpoint:
//!
//! | state found | action |
//! |---|---|
//! | recipient refused in the log | nothing; its bytes at the end of an mbox are cut off |
//! | Maildir: the file in `new/` or, with or without flags, in `cur/`, complete | nothing |
//! | no such file (lost with its name, or a reader deleted it) | written to `new/`, same name |
//! | the file short, or with zeros where bytes are missing | removed and written to `new/` again |
//! | the file with other bytes: a program changed it | nothing |
//! | `new/`, `cur/`, `tmp/` or directories above missing | made |
//! | mbox: the message complete at its place | nothing |
//! | no place in the log: it was never written | appended |
//! | not at its place, but elsewhere after the first known place, perhaps with header lines added by a reader | nothing |
//! | at its place a part of it and zeros, within the file | written again at its place |
//! | at its place a part of it, where the file ends | cut off there; it and later messages are appended |
//! | the same with other bytes after it | left unchanged; appended again at the end |
//! | a part of a message with an extent record, followed by no bytes of other programs | cut off: it was not acknowledged |
//! | such a complete message | nothing |
//! | mbox shorter than the place (cut by the crash or by a reader) | appended |
//! | a lock file `MAILBOX.lock` of a mailstow process that has ended | removed |
//! | mailbox cannot be opened, locked or written | the message stays in the log, not counted against `bytes_max`, and is tried again after 1 s, then less often, at least once a minute |
//!
//! The places of appended messages are logged first, so that recovery may itself be interrupted
//! anywhere. It ends with a checkpoint and reports `recovered N messages, rewrote M, 0 lost`.
//! Damage in a log is never skipped: the server does not start, and names file and offset.
//!
//! Recovery trusts the content of `virtual_mailbox_base`: on an empty mount point it finds every
//! message lost, writes it below that, and frees it in the log. Mailboxes must be mounted before
//! the server starts (`RequiresMountsFor=` in a systemd unit); the mount point should belong to
//! root, so that nothing can be stored below it. The same applies to `mailstow log recover` with
//! another base than the server's.
//!
//! A message that a reader deleted in the seconds before a crash may come back. An mbox that a
//! reader rewrote in these seconds may hold a message twice. No acknowledged message is lost, and
//! no partial message is visible, except in an mbox to which another program appended in these
//! seconds without flushing.
//!
//! # Exactly once, as the queue sees it
//!
//! A delivery is *confirmed* when the client has read its reply. These events show it:
//!
//! | the client | confirmed |
//! |---|---|
//! | sends more after it has received the replies; data sent before proves nothing | yes |
//! | has closed, or ended its side (as `nc -N` does), with or without QUIT, and has read everything | yes |
//! | has closed with unread replies: the system resets the connection | no |
//! | ended its side and reads nothing for 5 seconds (1 when the server is ending) | no |
//! | is silent until the idle timeout or the end of the server, and has read everything | yes |
//! | is lost together with the server | no |
//!
//! The system knows how much a client has read if it is connected to a UNIX-domain socket
//! (`SIOCOUTQ`), or by TCP from this machine (sock_diag(7)). Of a TCP client on another machine, it
//! knows how much that machine has received. Such a client counts as having read that when it
//! closes or ends its side without an error afterwards; when it had ended its side before, its
//! delivery is not confirmed.
//!
//! Successful deliveries that are not confirmed are *in doubt*: remembered, over restarts too, for
//! `delivery_log.in_doubt_time` (a day) when the client named the message by a queue id, by
//! XFORWARD IDENT or in the first `Received:` field, else for `in_doubt_time_without_id` (5
//! minutes). A client without a queue may send an equal message on purpose; a client with a queue
//! gives it another id. At most 100,000 are remembered, and no more than fill half of a segment
//! (one takes 60 bytes). When a message with the same content (SHA-256 of the stored form),
//! XFORWARD IDENT, reverse-path, original recipient, mailbox and `virtual_mailbox_base` arrives
//! then, it is answered 250 `delivered before` and not stored again; each delivery in doubt answers
//! one repetition. Equal messages sent on purpose are all stored, because only deliveries in doubt
//! are compared.
//!
//! A confirmation is written to the log with the next batch of deliveries, at the latest after a
//! second: when the server is killed, confirmations of the last second may be lost. A message may
//! be stored twice in three cases: after a crash, if it was delivered directly; when the client
//! sends it again while its first delivery is in progress; and when the client reads the reply and
//! crashes before it records that.
//!
//! # Transports
//!
//! A command that ran, or a server that took a message, cannot be undone; and a recipient that
//! `expand_aliases` expands is answered 250 only when all of its destinations have the message. So
//! a success of a transport is remembered like a delivery in doubt, by its transport and nexthop in
//! place of the mailbox, for the same times and with the same bounds:
//!
//! 1. The transport reports that it has the message.
//! 2. An *in doubt* record is appended to the log, and shares its next flush with all others.
//! 3. When that is durable, the outcome is known: the recipient is answered once its other
//!    destinations are.
//! 4. When the client has read a reply of success, a *confirmed* record follows. When a reply is
//!    lost, or one destination defers the mail, the others stay in doubt: a repetition is answered
//!    250 `delivered before` for them, and goes to the missing ones.
//!
//! A destination that permanently refuses the message makes the reply of its recipient 5xx when the
//! others have it or refuse it too: the client returns the mail, with the reason, to the sender. A
//! recipient that is named twice, for the same original recipient or for others, is handed over
//! once.
//!
//! While the log is out of service, no transport is asked: its recipients are answered 4xx. When
//! the log fails between steps 1 and 3, the recipient is answered 4xx, and this process answers for
//! the repetition. A repetition with a queue id that arrives while a transport works on the message
//! is answered 451 4.4.2.
//!
//! The following may happen twice: a command or a server that took the message, when the process or
//! the machine dies between steps 1 and 3; one that took it and answered too late or with an error,
//! for example a server that disconnected before its reply, and a command that was killed at
//! `lmtp.delivery_deadline`; and a message without a queue id that is sent again while the
//! transport works on it. With `durability = "direct"` there is no log, and no success of a
//! transport is remembered: every repetition goes to all destinations again.
//!
//! # The order without the log (`store.durability = "direct"`)
//!
//! A writer takes the waiting deliveries from the queue (up to `store.batch`, no timer) and does
//! these steps for all of them together:
//!
//! 1. **Write.** Each message for a Maildir goes to an invisible file: an unnamed one (`O_TMPFILE`)
//!    in `new/`, or one in `tmp/` where the file system does not support unnamed files.
//! 2. **Flush** these files. When this process uses a Maildir for the first time, or has just made
//!    it, also every directory from `virtual_mailbox_base` down to it, which may not have been
//!    flushed yet.
//! 3. **Publish.** Each file gets a unique name in `new/`, by a link or rename that never replaces
//!    a file. From here on a delivery can no longer be abandoned. Messages for an mbox are appended
//!    now, all waiting messages for one mbox in one append under all its locks.
//! 4. **Flush** the directories `new/` and the mbox files; for an mbox that is new, or used for
//!    the first time by this process, the directories above it too.
//! 5. Release the mbox locks, and **answer**.
//!
//! # A long message for one Maildir
//!
//! A message that arrives by LMTP, is longer than `delivery_log.message_bytes_max` and
//! `limits.message_memory_bytes`, and is for one mailbox, an existing uncompressed Maildir, is not
//! copied: from that size on it arrives in the unnamed file that step 1 would make, opened as the
//! mailbox's owner and with every check of a delivery. It is flushed separately, through the handle
//! it was written by, because no other handle reports its early write errors. A failure before the
//! message is complete (quota, disk full, no such Maildir, a file system without unnamed files)
//! does not decide the answer: the bytes received so far move to a file in the state directory, and
//! the delivery is made and answered as usual. The same happens when the delivery finds another
//! Maildir, owner or header than the file was made for. An interruption before step 3 leaves only
//! an unnamed file. Until then the file counts against the owner's quota. While the mailbox's file
//! system does not answer, the sender of this message waits, without a deadline; other sessions
//! continue. At most 32 messages arrive this way at once.
//!
//! When such a message is in doubt, its digest is read from that file, even if its name is gone. If
//! another program changed it in the mailbox before that (its size or change time differs), there
//! is no digest, and a repetition is stored a second time.
//!
//! # How a flush is done (`store.flush`)
//!
//! `fsync` flushes each file and directory alone. `syncfs` flushes the file system as a whole
//! whenever more than one file waits, whether or not the kernel can be trusted to report errors.
//! `auto`, the default: four or more files on one file system are flushed by one `syncfs`, fewer by
//! one `fsync` each. `syncfs` is used on ext2/3/4 and XFS only, with Linux 5.8 or newer (older
//! kernels do not report its errors), and through a handle that was opened before the batch wrote
//! anything on that file system, so that every error of these writes is seen. When another program
//! writes much data to the same file system and a `syncfs` takes more than two seconds, files are
//! flushed one by one for a minute.
//!
//! # When something fails in a direct delivery
//!
//! - Writing a Maildir file: at worst a file in `tmp/` is left. The answer depends on the cause:
//!   452 4.3.1 disk full, 552 5.2.2 quota, 451 4.3.0 any other.
//! - Flushing files (step 2): the invisible files are dropped; 451 4.3.0 for all of that flush.
//! - Publishing: nothing is left; the answer depends on the cause.
//! - Appending to an mbox: the file is cut to its old length, then each message is tried alone, so
//!   that it fails only by its own error; the answer depends on the cause.
//! - Flushing `new/` (step 4): the names are removed again if possible; 451 4.3.0.
//! - Flushing an mbox (step 4): the file is cut to its old length if possible; 451 4.3.0.
//!
//! A failed flush is never repeated: the kernel may have dropped the data, and would report success
//! for the second one.
//!
//! # What a crash or power loss leaves of direct deliveries
//!
//! - A file without a name: no reader sees it; the file system removes it when it is mounted.
//! - A file in `tmp/`, complete or not: readers ignore it; it is removed when it is older than
//!   `store.tmp_age_max` (36 h) and the Maildir is used again.
//! - A file in `new/` that was not acknowledged: it is complete, because it was flushed before it
//!   got its name; the client sends the message again, and it is stored twice.
//! - A file in `new/` that was acknowledged: it is complete and durable.
//! - An mbox with an incomplete last message, not acknowledged: recovery cuts it off when there is
//!   a delivery log. Without one (`durability = "direct"`) readers see a short message, or on some
//!   file systems zeros after the last message; the next delivery completes its last line and blank
//!   line, so that all others stay intact.
//! - A lock file `MAILBOX.lock`: the next delivery removes it.
//! - A Maildir without some of `tmp/`, `new/`, `cur/`: readers see an empty one; its next use
//!   completes it.
//!
//! # Locks of an mbox
//!
//! `virtual_mailbox_lock` names them; the lock file always comes first, then the file is opened,
//! then the kernel's locks are taken in the order named. A writer waits for none: a delivery whose
//! mailbox is locked returns to the queue and waits, with all others for that mailbox, until the
//! lock is tried again: after 10 ms at first, then less often, until it has waited
//! `deliver_lock_attempts` times `deliver_lock_delay`. One attempt serves all of them. The locks of
//! one file system are tried in turn, 250 a second at most while all of them are held. The fcntl
//! lock belongs to the open file (`F_OFD_SETLK`), so it excludes the other threads of this process
//! as well as every other program that uses `fcntl`.
//!
//! Deliveries that wait for locks use no capacity of other deliveries. In addition to
//! `limits.queued_deliveries`, a quarter as many may wait for locks, and a quarter of these for one
//! mailbox; further ones are answered 451 4.2.0 at once.
//!
//! A lock file of mailstow has the mode 01600, which identifies it, and its holder also holds the
//! kernel's lock on it: when another mailstow process can take that lock, the holder has ended, and
//! the file is removed at once; otherwise the file stays, however old it is. On file systems that
//! other machines may share (all but ext2/3/4, XFS, btrfs, F2FS and those in memory) that applies
//! only to a file that names this host and this boot of its kernel. All other lock files are
//! removed when they are older than `stale_lock_time`. On file systems of this machine alone, up to
//! eight lock files that one writer holds at the same time are names of one file, as its link count
//! shows. When a stale one is removed, so are all its names in that directory, because other
//! programs, which check when the file was last changed, would have to wait for each of them in
//! turn.
//!
//! # What a program that embeds the store must do
//!
//! Ignore `SIGXFSZ`: with a file size limit (`ulimit -f`) the kernel sends it to a process whose
//! write exceeds the limit; ignored, the write fails and the recipient is answered 552 5.2.2.
