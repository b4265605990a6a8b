//! Where text of an address goes, and why no sender can steer with it.
//!
//! Documentation only. A sender chooses the local part, and often the domain, of a recipient.
//!
//! # Mailboxes that do harm where they lie
//!
//! A mailbox is refused with 451 4.3.5 when delivering into it would damage another one, whoever
//! named it. `mailstow check` names such mailboxes.
//!
//! | path | refused | because |
//! |---|---|---|
//! | `d/x/new/`, `d/x/cur/y/`, `d/x/tmp/y` | when `d/x` is a Maildir | readers take what lies there for messages of `d/x` |
//! | mbox `d/x.lock` | always | programs that lock the mbox `d/x` remove an old file of this name, with the mail in it |
//! | Maildir `d/x.lock/` | when `d/x` is an mbox | nothing could lock `d/x` any more |
//! | `dovecot.index*`, `dovecot-uidlist*`, `maildirsize`, `.dovecot.*` and others | always | readers read, replace or remove the file as what its name says |
//! | `subscriptions`, `dovecot.*`, `dovecot-*`, `courierimap*` and others | when the directory is a Maildir | as above |
//!
//! Everything else stays a mailbox: folders of Maildir++ (`d/x/.Sent/`), a Maildir below another
//! (`d/x/y/`), users called `new`, `subscriptions`, `dovecot` or `john.lock` with a Maildir of
//! their own. A directory is a Maildir when it has `cur/`, `new/` and `tmp/` and none of these is
//! a Maildir itself, so that a domain may have users of all three names.
