//! When an acknowledged message is durable, and what a crash leaves behind.
//!
//! A recipient is answered with success only after the message *and the directory entry that
//! leads to it* are on stable storage. Postfix virtual(8) and most delivery agents flush the
//! file but not the directory: after a power loss an acknowledged message may be a file without
//! a name.
//!
//! Two ways lead there. `store.durability = "logged"`, the default of `mailstow serve`: the
//! message is durable in the delivery log. `"direct"`, always used by `mailstow deliver` and for
//! messages longer than `delivery_log.message_bytes_max`: it is durable in its mailbox.
//!
//! Mailboxes of accounts of this machine, and files that aliases name, have a store with a log of
//! their own: `accounts/delivery-log` in the state directory.
//!
//! # The order with the delivery log (`store.durability = "logged"`)
//!
//! A writer takes what waits in the queue and does, for all of it together:
//!
//! 1. **Lock** the mboxes, so that it is known where in them the messages will stand. Deliveries
//!    to one that another program holds the lock of go back to the queue.
//! 2. **Log.** For each message one *accepted* record with its content and, for each recipient,
//!    the mailbox and the name the file will have; for each mbox message a *done* record with its
//!    place. All records of all writers that wait share one flush.
//! 3. **Write** Maildir files unseen, while the log is flushed.
//! 4. **Wait** for the flush. From here on the message will be delivered, whatever happens.
//! 5. **Publish** the files under their planned names, append to the mboxes (one append for all
//!    messages of an mbox), give the locks back, **answer**. No mailbox is flushed.
//!
//! While it would wait in step 4, the writer does steps 1 to 3 for what came meanwhile, so that it
//! has up to two batches in hand. Neither waits for the flush of the other, but for its steps.
//!
//! A delivery that fails after step 2 is refused in the log, and that record is flushed *before*
//! the client is told: it will send the message again, so recovery must not deliver it as well.
//! An abandoned delivery (the server gave up waiting) is refused in the log without waiting; if a
//! crash comes first, recovery delivers it, and the repetition is known as one (see below).
//!
//! On file systems that one flush cannot be relied on to cover (everything but ext2/3/4, XFS,
//! btrfs, F2FS and those in memory, and kernels before 5.8) files and directories are flushed in
//! step 3 and 5 all the same.
//!
//! A message longer than `delivery_log.message_bytes_max` goes to its mboxes alone: the mbox is
//! flushed, the log is told the place and the CRC-32 of every sector the message will have there
//! (an *extent* record), and only then it is appended and flushed. When such a flush, or any other
//! of a direct delivery, fails, its file system is suspect, as after a failed checkpoint.
//!
//! # Checkpoints
//!
//! Every `delivery_log.checkpoint_interval` (10 s), and when half of `delivery_log.bytes_max` is
//! used, the mailboxes are made durable: one `syncfs` for each file system that mail was written
//! to, through a handle opened before everything it covers was written, so that no write error is
//! missed. Then a *checkpoint* record says up to which record every delivery is durable, and the
//! segments before it are used again. A delivery under way holds the checkpoint back to its own
//! record. A full log makes deliveries wait (`delivery_log.full_wait`), then they are answered 452
//! 4.3.1. What recovery has to write does not wait: the log passes its bound then, for a moment.
//!
//! A message whose record would not fit into a small log (about half of `bytes_max`) is flushed in
//! its mailboxes, as a long one is.
//!
//! # When the log fails
//!
//! After a failed write or flush of the log nothing is acknowledged: all are answered 451 4.3.0.
//! The log is closed and opened again, at first after half a second, then more rarely. `mailstow
//! health` and systemd's status say so, with the cause. The server goes on telling the watchdog
//! that it lives: being restarted would do no more than it does itself, and would break off the
//! sessions. Before mail is accepted again, refusals that the log could not take are appended to it
//! and flushed, and a checkpoint is made. Mailboxes are not recovered: the kernel has what was
//! written to them, the process knows what became of each delivery, and what a reader has removed
//! meanwhile stays removed.
//!
//! It is opened again when no writer has it any more, but for those that do not come back from a
//! mailbox (see below): these find that it takes nothing more from them. Their deliveries were
//! answered before, and what became of them is told to the log in service.
//!
//! # When a file system cannot be flushed
//!
//! Each file system of mailboxes is flushed by itself. When its flush fails, it is *suspect*: the
//! kernel may show what the disk does not have, and would answer another flush with success. The
//! delivery log stays in service, other file systems are flushed, and the log keeps what the
//! suspect one may have lost. These steps make it durable again:
//!
//! 1. A new handle is opened on the file system, so that no later error is missed, and the
//!    deliveries under way are waited for.
//! 2. Its mail is read back from the log and held: it is copied in the log from checkpoint to
//!    checkpoint, so that the rest of the log is used again.
//! 3. The same bytes are written again where they stand. What a reader has removed is not made
//!    again, but held until the removal is durable; what a reader has changed is not touched.
//! 4. The next checkpoint flushes the file system through the new handle. When that succeeds, all
//!    of its mail is durable.
//!
//! The first attempt comes at once, and no mail is put off. If it fails, deliveries to this file
//! system are answered 4xx, and attempts follow after 1 s, 2 s and so on up to a minute; they flush
//! each file by itself, so that one that cannot be flushed (of a user over quota, say) is told from
//! all others. Between attempts no file is kept open there, so that it can be unmounted. A file
//! system that is mounted again in its place is recovered as after a crash. `mailstow health` names
//! the file system, the cause, and how many deliveries are held.
//!
//! A file in the log directory, `suspect-file-systems`, says that there is one, with the id of the
//! kernel's run. A process that is started in the same run writes all mail of the log again instead
//! of believing what it reads.
//!
//! # When a file system does not answer
//!
//! A dead file server keeps whoever asks it waiting, perhaps for ever. The file system of a mailbox
//! is found from its path and the kernel's table of mounts, without asking it. Each file system
//! below `virtual_mailbox_base` has its own queue and its own `store.writers`; up to 64 have, the
//! mailboxes of more are written by the writers of the base, as are those that a symbolic link
//! leads to another file system from.
//!
//! A step in a mailbox that takes longer than `store.mailbox_timeout` (30 s) is one that may never
//! end. What becomes of the deliveries in that writer's hands:
//!
//! | Where the writer is | Answer | The message |
//! |---|---|---|
//! | Before it publishes the message | 451 4.3.0 | is refused in the log, and never appears |
//! | It publishes the message, which the log has | 250 | is held until the writer comes back |
//! | It publishes a message that is not in the log | none before the client gives up | may be there |
//!
//! While nothing that was begun later has ended, the file system counts as hung: its deliveries are
//! answered 451 4.3.0 at once, but for one from time to time (after a second, then less often, at
//! least once a minute) that finds out whether it answers again. Otherwise only the mailboxes that
//! the writer is at, or has locked, are refused. Writers that do not come back are replaced, up to
//! twice `store.writers` in all.
//!
//! The log frees what others need no more: messages that are held are copied to its end before a
//! checkpoint frees their records. When the flush of a file system does not end, all its mail in
//! the log is held that way, until the flush ends or a flush after it succeeds. Mail of mailboxes
//! whose paths lead through other mount points cannot be told apart without asking: while such a
//! file system does not answer, its records keep the log from being freed.
//!
//! Recovery works on each file system by itself. One that does nothing for `store.mailbox_timeout`
//! is set aside: what recovery has not done there waits, and is tried again with back-off (1 s to
//! one minute). What it has done is not looked at again, because a reader may have removed it
//! since. When the server ends, writers are waited for as long as they get on.
//!
//! # Recovery
//!
//! Before the server listens, every message behind the last checkpoint is looked for:
//!
//! | what is found | what is done |
//! |---|---|
//! | recipient refused in the log | nothing; what stands of it at the end of an mbox is cut off |
//! | Maildir: the file in `new/` or, with or without flags, in `cur/`, whole | nothing |
//! | no such file (lost with its name, or a reader deleted it) | written to `new/`, same name |
//! | the file short, or with zeros where bytes are missing | removed and written to `new/` again |
//! | the file with other bytes: a program changed it | nothing |
//! | `new/`, `cur/`, `tmp/` or directories above missing | made |
//! | mbox: the message whole at its place | nothing |
//! | no place in the log: it was never written | appended |
//! | not at its place, but elsewhere behind the first place known, perhaps with header lines added by a reader | nothing |
//! | at its place a part of it and zeros, within the file | written again at its place |
//! | at its place a part of it, where the file ends | cut off there; it and what followed is appended |
//! | the same with other bytes behind it | left as it is; appended again at the end |
//! | a part of a message that an extent record tells of, and nothing behind it that is not ours | cut off: nobody was told that it is stored |
//! | such a message whole | nothing |
//! | mbox shorter than the place (cut by the crash or by a reader) | appended |
//! | a lock file `MAILBOX.lock` of a mailstow that is gone | taken away |
//! | mailbox cannot be opened, locked or written | the message stays in the log, not counted against `bytes_max`, and is tried again after 1 s, then less often, at least once a minute |
//!
//! Places of what is appended are logged first, so that recovery may itself be interrupted
//! anywhere. It ends with a checkpoint and reports `recovered N messages, rewrote M, 0 lost`. A
//! damaged log is never skipped over: the server does not start, and names file and offset.
//!
//! Recovery believes what stands at `virtual_mailbox_base`: on an empty mount point it finds every
//! message lost, writes it below that, and lets go of it in the log. Mailboxes must be mounted
//! before the server starts (`RequiresMountsFor=` in a systemd unit); let the mount point belong
//! to root, so that nothing can be stored below it. The same holds for `mailstow log recover` with
//! another base than the server's.
//!
//! A message that a reader deleted in the seconds before a crash may come back. An mbox that a
//! reader rewrote in these seconds may hold a message twice. Nothing acknowledged is lost, and
//! nothing is seen half-written, but for an mbox to which another program appended in these
//! seconds without flushing.
//!
//! # Exactly once, as the queue sees it
//!
//! A delivery is *confirmed* when the client has read its reply. What shows that:
//!
//! | the client | confirmed |
//! |---|---|
//! | sends more after it has received the replies; what it had sent before proves nothing | yes |
//! | has closed, or ended its side (as `nc -N` does), with or without QUIT, and has read everything | yes |
//! | has closed over replies it has not read: the system breaks the connection | no |
//! | ended its side and reads nothing for 5 seconds (1 when the server is to end) | no |
//! | is silent until the idle timeout or the end of the server, and has read everything | yes |
//! | is lost together with the server | no |
//!
//! What a client has read, the system knows of one that is connected to a UNIX-domain socket
//! (`SIOCOUTQ`), or by TCP from this machine (sock_diag(7)). Of a TCP client elsewhere, it knows
//! what that machine has received. Such a client counts as having read that when it closes or ends
//! its side in good order afterwards; when it had ended its side before, its delivery is not
//! confirmed.
//!
//! Successful deliveries that are not confirmed are *in doubt*: remembered, over restarts too, for
//! `delivery_log.in_doubt_time` (a day) when the client named the message by a queue id, by
//! XFORWARD IDENT or in the first `Received:` field, else for `in_doubt_time_without_id` (5
//! minutes). A client without a queue may well send an equal message on purpose; one with a queue
//! gives that another id. At most 100,000 are remembered, and no more than fill half of a segment
//! (one takes 60 bytes). When a message with the same content (SHA-256 of the stored form),
//! XFORWARD IDENT, reverse-path, original recipient, mailbox and `virtual_mailbox_base` comes then,
//! it is answered 250 `delivered before` and stored no second time; each answers for one
//! repetition. Equal messages sent on purpose are all stored, because only deliveries in doubt are
//! compared.
//!
//! That a delivery was confirmed is written to the log with the next batch of deliveries, at the
//! latest after a second: of one confirmed in the last second before the server was killed, the
//! next one may not know it. There may be a second copy: of a message that went the direct way,
//! after a crash; when the client sends a message again while its first delivery is still under
//! way; and when the client reads the reply and is lost before it can make a note of it.
//!
//! # Transports
//!
//! A command that ran, or a server that took a message, cannot be undone; and a recipient that
//! `expand_aliases` expands is answered 250 only when all of its destinations have the message. So
//! what a transport took is remembered like a delivery in doubt, by its transport and nexthop in
//! place of the mailbox, for the same times and with the same bounds:
//!
//! 1. The transport says that it has the message.
//! 2. An *in doubt* record is appended to the log, and shares its next flush with all others.
//! 3. When that is durable, the outcome is known: the recipient is answered once its other
//!    destinations are.
//! 4. When the client has read a reply that says that all of them have it, a *confirmed* record
//!    follows. When a reply is lost, or one destination puts the mail off, the others stay in
//!    doubt: the repetition is answered for them (250 `delivered before`), and goes to the missing
//!    ones.
//!
//! A destination that refuses the message for good makes the reply of its recipient 5xx when the
//! others have it or refuse it too: the client returns the mail, with the reason, to the sender. A
//! recipient that is named twice, for the same original recipient or for others, is handed over
//! once.
//!
//! While the log is out of service, no transport is asked: its recipients are answered 4xx. When
//! the log fails between steps 1 and 3, the recipient is answered 4xx, and this process answers for
//! the repetition. A repetition with a queue id that comes while a transport is at work is answered
//! 451 4.4.2.
//!
//! What may be done twice: a command or a server that took the message, when the process or the
//! machine dies between steps 1 and 3; one that took it and said so too late or with an error, for
//! example a server that hung up before its reply, and a command that was killed because
//! `lmtp.delivery_deadline` was over; and a message without a queue id that is sent again while the
//! transport is at work. With `durability = "direct"` there is no log, and nothing is remembered of
//! transports: every repetition goes to all destinations again.
//!
//! # The order without the log (`store.durability = "direct"`)
//!
//! A writer takes what waits in the queue (up to `store.batch` deliveries, no timer) and does,
//! for all of them together:
//!
//! 1. **Write.** Each message for a Maildir goes to a file that no reader sees: one without a
//!    name (`O_TMPFILE`) in `new/`, or, where the file system has no such files, one in `tmp/`.
//! 2. **Flush** these files. When a Maildir is used for the first time by this process, or was
//!    made just now, also every directory from `virtual_mailbox_base` down to it: whoever made
//!    them may not have done so.
//! 3. **Publish.** Each file gets a unique name in `new/`, by a link or rename that never
//!    replaces a file. From here on a delivery can no longer be abandoned. Messages for an mbox
//!    are appended now, all that wait for the same one in one append under all its locks.
//! 4. **Flush** the directories `new/` and the mbox files; for an mbox that is new, or used for
//!    the first time by this process, the directories above it too.
//! 5. Give mbox locks back, and **answer**.
//!
//! # A long message for one Maildir
//!
//! A message that comes by LMTP, is longer than `delivery_log.message_bytes_max` and
//! `limits.message_memory_bytes`, and has one mailbox to go to, an uncompressed Maildir that is
//! there, is not copied: from that size on it arrives in the file without a name that step 1 would
//! make, opened as the mailbox's owner and with every check of a delivery. It is flushed by itself,
//! through the handle it was written by, because no other knows of its early write errors.
//! Whatever fails before the message is whole (quota, disk full, no such Maildir, a file system
//! without such files) is no answer to anybody: what came so far moves to a file in the state
//! directory, and the delivery is made and answered as ever. The same is done when the delivery
//! finds another Maildir, owner or header than the file was made for. What breaks off before step
//! 3 leaves no more than a file without a name. Until then the file counts against the owner's
//! quota. While the mailbox's file system does not answer, the sender of this message waits, with
//! no deadline of ours; other sessions go on. At most 32 messages arrive this way at once.
//!
//! When such a message is in doubt, its digest is read from that file, even if its name is gone.
//! When somebody changed it in the mailbox before that (its size or time of change differs), there
//! is no digest, and a repetition is stored a second time.
//!
//! # How a flush is done (`store.flush`)
//!
//! `fsync` flushes each file and directory alone. `syncfs` flushes the file system as a whole
//! whenever more than one file waits, whether or not the kernel can be trusted to report errors.
//! `auto`, the default: four or more files on one file system are flushed by one `syncfs`, fewer
//! by one `fsync` each. `syncfs` is used on ext2/3/4 and XFS only, with Linux 5.8 or newer (older
//! kernels do not report its errors), and through a handle that was opened before the batch
//! wrote anything on that file system, so that every error of these writes is seen. When
//! somebody else is writing a lot on the same file system and a `syncfs` takes more than two
//! seconds, files are flushed one by one for a minute.
//!
//! # When something fails in a direct delivery
//!
//! - Writing a Maildir file: nothing is left but, at worst, a file in `tmp/`. The answer goes by
//!   the cause: 452 4.3.1 disk full, 552 5.2.2 quota, 451 4.3.0 any other.
//! - Flushing files (step 2): the files are dropped unseen; 451 4.3.0 for all of that flush.
//! - Publishing: nothing is left; answered by the cause.
//! - Appending to an mbox: the file is cut to its old length, then each message is tried alone,
//!   so that it fails only for its own sake; answered by the cause.
//! - Flushing `new/` (step 4): the names are removed again, as well as can be; 451 4.3.0.
//! - Flushing an mbox (step 4): the file is cut to its old length, as well as can be; 451 4.3.0.
//!
//! A flush that failed is never repeated: the kernel may have dropped the data, and would answer
//! the second one with success.
//!
//! # What a crash or power loss leaves behind of direct deliveries
//!
//! - A file without a name: no reader sees it; the file system removes it when it is mounted.
//! - A file in `tmp/`, whole or not: no reader looks there; it is removed when it is older than
//!   `store.tmp_age_max` (36 h) and the Maildir is used again.
//! - A file in `new/` that was not acknowledged: it is whole, because it was flushed before it
//!   got its name; the client sends the message again, and it is there twice.
//! - A file in `new/` that was acknowledged: it is whole, and nothing is to be mended.
//! - An mbox with an incomplete last message, not acknowledged: recovery cuts it off when there is
//!   a delivery log. Without one (`durability = "direct"`) readers see a short message, or on some
//!   file systems zeros behind the last message; the next delivery completes its last line and
//!   blank line, so that all others stay whole.
//! - A lock file `MAILBOX.lock`: the next delivery takes it away.
//! - A Maildir without some of `tmp/`, `new/`, `cur/`: an empty one to readers; it is completed
//!   when it is next used.
//!
//! # Locks of an mbox
//!
//! `virtual_mailbox_lock` names them; the lock file always comes first, then the file is opened,
//! then the kernel's locks are taken in the order named. None is waited for: a delivery that
//! finds its mailbox locked goes back to the queue and waits, with all others for that mailbox,
//! until the lock is tried again: after 10 ms at first, then more rarely, until it has waited
//! `deliver_lock_attempts` times `deliver_lock_delay`. One attempt serves all of them. The locks of
//! one file system are tried in turn, 250 a second at most while all of them are held. The fcntl
//! lock belongs to the open file (`F_OFD_SETLK`), so it excludes the other threads of this process
//! as well as every other program that uses `fcntl`.
//!
//! What waits for locks takes up no room of other deliveries. A quarter of
//! `limits.queued_deliveries` may wait so besides, and a quarter of these for one mailbox; more are
//! answered 451 4.2.0 at once.
//!
//! A lock file of ours has the mode 01600, by which it is known, and as long as it is in use the
//! kernel's lock as well: when another mailstow can take that one, the holder is gone, and the
//! file is taken away at once; when it cannot, the file stays, however old it is. On file systems
//! that other machines may have as well (all but ext2/3/4, XFS, btrfs, F2FS and those in memory)
//! that is believed only of a file that names this host and this run of its kernel. All other
//! lock files are taken away when they are older than `stale_lock_time`. On file systems of this
//! machine alone, up to eight lock files that one writer holds at the same time are names of one
//! file (their link count tells). With one that was left behind go all its names in that
//! directory, because other programs, which see when the file was changed last, would have to
//! wait for each of them in turn.
//!
//! # What a program that embeds the store must do
//!
//! Ignore `SIGXFSZ`: with a file size limit (`ulimit -f`) the kernel sends it to a process whose
//! write exceeds the limit; ignored, the write fails and the recipient is answered 552 5.2.2.
