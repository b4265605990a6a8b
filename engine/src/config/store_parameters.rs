//! What is known of the parameters of section `store`.

use super::kind::Kind::{Choice, Host, Number, Text, Time};
use super::parameter::{Parameter, TIME_MAX, parameter, to_usize};
use super::settings::{Compress, Copies, Durability, FlushMethod, PathSubstitution, StatusFields};

/// In the order in which they are printed.
pub(super) static STORE: &[Parameter] = &[
    parameter(
        "store",
        "durability",
        "logged",
        Choice(&[
            ("direct", |s| s.store.durability = Durability::Direct),
            ("logged", |s| s.store.durability = Durability::Logged),
        ]),
        "When a message counts as stored; direct: file and directory were flushed; logged: the \
         delivery log was",
    ),
    parameter(
        "store",
        "flush",
        "auto",
        Choice(&[
            ("auto", |s| s.store.flush = FlushMethod::Auto),
            ("fsync", |s| s.store.flush = FlushMethod::Fsync),
            ("syncfs", |s| s.store.flush = FlushMethod::Syncfs),
        ]),
        "How mailbox files are flushed to the disk",
    ),
    parameter(
        "store",
        "compress",
        "none",
        Choice(&[
            ("none", |s| s.store.compress = Compress::None),
            ("zstd", |s| s.store.compress = Compress::Zstd),
        ]),
        "Form of new files in Maildirs; zstd needs Dovecot's zlib plugin (mail_plugins = zlib), \
         and mbox stays as it is",
    ),
    parameter(
        "store",
        "copies",
        "mailbox",
        Choice(&[
            ("mailbox", |s| s.store.copies = Copies::Mailbox),
            ("recipient", |s| s.store.copies = Copies::Recipient),
        ]),
        "Copies of a message whose recipients have the same mailbox; mailbox: one copy that names \
         them all; recipient: one copy for each, as virtual(8) makes them",
    ),
    parameter(
        "store",
        "mbox_status_fields",
        "remove",
        Choice(&[
            ("remove", |s| {
                s.store.mbox_status_fields = StatusFields::Remove
            }),
            ("keep", |s| s.store.mbox_status_fields = StatusFields::Keep),
        ]),
        "What becomes of Content-Length, Lines, Status, X-Status, X-UID, X-Keywords, X-IMAP and \
         X-IMAPbase that a message brings into an mbox, whose readers trust them",
    ),
    parameter(
        "store",
        "writers",
        "4",
        Number("threads", 1..=1024, |s, v| s.store.writers = to_usize(v)),
        "Threads that write mailboxes",
    ),
    parameter(
        "store",
        "batch",
        "64",
        Number("deliveries", 1..=65_536, |s, v| s.store.batch = to_usize(v)),
        "Deliveries one writer takes at once",
    ),
    parameter(
        "store",
        "mailbox_timeout",
        "30s",
        Time(1..=3600, |s, v| s.store.mailbox_timeout = v),
        "How long one step in a mailbox (open, write, flush) may take before its file system \
         counts as hung and its mail is deferred",
    ),
    parameter(
        "store",
        "mailbox_path",
        "",
        Text(|s, v| s.routing.mailbox_path = v),
        "When set (%d/%u/: domain, local part), it names the mailboxes, and virtual_mailbox_maps \
         only lists the recipients that exist",
    ),
    parameter(
        "store",
        "mailbox_path_substitution",
        "refuse",
        Choice(&[
            ("refuse", |s| {
                s.routing.mailbox_path_substitution = PathSubstitution::Refuse;
            }),
            ("component", |s| {
                s.routing.mailbox_path_substitution = PathSubstitution::Component;
            }),
        ]),
        "What becomes of regexp: and pcre: rules with $1 in virtual_mailbox_maps; refuse: they are \
         skipped, as in Postfix; component: each $1 is made one safe path component",
    ),
    parameter(
        "store",
        "tmp_age_max",
        "36h",
        Time(3600..=TIME_MAX, |s, v| s.store.tmp_age_max = v),
        "Files in the tmp directory of a Maildir older than this are removed",
    ),
    parameter(
        "store",
        "host",
        "$myhostname",
        Host(|s, v| s.store.host = v),
        "Host name in Maildir file names",
    ),
];
